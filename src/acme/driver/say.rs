//! The plans and outlooks of all certificates, for the operator: in the log, for `pintle acme plan`, and for the control
//! thread.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{CertificateFolder, DriverThread};
use crate::acme::facts::CertificateFacts;
use crate::acme::outlook::Outlook;
use crate::acme::plan;
use crate::acme::shown::{PlanToShow, plan_json};
use crate::acme::step::{CertificatePlan, Hold, HoldCause, NextStep, Stop};
use crate::acme::words::{stop_text, time};
use crate::acme::work::CertificateWork;
use crate::config::Acme;
use crate::ledger::time::wall;
use crate::policy::promise::{DAY, Seconds};
use crate::reason::pasted::pintle;

impl DriverThread {
    /// Logs each stop that only the operator can end, once.
    pub(super) fn say(
        &mut self,
        place: &CertificateFolder,
        work: &CertificateWork,
        plan: &CertificatePlan,
        now: Seconds,
    ) {
        let certificate = &work.certificate;
        let (site, algorithm) = (&certificate.site, certificate.algorithm);
        let text = match &plan.next {
            // The fault of the key is logged by itself.
            NextStep::OperatorsTurn { stop: Stop::Key(_), .. } => String::new(),
            NextStep::OperatorsTurn { stop, .. } => format!("{stop:?}"),
            _ if plan.hold.as_ref().is_some_and(|hold| matches!(hold.cause, HoldCause::Budget(_))) => {
                "budget".to_owned()
            }
            _ if plan.changeover.is_some_and(|changeover| changeover.waits(now)) => "changeover".to_owned(),
            _ => String::new(),
        };
        let known = self.logged.get(place);
        if known == Some(&text) || (text.is_empty() && known.is_none()) {
            return;
        }
        match &plan.next {
            NextStep::OperatorsTurn { stop: Stop::Key(_), .. } => {}
            NextStep::OperatorsTurn { stop, until } => {
                tracing::error!(
                    site,
                    %algorithm,
                    reason = stop_text(stop),
                    next_try = time(*until),
                    hint = format!("then `{}`", pintle(format_args!("acme renew --site {site}"))),
                    "pintle orders no certificate without the operator, and tries again daily"
                );
            }
            _ => {
                if let Some(Hold { until, cause: cause @ HoldCause::Budget(_) }) = &plan.hold {
                    tracing::warn!(site, %algorithm, reason = %cause, until = time(*until), "an order waits");
                }
                if let Some(changeover) = plan.changeover.filter(|changeover| changeover.waits(now)) {
                    let from = time(changeover.from);
                    tracing::info!(site, %algorithm, from, "the changeover to the next key waits until clients know it");
                }
            }
        }
        self.logged.insert(place.clone(), text);
    }

    /// Gives the outlooks of all certificates to the control thread, and logs overdue renewals, each once a day.
    pub(super) fn publish(&mut self, outlooks: Vec<(CertificateFolder, Outlook)>, now: Seconds) {
        for (place, outlook) in &outlooks {
            self.say_overdue(place, outlook, now);
            self.say_key(place, outlook);
        }
        let mut outlooks: Vec<Outlook> = outlooks.into_iter().map(|(_, outlook)| outlook).collect();
        outlooks.sort_by(|a, b| (&a.site, &a.algorithm).cmp(&(&b.site, &b.algorithm)));
        self.outlooks.send_replace(outlooks.into());
    }

    /// Logs each fault of a key, once.
    fn say_key(&mut self, place: &CertificateFolder, outlook: &Outlook) {
        let Some(fault) = &outlook.key_fault else {
            self.logged_keys.remove(place);
            return;
        };
        if self.logged_keys.insert(place.clone(), fault.clone()).as_ref() != Some(fault) {
            let (site, algorithm) = (&outlook.site, &outlook.algorithm);
            tracing::error!(site, algorithm, problem = fault.line(), hint = fault.hint_line(), "unusable key file");
        }
    }

    fn say_overdue(&mut self, place: &CertificateFolder, outlook: &Outlook, now: Seconds) {
        if !outlook.is_overdue() {
            self.logged_overdue.remove(place);
            return;
        }
        // A clock that was set back says it again.
        if self.logged_overdue.get(place).is_some_and(|at| (*at..*at + DAY).contains(&now)) {
            return;
        }
        tracing::error!(
            site = outlook.site,
            algorithm = outlook.algorithm,
            due = time(outlook.due),
            failing_since = outlook.failing_since.map(time),
            not_after = outlook.not_after.map(time),
            problem = outlook.problem,
            hint = outlook.hint,
            next_try = outlook.next_try.map(time),
            "certificate renewal overdue"
        );
        self.logged_overdue.insert(place.clone(), now);
    }

    /// The facts about a certificate, its plan and its outlook.
    pub(super) fn outlook(
        &mut self,
        work: &CertificateWork,
        settings: &Arc<Acme>,
        now: Seconds,
    ) -> (CertificateFacts, CertificatePlan, Outlook) {
        let facts = self.facts(work, settings, now);
        let plan = plan::next(&facts, now);
        let mut outlook = Outlook::of(&facts, &plan, &work.certificate, &work.record.borrow(), now);
        // No record has a failure of this host's side: it cannot be written.
        if let Some(reason) = self.faults.get(&work.certificate.folder) {
            let hint = reason.clone().hint("pintle tries again every 30 seconds").hint_line();
            (outlook.problem, outlook.hint) = (Some(reason.line()), hint);
        }
        (facts, plan, outlook)
    }

    /// The plans of all certificates, for the operator.
    pub(super) fn plans(&mut self) -> Value {
        let Some(settings) = self.settings.clone() else { return json!([]) };
        let now = wall();
        let works: Vec<Rc<CertificateWork>> = self.certificates.values().cloned().collect();
        let mut plans = Vec::new();
        for work in works {
            let (facts, plan, outlook) = self.outlook(&work, &settings, now);
            let is_busy = self.busy.contains_key(&work.certificate.folder);
            let record = work.record.borrow();
            let retired = record.retired.as_ref();
            let shown = PlanToShow { facts: &facts, plan: &plan, outlook: &outlook, retired, is_busy };
            plans.push(plan_json(&shown, &settings, now));
        }
        Value::Array(plans)
    }
}
