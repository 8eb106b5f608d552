//! Reports of http references: accepted, counted and logged, by page, up to a limit for each network of clients.
//! Anybody can send them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::StatusCode;

use super::admission::ClientNetwork;
use super::page;
use super::rejection::Rejection;
use super::report_intake::{ReportIntake, collect};
use super::snapshot::{SiteOfView, Snapshot};
use crate::clock::Alarm;
use crate::message::RequestHead;
use crate::mixed::report::{Violation, host_of, read};
use crate::upstream::Interim;
use crate::wire::body::RequestBody;

/// The largest message, in bytes. Chromium gathers the reports of a minute, up to 100 of 800 bytes and more: those of
/// most pages fit.
const MESSAGE_MAX: usize = 64 * 1024;
/// References that are remembered, of all sites. A site with many makes room for those of others.
const FOUND_MAX: usize = 500;
/// New references that are taken from a network of clients in a minute. The rest of a page comes with later visits.
const ADDED_MAX: u64 = 20;
/// Lines of the log in a minute.
const LINES_MAX: u64 = 30;

/// The reports of all workers.
#[derive(Debug, Default)]
pub struct MixedReports {
    state: Mutex<MixedState>,
}

#[derive(Debug, Default)]
struct MixedState {
    intake: ReportIntake,
    counts: HashMap<Box<str>, u64>,
    refused: u64,
    found: HashMap<(Box<str>, Violation), KnownReference>,
}

#[derive(Debug)]
struct KnownReference {
    found: FoundReference,
    /// The network that reports it, as long as no other one does.
    only: Option<ClientNetwork>,
}

impl MixedState {
    /// Forgets a reference, for another one of `site`. It is one of the site that has the most: no site pushes out those of
    /// others. Of that site, one that a single network reports goes first, for somebody may have made it up, then one
    /// that was reported once, then the one that was reported longest ago.
    fn make_room(&mut self, site: &str) {
        let mut sizes: HashMap<&str, usize> = HashMap::new();
        for (of, _) in self.found.keys() {
            *sizes.entry(of).or_default() += 1;
        }
        let own = sizes.get(site).copied().unwrap_or_default();
        let Some((largest, most)) = sizes.into_iter().max_by_key(|(_, size)| *size) else { return };
        // A site that would have as many takes no place of another.
        let from = if own > 0 && own + 1 >= most { site } else { largest };
        let worth = |known: &KnownReference| (known.only.is_none(), known.found.count > 1, known.found.last);
        let theirs = self.found.iter().filter(|((of, _), _)| **of == *from);
        let least = theirs.min_by_key(|(_, known)| worth(known)).map(|(key, _)| key.clone());
        if let Some(least) = least {
            self.found.remove(&least);
        }
    }
}

/// A reference that browsers have reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundReference {
    /// The page, the reference and its kind.
    pub violation: Violation,
    /// `true` if the reference is to the site itself or to its upstream: `rewrite` would help.
    pub is_own: bool,
    /// The number of reports.
    pub count: u64,
    /// The time of the first and the last one, in seconds since 1970.
    pub first: i64,
    /// The time of the last one.
    pub last: i64,
}

impl MixedReports {
    fn state(&self) -> MutexGuard<'_, MixedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of reported references of each site, by its first name.
    #[must_use]
    pub fn counts(&self) -> HashMap<Box<str>, u64> {
        self.state().counts.clone()
    }

    /// Returns the number of refused messages: too many, too large, or no reports.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.state().refused
    }

    /// Returns the references of a site, by page and reference.
    #[must_use]
    pub fn of_site(&self, site: &str) -> Vec<FoundReference> {
        let state = self.state();
        let own = state.found.iter().filter(|((of, _), _)| **of == *site);
        let mut found: Vec<FoundReference> = own.map(|(_, known)| known.found.clone()).collect();
        drop(state);
        found.sort_by(|a, b| a.violation.cmp(&b.violation));
        found
    }

    /// Takes in the message in the body of a request.
    pub(super) async fn take(
        &self,
        head: &RequestHead,
        body: Option<RequestBody>,
        (client, site): (IpAddr, &SiteOfView),
        alarm: &Alarm,
        interim: &mut dyn Interim,
    ) -> Result<(), Rejection> {
        if head.expects_continue() {
            interim.interim(&page::answer(StatusCode::CONTINUE));
        }
        let taken = self.try_take(body, ClientNetwork::of(client), site, alarm).await;
        if taken.is_err() {
            self.state().refused += 1;
        }
        taken
    }

    async fn try_take(
        &self,
        body: Option<RequestBody>,
        network: ClientNetwork,
        site: &SiteOfView,
        alarm: &Alarm,
    ) -> Result<(), Rejection> {
        let shared = &site.view().shared;
        if !self.state().intake.takes(network, &shared.limits) {
            return Err(Rejection::TooManyReports);
        }
        let body = body.ok_or(Rejection::NoViolation)?;
        let message = collect(body, MESSAGE_MAX, shared.limits.min_rate(), alarm).await.map_err(Rejection::Body)?;
        let violations = read(&message).ok_or(Rejection::NoViolation)?;
        let now = jiff::Timestamp::now().as_second();
        for violation in violations {
            let is_page = host_of(&violation.page).is_some_and(|host| site.hosts.iter().any(|own| own.matches(&host)));
            if is_page {
                let is_own = is_own(&violation, site, shared);
                self.note(&site.name, violation, is_own, (network, now));
            }
        }
        Ok(())
    }

    fn note(&self, site: &str, violation: Violation, is_own: bool, (network, now): (ClientNetwork, i64)) {
        let mut state = self.state();
        *state.counts.entry(site.into()).or_default() += 1;
        let key = (Box::from(site), violation);
        if let Some(known) = state.found.get_mut(&key) {
            known.found.count += 1;
            known.found.last = now;
            known.only = known.only.filter(|only| *only == network);
            return;
        }
        if !state.intake.adds(network, ADDED_MAX) {
            return;
        }
        if state.found.len() >= FOUND_MAX {
            state.make_room(site);
        }
        let violation = key.1.clone();
        let found = FoundReference { violation: violation.clone(), is_own, count: 1, first: now, last: now };
        state.found.insert(key, KnownReference { found, only: Some(network) });
        let logs = state.intake.logs(LINES_MAX);
        drop(state);
        if !logs {
            return;
        }
        let (page, blocked, kind) = (&*violation.page, &*violation.blocked, &*violation.directive);
        tracing::info!(site, page, blocked, kind, own = is_own, "a browser reports an http reference");
    }
}

/// `true` if a reference leads to a host of the site, to its upstream, or to a listed host.
fn is_own(violation: &Violation, site: &SiteOfView, shared: &Snapshot) -> bool {
    let Some(host) = host_of(&violation.blocked) else { return false };
    let upstream = shared.upstreams.get(site.index()).and_then(Option::as_ref);
    let listed = site.mixed.as_ref().and_then(|mixed| mixed.rewrites.as_ref()).map(|rules| &rules.names.listed);
    site.hosts.iter().chain(listed.into_iter().flatten()).any(|own| own.matches(&host))
        || upstream.is_some_and(|upstream| upstream.own_names.iter().any(|(name, _)| **name == *host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> ClientNetwork {
        ClientNetwork::of(IpAddr::from(number.to_be_bytes()))
    }

    fn note(reports: &MixedReports, (site, name): (&str, &str), from: u32, now: i64) {
        let violation = Violation {
            page: "https://blog.example/".into(),
            blocked: format!("http://x.example/{name}").into(),
            directive: "img-src".into(),
        };
        reports.note(site, violation, false, (network(from), now));
    }

    /// One client that invents references drops nobody's.
    #[tokio::test(start_paused = true)]
    async fn one_network_adds_few() {
        let reports = MixedReports::default();
        note(&reports, ("a", "real"), 1, 0);
        for n in 0..FOUND_MAX {
            note(&reports, ("b", &n.to_string()), 2, 1);
        }
        let lengths = || ["a", "b"].map(|site| reports.of_site(site).len() as u64);
        assert_eq!((lengths(), reports.counts()["b"]), ([1, ADDED_MAX], FOUND_MAX as u64));
        // Known ones are still counted, and the next minute adds the rest of a page.
        note(&reports, ("b", "0"), 2, 2);
        assert_eq!(reports.of_site("b")[0].count, 2);
        tokio::time::advance(std::time::Duration::from_secs(60)).await;
        note(&reports, ("b", "later"), 2, 3);
        assert_eq!(lengths(), [1, ADDED_MAX + 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_few_report_makes_room() {
        let reports = MixedReports::default();
        for (name, from) in [("shared", 1), ("shared", 2), ("twice", 1), ("twice", 1), ("once", 1)] {
            note(&reports, ("a", name), from, 0);
        }
        // Later ones, each from a network of its own: once each, then from one network, then from two.
        let [shared, twice, once] = ["shared", "twice", "once"].map(|name| format!("http://x.example/{name}"));
        let names = || {
            let blocked = reports.of_site("a").into_iter().map(|found| found.violation.blocked.to_string());
            blocked.filter(|name| [&shared, &twice, &once].contains(&name)).collect::<Vec<_>>()
        };
        let fill = |n: u32, times: u32, networks: u32| {
            for time in 0..times {
                note(&reports, ("a", &n.to_string()), 1000 + n * 2 + time % networks, i64::from(n));
            }
        };
        (1..499).for_each(|n| fill(n, 1, 1));
        assert_eq!(names(), [&*shared, &twice], "{once} goes first");
        (500..998).for_each(|n| fill(n, 1, 1));
        assert_eq!(names(), [&*shared, &twice], "once goes before twice");
        (1000..1499).for_each(|n| fill(n, 2, 2));
        assert_eq!(names(), [&*shared], "one network goes before two");
        assert_eq!(reports.of_site("a").len(), FOUND_MAX);
    }

    /// However many references of a site are reported, and by however many networks: those of others stay.
    #[tokio::test(start_paused = true)]
    async fn a_site_pushes_out_none_of_another() {
        let reports = MixedReports::default();
        (0..3).for_each(|n| note(&reports, ("a", &n.to_string()), 1, 0));
        for n in 0..1000 {
            (0..2).for_each(|time| note(&reports, ("b", &n.to_string()), 1000 + n * 2 + time, 1));
        }
        let lengths = || ["a", "b"].map(|site| reports.of_site(site).len());
        assert_eq!(lengths(), [3, FOUND_MAX - 3]);
        // Another site with many has as many places, and a third one still finds some.
        for n in 0..500 {
            note(&reports, ("a", &format!("new/{n}")), 100_000 + n, 2);
        }
        assert_eq!(lengths(), [FOUND_MAX / 2; 2]);
        note(&reports, ("c", "first"), 2, 3);
        assert_eq!((reports.of_site("c").len(), lengths().iter().sum::<usize>()), (1, FOUND_MAX - 1));
    }
}
