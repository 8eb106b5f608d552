//! The output of a plan: the next action, its time, its key, and the reasons.

use std::fmt;

use crate::config::own_key::UnusableKeyFile;
use crate::policy::promise::Seconds;

/// One of the two keys of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyChoice {
    /// The live key.
    Live,
    /// The next key.
    Next,
}

/// The next action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing before this time, at most a day from now.
    Wait {
        /// The time.
        until: Seconds,
    },
    /// Ask the issuer for the renewal information of the chain in use.
    AskWindow,
    /// Make this key. A next key is promised at once.
    MakeKey(KeyChoice),
    /// Check that the CA will reach pintle, and may issue.
    Preflight,
    /// Order a certificate.
    Order {
        /// The key to order for.
        key: KeyChoice,
        /// The CA, by its place in the facts.
        ca: usize,
        /// The identifier of the replaced certificate.
        replaces: Option<String>,
    },
    /// Continue the open order.
    Resume,
    /// Forget the open order.
    Abandon {
        /// The reason.
        why: Abandoned,
    },
    /// Revoke the certificates of the compromised key. The new key serves already.
    Revoke,
    /// Mark the compromised key as burnt in the ledger, and forget the compromise.
    Burn,
    /// Only the operator can help. pintle tries again daily all the same.
    OperatorsTurn {
        /// The reason.
        stop: Stop,
        /// The time of the next try, or at which the plan may look different.
        until: Seconds,
    },
}

/// The reason why an order is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abandoned {
    /// It expired. This counts as a failure.
    Expired,
    /// The site has other names now.
    Names,
    /// Its key must not be used any more, or not yet.
    Key,
    /// Its CA is no longer configured, or gives no certificate.
    Authority,
    /// The CA has all that it asked for, and does not issue. This counts as a failure.
    Stuck,
}

/// Why a due order waits, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The time.
    pub until: Seconds,
    /// The reason.
    pub cause: HoldCause,
}

/// Why a due order waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldCause {
    /// A limit of pintle's budget.
    Budget(String),
    /// The CA asked for the wait: its words.
    RateLimit(String),
    /// An attempt failed: its words.
    Failure(String),
    /// The preflight failed; then it is repeated.
    Preflight,
    /// The CA works on the open order.
    Order,
}

impl HoldCause {
    /// Returns its name in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Budget(_) => "budget",
            Self::RateLimit(_) => "rate-limit",
            Self::Failure(_) => "failure",
            Self::Preflight => "preflight",
            Self::Order => "order",
        }
    }

    /// Returns `true` for a limit on orders, pintle's or the CA's.
    #[must_use]
    pub const fn is_limit(&self) -> bool {
        matches!(self, Self::Budget(_) | Self::RateLimit(_))
    }
}

impl fmt::Display for HoldCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget(limit) => f.write_str(limit),
            Self::RateLimit(text) => write!(f, "the CA's rate limit: {text}"),
            Self::Failure(text) => write!(f, "the last attempt failed: {text}"),
            Self::Preflight => f.write_str("the preflight failed"),
            Self::Order => f.write_str("the CA works on the open order"),
        }
    }
}

/// The reason why only the operator can help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Each CA refused for a reason that no retry changes. The last one's words.
    Refused(String),
    /// No CA takes the keys that may be used now. The time from which the next key may be used, if
    /// that helps.
    KeysRefused(Option<Seconds>),
    /// The live key is burnt, and the next one would lock out clients until this time.
    Burnt(Seconds),
    /// The file of the live key holds no usable key.
    Key(UnusableKeyFile),
    /// No CA is configured.
    NoAuthority,
}

/// The reason why a certificate is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderReason {
    /// There is none yet.
    First,
    /// The site has names that the certificate lacks.
    Names(Vec<String>),
    /// The certificate belongs to another key than the live one.
    OtherKey,
    /// The certificate is from a CA that is no longer configured.
    OtherCa,
    /// The CA's window; with the page that explains it, if any.
    Window(Option<String>),
    /// The part of the lifetime that is left.
    Lifetime,
    /// `pintle acme renew`.
    Asked,
    /// The changeover to the next key.
    Changeover(Cause),
}

/// The reason why the key changes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// `rotate_every` has passed.
    RotateEvery,
    /// `pintle key rotate`.
    Asked,
    /// The operator or the ledger declares the live key compromised.
    Compromised,
}

/// A changeover to the next key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changeover {
    /// Why.
    pub cause: Cause,
    /// The time from which it is wanted.
    pub wanted: Seconds,
    /// The time from which it is possible and wanted.
    pub from: Seconds,
}

impl Changeover {
    /// Returns `true` if the live key is compromised, and may change over now: also one that is burnt already.
    #[must_use]
    pub fn is_emergency(&self, now: Seconds) -> bool {
        self.cause == Cause::Compromised && self.from <= now
    }

    /// Returns `true` if it is wanted, and waits until clients know the next key.
    #[must_use]
    pub fn waits(&self, now: Seconds) -> bool {
        self.wanted <= now && now < self.from
    }
}

/// The state of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateStanding {
    /// In use, and not due.
    Current,
    /// Due for renewal, and under way.
    Due,
    /// Due for renewal and not renewed: an attempt failed, or a hundredth of the lifetime passed.
    Overdue,
    /// There is none yet.
    Missing,
    /// Expired.
    Expired,
}

impl CertificateStanding {
    /// Returns its name, as in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Due => "due",
            Self::Overdue => "overdue",
            Self::Missing => "missing",
            Self::Expired => "expired",
        }
    }

    /// Returns `true` if a renewal is due and not done, or the certificate has expired.
    #[must_use]
    pub const fn is_overdue(self) -> bool {
        matches!(self, Self::Overdue | Self::Expired)
    }

    /// Returns `true` if somebody should look at it.
    #[must_use]
    pub const fn is_alarming(self) -> bool {
        self.is_overdue() || matches!(self, Self::Missing)
    }
}

/// The plan of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatePlan {
    /// The next action.
    pub next: NextStep,
    /// The time of the next order, from which it is wanted. In the past if it is under way.
    pub due: Seconds,
    /// The reason why that order is made.
    pub why: OrderReason,
    /// The key that it will be made for, as far as the facts say now.
    pub key: KeyChoice,
    /// The state of the certificate.
    pub standing: CertificateStanding,
    /// The planned changeover, if any.
    pub changeover: Option<Changeover>,
    /// Why a due order waits; `None` if it does not.
    pub hold: Option<Hold>,
    /// The time of the next preflight; `None` if none is planned.
    pub next_check: Option<Seconds>,
}

impl fmt::Display for OrderReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("first certificate"),
            Self::Names(names) => write!(f, "new name {}", names.join(", ")),
            Self::OtherKey => f.write_str("the certificate is not for the live key"),
            Self::OtherCa => f.write_str("the certificate is from a CA that is no longer in [acme]"),
            Self::Window(None) => f.write_str("the CA's renewal window"),
            Self::Window(Some(page)) => write!(f, "the CA's renewal window, see {page}"),
            Self::Lifetime => f.write_str("part of the lifetime left"),
            Self::Asked => f.write_str("pintle acme renew"),
            Self::Changeover(cause) => write!(f, "changeover: {cause}"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RotateEvery => "rotate_every",
            Self::Asked => "pintle key rotate",
            Self::Compromised => "compromised key",
        })
    }
}

impl KeyChoice {
    /// Returns its name, as in the list of keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Next => "next",
        }
    }
}
