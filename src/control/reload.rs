//! Reload: the whole configuration, by difference. What is wrong with it changes nothing.

use std::net::SocketAddr;

use super::refresh::errors;
use super::{Control, admin};
use crate::config::{self, Config, Draft, Problems};
use crate::policy::Scheme;
use crate::server::bind;

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

impl Control {
    /// Reads the file again. An error leaves everything as it is.
    pub(super) async fn reload(&mut self) -> Verdict {
        let verdict = self.try_reload().await;
        if verdict.ok {
            self.counts.reloads += 1;
            tracing::info!(notes = verdict.notes.join("; "), "reloaded");
        } else {
            self.counts.reloads_refused += 1;
            let why = verdict.problems.iter().filter_map(|p| p.lines().next()).filter(|p| !p.contains(": warning: "));
            for problem in why {
                tracing::error!(problem, "reload refused; what is in use goes on");
            }
        }
        verdict
    }

    async fn try_reload(&mut self) -> Verdict {
        let refused = |why: String| Verdict { problems: vec![why], ..Verdict::default() };
        let path = self.draft.path().to_owned();
        let draft = match config::read(&path) {
            Ok(draft) => draft,
            Err(error) => return refused(format!("{}: {error}", path.display())),
        };
        let (config, problems) = self.resolve(&draft, false, None);
        let told = rendered(&problems);
        let Some(config) = config else { return Verdict { problems: told, ..Verdict::default() } };
        let mut notes = self.needs_restart(&draft, &config);
        if let Err(why) = self.listen_on(&config, &mut notes) {
            return Verdict { problems: why, ..Verdict::default() };
        }
        notes.extend(differences(&self.config, &config));
        if let Err(error) = self.adopt(config).await {
            return refused(format!("the ledger cannot be written, so that no lockout can be accepted: {error}"));
        }
        self.draft = draft;
        for site in std::mem::take(&mut self.refused).into_keys() {
            tracing::info!(site, "nothing is refused any more");
        }
        self.pending = None;
        if let Some(log) = &self.access_log {
            log.reopen();
        }
        self.follow_admin();
        Verdict { ok: true, problems: told, notes }
    }

    /// Binds what is new, and lets go of what is not wanted any more; connections that there are go on.
    fn listen_on(&mut self, config: &Config, notes: &mut Vec<String>) -> Result<(), Vec<String>> {
        if (&config.https, &config.http) == (&self.config.https, &self.config.http) {
            return Ok(());
        }
        let old: Vec<(SocketAddr, Scheme)> = wanted(&self.config);
        let new: Vec<(SocketAddr, Scheme)> = wanted(config);
        // In the same order: an address whose port the kernel chose is known by its place.
        let known: Vec<_> = old.iter().copied().zip(self.server.listening().iter().copied()).collect();
        let keep: Vec<_> = known.iter().filter(|(asked, _)| new.contains(asked)).map(|(_, actual)| *actual).collect();
        let fresh = |scheme| {
            let is_fresh = |asked: &&(SocketAddr, Scheme)| asked.1 == scheme && !old.contains(asked);
            new.iter().filter(is_fresh).map(|(address, _)| *address).collect::<Vec<_>>()
        };
        let bound = bind(&fresh(Scheme::Https), &fresh(Scheme::Http), self.server.workers()).map_err(|errors| {
            let told = |e: &crate::server::BindError| {
                e.hint().map_or_else(|| e.to_string(), |hint| format!("{e}\n  hint: {hint}"))
            };
            errors.iter().map(told).collect::<Vec<_>>()
        })?;
        for (address, scheme) in bound.addresses() {
            notes.push(format!("listening on {address} ({})", scheme.as_str()));
        }
        for (_, actual) in known.iter().filter(|(asked, _)| !new.contains(asked)) {
            notes.push(format!("not listening on {} any more", actual.0));
        }
        self.server.listen(&keep, bound);
        Ok(())
    }

    /// Keys that are looked at when the process starts, and not again.
    fn needs_restart(&self, draft: &Draft, config: &Config) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |key: &str, changed: bool| {
            if changed {
                notes.push(format!("{key} has changed: it takes effect at the next start"));
            }
        };
        note("listen.workers", config.workers != self.config.workers);
        note("state.directory", draft.state() != self.draft.state());
        note("log.access", config.access != self.config.access || config.access_format != self.config.access_format);
        notes
    }

    fn follow_admin(&mut self) {
        if self.admin.as_ref().map(admin::Listening::address) == self.config.admin.as_ref() {
            return;
        }
        self.admin = None;
        if let Some(address) = &self.config.admin {
            match admin::listen(address, self.sender.clone()) {
                Ok(listening) => self.admin = Some(listening),
                Err(error) => tracing::error!(%error, "commands cannot come in"),
            }
        }
    }

    /// Looks at one site's files now, whatever their state.
    pub(super) async fn look_at_site(&mut self, host: &str, accept: Option<String>) -> Verdict {
        let refused = |why: String| Verdict { problems: vec![why], ..Verdict::default() };
        let Some(site) = self.config.sites().find(|s| s.hosts.iter().any(|h| h == host)).map(|s| s.name().to_owned())
        else {
            return refused(format!("no site has the host {host}"));
        };
        let (config, problems) = self.resolve(&self.draft, true, accept.map(|day| (site.clone(), day)));
        let Some(config) = config else {
            return Verdict { problems: errors(&problems), ..Verdict::default() };
        };
        let notes: Vec<String> = differences(&self.config, &config);
        self.pending = None;
        if let Err(error) = self.take(config, &problems).await {
            return refused(format!("the ledger cannot be written, so that no lockout can be accepted: {error}"));
        }
        match self.refused.get(&site) {
            None => Verdict { ok: true, problems: rendered(&problems), notes },
            Some(refused) => {
                let told = |(reason, hint): &(String, Option<String>)| match hint {
                    Some(hint) => format!("{reason}\n  hint: {hint}"),
                    None => reason.clone(),
                };
                Verdict { ok: false, problems: refused.reasons.iter().map(told).collect(), notes: Vec::new() }
            }
        }
    }
}

fn wanted(config: &Config) -> Vec<(SocketAddr, Scheme)> {
    let https = config.https.iter().map(|a| (*a, Scheme::Https));
    https.chain(config.http.iter().map(|a| (*a, Scheme::Http))).collect()
}

fn rendered(problems: &Problems) -> Vec<String> {
    problems.sorted().into_iter().map(|p| problems.render(p, false)).collect()
}

/// What a reader of the log would like to know.
fn differences(before: &Config, after: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    let find = |config: &Config, name: &str| config.sites().any(|s| s.name() == name);
    for site in after.sites() {
        let Some(old) = before.sites().find(|b| b.name() == site.name()) else {
            notes.push(format!("new site {}", site.name()));
            continue;
        };
        for certificate in &site.certificates {
            if !old.certificates.iter().any(|c| c.is(certificate)) {
                notes.push(format!("{}: certificate {} with pin {}", site.name(), certificate.serial, certificate.pin));
            }
        }
        if old.hpkp != site.hpkp {
            notes.push(format!("{}: other pins", site.name()));
        }
        if old.hsts != site.hsts {
            notes.push(format!("{}: another HSTS policy", site.name()));
        }
    }
    for site in before.sites().filter(|s| !find(after, s.name())) {
        notes.push(format!("site {} is gone", site.name()));
    }
    notes
}
