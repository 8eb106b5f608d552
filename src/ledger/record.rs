//! The records of the ledger.

use serde::{Deserialize, Serialize};

use super::time::day;
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::policy::promise::{Promise, Seconds, SiteNames};

/// One entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The format of the file.
    Format(u32),
    /// Clients may hold a set of pins.
    Promise(Promise),
    /// The progress of a ramp, which raises a max-age step by step.
    Ramp(Ramp),
    /// The operator accepts that clients are locked out.
    Accepted(Accepted),
    /// Another key is served where an excused one was.
    Replaced(Replaced),
    /// The operator accepts a lost promise or a clock that jumped.
    Repair(Repair),
    /// A process kept the ledger at this time. Without it, a ledger that nothing is added to would
    /// make the clock look wrong after a year.
    Seen(Seconds),
    /// A key was compromised: it never serves again, and does not count as a backup.
    Burnt(Burnt),
    /// No client holds a promise that another folder's ledger has.
    Declined(Declined),
    /// The clock by which a process dates promises.
    Clock(ClockNote),
    /// A newer version's record, kept unchanged. [`Record::strictest`] returns the promise in it,
    /// if any.
    Unknown(String),
}

/// The header whose max-age a ramp raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ramped {
    /// Public-Key-Pins
    Hpkp,
    /// Strict-Transport-Security
    Hsts,
}

/// The progress of a ramp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ramp {
    /// The site, by its first name.
    pub site: String,
    /// The header whose max-age it raises.
    pub policy: Ramped,
    /// The step in use, from 0.
    pub step: usize,
    /// The time since which this step has had no failure.
    pub since: Seconds,
}

/// A lockout: a chain that is served although it breaks promises.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Accepted {
    /// The site, by its first name.
    pub site: String,
    /// The leaf's pin.
    pub pin: Pin,
    /// The sets that it breaks, by their id (`set_id`). Empty if the key is burnt, and was in use
    /// when this node heard of that: [`super::Book::serves_burnt`].
    pub sets: Vec<String>,
    /// The day from which it breaks nothing, as the operator wrote it.
    pub until: String,
    /// The time of the acceptance.
    pub at: Seconds,
    /// The hosts whose clients are locked out. Empty in a record of a version that did not note
    /// them: such a record covers all hosts of the site.
    pub hosts: Vec<HostPattern>,
    /// The names that wildcards among the hosts do not cover.
    pub except: Vec<HostPattern>,
    /// `true` if nobody chose the lockout: a merged or repaired promise is broken by the key that
    /// was in use. It ends with the use of the key ([`Replaced`]).
    pub is_excuse: bool,
}

/// The end of an excuse: the site serves another key now.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Replaced {
    /// The site, by its first name.
    pub site: String,
    /// The pin of the excused key.
    pub pin: Pin,
    /// Excuses up to this time are over.
    pub at: Seconds,
}

impl Accepted {
    /// Returns `true` from its day on: then the chain breaks nothing of it.
    #[must_use]
    pub fn is_over(&self, now: Seconds) -> bool {
        day(now) >= self.until
    }

    /// Returns the names whose clients are locked out; `None` if the record does not have them.
    #[must_use]
    pub fn names(&self) -> Option<SiteNames<'_>> {
        (!self.hosts.is_empty()).then_some(SiteNames { hosts: &self.hosts, except: &self.except })
    }
}

/// Faults that the operator accepted with `pintle ledger repair`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repair {
    /// The accepted faults, in words.
    pub what: Vec<String>,
    /// The time of the repair, which the operator confirms with it.
    pub at: Seconds,
}

/// A clock that dates promises, compared with the time since the machine's boot. If another process
/// of the same boot finds that the clock was set forward since, the dates by it are too early.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClockNote {
    /// The kernel's id of the boot.
    pub boot: String,
    /// The time since the boot, in milliseconds.
    pub uptime: u64,
    /// The clock at that moment, in milliseconds since 1970.
    pub at: i64,
    /// Dates later than this are by this clock.
    pub since: Seconds,
}

impl ClockNote {
    /// Returns the time of the boot by this clock, in milliseconds since 1970.
    #[must_use]
    pub fn booted(&self) -> i64 {
        self.at.saturating_sub(i64::try_from(self.uptime).unwrap_or(i64::MAX))
    }
}

/// A compromised key. It stays so for ever, on every node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Burnt {
    /// The site that had it, by its first name.
    pub site: String,
    /// Its pin.
    pub pin: Pin,
    /// The time of the record.
    pub at: Seconds,
}

/// A promise in another folder's ledger that no client holds, as the operator says: it does not count there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Declined {
    /// Its set, by its id (`set_id`).
    pub set: String,
    /// The time of the decision. What is promised later counts.
    pub at: Seconds,
}

impl Record {
    /// Returns `true` if the record matters to other nodes, too. A lockout accepted on one node is
    /// not accepted on another, which may be sending these very pins.
    #[must_use]
    pub fn travels(&self) -> bool {
        match self {
            Self::Accepted(_)
            | Self::Replaced(_)
            | Self::Repair(_)
            | Self::Declined(_)
            | Self::Seen(_)
            | Self::Clock(_) => false,
            Self::Format(_) | Self::Promise(_) | Self::Ramp(_) | Self::Burnt(_) | Self::Unknown(_) => true,
        }
    }
}
