//! The reason why a step of an order failed, and the remedy.

use instant_acme::Error;

use super::backoff::AttemptFailure;
use super::client::AcmeClient;
use super::problem::{AcmeProblem, AcmeRemedy};
use crate::keys::pin::Pin;
use crate::policy::promise::Seconds;
use crate::reason::Reason;

/// Nonces that an authority may reject in a row, beyond the three of each call.
pub(super) const NONCES_MAX: usize = 40;

/// A failed step.
#[derive(Debug, Clone)]
pub struct StepFault {
    /// The remedy.
    pub remedy: AcmeRemedy,
    /// The failure, with remedies of its own if it has some.
    pub reason: Box<Reason>,
    /// Retry-After of the answer, in seconds.
    pub retry_after: Option<Seconds>,
    /// Names whose validation failed.
    pub names: Vec<String>,
    /// `true` if the order is of no more use.
    pub ends_order: bool,
    /// The type of the authority's problem, without the prefix of ACME; empty if there is none.
    pub kind: String,
}

impl StepFault {
    /// A failure of this host: its disk, for instance.
    #[must_use]
    pub fn here(reason: impl Into<Reason>) -> Self {
        Self {
            remedy: AcmeRemedy::Temporary,
            reason: Box::new(reason.into()),
            retry_after: None,
            names: Vec::new(),
            ends_order: false,
            kind: String::new(),
        }
    }

    /// A failure that only the operator can end.
    #[must_use]
    pub fn operator(reason: impl Into<Reason>) -> Self {
        Self { remedy: AcmeRemedy::Operator, ..Self::here(reason) }
    }

    /// A problem that the authority reports.
    #[must_use]
    pub fn reported(problem: &AcmeProblem, retry_after: Option<Seconds>) -> Self {
        Self {
            remedy: problem.remedy(),
            reason: Box::new(problem.to_string().into()),
            retry_after,
            names: problem.failed_names().map(str::to_owned).collect(),
            ends_order: false,
            kind: problem.kind.clone(),
        }
    }

    /// An error of a request: the last answer has more to say about it than the error.
    #[must_use]
    pub fn of(error: Error, client: &AcmeClient) -> Self {
        let last = client.last();
        match &error {
            Error::Api(_) | Error::Json(_) | Error::Str(_) if last.status >= 400 => {
                Self::reported(&AcmeProblem::read(last.status, &last.body), last.retry_after)
            }
            Error::Api(problem) => Self::reported(&AcmeProblem::from(problem), last.retry_after),
            error => Self { retry_after: last.retry_after, ..Self::here(error.to_string()) },
        }
    }

    /// Returns `true` if the open order is of no more use.
    #[must_use]
    pub fn ends(&self) -> bool {
        self.ends_order || matches!(self.remedy, AcmeRemedy::Register | AcmeRemedy::WithoutReplaces)
    }

    /// Returns the failure for the record of attempts.
    #[must_use]
    pub fn failure(&self, key: Option<Pin>) -> AttemptFailure {
        AttemptFailure { remedy: self.remedy, reason: (*self.reason).clone(), retry_after: self.retry_after, key }
    }
}

/// Returns `true` if the authority rejects a nonce, and nothing else.
pub(super) fn is_nonce(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:badNonce"))
}

/// Makes a signed request, again and again while the authority rejects the nonce.
macro_rules! signed {
    ($request:expr, $client:expr) => {{
        let mut nonces = 0;
        loop {
            match $request.await {
                Err(error) if nonces < $crate::acme::fault::NONCES_MAX && $crate::acme::fault::is_nonce(&error) => {
                    nonces += 1;
                }
                done => break done.map_err(|error| $crate::acme::fault::StepFault::of(error, $client)),
            }
        }
    }};
}
pub(super) use signed;
