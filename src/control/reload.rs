//! Reload: applies the difference between two configurations. An error changes nothing.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::admin::{AdoptionOrigin, Installed, ReloadOutcome};
use super::building::Keep;
use super::notes::differences;
use super::open_ledger::{hint_to_move, state_is_gone};
use super::state::candidate;
use super::{Control, acme, sandbox_rules};
use crate::config::edit::{EditError, EditTarget, WrittenConfig};
use crate::config::report::SiteReport;
use crate::config::{self, AcceptedByCommand, Changes, Config, Draft, KeptSite, Problems, Stamps};
use crate::os::read_error;
use crate::policy::Scheme;
use crate::reason::pasted::pintle;
use crate::reason::{Problem, Reason};
use crate::server::{BindError, Bound, bind};
use crate::telemetry::LogThread;

/// Reasons of a refusal that an event has.
const REASONS_MAX: usize = 5;

/// A configuration that was read and not judged yet.
struct FreshDraft {
    draft: Draft,
    looked: Stamps,
    changes: Changes,
}

/// The reason why a configuration is not put into use. Nothing has changed then.
pub(super) enum Halt {
    Refused(Vec<Problem>),
    /// The file cannot be changed.
    File(EditError),
}

impl Halt {
    fn problems(self) -> Vec<Problem> {
        match self {
            Self::Refused(problems) => problems,
            Self::File(error) => vec![error.reason().into()],
        }
    }
}

impl From<Vec<Problem>> for Halt {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Refused(problems)
    }
}

/// The new listeners.
struct NewListeners {
    /// In the order of the file: an address whose port the kernel chose is identified by its index.
    all: Vec<(SocketAddr, Scheme)>,
    bound: Bound,
    notes: Vec<String>,
}

impl Control {
    /// Reads the file again. An error changes nothing.
    pub(super) async fn reload(&mut self, origin: AdoptionOrigin) -> ReloadOutcome {
        // Whatever the file contains: a program that moves a log away does not wait for it to be
        // valid.
        let reopening = self.operator.access_log.as_ref().map(LogThread::reopen);
        self.operator.notify.reloading();
        let reloaded = self.try_reload().await;
        self.operator.notify.ready(&self.summary());
        let log_trouble = match reopening {
            Some(reopened) => reopened.await.map(|reason| Problem::warning(&(0..0), reason)),
            None => None,
        };
        match reloaded {
            Ok((problems, notes)) => {
                let verdict = self.reloaded(problems, notes, origin).await;
                let reasons = verdict.reasons.into_iter().chain(log_trouble).collect();
                ReloadOutcome::new(true, reasons, verdict.notes)
            }
            Err(halt) => {
                let refusal = halt.problems();
                self.counts.reloads_refused += 1;
                self.loads.is_refused = true;
                let errors = refusal.iter().filter(|problem| problem.is_error());
                self.report_burnt_keys_refused(&refusal);
                self.reporter.refusal = errors.map(|problem| problem.reason.line()).take(REASONS_MAX).collect();
                for Problem { reason, .. } in refusal.iter().filter(|problem| problem.is_error()) {
                    tracing::error!(
                        problem = reason.line(),
                        hint = reason.hint_line(),
                        "reload refused; pintle keeps serving the previous configuration"
                    );
                }
                ReloadOutcome::refused(refusal.into_iter().chain(log_trouble).collect())
            }
        }
    }

    /// Notes that another configuration is in use, and keeps it as a version.
    pub(super) async fn reloaded(
        &mut self,
        problems: Problems,
        notes: Vec<String>,
        origin: AdoptionOrigin,
    ) -> ReloadOutcome {
        self.counts.reloads += 1;
        self.loads.loaded = Timestamp::now();
        if !notes.is_empty() {
            self.loads.changed = self.loads.loaded;
        }
        self.loads.is_refused = false;
        self.drive_senders();
        // Each of ten thousand sites may have a warning, and nothing waits for them.
        let reasons = tokio::task::spawn_blocking(move || {
            let reasons = problems.shown();
            log_warnings(&reasons);
            reasons
        });
        let reasons = reasons.await.unwrap_or_default();
        let what_changed = if notes.is_empty() { "nothing has changed".to_owned() } else { notes.join("; ") };
        tracing::info!(notes = what_changed, how = origin.how.word(), who = origin.who, "reloaded");
        self.keep_version(origin, reasons.len(), &notes);
        ReloadOutcome::new(true, reasons, notes)
    }

    /// Gives the settings in use to the threads that send events, metrics and spans.
    pub(super) fn drive_senders(&mut self) {
        self.drive_hooks();
        self.drive_graphite();
        self.drive_spans();
    }

    /// Reopens the access log, for logrotate.
    pub(super) async fn reopen_log(&mut self) {
        let Some(log) = &self.operator.access_log else { return };
        match log.reopen().await {
            None => tracing::info!("access log reopened"),
            // The thread that writes it logs the first failure. Whoever asks again hears again.
            Some(reason) => tracing::error!(what = reason.what, hint = reason.hint_line(), "access log not reopened"),
        }
    }

    async fn try_reload(&mut self) -> Result<(Problems, Vec<String>), Halt> {
        let path = self.draft.path().to_owned();
        let fresh = self.look(move || config::read(&path)).await?;
        self.put_into_use(fresh, None).await
    }

    /// Puts a text into use, and into the file at the last moment before: what is refused is never there.
    pub(super) async fn reload_with(
        &mut self,
        target: EditTarget,
        text: String,
    ) -> Result<(Problems, Vec<String>), Halt> {
        let path = self.draft.path().to_owned();
        let read = text.clone();
        let fresh = self.look(move || Ok(Draft::of_text(&path, read))).await?;
        // Whoever applies the text of the file reloads it.
        let write = (target.text() != text).then_some((target, text));
        self.operator.notify.reloading();
        let reloaded = self.put_into_use(fresh, write).await;
        self.operator.notify.ready(&self.summary());
        reloaded
    }

    /// Reads a draft, and looks at the files in use, on another thread: ten thousand sites take their time, and nothing
    /// here is needed.
    async fn look(&self, read: impl FnOnce() -> io::Result<Draft> + Send + 'static) -> Result<FreshDraft, Halt> {
        if self.upgrades.under_way.is_some() {
            let what = "an upgrade is under way: the new process has read the configuration already";
            return Err(vec![Reason::new(what).hint("once it serves, `pintle reload` again").into()].into());
        }
        let files = self.config.files().map(Path::to_owned).collect();
        let before = self.draft.text();
        let looked = tokio::task::spawn_blocking(move || {
            let draft = read()?;
            let changes = Changes::between(&before, &draft.text());
            Ok::<_, io::Error>(FreshDraft { draft, looked: Stamps::at(files), changes })
        });
        let looked = looked.await.map_err(|error| vec![error.to_string().into()])?;
        looked.map_err(|error| vec![read_error::reason(self.draft.path(), &error).into()].into())
    }

    /// Judges a draft: the configuration that may be put into use, or the reasons against it. Changes nothing.
    pub(super) fn judge_draft(&self, draft: &Draft, looked: Stamps) -> Result<(Config, Problems), Vec<Problem>> {
        let (config, problems) = self.resolve_with(draft, looked, Keep::Nothing, None);
        let Some(config) = config else { return Err(self.naming_keys(problems.shown())) };
        // Only changes are refused. Files that were refused before do not delay other changes, and neither do pins that are
        // withheld since a start.
        let (known, withheld) = (self.known_refusals(), config.going_on_without_pins(&self.config));
        let is_as_before = |kept: &KeptSite| {
            kept.lacks || known.contains(candidate(kept).as_str()) || withheld.contains(kept.site.as_str())
        };
        if !config.kept.iter().all(is_as_before) {
            let (fit, problems) = self.resolve_with(draft, Stamps::default(), Keep::NoPair, None);
            // A pair may lack names that are refused already.
            if fit.is_none() {
                return Err(self.naming_keys(problems.shown()));
            }
        }
        let beyond = sandbox_rules::beyond(draft, &config, &self.config);
        if !beyond.is_empty() {
            // The command of the other hints would look for the new socket.
            let by_signal = self.upgrade_by_signal(&config);
            let with_way = |reason: Reason| match &by_signal {
                Some(hint) => Problem::from(Reason { hints: vec![hint.clone()], ..reason }),
                None => reason.into(),
            };
            return Err(beyond.into_iter().map(with_way).collect());
        }
        match self.moves_ledger(&config).or_else(|| self.begins_ledger(draft, &config)) {
            Some(reason) => Err(vec![reason.into()]),
            None => Ok((config, problems)),
        }
    }

    /// Applies the difference to a draft. With `write`, the file gets its text once nothing else can refuse it.
    async fn put_into_use(
        &mut self,
        FreshDraft { draft, looked, changes }: FreshDraft,
        write: Option<(EditTarget, String)>,
    ) -> Result<(Problems, Vec<String>), Halt> {
        // New sites get their keys before anything is judged: their pins are promised from the beginning.
        acme::prepare(draft.managed().into()).await.map_err(|error| vec![error.into()])?;
        // The promises of a file that somebody has just put in place count, too.
        let _ = self.keep_ledger().await;
        let (mut config, problems) = self.judge_draft(&draft, looked)?;
        let kept = std::mem::take(&mut config.kept);
        let listeners = self.listeners(&config)?;
        let mut notes = self.notes_of(&config, &changes);
        let written = write_file(write).await?;
        if let Err(error) = self.adopt(config).await {
            let undone = written.map(WrittenConfig::undo).transpose();
            let left = undone.err().map(|error| Problem::from(error.reason()));
            return Err(std::iter::once(Problem::from(error.reason())).chain(left).collect::<Vec<_>>().into());
        }
        if let Some(NewListeners { all, bound, notes: more }) = listeners {
            self.server.listen(all, bound);
            notes.extend(more);
        }
        let before = std::mem::replace(&mut self.draft, Arc::new(draft));
        tokio::task::spawn_blocking(move || drop(before));
        self.files.pending = None;
        self.note_refusals(&kept, &problems, |_| true).await;
        self.drive_acme().await;
        self.open_admin_listener();
        Ok((problems, notes))
    }

    /// The reason against another `state.directory`: a restart would silently begin an empty ledger there.
    fn moves_ledger(&self, config: &Config) -> Option<Reason> {
        let old = self.fixed.state.as_deref().filter(|old| config.state.as_deref() != Some(old))?;
        let now = self.now();
        if !self.ledger().book().promises().iter().any(|promise| promise.is_alive(now)) {
            return None;
        }
        let Some(new) = config.state.as_deref() else { return Some(state_is_gone(old)) };
        let what = format!(
            "state.directory: a reload cannot move the ledger from {} to {}, and a restart would begin an empty one there",
            old.display(),
            new.display()
        );
        let upgrade = self.upgrades.launcher.is_some().then(|| {
            self.upgrade_by_signal(config).unwrap_or_else(|| {
                let command = pintle("upgrade");
                format!("`{command}` once the file has it: it moves the promises, and all other changes take effect")
            })
        });
        Some(Reason::new(what).hints(upgrade).hint(format!("or {}", hint_to_move(old, new))))
    }

    /// The way to upgrade this process to a configuration with another admin socket: `pintle upgrade` looks for the new one.
    pub(super) fn upgrade_by_signal(&self, config: &Config) -> Option<String> {
        let is_needed = config.admin != self.config.admin && self.upgrades.launcher.is_some();
        is_needed.then(|| {
            format!(
                "once the file has it, upgrade by a signal, as `pintle upgrade` would look for the new admin socket; that \
                 moves the promises, and all changes take effect: kill -USR2 {}",
                std::process::id()
            )
        })
    }

    /// Binds new addresses, and closes unwanted listeners; `None` if nothing changes.
    fn listeners(&self, config: &Config) -> Result<Option<NewListeners>, Vec<Problem>> {
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
        Ok(Some(NewListeners { all, bound, notes }))
    }

    /// Reads one site's files now, settled or not.
    pub(super) async fn look_at_site(
        &mut self,
        host: &str,
        accept: Option<String>,
        installed: Option<Installed>,
    ) -> ReloadOutcome {
        let Some(site) = self.site_of(host) else {
            return ReloadOutcome::refused(vec![format!("no site has the host {host}").into()]);
        };
        let keep = Keep::UnfitAndShorter(self.with_files_of(&site));
        let pin = installed.as_ref().map(|installed| installed.pin);
        let accept = accept.map(|day| AcceptedByCommand { site: site.clone(), day, pin });
        let _ = self.keep_ledger().await;
        let (config, problems) = self.build(&self.draft, keep, accept);
        let Some(config) = config else {
            return ReloadOutcome::refused(problems.shown());
        };
        let notes: Vec<String> = differences(&self.config, &config, &Changes::default());
        if let Err(error) = self.take(config, &problems, |of| of == site).await {
            return ReloadOutcome::refused(vec![error.reason().into()]);
        }
        match self.files.refused.get(&site) {
            None => ReloadOutcome::new(true, problems.shown(), notes),
            Some(refused) => {
                // Another pair of the site may be the refused one.
                let ok = installed.is_some_and(|installed| self.serves(&site, &installed));
                let notes = if ok { notes } else { Vec::new() };
                ReloadOutcome::new(ok, refused.reasons.iter().cloned().map(Problem::from).collect(), notes)
            }
        }
    }

    /// The sites that have a chain file of this one, itself among them.
    fn with_files_of(&self, site: &str) -> Vec<String> {
        let own = self.config.sites().filter(|s| s.name() == site).flat_map(|s| &s.certificates);
        let own: HashSet<&str> = own.map(|c| c.path.as_str()).collect();
        let has_one =
            |s: &&SiteReport| s.name() == site || s.certificates.iter().any(|c| own.contains(c.path.as_str()));
        self.config.sites().filter(has_one).map(|s| s.name().to_owned()).collect()
    }

    fn serves(&self, site: &str, installed: &Installed) -> bool {
        let certificates = self.config.sites().filter(|s| s.name() == site).flat_map(|s| &s.certificates);
        certificates.into_iter().any(|c| c.pin == installed.pin && c.serial == installed.serial)
    }

    /// The first name of the site that has a host, or whose wildcard covers it.
    pub(super) fn site_of(&self, host: &str) -> Option<String> {
        self.config.sites().nth(self.place_of(host)?).map(|site| site.name().to_owned())
    }
}

/// Writes the file, on a thread that may wait for the disk.
async fn write_file(write: Option<(EditTarget, String)>) -> Result<Option<WrittenConfig>, Halt> {
    let Some((target, text)) = write else { return Ok(None) };
    match tokio::task::spawn_blocking(move || target.write(&text)).await {
        Ok(Ok(written)) => Ok(Some(written)),
        Ok(Err(error)) => Err(Halt::File(error)),
        Err(panic) => Err(vec![panic.to_string().into()].into()),
    }
}

fn wanted(config: &Config) -> Vec<(SocketAddr, Scheme)> {
    let https = config.https.iter().map(|a| (*a, Scheme::Https));
    https.chain(config.http.iter().map(|a| (*a, Scheme::Http))).collect()
}

/// Logs the warnings about a configuration that is in use, and returns their number.
pub fn log_warnings(problems: &[Problem]) -> usize {
    let warnings: Vec<&Problem> = problems.iter().filter(|problem| !problem.is_error()).collect();
    for Problem { reason, .. } in &warnings {
        tracing::warn!(problem = reason.line(), hint = reason.hint_line(), "in use, with a warning");
    }
    warnings.len()
}

/// The addresses that cannot be bound, including those that this process itself uses differently.
pub(super) fn cannot_listen(errors: &[BindError], listening: &[(SocketAddr, Scheme)]) -> Vec<Problem> {
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
    errors.iter().map(|error| Reason::new(error.to_string()).hints(hint(error)).into()).collect()
}
