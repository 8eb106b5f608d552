//! Reports of failed pin validation (RFC 7469 section 3): accepted, counted and logged, up to a limit for each network of
//! clients. Anybody can send them. Only the number of networks that they come from is evidence.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use serde::Deserialize;

use super::admission::ClientNetwork;
use super::mixed_reports::MixedReports;
use super::page;
use super::rejection::Rejection;
use super::report_intake::{ReportIntake, collect};
use super::snapshot::Snapshot;
use crate::clock::Alarm;
use crate::message::RequestHead;
use crate::upstream::Interim;
use crate::wire::body::RequestBody;

/// The largest report, in bytes: two chains of certificates in PEM fit well.
const REPORT_MAX: usize = 64 * 1024;
/// Reports that are remembered whole, of all sites. A site with many makes room for those of others.
const RECENT_MAX: usize = 20;
/// The longest text that is copied from a report, in bytes: a host name.
const TEXT_MAX: usize = 253;
/// The name under which reports count that are for no site.
pub const NO_SITE: &str = "(no site)";
/// Networks that are remembered for each site.
const WITNESSES_MAX: usize = 16;

/// The reports of all workers.
#[derive(Debug, Default)]
pub struct Reports {
    state: Mutex<ReportsState>,
    /// Reports of another kind: http references of pages.
    pub mixed_content: MixedReports,
}

#[derive(Debug, Default)]
struct ReportsState {
    counts: HashMap<String, u64>,
    refused: u64,
    recent: VecDeque<ViolationReport>,
    intake: ReportIntake,
    /// The networks that have reported last, by site, each with the time of its newest report.
    witnesses: HashMap<String, Vec<(ClientNetwork, i64)>>,
}

/// The useful part of a report.
#[derive(Debug, Clone)]
pub struct ViolationReport {
    /// The time of arrival, in seconds since 1970.
    pub at: i64,
    /// The site whose pins did not match, by its first name.
    pub site: String,
    /// The host that was visited.
    pub hostname: String,
    /// The host that the pins were noted for.
    pub noted_hostname: String,
    /// The number of certificates in the chain that matched no pin.
    pub chain_length: usize,
    /// The number of pins that the client held.
    pub known_pins: usize,
}

/// The JSON of a report (RFC 7469 section 3). Other fields are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Text {
    hostname: String,
    #[serde(default)]
    noted_hostname: Option<String>,
    #[serde(default)]
    served_certificate_chain: Vec<serde::de::IgnoredAny>,
    known_pins: Vec<serde::de::IgnoredAny>,
}

impl Reports {
    fn state(&self) -> MutexGuard<'_, ReportsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of reports for each site, by its first name.
    #[must_use]
    pub fn counts(&self) -> HashMap<String, u64> {
        self.state().counts.clone()
    }

    /// Returns the number of refused reports: too many, too large, or invalid.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.state().refused
    }

    /// Returns the latest reports, the oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<ViolationReport> {
        self.state().recent.iter().cloned().collect()
    }

    /// Returns how many networks of clients have reported a site after `after`, in seconds since 1970; 16 at most.
    #[must_use]
    pub fn witnesses(&self, site: &str, after: i64) -> usize {
        let state = self.state();
        state.witnesses.get(site).map_or(0, |known| known.iter().filter(|(_, at)| *at > after).count())
    }

    /// Takes in the report in the body of a request.
    pub(super) async fn take(
        &self,
        head: &RequestHead,
        body: Option<RequestBody>,
        client: IpAddr,
        snapshot: &Snapshot,
        alarm: &Alarm,
        interim: &mut dyn Interim,
    ) -> Result<(), Rejection> {
        if head.expects_continue() {
            interim.interim(&page::answer(StatusCode::CONTINUE));
        }
        let taken = self.try_take(body, ClientNetwork::of(client), snapshot, alarm).await;
        if taken.is_err() {
            self.state().refused += 1;
        }
        taken
    }

    async fn try_take(
        &self,
        body: Option<RequestBody>,
        network: ClientNetwork,
        snapshot: &Snapshot,
        alarm: &Alarm,
    ) -> Result<(), Rejection> {
        if !self.state().intake.takes(network, &snapshot.limits) {
            return Err(Rejection::TooManyReports);
        }
        let body = body.ok_or(Rejection::NoReport)?;
        let contents = collect(body, REPORT_MAX, snapshot.limits.min_rate(), alarm).await.map_err(Rejection::Body)?;
        let report = read(&contents, snapshot).ok_or(Rejection::NoReport)?;
        tracing::warn!(
            site = report.site,
            hostname = report.hostname,
            noted_hostname = report.noted_hostname,
            chain_length = report.chain_length,
            known_pins = report.known_pins,
            "a client reports that no pin matched"
        );
        let mut state = self.state();
        *state.counts.entry(report.site.clone()).or_default() += 1;
        state.witness(network, &report);
        state.remember(report);
        Ok(())
    }
}

impl ReportsState {
    /// Remembers a report. If there are too many, the oldest one of the site with the most goes.
    fn remember(&mut self, report: ViolationReport) {
        self.recent.push_back(report);
        if self.recent.len() > RECENT_MAX {
            let size = |site: &str| self.recent.iter().filter(|other| other.site == site).count();
            // Of equals, the last one is taken: from the newest to the oldest.
            let oldest = self.recent.iter().enumerate().rev().max_by_key(|(_, report)| size(&report.site));
            if let Some(at) = oldest.map(|(at, _)| at) {
                self.recent.remove(at);
            }
        }
    }

    fn witness(&mut self, network: ClientNetwork, report: &ViolationReport) {
        let known = self.witnesses.entry(report.site.clone()).or_default();
        // The newest is the last.
        known.retain(|(other, _)| *other != network);
        if known.len() == WITNESSES_MAX {
            known.remove(0);
        }
        known.push((network, report.at));
    }
}

fn read(contents: &[u8], snapshot: &Snapshot) -> Option<ViolationReport> {
    let text: Text = serde_json::from_slice(contents).ok()?;
    let noted = text.noted_hostname.unwrap_or_else(|| text.hostname.clone());
    let is_name = |name: &str| !name.is_empty() && name.len() <= TEXT_MAX && name.bytes().all(|b| b.is_ascii_graphic());
    if !is_name(&text.hostname) || !is_name(&noted) {
        return None;
    }
    let site_of = |name: &str| {
        let index = snapshot.by_host.get(&name.to_ascii_lowercase())?;
        snapshot.sites.get(*index).map(|site| site.label())
    };
    // The pins are those of the noted name. The visited host may be a subdomain of it, and another site.
    let site = site_of(&noted).or_else(|| site_of(&text.hostname)).unwrap_or_else(|| NO_SITE.to_owned());
    Some(ViolationReport {
        at: jiff::Timestamp::now().as_second(),
        site,
        hostname: text.hostname,
        noted_hostname: noted,
        chain_length: text.served_certificate_chain.len(),
        known_pins: text.known_pins.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_pushes_out_no_report_of_another() {
        let mut state = ReportsState::default();
        let report = |site: &str, at: i64| ViolationReport {
            at,
            site: site.to_owned(),
            hostname: site.to_owned(),
            noted_hostname: site.to_owned(),
            chain_length: 0,
            known_pins: 0,
        };
        state.remember(report("a", 0));
        for at in 1..50 {
            state.remember(report("b", at));
        }
        let kept: Vec<(&str, i64)> = state.recent.iter().map(|report| (&*report.site, report.at)).collect();
        assert_eq!((kept.len(), kept[0], kept[1]), (RECENT_MAX, ("a", 0), ("b", 31)), "{kept:?}");
    }
}
