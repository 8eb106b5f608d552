//! Reload: the whole configuration, by difference. What is wrong with it changes nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Control, Keep, sandbox_rules};
use crate::config::{self, AccessTarget, Changes, Config, Difference, Looked, Problems, Process, Severity};
use crate::host::HostPattern;
use crate::os::sandbox::Settings;
use crate::policy::Scheme;
use crate::server::{BindError, Bound, bind};
use crate::telemetry::{AccessFormat, LogThread};
use crate::upstream::dns::NameServers;

/// What came of a reload, or of looking at a certificate.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// It is in use.
    pub ok: bool,
    /// What is wrong, or worth knowing; as it is shown to people.
    pub problems: Vec<String>,
    /// What is new.
    pub notes: Vec<String>,
}

/// Why everything stays as it is: as it is shown to people, and as it is logged, each reason with its remedy.
pub(super) struct Refusal {
    pub(super) shown: Vec<String>,
    logged: Vec<(String, Option<String>)>,
}

impl Refusal {
    fn because(why: String) -> Self {
        Self { shown: vec![why.clone()], logged: vec![(why, None)] }
    }

    fn for_reasons(logged: Vec<(String, Option<String>)>) -> Self {
        Self { shown: logged.iter().map(shown).collect(), logged }
    }

    fn of(problems: &Problems) -> Self {
        Self { shown: rendered(problems), logged: told(problems, Severity::Error) }
    }
}

/// What is looked at when the process starts, and not again.
pub(super) struct Fixed {
    pub(super) state: Option<PathBuf>,
    pub(super) access: AccessTarget,
    access_format: AccessFormat,
    name_servers: NameServers,
    process: Process,
    key_process: bool,
    sandbox: Settings,
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            state: config.state.clone(),
            access: config.access.clone(),
            access_format: config.access_format,
            name_servers: config.name_servers.clone(),
            process: config.process.clone(),
            key_process: config.key_process,
            sandbox: config.sandbox.clone(),
        }
    }

    /// What a configuration says about it in vain.
    fn differs_from(&self, config: &Config) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |key: &str, changed: bool| {
            if changed {
                notes.push(format!("{key} has changed: it takes effect at the next start"));
            }
        };
        note("log.access", config.access != self.access);
        note("log.format", config.access_format != self.access_format);
        note("resolver.name_servers", config.name_servers != self.name_servers);
        note("process", config.process.words() != self.process.words());
        note("tls.key_process", config.key_process != self.key_process);
        note("sandbox", config.sandbox != self.sandbox);
        if config.state != self.state {
            notes.push(format!(
                "state.directory has changed: it takes effect at the next start, before which {} and {} must be moved there; \
                 or with `pintle upgrade`, which takes along what was promised",
                crate::ledger::FILE,
                crate::ledger::HEAD
            ));
        }
        notes
    }
}

/// Where to listen from now on.
struct Listeners {
    /// In the order of the file: an address whose port the kernel chose is known by its place.
    all: Vec<(SocketAddr, Scheme)>,
    bound: Bound,
    notes: Vec<String>,
}

impl Control {
    /// Reads the file again. An error leaves everything as it is.
    pub(super) async fn reload(&mut self) -> Verdict {
        // Whatever the file says: who moves a log away does not wait for it to be right.
        let reopening = self.operator.access_log.as_ref().map(LogThread::reopen);
        self.operator.notify.reloading();
        let reloaded = self.try_reload().await;
        self.operator.notify.ready(&self.summary());
        let log_trouble = match reopening {
            Some(reopened) => reopened.await.map(|trouble| shown(&(trouble.what, Some(trouble.hint.to_owned())))),
            None => None,
        };
        match reloaded {
            Ok((problems, notes)) => {
                self.counts.reloads += 1;
                // Each of ten thousand sites may have a warning, and none is waited for.
                let shown = tokio::task::spawn_blocking(move || {
                    for (problem, hint) in told(&problems, Severity::Warning) {
                        tracing::warn!(problem, hint, "in use, with a warning");
                    }
                    rendered(&problems)
                });
                let mut shown = shown.await.unwrap_or_default();
                shown.extend(log_trouble);
                let told = if notes.is_empty() { "nothing has changed".to_owned() } else { notes.join("; ") };
                tracing::info!(notes = told, "reloaded");
                Verdict { ok: true, problems: shown, notes }
            }
            Err(refusal) => {
                self.counts.reloads_refused += 1;
                for (problem, hint) in refusal.logged {
                    tracing::error!(problem, hint, "reload refused; what is in use goes on");
                }
                Verdict { problems: refusal.shown.into_iter().chain(log_trouble).collect(), ..Verdict::default() }
            }
        }
    }

    /// Reopens the access log, as logrotate wants it.
    pub(super) async fn reopen_log(&mut self) {
        let Some(log) = &self.operator.access_log else { return };
        // What goes wrong is logged by the thread that writes it.
        if log.reopen().await.is_none() {
            tracing::info!("access log reopened");
        }
    }

    async fn try_reload(&mut self) -> Result<(Problems, Vec<String>), Refusal> {
        let path = self.draft.path().to_owned();
        let files = self.config.files().map(Path::to_owned).collect();
        // Of ten thousand sites, on another thread: it takes its time, and needs nothing of what is here.
        let read = {
            let (path, before) = (path.clone(), self.draft.text());
            tokio::task::spawn_blocking(move || {
                let draft = config::read(&path);
                let changes = draft.as_ref().map(|draft| Changes::between(&before, &draft.text()));
                let changes = changes.unwrap_or_default();
                (draft, Looked::at(files), changes)
            })
            .await
        };
        let (draft, looked, changes) = read.map_err(|error| Refusal::because(error.to_string()))?;
        let draft = draft.map_err(|error| Refusal::because(format!("{}: {error}", path.display())))?;
        let (config, problems) = self.resolve_with(&draft, looked, Keep::Nothing, None);
        let Some(mut config) = config else { return Err(Refusal::of(&problems)) };
        let kept = std::mem::take(&mut config.kept);
        // Only changes are refused. Files that were refused before do not hold up what else is new.
        if !kept.iter().all(|kept| self.is_known_refusal(kept)) {
            let (_, problems) = self.resolve_with(&draft, Looked::default(), Keep::NoPair, None);
            return Err(Refusal::of(&problems));
        }
        let beyond = sandbox_rules::beyond(&draft, &config, &self.config);
        if !beyond.is_empty() {
            return Err(Refusal::for_reasons(beyond));
        }
        let listeners = self.listeners(&config)?;
        let mut notes = self.fixed.differs_from(&config);
        if config.workers != self.server.workers() {
            notes.push("listen.workers has changed: it takes effect at the next start".into());
        }
        notes.extend(changed_keys(&changes, &notes));
        notes.extend(differences(&self.config, &config, &changes));
        if let Err(error) = self.adopt(config).await {
            return Err(Refusal::because(format!(
                "the ledger cannot be written, so that no lockout can be accepted: {error}"
            )));
        }
        if let Some(Listeners { all, bound, notes: more }) = listeners {
            self.server.listen(all, bound);
            notes.extend(more);
        }
        let before = std::mem::replace(&mut self.draft, draft);
        tokio::task::spawn_blocking(move || drop(before));
        self.files.pending = None;
        self.note_refusals(&kept, &problems, |_| true).await;
        self.open_door();
        Ok((problems, notes))
    }

    /// Binds what is new, and lets go of what is not wanted any more; none if all is as before.
    fn listeners(&self, config: &Config) -> Result<Option<Listeners>, Refusal> {
        let (old, new) = (wanted(&self.config), wanted(config));
        if old == new {
            return Ok(None);
        }
        let listening = self.listening();
        let mut known: Vec<_> = old.into_iter().zip(listening.iter().copied()).collect();
        let kept: Vec<_> =
            new.iter().map(|asked| Some(known.remove(known.iter().position(|(known, _)| known == asked)?).1)).collect();
        let fresh = |scheme| {
            let asked = new.iter().zip(&kept).filter(|(asked, kept)| asked.1 == scheme && kept.is_none());
            asked.map(|(asked, _)| asked.0).collect::<Vec<_>>()
        };
        let bound = bind(&fresh(Scheme::Https), &fresh(Scheme::Http), self.server.workers(), &mut Vec::new())
            .map_err(|errors| cannot_listen(&errors, listening))?;
        let mut notes = Vec::new();
        for (address, scheme) in bound.addresses() {
            notes.push(format!("listening on {address} ({})", scheme.as_str()));
        }
        for (_, (address, _)) in known {
            notes.push(format!("not listening on {address} any more"));
        }
        // Both are in the order of the file: https, then http.
        let mut addresses = bound.addresses().into_iter();
        let all = kept.into_iter().filter_map(|kept| kept.or_else(|| addresses.next())).collect();
        Ok(Some(Listeners { all, bound, notes }))
    }

    /// Looks at one site's files now, whatever their state.
    pub(super) async fn look_at_site(&mut self, host: &str, accept: Option<String>) -> Verdict {
        let refused = |why: String| Verdict { problems: vec![why], ..Verdict::default() };
        let Some(site) = self.site_of(host) else { return refused(format!("no site has the host {host}")) };
        let keep = Keep::UnfitAndShorter(vec![site.clone()]);
        let (config, problems) = self.build(&self.draft, keep, accept.map(|day| (site.clone(), day)));
        let Some(config) = config else {
            return Verdict { problems: rendered(&problems), ..Verdict::default() };
        };
        let notes: Vec<String> = differences(&self.config, &config, &Changes::default());
        if let Err(error) = self.take(config, &problems, |of| of == site).await {
            return refused(format!("the ledger cannot be written, so that no lockout can be accepted: {error}"));
        }
        match self.files.refused.get(&site) {
            None => Verdict { ok: true, problems: rendered(&problems), notes },
            Some(refused) => {
                Verdict { ok: false, problems: refused.reasons.iter().map(shown).collect(), notes: Vec::new() }
            }
        }
    }

    /// The first name of the site that has a host, or whose wildcard covers it.
    pub(super) fn site_of(&self, host: &str) -> Option<String> {
        let host = HostPattern::parse(host).ok()?.to_string();
        let snapshot = &self.config.snapshot;
        let by_name = || snapshot.by_host.get(&host).and_then(|index| snapshot.sites.get(*index)).map(|s| s.label());
        let listed = self.config.sites().find(|s| s.hosts.contains(&host)).map(|s| s.name().to_owned());
        listed.or_else(by_name)
    }
}

/// `a has`, `a, b have`
fn listed(names: &[String]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "has" } else { "have" })
}

fn wanted(config: &Config) -> Vec<(SocketAddr, Scheme)> {
    let https = config.https.iter().map(|a| (*a, Scheme::Https));
    https.chain(config.http.iter().map(|a| (*a, Scheme::Http))).collect()
}

/// A reason and its remedy, as they are shown to people.
fn shown((what, hint): &(String, Option<String>)) -> String {
    match hint {
        Some(hint) => format!("{what}\n  hint: {hint}"),
        None => what.clone(),
    }
}

pub(super) fn rendered(problems: &Problems) -> Vec<String> {
    problems.sorted().into_iter().map(|p| problems.render(p, false)).collect()
}

/// Each problem of a kind on a line of its own, and its remedy.
fn told(problems: &Problems, severity: Severity) -> Vec<(String, Option<String>)> {
    let all = problems.sorted().into_iter().filter(|p| p.severity == severity);
    all.map(|p| (problems.one_line(p), p.hint.clone())).collect()
}

/// Addresses that cannot be had; among them those that this process itself has, in another way.
pub(super) fn cannot_listen(errors: &[BindError], listening: &[(SocketAddr, Scheme)]) -> Refusal {
    let hint = |error: &BindError| {
        let overlaps = |(own, _): &&(SocketAddr, Scheme)| {
            let (a, b) = (own.ip(), error.address.ip());
            own.port() == error.address.port() && (a == b || a.is_unspecified() || b.is_unspecified())
        };
        match listening.iter().find(overlaps) {
            Some((own, scheme)) => Some(format!(
                "this process listens on {own} ({}) until the next reload: leave that out first, then add this one",
                scheme.as_str()
            )),
            None => error.hint(),
        }
    };
    Refusal::for_reasons(errors.iter().map(|e| (e.to_string(), hint(e))).collect())
}

/// The keys of the whole process that are in use from now on: without those of which it is known already that they are not.
fn changed_keys(changes: &Changes, known: &[String]) -> Vec<String> {
    let is_known = |key: &str| {
        known
            .iter()
            .filter_map(|note| note.split(' ').next())
            .any(|name| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    changes.keys.iter().filter(|key| !is_known(key)).map(|key| format!("{key} has changed")).collect()
}

/// What a reader of the log would like to know of the sites.
fn differences(before: &Config, after: &Config, changes: &Changes) -> Vec<String> {
    let mut notes = Vec::new();
    let (different, gone) = after.differences(before);
    for Difference { now: site, before: old, files } in different {
        let name = site.name();
        let Some(old) = old else {
            notes.push(format!("new site {name}"));
            continue;
        };
        let known = notes.len();
        if old.hosts != site.hosts {
            notes.push(format!("{name}: its hosts are {}", site.hosts.join(", ")));
        }
        for certificate in &site.certificates {
            if !old.certificates.iter().any(|c| c.is(certificate)) {
                notes.push(format!("{name}: certificate {} with pin {}", certificate.serial, certificate.pin));
            }
        }
        match (&old.hpkp, &site.hpkp) {
            (Some(_), None) => notes.push(format!("{name}: pins are not sent any more")),
            (None, Some(_)) => notes.push(format!("{name}: pins are sent now")),
            (old_pins, pins) if old_pins != pins || old.withheld != site.withheld => {
                notes.push(format!("{name}: other pins"));
            }
            _ => {}
        }
        if old.hsts != site.hsts {
            notes.push(format!("{name}: another HSTS policy"));
        }
        if old.upstream != site.upstream {
            notes.push(format!("{name}: another upstream"));
        }
        let keys = changes.sites.get(name).map(Vec::as_slice).unwrap_or_default();
        if !keys.is_empty() {
            notes.push(format!("{name}: {} changed", listed(keys)));
        } else if notes.len() == known && !files.is_empty() {
            let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            notes.push(format!("{name}: {} changed", listed(&files)));
        }
    }
    notes.extend(gone.into_iter().map(|name| format!("site {name} is gone")));
    notes
}
