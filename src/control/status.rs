//! The state of the process: for `pintle status`, and for Prometheus.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::Control;
use super::expiry::{ExpiryStage, left};
use super::ledger_trouble::LedgerTrouble;
use super::promises::{HeldSets, PromiseDates, held, promised_since};
use crate::acme::outlook::{Outlook, of_site};
use crate::clock::uptime;
use crate::config::{AccessTarget, FormerCopy, LastGood, report};
use crate::export::Role;
use crate::host::HostPattern;
use crate::keys::key_file::PublicKey;
use crate::keys::pin::Pin;
use crate::ledger::time::rfc3339;
use crate::ledger::{Accepted, Book, Ramped};
use crate::os::{allocator, usage};
use crate::policy::promise::{DAY, Promises, Seconds, others};
use crate::reason::pasted::pintle;
use crate::reason::{Reason, shell_word};
use crate::telemetry::LogThread;
use crate::upstream::{Circuit, Upstream};

/// Failures in a row that are a problem, and no accident.
const FAILURES: u32 = 3;

/// The memory of the process and of its allocator, in bytes.
fn memory() -> Value {
    let allocator = allocator::memory().map(|memory| {
        json!({
            "allocated": memory.allocated, "active": memory.active, "resident": memory.resident,
            "retained": memory.retained,
        })
    });
    json!({ "resident": usage::now().map(|usage| usage.resident_bytes), "allocator": allocator })
}

impl Control {
    /// The copies whose sites are gone, while a promise needs their keys.
    fn former_copies(&self) -> Vec<Value> {
        let former = self.files.copies.as_ref().map(LastGood::former).unwrap_or_default();
        let shown = |copy: FormerCopy| {
            let hosts: Vec<String> = copy.hosts.iter().map(ToString::to_string).collect();
            json!({ "file": absolute(&copy.path), "hosts": hosts })
        };
        former.into_iter().map(shown).collect()
    }

    /// The whole state, as JSON.
    pub(super) fn status(&self) -> Value {
        let now = self.now();
        let ledger = self.ledger();
        let counters = self.server.counters();
        let counters: serde_json::Map<String, Value> =
            counters.iter().map(|(name, _, n)| (name.to_owned(), json!(n))).collect();
        let listening = self.listening().iter();
        let reports = self.server.reports();
        let recent = reports.recent();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "started": self.loads.started.to_string(),
            "config": absolute(self.draft.path()),
            "draining": self.draining,
            "connections": self.server.connections(),
            "connection_states": self.connection_states().iter().collect::<std::collections::BTreeMap<_, _>>(),
            "limits_reached": self.limits_reached().collect::<std::collections::BTreeMap<_, _>>(),
            "latencies": self.latencies(),
            "memory": memory(),
            "attention": self.attention(),
            "upgrading": self.upgrades.under_way.is_some(),
            "listening": listening.map(|(a, s)| json!({ "address": a.to_string(), "scheme": s.as_str() })).collect::<Vec<_>>(),
            "admin_https": self.page_listeners(),
            "sites": self.all_sites(ledger.book(), now),
            "caches": self.cache_summaries(),
            "ledger": {
                "directory": self.fixed.state.as_deref().map(absolute),
                "durable": ledger.is_durable(),
                "promises": ledger.book().promises().len(),
                "alive": ledger.book().promises().iter().filter(|p| p.is_alive(now)).count(),
                "former_copies": self.former_copies(),
                "error": self.promises.trouble.as_ref().map(|t| &t.error),
                "accepted_lockouts": ledger.book().lockouts().iter().map(lockout).collect::<Vec<_>>(),
                "repairs": ledger.book().repairs().iter().map(|r| json!({ "at": rfc3339(r.at), "what": r.what })).collect::<Vec<_>>(),
            },
            "access_log": self.access_log(),
            "launcher": self.launcher_state(),
            "sandbox": super::sandbox_rules::status(),
            "reports": {
                "counts": reports.counts(),
                "refused": reports.refused(),
                "recent": recent.iter().map(|r| json!({
                    "at": rfc3339(r.at), "site": r.site, "hostname": r.hostname, "noted_hostname": r.noted_hostname,
                    "chain_length": r.chain_length, "known_pins": r.known_pins,
                })).collect::<Vec<_>>(),
            },
            "history": self.recorder.status(),
            "rotations": self.counts.rotations,
            "rotations_refused": self.counts.rotations_refused,
            "lockouts_accepted": self.counts.lockouts_accepted,
            "reloads": self.counts.reloads,
            "reloads_refused": self.counts.reloads_refused,
            "counters": counters,
        })
    }

    /// The process that starts another one for an upgrade.
    fn launcher_state(&self) -> Value {
        json!({
            "alive": self.upgrades.launcher.is_some(),
            "wanted": !self.upgrades.is_demo && self.upgrades.tie.is_none(),
            "error": &self.upgrades.no_launcher,
            "tie": self.upgrades.tie.map(|tie| tie.to_string()),
        })
    }

    /// Each site with its upstream.
    pub(super) fn sites(&self) -> impl Iterator<Item = (&report::SiteReport, Option<&Upstream>)> {
        let upstreams = self.config.snapshot.upstreams.iter().map(Option::as_deref);
        self.config.sites().zip(upstreams)
    }

    /// The place in the configuration of the site that has a host, or whose wildcard covers it.
    pub(super) fn place_of(&self, host: &str) -> Option<usize> {
        let (host, by_host) = (HostPattern::parse(host).ok()?, &self.config.snapshot.by_host);
        by_host.get_pattern(&host).or_else(|| by_host.get(host.exact()?)).copied()
    }

    fn all_sites(&self, book: &Book, now: Seconds) -> Vec<Value> {
        let (alive, held) = (Promises::alive(book.promises(), now), held(book, now));
        let (reports, since) = (self.server.reports().counts(), promised_since(book, |_| true));
        let sites = self.sites().zip(self.bound()).map(|((site, upstream), (hosts, except))| {
            let counted = (held.get(site.name()).copied(), reports.get(site.name()).copied().unwrap_or_default());
            let dates = |pin: Pin| PromiseDates {
                since: since.get(&(site.name(), pin)).copied(),
                usable_from: alive.safe_from(hosts, &except, pin),
            };
            self.site(site, upstream, (book, now), counted, &dates)
        });
        sites.collect()
    }

    /// Each site's names, and those that its wildcards do not cover.
    pub(super) fn bound(&self) -> Vec<(&[HostPattern], Vec<HostPattern>)> {
        let hosts: Vec<&[HostPattern]> = self.config.snapshot.sites.iter().map(|site| site.hosts.as_slice()).collect();
        let except = others(&hosts);
        hosts.into_iter().zip(except).collect()
    }

    /// The state of one site, with the sets that clients hold of it and the number of its reports. `dates` returns those of
    /// a key.
    pub(super) fn site(
        &self,
        site: &report::SiteReport,
        upstream: Option<&Upstream>,
        (book, now): (&Book, Seconds),
        (held, reports): (Option<HeldSets>, u64),
        dates: &dyn Fn(Pin) -> PromiseDates,
    ) -> Value {
        let name = site.name();
        let certificates = site.certificates.iter().map(|c| {
            json!({
                "file": c.path, "serial": c.serial, "issuer": c.issuer, "algorithm": c.algorithm.to_string(),
                "pin": c.pin.to_string(), "not_before": c.not_before.to_string(), "not_after": c.not_after.to_string(),
                "scts": c.scts, "served": c.served,
                "seconds_left": c.not_after.as_second().saturating_sub(now).max(0),
                "days_left": c.not_after.as_second().saturating_sub(now).max(0) / DAY,
                "left": left(c, now),
                "state": ExpiryStage::of(c, now).word(),
            })
        });
        let sent = site.hpkp.is_some() && site.withheld.is_none() && self.promises.trouble.is_none();
        json!({
            "site": name, "hosts": site.hosts,
            "upstream": site.upstream.as_ref().map(|u| &u.url),
            "upstream_health": upstream.map(health),
            "certificates": certificates.collect::<Vec<_>>(),
            "without_certificate": site.lacks_certificate.map(report::CertificateLack::word),
            "missing": missing(site),
            "refused_names": site.refused_names,
            "renewals": self.renewals(name),
            "hsts": site.hsts,
            "hpkp": site.hpkp.as_ref().map(|(name, value)| json!({
                "name": name, "value": value, "sent": sent, "why_not": self.why_not_sent(site),
            })),
            "promises_alive": held.map_or(0, |held| held.sets),
            "promised_until": held.map(|held| rfc3339(held.until)),
            "accepted_lockouts": book.lockouts().iter().filter(|a| a.site == name && !a.is_over(now) && !book.is_replaced(a)).map(lockout).collect::<Vec<_>>(),
            "backups": backups(site, dates),
            "ramps": site.ramps.iter().map(ramp).collect::<Vec<_>>(),
            "refused": self.files.refused.get(name).map(|refused| json!({
                "since": rfc3339(refused.since),
                "by_guard": refused.by_guard,
                "reasons": refused.reasons.iter().map(|reason| json!({
                    "reason": reason.line(), "hint": reason.hint_line(), "hints": reason.hints,
                    "commands": reason.commands,
                })).collect::<Vec<_>>(),
            })),
            "todo": todo(site),
            "reports": reports, "report_networks": self.server.reports().witnesses(name, 0),
            "mixed_content": self.mixed_content(site),
        })
    }

    fn renewals(&self, site: &str) -> Vec<Value> {
        of_site(&self.outlooks(), site).iter().map(renewal).collect()
    }

    fn access_log(&self) -> Value {
        let to = match &self.fixed.access {
            AccessTarget::Off => return Value::Null,
            AccessTarget::Stdout => "stdout".to_owned(),
            AccessTarget::File(path) => absolute(path),
            AccessTarget::Syslog(place) => place.to_string(),
        };
        let trouble = self.operator.access_log.as_ref().and_then(LogThread::trouble);
        json!({
            "to": to,
            "error": trouble.as_ref().map(|t| &t.what),
            "hint": trouble.as_ref().map(Reason::hint_line),
            "lines_lost": self.operator.access_log.as_ref().map_or(0, LogThread::lost),
        })
    }

    pub(super) fn why_not_sent(&self, site: &report::SiteReport) -> Option<String> {
        if let Some(withheld) = site.withheld {
            return Some(withheld.why().into());
        }
        self.promises.trouble.as_ref().map(LedgerTrouble::why)
    }
}

fn backups(site: &report::SiteReport, dates: &dyn Fn(Pin) -> PromiseDates) -> Vec<Value> {
    let live = site.certificates.iter().map(|certificate| certificate.algorithm);
    let roles = Role::of_backups(live, site.backups.iter().map(|(_, key)| Some(key.algorithm)));
    let one = |((file, key), role): (&(String, PublicKey), Role)| {
        let PromiseDates { since, usable_from } = dates(key.pin);
        let role = if site.promoted.contains(&key.pin) { "promoted" } else { role.name() };
        json!({
            "role": role, "file": file, "pin": key.pin.to_string(), "algorithm": key.algorithm.to_string(),
            "promised_since": since.map(rfc3339), "usable_from": usable_from.map(rfc3339),
        })
    };
    site.backups.iter().zip(roles).map(one).collect()
}

/// The renewal of a certificate that pintle obtains.
fn renewal(outlook: &Outlook) -> Value {
    json!({
        "algorithm": outlook.algorithm,
        "standing": outlook.standing.name(),
        "overdue": outlook.is_overdue(),
        "due": rfc3339(outlook.due.max(0)),
        "failing_since": outlook.failing_since.map(rfc3339),
        "failures": outlook.failures,
        "problem": outlook.problem,
        "hint": outlook.hint,
        "next_try": outlook.next_try.map(rfc3339),
        "words": outlook.words(),
        "key_fault": outlook.key_fault.as_ref().map(|fault| json!({ "what": fault.line(), "hints": fault.hints })),
        "compromised": outlook.compromised.map(|(pin, step)| json!({ "pin": pin.to_string(), "step": step })),
        "unrevoked": outlook.unrevoked.as_ref().map(|open| json!({
            "pin": open.pin.to_string(), "serials": open.serials, "authority": open.from, "problem": open.problem,
        })),
    })
}

/// The pairs that a site should have and has not.
fn missing(site: &report::SiteReport) -> Vec<Value> {
    let pairs = site.missing.iter();
    pairs.map(|pair| json!({ "file": pair.path.as_deref().map(absolute), "reason": pair.lack.word() })).collect()
}

fn lockout(accepted: &Accepted) -> Value {
    json!({
        "site": accepted.site, "pin": accepted.pin.to_string(), "sets": accepted.sets.len(), "until": accepted.until,
        "at": rfc3339(accepted.at),
    })
}

/// An upstream's health.
pub(super) fn health(upstream: &Upstream) -> Value {
    let (now, health) = (uptime(), &upstream.health);
    let (circuit, tried_in) = match health.circuit(now) {
        Circuit::Closed => ("closed", None),
        Circuit::HalfOpen => ("half-open", None),
        Circuit::Open(left) => ("open", Some(seconds(left))),
    };
    let addresses = upstream.addresses.known();
    json!({
        "circuit": circuit,
        "tried_in": tried_in,
        "failures_in_a_row": health.failures(),
        "checked": health.check.is_some(),
        "addresses": addresses.iter().map(|address| {
            let (unfit, out) = health.address(*address, now);
            json!({ "address": address.to_string(), "check_fails": unfit, "left_out_for": seconds(out) })
        }).collect::<Vec<_>>(),
    })
}

pub(super) fn is_out(upstream: &Upstream, address: SocketAddr, now: u64) -> bool {
    upstream.health.address(address, now) != (false, Duration::ZERO)
}

/// `true` if the latest requests to an upstream have all failed: not one by accident.
pub(super) fn has_failed_in_a_row(upstream: &Upstream) -> bool {
    upstream.health.failures() >= FAILURES
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn ramp(ramp: &report::RampReport) -> Value {
    json!({
        "policy": match ramp.policy { Ramped::Hpkp => "hpkp", Ramped::Hsts => "hsts" },
        "step": ramp.step + 1,
        "steps": ramp.steps,
        "max_age": ramp.max_age,
        "since": rfc3339(ramp.since),
        "next": ramp.next.map(|next| json!({ "max_age": next.max_age, "at": rfc3339(next.at) })),
    })
}

/// The operator's tasks, as commands that can be pasted.
pub(super) fn todo(site: &report::SiteReport) -> Vec<String> {
    let fresh = |pin: &Pin| {
        format!(
            "{pin} was the next key and is live now: make a fresh one with `{}`, name its CSR in backups as the command \
             says, and `{}`",
            pintle(format_args!("key new --role next --site {}", shell_word(site.name()))),
            pintle("reload")
        )
    };
    site.promoted.iter().map(fresh).collect()
}

/// A path that is valid from any folder.
pub(super) fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
