//! Events for hooks: what has begun or ended since the last look, and single happenings.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::Control;
use super::admin::Tested;
use super::conditions::promises;
use super::state::{Expiry, with_host};
use crate::admin::api::Answer;
use crate::config::{Config, Difference};
use crate::events::{Event, EventKind};
use crate::ledger::time::rfc3339;
use crate::ledger::{Burnt, Record};
use crate::os::words::words;
use crate::reason::{Kind, Problem};

/// The time between two looks, and between two looks at the promises.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_AT_PROMISES: Duration = Duration::from_secs(5);
/// The time that events have when this process ends.
const END: Duration = Duration::from_secs(5);

impl Control {
    /// Gives the hooks of the configuration to the thread that delivers. Only the process that serves calls this.
    pub(super) fn drive_hooks(&mut self) {
        let limits = self.config.hook_limits();
        if let Err(error) = self.reporter.hooks.set(&self.config.hooks, limits) {
            tracing::error!(error = %words(&error), "hooks: no thread; no event is delivered");
        }
        if !self.reporter.has_started {
            self.reporter.has_started = true;
            let data = json!({ "pid": std::process::id(), "version": env!("CARGO_PKG_VERSION") });
            self.reporter.emit(EventKind::ProcessStarted, data);
        }
    }

    /// Reports what has begun or ended since the last look.
    pub(super) fn look_for_events(&mut self) {
        if self.reporter.hooks.is_empty() {
            // A hook that comes later hears of each present trouble.
            self.reporter.begun.clear();
            return;
        }
        if self.reporter.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        self.reporter.looked = Some(Instant::now());
        if self.reporter.looked_at_promises.is_none_or(|looked| looked.elapsed() >= LOOK_AT_PROMISES) {
            self.reporter.looked_at_promises = Some(Instant::now());
            self.look_at_promises();
        }
        let mut conditions = self.conditions();
        conditions.extend(self.reporter.expiring.iter().map(Expiry::condition));
        self.reporter.compare(conditions);
    }

    fn look_at_promises(&mut self) {
        let now = self.now();
        let (held, expiring) = {
            let ledger = self.ledger();
            promises(ledger.book(), now)
        };
        let before = std::mem::replace(&mut self.reporter.held, held);
        for ((site, channel), until) in before {
            if !self.reporter.held.contains_key(&(site.clone(), channel.clone())) {
                let data = json!({ "site": site, "channel": channel, "until": rfc3339(until) });
                self.reporter.emit(EventKind::PromiseEnded, data);
            }
        }
        self.reporter.expiring = expiring;
    }

    /// Reports keys that are recorded as burnt now.
    pub(super) fn report_burnt<'r>(&self, records: impl IntoIterator<Item = &'r Record>) {
        for record in records {
            if let Record::Burnt(Burnt { site, pin, at }) = record {
                let what = "the key was compromised: it never serves again";
                let data = json!({ "site": site, "pin": pin.to_string(), "at": rfc3339(*at), "what": what });
                self.reporter.emit(EventKind::KeyBurnt, data);
            }
        }
    }

    /// Reports burnt keys for which a configuration was refused.
    pub(super) fn report_burnt_keys_refused(&self, refusal: &[Problem]) {
        for Problem { site, reason, .. } in refusal.iter().filter(|p| p.is_error() && p.kind == Kind::BurntKey) {
            let data = json!({
                "site": site, "config": self.draft.path().display().to_string(),
                "what": "a key that was compromised is refused", "reasons": [reason.line()],
                "hint": reason.hint_line(),
            });
            self.reporter.emit(EventKind::KeyRefused, data);
        }
    }

    /// Reports certificates that are served for the first time.
    pub(super) fn report_renewals(&self, before: &Config) {
        if self.reporter.hooks.is_empty() {
            return;
        }
        for Difference { now: site, before: old, .. } in self.config.differences(before).0 {
            let is_new = |c: &&_| !old.is_some_and(|old| old.certificates.iter().any(|known| known.is(c)));
            for certificate in site.certificates.iter().filter(is_new) {
                let data = json!({
                    "site": site.name(),
                    "algorithm": certificate.algorithm.to_string(),
                    "serial": certificate.serial,
                    "pin": certificate.pin.to_string(),
                    "issuer": certificate.issuer,
                    "not_before": certificate.not_before.to_string(),
                    "not_after": certificate.not_after.to_string(),
                });
                self.reporter.emit(EventKind::CertificateRenewed, data);
            }
        }
    }

    /// Reports the end, and begins to end the thread: events that were not tried yet are tried once.
    pub(super) fn end_hooks(&mut self, successor: Option<u32>) -> impl Future<Output = ()> + use<> {
        let data = json!({ "pid": std::process::id(), "successor": successor });
        self.reporter.emit(EventKind::ProcessStopping, data);
        self.reporter.hooks.end(END)
    }

    /// Sends a test to one hook, or to all.
    pub(super) fn test_hooks(&self, name: Option<&str>, reply: tokio::sync::oneshot::Sender<Tested>) {
        let event = || Event::new(EventKind::HookTest, with_host(json!({ "what": "pintle hook test" })));
        let known = self.reporter.hooks.lines().iter().map(|line| line.hook.name.clone()).collect();
        let tests = self.reporter.hooks.test(name, event);
        spawn_local(async move {
            let mut tested = Tested { hooks: Vec::new(), known };
            for (name, tried) in tests {
                let gone = "the hook has changed meanwhile".to_owned();
                let why = tried.await.map_or(Some(gone), |tried| tried.why().map(str::to_owned));
                tested.hooks.push((name, why));
            }
            let _ = reply.send(tested);
        });
    }
}

/// The outcome of a test of hooks: 404 without any, 409 if one failed.
pub(super) fn tested(tested: Option<Tested>) -> Answer {
    let Some(tested) = tested else { return Answer::gone() };
    let ok = tested.hooks.iter().all(|(_, error)| error.is_none());
    let status = match tested.hooks.is_empty() {
        true => StatusCode::NOT_FOUND,
        false if ok => StatusCode::OK,
        false => StatusCode::CONFLICT,
    };
    let hooks: Vec<Value> = tested
        .hooks
        .into_iter()
        .map(|(hook, error)| match error {
            None => json!({ "hook": hook, "ok": true }),
            Some(error) => json!({ "hook": hook, "ok": false, "error": error }),
        })
        .collect();
    Answer::json(status, json!({ "ok": ok && !hooks.is_empty(), "hooks": hooks, "known": tested.known }))
}
