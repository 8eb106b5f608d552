//! One action for one certificate: what a plan says, carried out and written down.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::{mpsc, oneshot};

use super::backoff::AttemptFailure;
use super::budget::OrderBudget;
use super::checking::Checking;
use super::facts::{CertificateFacts, Checked, Compromise, OpenOrder, PreflightVerdict, Way};
use super::fault::StepFault;
use super::issued::{self, Issued};
use super::order::{self, OrderEnd};
use super::outlook::remedy_text;
use super::preflight::PreflightFinding;
use super::problem::{AcmeRemedy, SERVER_INTERNAL};
use super::renewal_info::{NoAnswer, RenewalInfo, SuggestedWindow};
use super::request::{CandidateKey, DriverRequest, ask};
use super::step::{Abandoned, CertificatePlan, KeyChoice, NextStep, OrderReason};
use super::store::CertificateRecord;
use super::words::time;
use super::work::{CertificateWork, OrderSubject, Surroundings};
use super::{account, store};
use crate::config::acme::Method;
use crate::config::{Authority, Managed};
use crate::keys::pin::Pin;
use crate::ledger::time::wall;
use crate::os::words::words;
use crate::policy::promise::Seconds;
use crate::reason::{Reason, Severity};
use crate::tls::certificate::Chain;

/// Findings of one check that are logged.
const FINDINGS_SAID: usize = 10;

/// One action for one certificate.
pub(super) struct Task {
    pub(super) work: Rc<CertificateWork>,
    pub(super) facts: CertificateFacts,
    pub(super) plan: CertificatePlan,
    pub(super) around: Surroundings,
    /// By the places of the authorities.
    pub(super) budgets: Vec<Rc<RefCell<OrderBudget>>>,
    pub(super) questions: mpsc::Sender<DriverRequest>,
}

impl Task {
    /// Performs the action. Failures at an authority are in the record afterwards; an error means that the record could
    /// not be written.
    pub(super) async fn perform(self) -> Result<(), StepFault> {
        match self.plan.next.clone() {
            NextStep::MakeKey(choice) => {
                let path = store::key_path(&self.work.certificate, choice);
                if choice == KeyChoice::Next && self.facts.next.is_some() {
                    // An unfit key that was read.
                    let _ = std::fs::remove_file(&path);
                } else if path.symlink_metadata().is_ok() {
                    // Clients may hold its pin: a key that cannot be read now is not replaced.
                    let reason = Reason::new(format!("{}: cannot read the key", path.display()));
                    return Err(StepFault::here(reason.hint("restore it").hint("move it away")));
                }
                store::make_key(&self.work.certificate, choice).map_err(StepFault::here)?;
                tracing::info!(
                    site = self.facts.site,
                    algorithm = self.facts.algorithm,
                    key = choice.name(),
                    "key made"
                );
                Ok(())
            }
            NextStep::AskWindow => self.ask_window().await,
            NextStep::Preflight => self.preflight().await,
            NextStep::Order { key, ca, replaces } => self.order(key, ca, replaces).await,
            NextStep::Resume => {
                let open = self.facts.order.clone();
                let at = open.as_ref().and_then(|open| self.facts.cas.iter().position(|ca| ca.directory == open.ca));
                let is_next = |open: &OpenOrder| self.facts.next.as_ref().is_some_and(|next| next.pin == open.key);
                match (at, open) {
                    (Some(at), Some(open)) => {
                        let key = if is_next(&open) { KeyChoice::Next } else { KeyChoice::Live };
                        let replaces = self.facts.replaces(at).map(str::to_owned);
                        self.order(key, at, replaces).await
                    }
                    _ => self.work.change(|record| record.order = None),
                }
            }
            NextStep::Abandon { why } => self.abandon(why).await,
            NextStep::Revoke => self.revoke().await,
            NextStep::Burn => self.burn().await,
            NextStep::Wait { .. } | NextStep::OperatorsTurn { .. } => Ok(()),
        }
    }

    async fn abandon(&self, why: Abandoned) -> Result<(), StepFault> {
        let Some(order) = self.facts.order.clone() else { return Ok(()) };
        let (directory, waits_since) = (order.ca.clone(), order.waits_since());
        // Its certificate may have been issued without pintle's knowledge, and counts at the CA.
        let at = self.around.settings.authorities.iter().position(|authority| authority.directory == directory);
        if let Some(budget) = at.and_then(|at| self.budgets.get(at)).filter(|_| order.is_finalized) {
            order::count(&self.work, &self.around.settings.folder, budget)?;
        }
        self.around.answers.set(&self.work.name(), Vec::new());
        self.work.clean().await;
        let (left, random) = (self.left(), random());
        let url = order.url.map(|url| format!(" {url}")).unwrap_or_default();
        let failure = match why {
            Abandoned::Expired => Some(format!("the order{url} has expired")),
            Abandoned::Stuck => {
                let waits = waits_since.map_or(0, |since| wall().saturating_sub(since) / 60);
                let what = if order.is_finalized { "issues no certificate" } else { "finishes no validation" };
                Some(format!("the CA {what} for the order{url}: it has had all answers for {waits} minutes"))
            }
            Abandoned::Names | Abandoned::Key | Abandoned::Authority => None,
        };
        let (site, algorithm) = (&self.facts.site, &self.facts.algorithm);
        tracing::info!(site, algorithm, ?why, problem = failure, "forgetting an order");
        self.work.change(|record| {
            record.order = None;
            record.answers.clear();
            if let Some(text) = failure {
                let failure = StepFault::here(text).failure(None);
                record.authorities.entry(directory).or_default().attempts.failed(failure, wall(), left, random);
            }
        })
    }

    /// The time until the chain in use expires.
    fn left(&self) -> Option<Seconds> {
        self.facts.chain.as_ref().map(|chain| chain.not_after.saturating_sub(wall()))
    }

    async fn ask_window(&self) -> Result<(), StepFault> {
        let chain = self.facts.chain.as_ref();
        let from = chain.and_then(|chain| chain.from.as_deref());
        let authority = from.and_then(|from| self.around.settings.authority(from));
        let (Some(authority), Some(id)) = (authority, chain.and_then(|chain| chain.id.clone())) else { return Ok(()) };
        let answer = ask_window(&self.around, authority, &id).await;
        let site = &self.facts.site;
        let (has_moved, explanation) = self.work.change(|record| {
            let (now, random) = (wall(), random());
            match answer {
                Ok((answer, retry_after)) => {
                    let explanation = answer.explanation.clone();
                    (record.info.answered(answer, retry_after, now, random), explanation)
                }
                Err((why, retry_after, text)) => {
                    tracing::debug!(site, problem = text, "no renewal information");
                    record.info.unanswered(why, retry_after, now, random);
                    (false, None)
                }
            }
        })?;
        if has_moved {
            tracing::warn!(site, explanation, "the authority has moved the renewal window");
        }
        Ok(())
    }

    async fn preflight(&self) -> Result<(), StepFault> {
        let checking = Checking {
            work: &self.work,
            around: &self.around,
            names: &self.facts.names,
            budgets: &self.budgets,
            questions: &self.questions,
        };
        let mut checked = checking.run().await;
        let before = self.facts.checked.as_ref();
        let broken = |checked: &&Checked| checked.verdict == PreflightVerdict::Broken;
        if broken(&&checked) {
            let again = before.filter(broken).filter(|before| before.names == checked.names);
            checked.failures = again.map_or(0, |before| before.failures).saturating_add(1);
        }
        self.say(before, &checked);
        self.work.change(|record| record.checked = Some(checked))
    }

    /// Logs findings that are new.
    fn say(&self, before: Option<&Checked>, checked: &Checked) {
        let (site, algorithm) = (&self.facts.site, &self.facts.algorithm);
        if before.is_some_and(|before| before.findings == checked.findings && before.text == checked.text) {
            return;
        }
        for PreflightFinding { name, severity, reason, .. } in checked.findings.iter().take(FINDINGS_SAID) {
            let (problem, hint) = (reason.line(), reason.hint_line());
            match severity {
                Severity::Error => tracing::error!(site, algorithm, name, problem, hint, "a name cannot be validated"),
                Severity::Warning => {
                    tracing::warn!(site, algorithm, name, problem, hint, "a name might not be validated")
                }
            }
        }
        if checked.findings.is_empty() && !checked.text.is_empty() {
            tracing::warn!(site, algorithm, problem = checked.text, "no result of the check before an order");
        }
        if checked.verdict == PreflightVerdict::Broken {
            tracing::error!(
                site,
                algorithm,
                problem = checked.text,
                "pintle orders nothing until the names can be validated"
            );
        } else if before.is_some_and(|before| before.verdict == PreflightVerdict::Broken) {
            tracing::info!(site, algorithm, "the names can be validated again");
        }
    }

    async fn order(&self, key: KeyChoice, ca: usize, replaces: Option<String>) -> Result<(), StepFault> {
        let (Some(authority), Some(budget)) = (self.around.settings.authorities.get(ca), self.budgets.get(ca)) else {
            return Ok(());
        };
        let pin = store::pin_of(&self.work.certificate, key);
        let Some(pin) = pin else { return Err(StepFault::here("the key of the order is gone")) };
        let is_emergency = self.plan.changeover.is_some_and(|changeover| changeover.is_emergency(wall()));
        let emergency = self.facts.cas.get(ca).filter(|_| is_emergency).map(|ca| ca.open);
        let (authority, is_fallback) = (authority.clone(), ca > 0);
        let wanted = OrderSubject { authority, key, pin, replaces, emergency, is_fallback };
        if let Some(fault) = self.refused_ahead(pin).await? {
            return self.failed(&wanted, &fault, budget);
        }
        let done = match order::run(&self.work, &wanted, &self.around, budget).await {
            Ok(OrderEnd::Later) => return Ok(()),
            Ok(OrderEnd::Issued(pem, chain)) => {
                // A refused one may have to be revoked, too.
                let issued = Issued::new(&chain, &wanted.authority.directory);
                self.work.change(|record| issued::note(&mut record.issued, issued, wall()))?;
                self.serve(&pem, &chain).await.map(|()| chain)
            }
            Err(fault) => Err(fault),
        };
        match done {
            Ok(chain) => self.succeeded(&wanted, &chain),
            Err(fault) => self.failed(&wanted, &fault, budget),
        }
    }

    /// The refusal of a certificate for another key than that of the pair in use, as far as it is known before: an order would
    /// be spent in vain. Pins may name its issuer, so a certificate that is due, or asked for, is ordered all the same.
    async fn refused_ahead(&self, pin: Pin) -> Result<Option<StepFault>, StepFault> {
        let is_needed = self.plan.why != OrderReason::OtherKey || self.facts.asked.renew;
        if is_needed || self.facts.order.is_some() || self.accepted(pin).is_some() {
            return Ok(None);
        }
        let Managed { site, hosts, .. } = &self.work.certificate;
        let asked = CandidateKey { site: site.clone(), hosts: hosts.clone(), pin };
        let locked_out = self.ask(|reply| DriverRequest::LockedOut { asked, reply }).await?;
        let until = locked_out.into_iter().map(|clients| clients.until).max();
        Ok(until.map(|until| StepFault {
            remedy: AcmeRemedy::Candidate,
            ..StepFault::here(format!("not ordered yet: the live key would lock readers out until {}", time(until)))
        }))
    }

    /// Puts a chain in place and in use, if the configuration admits it.
    async fn serve(&self, pem: &str, chain: &Chain) -> Result<(), StepFault> {
        let refused = |problems: Vec<Reason>| StepFault {
            remedy: AcmeRemedy::Candidate,
            ends_order: true,
            ..StepFault::here(Reason::of_all(&problems).within(&"the new certificate is refused"))
        };
        let site = self.facts.site.clone();
        let (path, accept) = (self.work.certificate.chain(), self.accepted(chain.pin()));
        let judge = |reply| DriverRequest::Judge { site, path, chain: pem.to_owned(), accept, reply };
        let problems = self.ask(judge).await?;
        if !problems.is_empty() {
            return Err(refused(problems));
        }
        let certificate = &self.work.certificate;
        let placed = |error: std::io::Error| StepFault::here(store::words(&certificate.chain(), &error));
        if let Some(compromise) = self.compromise().filter(|compromise| compromise.pin != chain.pin()) {
            store::keep_compromised(certificate, compromise.pin).map_err(placed)?;
        }
        store::install(certificate, pem).map_err(placed)?;
        // A fresh next key comes at once: the promise needs it.
        if !certificate.next().exists() {
            store::make_key(certificate, KeyChoice::Next).map_err(StepFault::here)?;
        }
        let problems = self.take_files(chain).await?;
        if problems.is_empty() { Ok(()) } else { Err(refused(problems)) }
    }

    /// Asks the running process to serve the chain on disk. Returns the problems.
    pub(super) async fn take_files(&self, chain: &Chain) -> Result<Vec<Reason>, StepFault> {
        let (site, accept) = (self.facts.site.clone(), self.accepted(chain.pin()));
        let certificate = (chain.pin(), chain.leaf.serial.clone());
        self.ask(|reply| DriverRequest::Serve { site, certificate, accept, reply }).await
    }

    /// Asks the control thread.
    pub(super) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> DriverRequest,
    ) -> Result<T, StepFault> {
        ask(&self.questions, question).await.ok_or_else(|| StepFault::here("pintle is stopping"))
    }

    /// The compromised key, as the record has it now.
    fn compromise(&self) -> Option<Compromise> {
        self.work.record.borrow().compromise.clone()
    }

    /// The day until which the operator accepts a lockout by a key that takes the place of the compromised one.
    fn accepted(&self, pin: Pin) -> Option<String> {
        self.compromise().filter(|compromise| compromise.pin != pin)?.accepted_until
    }

    fn succeeded(&self, wanted: &OrderSubject, chain: &Chain) -> Result<(), StepFault> {
        let (now, random) = (wall(), random());
        self.work.change(|record| {
            // After a restart in the middle of a changeover, the order's key is live already.
            let is_changeover = record.order.as_ref().is_some_and(|order| order.is_changeover);
            if is_changeover || record.live_since == 0 {
                record.live_since = now;
            }
            record.from = Some(wanted.authority.directory.clone());
            record.spread = random;
            record.info = RenewalInfo::default();
            record.order = None;
            record.answers.clear();
            record.asked.renew = false;
            record.asked.despite_preflight = false;
            record.asked.rotate &= !is_changeover;
            for (directory, known) in &mut record.authorities {
                match *directory == wanted.authority.directory {
                    true => known.attempts.succeeded("issued".to_owned(), now),
                    false => known.attempts.release(),
                }
            }
        })?;
        tracing::info!(
            site = self.facts.site,
            algorithm = self.facts.algorithm,
            authority = wanted.authority.name,
            key = wanted.key.name(),
            pin = %chain.pin(),
            serial = chain.leaf.serial,
            not_after = %chain.leaf.not_after,
            why = %self.plan.why,
            "certificate obtained"
        );
        Ok(())
    }

    fn failed(
        &self,
        wanted: &OrderSubject,
        fault: &StepFault,
        budget: &Rc<RefCell<OrderBudget>>,
    ) -> Result<(), StepFault> {
        let (now, random, left) = (wall(), random(), self.left());
        let folder = &self.around.settings.folder;
        let directory = &wanted.authority.directory;
        let is_validation = matches!(fault.remedy, AcmeRemedy::Validation | AcmeRemedy::Caa);
        // If the CA does not say which, all of them count.
        let failed = if is_validation && fault.names.is_empty() { &self.facts.names } else { &fault.names };
        if !failed.is_empty() {
            failed.iter().for_each(|name| budget.borrow_mut().take_failed_validation(name, now));
            let path = store::file_of(folder, "budget", directory);
            if let Err(error) = store::save(&path, &*budget.borrow()) {
                tracing::error!(file = %path.display(), error = %words(&error), "cannot write the budget of orders");
            }
        }
        if fault.remedy == AcmeRemedy::Register {
            account::forget(folder, directory)?;
        }
        let ends = fault.ends();
        let failure: AttemptFailure = fault.failure(Some(wanted.pin));
        let (retry, stopped) = self.work.change(|record| {
            if is_validation {
                // The way is checked again before the next try.
                record.checked.iter_mut().for_each(Checked::expire);
                note_failed(record, &fault.names, &self.around.settings.challenges);
            }
            if ends {
                record.order = None;
                record.answers.clear();
            }
            let known = record.authorities.entry(directory.clone()).or_default();
            known.attempts.failed(failure, now, left, random);
            // An authority may fail because of the predecessor that the order names: the next order names none.
            known.attempts.without_replaces |= wanted.replaces.is_some() && fault.kind == SERVER_INTERNAL;
            (known.attempts.retry(), known.attempts.stopped)
        })?;
        let again = time(retry.max(now));
        let own = fault.reason.hint_line();
        let hint = own.or_else(|| stopped.then(|| remedy_text(fault.remedy, &self.facts.site)));
        tracing::warn!(
            site = self.facts.site,
            algorithm = self.facts.algorithm,
            authority = wanted.authority.name,
            problem = fault.reason.line(),
            hint,
            again,
            "no certificate obtained"
        );
        Ok(())
    }
}

/// Notes the challenges that have failed, so that others come first. If all have, none is worse than the others.
fn note_failed(record: &mut CertificateRecord, names: &[String], challenges: &[Method]) {
    let used = record.checked.iter().flat_map(|checked| &checked.ways).filter(|way| names.contains(&way.name));
    let used: Vec<Way> = used.filter(|way| !record.failed_ways.contains(way)).cloned().collect();
    record.failed_ways.extend(used);
    for name in names {
        let failed = |method: Method| record.failed_ways.contains(&Way { name: name.clone(), method });
        if challenges.iter().copied().filter(|method| method.proves(name)).all(failed) {
            record.failed_ways.retain(|way| way.name != *name);
        }
    }
}

type NoWindow = (NoAnswer, Option<Seconds>, String);

/// Asks an authority for the renewal information of a certificate.
async fn ask_window(
    around: &Surroundings,
    authority: &Authority,
    id: &str,
) -> Result<(SuggestedWindow, Option<Seconds>), NoWindow> {
    let reached = around.reach(authority).await;
    let (client, directory) =
        reached.map_err(|fault| (NoAnswer::Temporary, fault.retry_after, fault.reason.full_line()))?;
    let Some(url) = directory.renewal_info(id) else {
        return Err((NoAnswer::Lasting, None, "the directory has no renewalInfo".to_owned()));
    };
    let received = client.get(&url).await.map_err(|text| (NoAnswer::Temporary, None, text))?;
    match (received.status, SuggestedWindow::read(&received.body)) {
        (200, Some(answer)) => Ok((answer, received.retry_after)),
        (status, _) => {
            let why = if status == 429 || status >= 500 { NoAnswer::Temporary } else { NoAnswer::Lasting };
            Err((why, received.retry_after, format!("status {status}, or no window")))
        }
    }
}

/// Returns a random number from 0 to 1.
pub(super) fn random() -> f64 {
    let mut bytes = [0; 4];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}
