//! The control thread's side of ACME: it starts and ends the driver, and answers its questions.

use std::path::PathBuf;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::Control;
use super::admin::{AcmeCommand, AdminCommand, Installed, ReloadOutcome};
use super::state::RunningDriver;
use crate::acme::driver::Driver;
use crate::acme::driver::end::Ending;
use crate::acme::facts::NextKey;
use crate::acme::lost::LostKey;
use crate::acme::outlook::Outlook;
use crate::acme::request::{
    CandidateKey, CertificateInUse, DriverEnd, DriverRequest, KeyFacts, LockedOutClients, Renew, Renewing, Revoke,
    Revoking, ServedCertificates, ask,
};
use crate::acme::step::KeyChoice;
use crate::admin::api::Answer;
use crate::admin::asked::parameter;
use crate::config::AcceptedByCommand;
use crate::config::report::SiteReport;
use crate::events::EventKind;
use crate::ledger::{Burnt, Record};
use crate::policy::promise::Promises;
use crate::reason::pasted::pintle;
use crate::reason::{Problem, Reason, shell_word};
use crate::tls::certificate::Chain;

impl Control {
    /// Gives the driver the settings in use. Starts it if it is needed for the first time. Only the process that serves
    /// calls this: two drivers would order twice.
    pub(super) async fn drive_acme(&mut self) {
        let settings = self.config.acme.clone();
        if self.acme.running.is_none() && settings.is_some() {
            let answers = self.config.snapshot.answers.clone();
            match Driver::start(self.config.name_servers.clone(), answers) {
                Ok((driver, requests)) => self.acme.running = Some(RunningDriver { driver, requests }),
                Err(error) => tracing::error!(%error, "ACME: no thread; no certificate is obtained"),
            }
        }
        if let Some(RunningDriver { driver, .. }) = &self.acme.running {
            driver.settings(settings);
        }
    }

    /// Ends the work of the driver, before another process begins. The rest of its end needs no waiting.
    pub(super) async fn end_acme(&mut self, how: DriverEnd) -> Option<Ending> {
        let RunningDriver { driver, requests } = self.acme.running.take()?;
        drop(requests);
        Some(driver.end(how).await)
    }

    /// Answers a question of the driver.
    pub(super) async fn answer_acme(&mut self, request: DriverRequest) {
        match request {
            DriverRequest::Keys { asked, reply } => {
                let _ = reply.send(self.next_keys(&asked));
            }
            DriverRequest::Served(reply) => {
                let pins = self.config.sites().flat_map(|site| &site.certificates).map(|found| found.pin).collect();
                let _ = reply.send(ServedCertificates { pins, behind_proxy: !self.config.snapshot.trust.is_empty() });
            }
            DriverRequest::Judge { site, path, chain, accept, reply } => {
                let _ = reply.send(self.judge_chain(site, path, chain, accept));
            }
            DriverRequest::Serve { site, certificate: (pin, serial), accept, reply } => {
                let verdict = self.look_at_site(&site, accept, Some(Installed { pin, serial })).await;
                let _ = reply.send(errors(verdict));
            }
            DriverRequest::Serves { site, pin, reply } => {
                let mut of_site = self.config.sites().filter(|s| s.name() == site).flat_map(|s| &s.certificates);
                let _ = reply.send(of_site.any(|certificate| certificate.pin == pin));
            }
            DriverRequest::Burn { site, pin, reply } => {
                let burnt = Record::Burnt(Burnt { site, pin, at: self.now() });
                let is_known = self.ledger().book().burnt(pin).is_some();
                let written = if is_known { Ok(()) } else { self.record(vec![burnt.clone()]).await };
                if !is_known && written.is_ok() {
                    self.report_burnt([&burnt]);
                }
                let _ = reply.send(written.map_err(|error| crate::os::words::words(&error).into()));
            }
            DriverRequest::Revoked { site, algorithm, issued, reply } => {
                let data = json!({
                    "site": site, "algorithm": algorithm, "pin": issued.pin.to_string(), "serial": issued.serial,
                    "authority": issued.from, "what": "the CA has revoked a certificate of a compromised key",
                });
                self.reporter.emit(EventKind::KeyRevoked, data);
                let _ = reply.send(());
            }
            DriverRequest::LockedOut { asked, reply } => {
                let _ = reply.send(self.locked_out(&asked));
            }
        }
    }

    /// Judges a chain as if it were in that file. Returns the errors that it adds. The driver has the key, and it fits.
    fn judge_chain(&self, site: String, path: PathBuf, chain: String, accept: Option<String>) -> Vec<Reason> {
        let pin = Chain::from_pem(chain.as_bytes()).ok().map(|chain| chain.pin());
        let accept = accept.map(|day| AcceptedByCommand { site: site.clone(), day, pin });
        let errors = self.judge_in_place(path, Zeroizing::new(chain.into_bytes()), accept);
        let errors: Vec<Reason> = errors.into_iter().map(|problem| problem.reason).collect();
        if !errors.is_empty() {
            let problems = Reason::of_all(&errors).line();
            tracing::error!(site, problems, "the authority's certificate is refused; the old one stays");
        }
        errors
    }

    /// The clients whom a certificate with a key would lock out, with the promises that it would break.
    fn locked_out(&self, CandidateKey { site, hosts: own, pin }: &CandidateKey) -> Vec<LockedOutClients> {
        let now = self.now();
        let ledger = self.ledger();
        let alive = Promises::alive(ledger.book().promises(), now);
        let except = self.config.site_names().get(site.as_str()).map_or(&[][..], |names| names.except);
        let mut found: Vec<LockedOutClients> = Vec::new();
        for promise in alive.broken_by(own, except, &[*pin]) {
            let bound = own.iter().filter(|host| promise.binds(host, except)).map(ToString::to_string).collect();
            let (site, until) = (promise.site.clone(), promise.honoured_until());
            match found.iter_mut().find(|known| known.site == site && known.hosts == bound) {
                Some(known) => known.until = known.until.max(until),
                None => found.push(LockedOutClients { site, hosts: bound, until }),
            }
        }
        found
    }

    /// The outlooks of the certificates that pintle obtains.
    pub(super) fn outlooks(&self) -> Arc<[Outlook]> {
        self.acme.running.as_ref().map(|running| running.driver.outlooks()).unwrap_or_default()
    }

    /// The ledger's facts about next keys.
    fn next_keys(&self, asked: &[CandidateKey]) -> KeyFacts {
        let now = self.now();
        let ledger = self.ledger();
        let book = ledger.book();
        let alive = Promises::alive(book.promises(), now);
        let names = self.config.site_names();
        let facts = |CandidateKey { site, hosts: own, pin }: &CandidateKey| {
            let except = names.get(site.as_str()).map_or(&[][..], |names| names.except);
            let longest = alive.binding(own, except).iter().map(|promise| promise.max_age).max().unwrap_or(0);
            NextKey {
                pin: *pin,
                promised_since: book.promised_since(site, *pin),
                usable_from: alive.safe_from(own, except, *pin),
                longest: i64::try_from(longest).unwrap_or(i64::MAX),
            }
        };
        KeyFacts {
            next: asked.iter().map(facts).collect(),
            burnt: book.burnt_keys().map(|burnt| burnt.pin).collect(),
            in_use: self.in_use(),
        }
    }

    /// The certificates in use, of sites whose certificates pintle obtains.
    fn in_use(&self) -> Vec<CertificateInUse> {
        let managed: Vec<&str> =
            self.config.acme.iter().flat_map(|acme| &acme.certificates).map(|of| of.site.as_str()).collect();
        let sites = self.config.sites().filter(|site| managed.contains(&site.name()));
        let of_site = |site: &'_ SiteReport| -> Vec<CertificateInUse> {
            let served = site.certificates.iter().filter(|certificate| certificate.served);
            let in_use = served.map(|certificate| CertificateInUse {
                site: site.name().to_owned(),
                algorithm: certificate.algorithm,
                pin: certificate.pin,
                serial: certificate.serial.clone(),
                not_before: certificate.not_before.as_second(),
                not_after: certificate.not_after.as_second(),
            });
            in_use.collect()
        };
        sites.flat_map(of_site).collect()
    }

    /// The driver, with the site of a host whose certificates it obtains.
    fn driver_of(&self, host: &str) -> Option<(&Driver, String)> {
        let RunningDriver { driver, .. } = self.acme.running.as_ref()?;
        let site = self.site_of(host)?;
        let is_managed = self.config.acme.iter().flat_map(|acme| &acme.certificates).any(|of| of.site == site);
        is_managed.then_some((driver, site))
    }

    /// Passes a command on to the driver.
    pub(super) fn ask_acme(&self, asked: AcmeCommand) {
        match asked {
            AcmeCommand::Plans(reply) => match &self.acme.running {
                Some(RunningDriver { driver, .. }) => driver.plans(reply),
                None => _ = reply.send(Value::Array(Vec::new())),
            },
            AcmeCommand::Renew { host, asked, reply } => match self.driver_of(&host) {
                Some((driver, site)) => driver.renew(Renew { site, ..asked }, reply),
                None => {
                    let reason = Reason::new("pintle obtains no certificate for this host");
                    let hint = format!("acme = true in its [site.certificate], then `{}`", pintle("reload"));
                    let _ = reply.send(Renewing::refused(reason.hint(hint)));
                }
            },
            AcmeCommand::Revoke { host, asked, reply } => match self.driver_of(&host) {
                Some((driver, site)) => driver.revoke(Revoke { site, ..asked }, reply),
                None => _ = reply.send(not_obtained(&host)),
            },
        }
    }
}

/// The refusal for a host whose certificate comes from elsewhere.
fn not_obtained(host: &str) -> Revoking {
    let what = format!("{host}: pintle obtains no certificate for this host, so it cannot revoke one");
    let by_hand = format!(
        "`{}` shows the keys that clients know: get a certificate for the next or a spare one, `{}` it, then revoke the old \
         certificate at its CA with the reason keyCompromise",
        pintle(format_args!("key list --site {}", shell_word(host))),
        pintle("install")
    );
    let managed = format!("or acme = true in its [site.certificate], then `{}`", pintle("reload"));
    Revoking::refused(Reason::new(what).hint(by_hand).hint(managed))
}

/// Carries out a command about certificates that pintle obtains; `None` if the path is unknown.
pub(super) async fn done(path: &str, query: &str, commands: &mpsc::Sender<AdminCommand>) -> Option<Answer> {
    let host = parameter(query, "host").unwrap_or_default();
    match path {
        "/acme/renew" => {
            let is_set = |name| parameter(query, name).is_some_and(|value| value == "true");
            let (rotate, despite_preflight) = (is_set("rotate"), is_set("despite_preflight"));
            let asked = Renew { site: String::new(), rotate, despite_preflight };
            let renewing = ask(commands, |reply| AdminCommand::Acme(AcmeCommand::Renew { host, asked, reply })).await;
            Some(renewing.map_or_else(Answer::gone, |renewing| outcome(renewing.ok, json!(renewing))))
        }
        "/acme/revoke" => {
            let key = match parameter(query, "key").as_deref() {
                None | Some("live") => KeyChoice::Live,
                Some("next") => KeyChoice::Next,
                Some(_) => return Some(Answer::bad("key: neither live nor next")),
            };
            let asked = Revoke {
                site: String::new(),
                algorithm: parameter(query, "algorithm"),
                key,
                accept: parameter(query, "accept_lockout_until"),
                dry_run: parameter(query, "dry_run").is_some_and(|dry_run| dry_run == "true"),
            };
            let revoking = ask(commands, |reply| AdminCommand::Acme(AcmeCommand::Revoke { host, asked, reply })).await;
            Some(revoking.map_or_else(Answer::gone, |revoking| outcome(revoking.ok, json!(revoking))))
        }
        _ => None,
    }
}

/// The answer of the driver: a refusal is a conflict.
fn outcome(is_ok: bool, answer: Value) -> Answer {
    Answer::json(if is_ok { StatusCode::OK } else { StatusCode::CONFLICT }, answer)
}

fn errors(verdict: ReloadOutcome) -> Vec<Reason> {
    let ok = verdict.ok;
    let mut errors: Vec<Reason> =
        verdict.reasons().into_iter().filter(Problem::is_error).map(|problem| problem.reason).collect();
    match ok {
        true => errors.clear(),
        false if errors.is_empty() => errors.push("it is not in use".into()),
        false => {}
    }
    errors
}

/// Makes the missing keys and folders of a draft's certificates, on a thread that may wait for the disk.
pub(super) async fn prepare(certificates: Arc<[crate::config::Managed]>) -> Result<(), Reason> {
    let made = tokio::task::spawn_blocking(move || crate::acme::store::prepare(&certificates)).await;
    let lost = made.unwrap_or_else(|panic| Err(panic.to_string().into()))?;
    lost.iter().for_each(LostKey::log);
    Ok(())
}
