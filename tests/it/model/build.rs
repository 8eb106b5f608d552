//! From tables to what may be served: what `config::build` does with pins, by the same calls to the guard. Its messages
//! and files are left out.

use std::rc::Rc;

use pintle::config::Refusal;
use pintle::host::HostPattern;
use pintle::ledger::set_id;
use pintle::ledger::{Accepted, Book, Ramp};
use pintle::policy::guard::{Breach, judge};
use pintle::policy::promise::{Promise, Seconds, SiteNames, others};

use super::site::{Entry, Table, make, pattern};

/// The pairs that may be served.
pub struct Built {
    pub entries: Vec<Rc<Entry>>,
    pub accepted: Vec<Accepted>,
    pub ramps: Vec<Ramp>,
    /// Sites that keep what they have.
    pub kept: usize,
}

/// Something that the guard has refused: a chain of a site, among all that was offered.
pub struct Objection {
    pub offered: Vec<Rc<Entry>>,
    pub site: usize,
    pub chain: usize,
    pub by: By,
    /// The day that the operator has to write to accept the lockout.
    pub day: Option<String>,
}

/// Whose pins it would not meet.
pub enum By {
    /// The earlier promises.
    Past(Promise),
    /// The promise that this site would make.
    Coming(usize),
}

/// Judges all tables. With `before`, sites that are not fit keep what they have. Everything that the guard has refused
/// on the way comes, too.
pub fn build(
    tables: &[Table],
    before: &[Rc<Entry>],
    keeps: bool,
    book: &Book,
    now: Seconds,
) -> (Option<Built>, Vec<Objection>) {
    let mut objections = Vec::new();
    let hosts: Vec<Vec<HostPattern>> = tables.iter().map(|t| t.hosts.iter().map(|at| pattern(*at)).collect()).collect();
    let except = others(&hosts.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let mut offered: Vec<(Rc<Entry>, bool)> = Vec::new();
    for (at, table) in tables.iter().enumerate() {
        match make(table, &hosts[at], &except[at], book, now) {
            Some(made) => offered.push((reuse(made, before), false)),
            None if keeps => offered.push((before[at].clone(), true)),
            None => return (None, objections),
        }
    }
    loop {
        let (refused, accepted) = guard(&offered, book, now, &mut objections);
        if refused.is_empty() {
            let kept = offered.iter().filter(|(_, is_kept)| *is_kept).count();
            let entries: Vec<Rc<Entry>> = offered.into_iter().map(|(entry, _)| entry).collect();
            let ramps = entries.iter().flat_map(|e| e.ramps.clone()).collect();
            return (Some(Built { entries, accepted, ramps, kept }), objections);
        }
        if !keeps {
            return (None, objections);
        }
        for at in refused {
            assert!(!offered[at].1, "a site that keeps what it has is refused it: this would never end");
            offered[at] = (before[at].clone(), true);
        }
    }
}

/// The sites that are refused, and the lockouts that the operator has just accepted.
fn guard(
    offered: &[(Rc<Entry>, bool)],
    book: &Book,
    now: Seconds,
    objections: &mut Vec<Objection>,
) -> (Vec<usize>, Vec<Accepted>) {
    let offers: Vec<_> = offered.iter().map(|(entry, is_kept)| entry.offer(*is_kept)).collect();
    let except = others(&offered.iter().map(|(entry, _)| &*entry.hosts).collect::<Vec<_>>());
    let found = judge(&offers, book.promises(), now);
    let all = || offered.iter().map(|(entry, _)| entry.clone()).collect::<Vec<_>>();
    let (mut refused, mut accepted) = (Vec::new(), Vec::new());
    for Breach { site, chain, broken } in found.breaches {
        let (entry, is_kept) = &offered[site];
        // The names of a site do not change here: it breaks what it broke before.
        if *is_kept {
            continue;
        }
        let refusal = Refusal {
            site: entry.label(),
            files: Vec::new(),
            gone: Vec::new(),
            shared: Default::default(),
            own_key: pintle::config::OwnKey::Unknown,
            still_sent: vec![false; broken.len()],
            also_sent_by: Vec::new(),
            chain: String::new(),
            pin: entry.chains[chain][0],
            certain: entry.chains[chain].clone(),
            broken: broken.iter().map(|p| (*p).clone()).collect(),
            satisfied_by: Vec::new(),
            by_command: false,
            safe_from: broken.iter().map(|p| p.honoured_until()).max().unwrap(),
        };
        let (day, label) = (refusal.safe_day(), entry.label());
        let names = SiteNames { hosts: &entry.hosts, except: &except[site] };
        if book.accepts(&label, refusal.pin, &day, &refusal.broken, names) {
            continue;
        }
        if entry.table.accept_lockout_until.as_ref() == Some(&day) {
            let at = book.newest().map_or(now, |newest| newest.max(now));
            let sets = refusal.broken.iter().map(set_id).collect();
            let (hosts, except) = (entry.hosts.clone(), except[site].clone());
            let pin = refusal.pin;
            accepted.push(Accepted { site: label, sets, pin, until: day, at, hosts, except, is_excuse: false });
            continue;
        }
        refused.push(site);
        objections.extend(broken.into_iter().map(|p| Objection {
            offered: all(),
            site,
            chain,
            by: By::Past(p.clone()),
            day: Some(day.clone()),
        }));
    }
    for clash in found.clashes {
        refused.push(clash.blamed);
        let by = By::Coming(clash.promiser);
        objections.push(Objection { offered: all(), site: clash.bound, chain: clash.chain, by, day: None });
    }
    refused.sort_unstable();
    refused.dedup();
    (refused, accepted)
}

/// A site that is as before stays what it was, with its lease.
fn reuse(made: Entry, before: &[Rc<Entry>]) -> Rc<Entry> {
    let is_same = |old: &&Rc<Entry>| {
        old.table == made.table && old.header == made.header && old.promise() == made.promise() && made.ramps.is_empty()
    };
    before.iter().find(is_same).cloned().unwrap_or_else(|| Rc::new(made))
}
