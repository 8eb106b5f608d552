//! The failure of an order that the authority has judged, or does not know any more.

use std::path::Path;

use instant_acme::Order;
use serde_json::Value;

use super::client::AcmeClient;
use super::fault::{StepFault, signed};
use super::problem::{AcmeProblem, AcmeRemedy, MALFORMED, Subproblem, UNAUTHORIZED};
use crate::reason::pasted::pintle;
use crate::reason::shell_path;

/// An order that was not made, perhaps because it names the certificate that it replaces.
pub(super) fn not_made(fault: StepFault, has_replaces: bool, client: &AcmeClient) -> StepFault {
    let remedy = match fault.remedy {
        // An authority that has lost its memory, has another issuer by now, or knows another account as the predecessor's,
        // takes the order without it.
        AcmeRemedy::Operator if has_replaces && fault.kind == MALFORMED => AcmeRemedy::WithoutReplaces,
        AcmeRemedy::Validation if has_replaces => AcmeRemedy::WithoutReplaces,
        // It has taken the order, and ignored the field; or it fails over the field. `replaces` is a help (RFC 9773
        // section 5), and costs no renewal.
        AcmeRemedy::Temporary if has_replaces && matches!(client.last().status / 100, 2 | 5) => {
            AcmeRemedy::WithoutReplaces
        }
        other => other,
    };
    StepFault { remedy, ends_order: true, ..fault }
}

/// An order that the account may not make, as if the authority has closed it (RFC 8555 section 7.3.6): no name was validated
/// yet. `file` is the account's.
pub(super) fn barred(fault: StepFault, file: &Path, site: &str) -> StepFault {
    if fault.remedy != AcmeRemedy::Validation || fault.kind != UNAUTHORIZED {
        return fault;
    }
    let (from, to) = (shell_path(file), shell_path(&file.with_extension("old")));
    let renew = pintle(format_args!("acme renew --site {site}"));
    let hint = format!("if the CA has closed the account, for another one: mv {from} {to}; then: {renew}");
    StepFault { remedy: AcmeRemedy::Operator, reason: Box::new(fault.reason.hint(hint)), ..fault }
}

/// An open order that the authority does not show any more counts as one failure.
pub(super) fn gone(fault: StepFault) -> StepFault {
    match fault.remedy {
        AcmeRemedy::Temporary | AcmeRemedy::RateLimit | AcmeRemedy::Register => fault,
        _ => {
            let reason = Box::new(fault.reason.within(&"the open order is gone"));
            StepFault { remedy: AcmeRemedy::Temporary, reason, ends_order: true, ..fault }
        }
    }
}

/// Returns why an order is invalid: the problems of its names say most.
pub(super) async fn invalid(order: &mut Order, client: &AcmeClient) -> StepFault {
    let mut problems: Vec<Subproblem> = Vec::new();
    let own = order.state().error.as_ref().map(AcmeProblem::from);
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        // The states in memory are from the beginning.
        if signed!(authorization.refresh(), client).is_err() {
            break;
        }
        let document: Value = serde_json::from_slice(&client.last().body).unwrap_or_default();
        let errors = document["challenges"].as_array().into_iter().flatten().filter_map(|c| c.get("error"));
        let name = authorization.identifier().to_string();
        problems.extend(errors.map(AcmeProblem::of_json).map(|problem| Subproblem {
            identifier: Some(name.clone()),
            kind: problem.kind,
            detail: problem.detail,
        }));
    }
    let problem = match (own, problems.is_empty()) {
        (Some(own), true) => own,
        (None, true) => AcmeProblem { detail: "the order is invalid".to_owned(), ..AcmeProblem::default() },
        (_, false) => AcmeProblem { kind: "compound".to_owned(), subproblems: problems, ..AcmeProblem::default() },
    };
    StepFault { ends_order: true, ..StepFault::reported(&problem, None) }
}
