//! The preflight of one certificate: each name is checked by each challenge that pintle may use, until one fits.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::budget::OrderBudget;
use super::facts::{Checked, PreflightVerdict, Way};
use super::fault::StepFault;
use super::preflight::{self, CaaIssuer, Ports, PreflightFinding, PreflightOrder, Probe, Subject, words};
use super::request::{DriverRequest, ServedCertificates, ask};
use super::work::{CertificateWork, Surroundings};
use super::{account, hook};
use crate::config::Authority;
use crate::config::acme::Method;
use crate::ledger::time::wall;
use crate::reason::Severity;
use crate::server::ChallengeAnswer;

/// The time limit for the whole check. The order must not wait for it.
const LIMIT: Duration = Duration::from_secs(120);
/// The findings that are kept.
const FINDINGS_MAX: usize = 50;
/// The findings in the text.
const TEXT_MAX: usize = 5;

/// The certificate to check, and everything that the check needs.
pub(super) struct Checking<'a> {
    pub(super) work: &'a CertificateWork,
    pub(super) around: &'a Surroundings,
    /// Its names, as they are ordered.
    pub(super) names: &'a [String],
    /// By the places of the authorities.
    pub(super) budgets: &'a [Rc<RefCell<OrderBudget>>],
    pub(super) questions: &'a mpsc::Sender<DriverRequest>,
}

impl Checking<'_> {
    /// Checks all names. The verdict of a check that exceeds [`LIMIT`] is unknown.
    pub(super) async fn run(&self) -> Checked {
        let names = self.names.to_vec();
        let found = timeout(LIMIT, self.check()).await;
        let Ok((ways, mut findings)) = found else {
            let text = format!("unknown: the check took longer than {} s", LIMIT.as_secs());
            return Checked { at: wall(), names, text, ..Checked::default() };
        };
        let verdict = match findings.iter().map(|finding| finding.severity).max() {
            None => PreflightVerdict::Fine,
            Some(Severity::Warning) => PreflightVerdict::Unknown,
            Some(Severity::Error) => PreflightVerdict::Broken,
        };
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        findings.truncate(FINDINGS_MAX);
        Checked { at: wall(), names, verdict, failures: 0, text: text(&findings), findings, ways, expired: false }
    }

    /// Returns the challenge that proves each name, and the findings about names that none proves.
    async fn check(&self) -> (Vec<Way>, Vec<PreflightFinding>) {
        let settings = &self.around.settings;
        let (issuers, served) =
            futures_util::join!(join_all((0..settings.authorities.len()).map(|at| self.issuer(at))), self.served());
        let mut issuers = issuers.into_iter();
        let mut ask = PreflightOrder {
            names: Vec::new(),
            method: Method::Http01,
            issuer: issuers.next().unwrap_or_default(),
            fallback: issuers.next(),
            probe: Probe { token: String::new(), content: String::new() },
            own: served.pins,
            ports: Ports { http: settings.http_port, tls: settings.tls_port },
            behind_proxy: served.behind_proxy,
            other_view: settings.other_view,
            now: wall(),
        };
        let (mut ways, mut findings, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        let mut left = self.names.to_vec();
        let failed_ways = self.work.record.borrow().failed_ways.clone();
        let has_failed = |name: &str, method| failed_ways.iter().any(|way| way.name == name && way.method == method);
        // Challenges that have failed at the authority come last.
        let rounds = [false, true].map(|failed| settings.challenges.iter().map(move |method| (failed, *method)));
        for (failed, method) in rounds.into_iter().flatten() {
            let fits = |name: &&String| method.proves(name) && has_failed(name, method) == failed;
            ask.names = left.iter().filter(fits).cloned().collect();
            ask.method = method;
            if ask.names.is_empty() {
                continue;
            }
            let found = self.by(&mut ask).await;
            for name in &ask.names {
                let own = found.iter().filter(|finding| finding.name == *name);
                if own.clone().any(|finding| finding.severity == Severity::Error) {
                    faults.extend(own.cloned());
                } else {
                    ways.push(Way { name: name.clone(), method });
                    findings.extend(own.cloned());
                }
            }
            left.retain(|name| !ways.iter().any(|way| way.name == *name));
        }
        for name in left {
            let before = findings.len();
            for fault in faults.iter().filter(|fault: &&PreflightFinding| fault.name == name) {
                if !findings[before..].contains(fault) {
                    findings.push(fault.clone());
                }
            }
            if findings.len() == before {
                findings.push(unproved(&name, settings.challenges.first().copied().unwrap_or(Method::Http01)));
            }
        }
        (ways, findings)
    }

    /// Checks names by one challenge. pintle answers one of its own meanwhile.
    async fn by(&self, ask: &mut PreflightOrder) -> Vec<PreflightFinding> {
        if ask.method == Method::Dns01 && hook::running().is_none() {
            return ask.names.iter().map(|name| words::no_hook(name)).collect();
        }
        let token = random::<16>();
        let content = format!("{token}.{}", random::<32>());
        ask.probe = Probe { token, content };
        let own_token = match ask.method {
            Method::Http01 => Some(Some(ask.probe.token.clone())),
            Method::TlsAlpn01 => Some(None),
            Method::Dns01 | Method::DnsPersist01 => None,
        };
        let answer = |name: &String| Some(ChallengeAnswer::new(name, own_token.clone()?, ask.probe.content.clone()));
        let published = PublishedAnswers { around: self.around, name: format!("{} preflight", self.work.name()) };
        self.around.answers.set(&published.name, ask.names.iter().filter_map(answer).collect());
        preflight::check(ask, &self.around.name_servers).await
    }

    /// Asks the control thread what pintle serves.
    async fn served(&self) -> ServedCertificates {
        ask(self.questions, DriverRequest::Served).await.unwrap_or_default()
    }

    /// The facts about an authority, as far as it can be asked.
    async fn issuer(&self, at: usize) -> CaaIssuer {
        let Some(authority) = self.around.settings.authorities.get(at) else { return CaaIssuer::default() };
        let folder = &self.around.settings.folder;
        let mut identities = match self.ask(authority, at).await {
            Ok(identities) => identities,
            Err(fault) => {
                tracing::debug!(
                    authority = authority.name,
                    problem = fault.reason.full_line(),
                    "preflight without the authority"
                );
                Vec::new()
            }
        };
        let stored = account::Stored::read(folder, &authority.directory).ok().flatten();
        if let Some(stored) = stored.as_ref().filter(|_| identities.is_empty()) {
            identities.clone_from(&stored.identities);
        }
        CaaIssuer { title: authority.name.clone(), identities, account: stored.and_then(|stored| stored.url) }
    }

    /// Asks an authority for its names in DNS records. Registers an account at the first authority if a record must name it
    /// before the first order.
    async fn ask(&self, authority: &Authority, at: usize) -> Result<Vec<String>, StepFault> {
        let settings = &self.around.settings;
        let (client, directory) = self.around.reach(authority).await?;
        let identities = directory.identities();
        let has_account = || {
            let stored = account::Stored::read(&settings.folder, &authority.directory).ok().flatten();
            stored.is_some_and(|stored| stored.url.is_some())
        };
        let is_wanted = at == 0 && (settings.challenges.contains(&Method::DnsPersist01) || self.is_barred());
        if let Some(budget) = self.budgets.get(at).filter(|_| is_wanted && !has_account()) {
            let email = settings.email.as_deref();
            // The order tries again, and says why there is none.
            if let Err(fault) = account::open(&settings.folder, authority, email, &client, budget, &directory).await {
                let (authority, problem) = (&authority.name, fault.reason.full_line());
                tracing::debug!(authority, problem, "preflight without an account");
            }
        }
        account::note_identities(&settings.folder, &authority.directory, &identities)?;
        Ok(identities)
    }

    /// Returns `true` if CAA records forbade the order at the last check: they may name an account that is gone, and only a
    /// new one shows which they must name.
    fn is_barred(&self) -> bool {
        let record = self.work.record.borrow();
        let mut findings = record.checked.iter().flat_map(|checked| &checked.findings);
        findings.any(|finding| finding.subject == Subject::Caa && finding.severity == Severity::Error)
    }
}

/// The answers to pintle's own challenges. They go with this value.
struct PublishedAnswers<'a> {
    around: &'a Surroundings,
    name: String,
}

impl Drop for PublishedAnswers<'_> {
    fn drop(&mut self) {
        self.around.answers.set(&self.name, Vec::new());
    }
}

/// A name that no configured challenge proves.
fn unproved(name: &str, method: Method) -> PreflightFinding {
    match name.starts_with("*.") {
        true => words::wildcard(name, method),
        false => words::address_by_dns(name, method),
    }
}

/// Returns random bytes in base64url.
fn random<const N: usize>() -> String {
    let mut bytes = [0; N];
    let _ = rand::fill(&mut bytes);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The worst findings in one line, each with its remedies.
fn text(findings: &[PreflightFinding]) -> String {
    let mut lines: Vec<String> = findings.iter().take(TEXT_MAX).map(|finding| finding.reason.full_line()).collect();
    if let Some(more) = findings.len().checked_sub(TEXT_MAX).filter(|more| *more > 0) {
        lines.push(format!("and {more} more"));
    }
    lines.join("; ")
}
