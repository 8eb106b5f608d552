//! Judges the visits, and puts the report together.

use std::net::SocketAddr;

use super::chain::SeenChain;
use super::client::{VisitFailure, VisitResponse};
use super::finding::{Group, Level, VerifyFinding};
use super::hello::TlsVersion;
use super::judge::again::{self, Visits};
use super::judge::pins::{Path, PinFacts};
use super::judge::preload::{self, Preload};
use super::judge::redirect::{self, Plain, RedirectUrls};
use super::judge::versions::{self, VersionResult};
use super::judge::{certificate, hsts, page as page_judge, pins};
use super::notes::{ClientMemory, note_hsts, note_pins};
use super::options::Options;
use super::page::PageFindings;
use super::target::Url;
use super::visits::{GatheredVisits, Landing, Visit};
use crate::message::Name;
use crate::reason::{shell_path, shell_word};

/// The command for another URL, with the same roots.
fn verify(url: &Url, options: &Options) -> String {
    let file = options.trust.file.as_deref().map(shell_path);
    let ca = file.map(|file| format!(" --ca {file}")).unwrap_or_default();
    format!("pintle verify{ca} {}", shell_word(&url.to_string()))
}

/// The response to plain HTTP.
#[derive(Debug, Clone)]
pub struct PlainAnswer {
    /// The http URL.
    pub url: Url,
    /// The status, if a response came.
    pub status: Option<u16>,
    /// The value of Location.
    pub location: Option<String>,
}

/// The findings of a verification, and the facts behind them.
#[derive(Debug)]
pub struct VerifyReport {
    /// The rows.
    pub findings: Vec<VerifyFinding>,
    /// The address of the first visit.
    pub address: SocketAddr,
    /// The versions of TLS.
    pub versions: Vec<VersionResult>,
    /// The version of the first visit.
    pub negotiated: Option<TlsVersion>,
    /// The chain of the first visit.
    pub chain: Option<SeenChain>,
    /// The chains of other visits that differ from the first.
    pub other_chains: Vec<SeenChain>,
    /// The first response.
    pub response: Option<VisitResponse>,
    /// Plain HTTP.
    pub plain: PlainAnswer,
    /// The policies that a client remembers after the visits.
    pub memory: ClientMemory,
    /// The state for the preload list.
    pub preload: Option<Preload>,
    /// The page.
    pub page: Option<PageFindings>,
}

impl VerifyReport {
    /// Returns the number of findings of a level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|f| f.level == level).count()
    }
}

/// Judges the gathered facts.
pub(super) fn report(options: &Options, gathered: GatheredVisits) -> VerifyReport {
    let url = &options.url;
    let mut judge = ReportBuilder { options, findings: versions::judge(&gathered.versions) };
    // The http port is guessed for an https port other than 443, and may belong to another server.
    let port_is_known = url.port == 443 || options.connect_http.is_some();
    let asked = RedirectUrls { plain: &gathered.plain_url, secure: url, port_is_known };
    let (findings, leads) = redirect::judge(&asked, &gathered.plain);
    judge.findings.extend(findings);
    let plain = plain_answer(&gathered);
    let mut report = VerifyReport {
        findings: Vec::new(),
        address: gathered.address,
        versions: gathered.versions,
        negotiated: None,
        chain: None,
        other_chains: Vec::new(),
        response: None,
        plain,
        memory: ClientMemory::default(),
        preload: None,
        page: None,
    };
    match gathered.first {
        Err(failure) => {
            let finding = VerifyFinding::new(Group::Tls, Level::Error, "tls-handshake", failure.to_string());
            judge.findings.push(finding.hint("checks that need a connection were skipped"));
        }
        Ok(first) => {
            judge.chains(&first, gathered.other.as_ref());
            if let Ok(response) = &first.response {
                let paths = paths(&first, gathered.other.as_ref());
                report.memory = judge.policies(&first, response, &paths);
                report.memory = judge.again(&first, gathered.second.as_ref(), &gathered.plain_url, report.memory);
                report.page = gathered.landing.and_then(|landing| judge.page(response, &landing));
            }
            let trusted = first.chain.distrust.is_none();
            let facts = preload::PreloadFacts { url, trusted, leads, sts: &first.seen(url).sts };
            let preload = preload::examine(&facts);
            judge.findings.push(preload::judge(&facts, &preload));
            report.preload = Some(preload);
            report.address = first.handshake.address;
            report.negotiated = first.handshake.version;
            let others = gathered.second.and_then(Result::ok).map(|v| v.chain).into_iter().chain(gathered.other);
            report.other_chains = others.filter(|c| c.leaf_pin() != first.chain.leaf_pin()).collect();
            report.chain = Some(first.chain);
            report.response = first.response.ok();
        }
    }
    report.findings = judge.findings;
    // A stable order: by group, and within each by time.
    report.findings.sort_by_key(|f| Group::ALL.iter().position(|g| *g == f.group));
    report
}

/// Returns the paths of all certificates that clients may get.
fn paths(first: &Visit, other: Option<&SeenChain>) -> Vec<Path> {
    let mut paths = vec![Path { label: String::new(), pins: first.chain.pins() }];
    if let Some(other) = other {
        let kind = other.served.first().map(|c| c.facts.algorithm.to_string()).unwrap_or_default();
        paths.push(Path { label: format!("the {kind} chain, which other clients get"), pins: other.pins() });
    }
    paths
}

struct ReportBuilder<'a> {
    options: &'a Options,
    findings: Vec<VerifyFinding>,
}

impl ReportBuilder<'_> {
    fn chains(&mut self, first: &Visit, other: Option<&SeenChain>) {
        self.findings.extend(certificate::judge(&first.chain, self.options.now));
        self.findings.extend(other.map(certificate::judge_other));
        if let Some(expected) = &self.options.pins {
            self.findings.extend(pins::judge_file(&paths(first, other), expected));
        }
        if let Err(failure) = &first.response {
            self.findings.push(VerifyFinding::new(Group::Tls, Level::Error, "http-response", failure.to_string()));
        }
    }

    /// Judges the policies of the first response; returns what a client remembers of them.
    fn policies(&mut self, first: &Visit, response: &VisitResponse, paths: &[Path]) -> ClientMemory {
        let url = &self.options.url;
        let seen = first.seen(url);
        let (noted_hsts, noted_pins) = (note_hsts(&seen), note_pins(&seen));
        self.findings.extend(hsts::judge(&seen.sts, &noted_hsts));
        let report_only = response.values(Name::PublicKeyPinsReportOnly);
        self.findings.extend(pins::judge(&PinFacts { url, paths }, &seen.pkp, &report_only, &noted_pins));
        let mut memory = ClientMemory::default();
        memory.note(&noted_hsts, &noted_pins);
        memory
    }

    /// Judges the second visit by the client's memory of the first; returns its memory of both.
    fn again(
        &mut self,
        first: &Visit,
        second: Option<&Result<Visit, VisitFailure>>,
        plain: &Url,
        mut memory: ClientMemory,
    ) -> ClientMemory {
        let visit = match second {
            Some(Ok(visit)) if visit.response.is_ok() => visit,
            Some(Ok(Visit { response: Err(failure), .. }) | Err(failure)) => {
                let message = format!("the second visit failed: {failure}");
                self.findings.push(VerifyFinding::new(Group::Tls, Level::Error, "visit-again", message));
                return memory;
            }
            _ => return memory,
        };
        let secure = &self.options.url;
        let (first, second) = (&first.seen(secure), &visit.seen(secure));
        let (noted_hsts, noted_pins) = (note_hsts(second), note_pins(second));
        let mut alone = ClientMemory::default();
        alone.note(&noted_hsts, &noted_pins);
        let visits = Visits { first, second, after_first: &memory, after_second: &alone, plain, secure };
        self.findings.extend(again::judge(&visits));
        // A client that ends the connection reads no headers.
        if memory.admits(second).is_ok() {
            memory.note(&noted_hsts, &noted_pins);
        }
        memory
    }

    fn page(&mut self, first: &VisitResponse, landing: &Landing) -> Option<PageFindings> {
        let url = &landing.url;
        let not_checked = |why: String| VerifyFinding::new(Group::Page, Level::Note, "page-not-checked", why);
        let response = match &landing.response {
            None => first,
            Some(Ok(response)) => response,
            Some(Err(failure)) => {
                self.findings.push(not_checked(format!("{url}: {failure}")));
                return None;
            }
        };
        if let Some(elsewhere) = &landing.elsewhere {
            self.findings.extend(redirect::judge_downgrade(url, elsewhere));
            let finding = not_checked(format!("{url} redirects to {elsewhere}"));
            self.findings.push(finding.hint(verify(elsewhere, self.options)));
            return None;
        }
        self.findings.extend(page_judge::judge_status(url, response.head.status));
        let (findings, page) = page_judge::judge(url, response);
        self.findings.extend(findings);
        page
    }
}

fn plain_answer(gathered: &GatheredVisits) -> PlainAnswer {
    let head = match &gathered.plain {
        Plain::Answered(response) => Some(&response.head),
        _ => None,
    };
    let location = head.and_then(|h| h.fields.get(Name::Location));
    PlainAnswer {
        url: gathered.plain_url.clone(),
        status: head.map(|h| h.status.as_u16()),
        location: location.map(|l| String::from_utf8_lossy(l).into_owned()),
    }
}
