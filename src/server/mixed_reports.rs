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

/// The largest message, in bytes. Browsers gather the reports of a page.
const MESSAGE_MAX: usize = 64 * 1024;
/// References that are remembered, of all sites. The one that was reported longest ago makes room.
const FOUND_MAX: usize = 500;

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
    found: HashMap<(Box<str>, Violation), FoundReference>,
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
        let mut found: Vec<FoundReference> = own.map(|(_, found)| found.clone()).collect();
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
                self.note(&site.name, violation, is_own, now);
            }
        }
        Ok(())
    }

    fn note(&self, site: &str, violation: Violation, is_own: bool, now: i64) {
        let mut state = self.state();
        *state.counts.entry(site.into()).or_default() += 1;
        let key = (Box::from(site), violation);
        if let Some(known) = state.found.get_mut(&key) {
            known.count += 1;
            known.last = now;
            return;
        }
        if state.found.len() >= FOUND_MAX
            && let Some(oldest) = state.found.iter().min_by_key(|(_, found)| found.last).map(|(key, _)| key.clone())
        {
            state.found.remove(&oldest);
        }
        let violation = key.1.clone();
        state
            .found
            .insert(key, FoundReference { violation: violation.clone(), is_own, count: 1, first: now, last: now });
        drop(state);
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
