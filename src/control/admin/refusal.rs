//! Questions of pages that have no answer, and the parameters of questions.

use http::StatusCode;
use serde_json::{Value, json};

use crate::admin::api::Answer;
use crate::admin::asked;
use crate::keys::pin::Pin;
use crate::reason::Reason;

/// The answer, or the reason why there is none.
pub(in crate::control) type Answered = Result<Value, PageRefusal>;

/// A question that has no answer.
#[derive(Debug)]
pub(in crate::control) struct PageRefusal {
    status: StatusCode,
    kind: &'static str,
    reason: Box<Reason>,
}

impl PageRefusal {
    pub(in crate::control) fn new(status: StatusCode, kind: &'static str, reason: Reason) -> Self {
        Self { status, kind, reason: Box::new(reason) }
    }

    /// The host is in no site.
    pub(in crate::control) fn no_site(host: &str) -> Self {
        let reason = Reason::new(format!("no site has the host {host:?}")).hint("/v1/sites lists the sites");
        Self::new(StatusCode::NOT_FOUND, "no-site", reason)
    }

    /// A parameter is wrong.
    pub(in crate::control) fn wrong(reason: Reason) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "wrong", reason)
    }

    pub(in crate::control) fn answer(&self) -> Answer {
        let Self { status, kind, reason } = self;
        Answer::json(
            *status,
            json!({ "error": reason.line(), "kind": kind, "hints": reason.hints, "commands": reason.commands }),
        )
    }
}

/// A parameter of a query, decoded; empty if it is missing.
pub(in crate::control) fn parameter(query: &str, name: &str) -> String {
    asked::parameter(query, name).unwrap_or_default()
}

/// The pin of a parameter.
pub(in crate::control) fn pin(text: &str, name: &str) -> Result<Pin, PageRefusal> {
    text.trim().parse().map_err(|_| {
        let reason = Reason::new(format!("{name}: not a pin"));
        PageRefusal::wrong(reason.hint("44 characters of base64, as `pintle pin` prints them"))
    })
}
