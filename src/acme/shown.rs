//! The plans as the operator sees them.

use serde_json::{Value, json};

use super::facts::{CertificateFacts, Checked};
use super::issued::RetiredKey;
use super::outlook::Outlook;
use super::preflight::PreflightFinding;
use super::step::{CertificatePlan, NextStep};
use super::words::{stop_text, time};
use crate::config::Acme;
use crate::policy::promise::Seconds;

fn finding_json(PreflightFinding { name, subject, severity, reason }: &PreflightFinding) -> Value {
    json!({
        "name": name, "subject": subject, "severity": severity, "what": reason.what, "notes": reason.notes,
        "hints": reason.hints,
        "commands": reason.commands,
    })
}

/// The plan of a certificate, with everything that the operator sees of it.
pub(super) struct PlanToShow<'a> {
    pub(super) facts: &'a CertificateFacts,
    pub(super) plan: &'a CertificatePlan,
    pub(super) outlook: &'a Outlook,
    /// The last key that was compromised.
    pub(super) retired: Option<&'a RetiredKey>,
    /// `true` while a task works on it.
    pub(super) is_busy: bool,
}

/// Returns a plan for programs.
pub(super) fn plan_json(shown: &PlanToShow<'_>, settings: &Acme, now: Seconds) -> Value {
    let &PlanToShow { facts, plan, outlook, retired, is_busy } = shown;
    let last = facts.cas.iter().filter_map(|ca| Some((ca, ca.attempts.last.as_ref()?))).max_by_key(|(_, last)| last.at);
    let (action, until, stop) = action(plan);
    json!({
        "site": facts.site,
        "algorithm": facts.algorithm,
        "names": facts.names,
        "standing": plan.standing.name(),
        "action": action,
        "busy": is_busy,
        "stop": stop,
        "due": time(plan.due.max(0)),
        "is_due": plan.due <= now,
        "next_try": until.map(time),
        "waits": plan.hold.as_ref().map(|hold| json!({
            "until": time(hold.until), "cause": hold.cause.name(), "text": hold.cause.to_string(),
        })),
        "why": plan.why.to_string(),
        "key": plan.key.name(),
        "live": facts.live.map(|pin| pin.to_string()),
        "next": facts.next.as_ref().map(|next| next.pin.to_string()),
        "not_before": facts.chain.as_ref().map(|chain| time(chain.not_before)),
        "not_after": facts.chain.as_ref().map(|chain| time(chain.not_after)),
        "from": facts.chain.as_ref().and_then(|chain| chain.from.as_deref()).map(|from| settings.authority_name(from)),
        "changeover": plan.changeover.map(|changeover| json!({
            "from": time(changeover.from), "why": changeover.cause.to_string(), "waits": changeover.waits(now),
        })),
        "window": facts.info.window.as_ref().map(|window| json!({
            "start": time(window.start), "end": time(window.end), "chosen": time(window.chosen),
            "explanation": window.explanation,
        })),
        "last": last.map(|(ca, last)| json!({
            "at": time(last.at), "authority": settings.authority_name(&ca.directory), "ok": last.remedy.is_none(), "text": last.reason().full_line(),
            "failures": ca.attempts.failures,
            "retry": Some(ca.attempts.retry()).filter(|at| *at > 0).map(time),
        })),
        "is_overdue": outlook.is_overdue(),
        "failing_since": outlook.failing_since.map(time),
        "problem": outlook.problem,
        "hint": outlook.hint,
        "key_fault": outlook.key_fault.as_ref().map(|fault| json!({ "what": fault.line(), "hints": fault.hints })),
        "compromise": compromise_json(facts, outlook, now),
        "retired": retired.map(|retired| retired_json(retired, settings, now)),
        "preflight": facts.checked.as_ref().map(|checked| preflight_json(checked, plan)),
        "order": facts.order.as_ref().map(|order| json!({
            "url": order.url, "authority": settings.authority_name(&order.ca),
        })),
    })
}

fn compromise_json(facts: &CertificateFacts, outlook: &Outlook, now: Seconds) -> Option<Value> {
    let (compromise, (pin, step)) = facts.compromise.as_ref().zip(outlook.compromised)?;
    Some(json!({
        "pin": pin.to_string(), "since": time(compromise.since), "step": step,
        "accepted_until": compromise.accepted_until,
        "problem": compromise.attempts.last.as_ref().map(|last| last.reason().full_line()),
        "retry": Some(compromise.attempts.retry()).filter(|at| *at > now && !compromise.attempts.stopped).map(time),
    }))
}

fn retired_json(retired: &RetiredKey, settings: &Acme, now: Seconds) -> Value {
    let certificates = retired.certificates.iter().map(|issued| {
        json!({
            "serial": issued.serial, "not_after": time(issued.not_after),
            "authority": settings.authority_name(&issued.from), "revoked": !issued.is_open(now),
        })
    });
    json!({
        "pin": retired.pin.to_string(), "at": time(retired.at), "problem": retired.problem,
        "certificates": certificates.collect::<Vec<_>>(),
    })
}

fn preflight_json(checked: &Checked, plan: &CertificatePlan) -> Value {
    json!({
        "next": plan.next_check.map(time),
        "at": time(checked.at), "verdict": checked.verdict, "text": checked.text,
        "findings": checked.findings.iter().map(finding_json).collect::<Vec<_>>(),
        "ways": checked.ways,
    })
}

/// The next action, its time, and why only the operator can help.
fn action(plan: &CertificatePlan) -> (&'static str, Option<Seconds>, Option<String>) {
    match &plan.next {
        NextStep::Wait { until } => ("wait", Some(*until), None),
        NextStep::AskWindow => ("ask-window", None, None),
        NextStep::MakeKey(_) => ("make-key", None, None),
        NextStep::Preflight => ("preflight", None, None),
        NextStep::Order { .. } => ("order", None, None),
        NextStep::Resume => ("resume", None, None),
        NextStep::Abandon { .. } => ("abandon", None, None),
        NextStep::Revoke => ("revoke", None, None),
        NextStep::Burn => ("burn", None, None),
        NextStep::OperatorsTurn { stop, until } => ("operator", Some(*until), Some(stop_text(stop))),
    }
}
