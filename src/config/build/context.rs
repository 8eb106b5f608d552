//! The inputs of the checks, beside the file.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::config::Config;
use super::report::DaysInUse;
use crate::config::last_good::LastGood;
use crate::config::stamp::Stamps;
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::ledger::Book;
use crate::os::plain_file::tidy;
use crate::policy::promise::Seconds;
use crate::tls::certificate::Chain;

/// Everything beside the file that the checks depend on.
pub struct CheckContext<'a> {
    /// The promises.
    pub book: &'a Book,
    /// The time.
    pub now: Seconds,
    /// The configuration in use: unchanged parts are reused.
    pub before: Option<&'a Config>,
    /// `before` is served. During an upgrade it is not yet: it is the first look of the new process.
    pub is_served: bool,
    /// An unfit site keeps what it has in `before`, which must be of the same draft. Otherwise it makes the whole
    /// configuration unfit.
    pub keeps_sites: bool,
    /// The pairs that an earlier process served last.
    pub last_good: Option<LastGood>,
    /// The rule by which such a pair, or one of `before`, replaces an unfit one on disk.
    pub stand_in: StandIn,
    /// The sites that may be without a certificate if nothing replaces an unfit pair.
    pub may_lack: MayLack,
    /// With `keeps_sites`: a chain that has become shorter counts as unfit, unless its site (the first name) is one of
    /// these. A file that is being written may end behind any certificate.
    pub waits_for_chains: Option<Vec<String>>,
    /// Contents that replace those of files, as if they had been written. A chain may have its key in the same file.
    pub instead: HashMap<PathBuf, Zeroizing<Vec<u8>>>,
    /// Names of files in messages: an operator knows a certificate by the file it comes from.
    pub shown_as: HashMap<PathBuf, PathBuf>,
    /// The chains among `instead` are judged without their keys, which only the caller has.
    pub chains_alone: bool,
    /// Stamps of files of `before` that were taken just now.
    pub looked: Stamps,
    /// A lockout that the operator accepts by a command, besides those of the file.
    pub accept: Option<AcceptedByCommand>,
    /// The days in `accept_lockout_until` that another process serves with, by the site's first name; `None` if there is
    /// no such process, or if it does not say.
    pub days_in_use: Option<DaysInUse>,
    /// The chains of the pages over TLS of the process that an upgrade replaces: none without such pages. `None` if there
    /// is no such process, or if it does not say.
    pub pages_in_use: Option<Vec<Chain>>,
    /// The keys that refusals of the running process have named: a line of `accept_lockout_until` is about one of them.
    /// `None` if there is no such process, or if it does not say.
    pub named: Option<&'a NamedKeys>,
}

/// Keys that refusals have named: each with its site (the first name), as a pin.
pub type NamedKeys = HashSet<(String, String)>;

/// A lockout that the operator accepts by a command.
#[derive(Debug, Clone)]
pub struct AcceptedByCommand {
    /// The site, by its first name.
    pub site: String,
    /// The day until which clients are locked out.
    pub day: String,
    /// The leaf key of the accepted chain; `None` for any chain of the site.
    pub pin: Option<Pin>,
}

impl<'a> CheckContext<'a> {
    /// A context with nothing in use.
    #[must_use]
    pub fn new(book: &'a Book, now: Seconds) -> Self {
        Self {
            book,
            now,
            before: None,
            is_served: true,
            keeps_sites: false,
            last_good: None,
            stand_in: StandIn::Never,
            may_lack: MayLack::None,
            waits_for_chains: None,
            instead: HashMap::new(),
            shown_as: HashMap::new(),
            chains_alone: false,
            looked: Stamps::default(),
            accept: None,
            days_in_use: None,
            pages_in_use: None,
            named: None,
        }
    }
}

impl<'a> CheckContext<'a> {
    /// The name of a file in messages.
    pub(super) fn shown(&self, path: &Path) -> String {
        tidy(self.shown_as.get(path).map_or(path, PathBuf::as_path)).display().to_string()
    }

    /// `true` at a start beside no other process: what was served before must not go dark, as nobody else serves it.
    pub(super) fn is_start(&self) -> bool {
        self.stand_in == StandIn::Always && self.is_alone()
    }

    /// `true` for a check while no process serves. It says what a start would do.
    pub(super) fn is_check(&self) -> bool {
        self.stand_in == StandIn::Unchanged && self.is_alone()
    }

    /// `true` if no process serves: at a start, and in a command before it.
    pub(super) fn is_alone(&self) -> bool {
        self.before.is_none() && self.days_in_use.is_none() && !matches!(self.may_lack, MayLack::AllBut(_))
    }

    /// `true` if a refusal has named this key of a site, so that the operator can have meant it.
    pub(super) fn has_named(&self, site: &str, pin: Pin) -> bool {
        self.named.is_none_or(|named| named.contains(&(site.to_owned(), pin.to_string())))
    }

    /// The configuration that clients see now, if this process serves one.
    pub(super) fn served(&self) -> Option<&'a Config> {
        self.before.filter(|_| self.is_served)
    }
}

/// The conditions under which the pair that was served last replaces an unfit one on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandIn {
    /// Never: only the files on disk are judged.
    Never,
    /// Only if it is the very same pair: time has made it unfit, and nobody has changed anything.
    Unchanged,
    /// Always.
    Always,
}

/// The sites that may be without a certificate if a pair cannot be served and nothing replaces it. A site that clients reach
/// now keeps its pairs, whatever this says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MayLack {
    /// None: an unfit pair makes the whole configuration unfit.
    #[default]
    None,
    /// All of them.
    All,
    /// All except these, which the previous process serves.
    AllBut(Vec<ServedBefore>),
}

/// A site that the previous process serves with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedBefore {
    /// Its names.
    pub hosts: Vec<HostPattern>,
    /// The chains that it lacks all the same.
    pub missing: Vec<PathBuf>,
    /// The names that another pair than its own serves.
    pub replaced: Vec<HostPattern>,
    /// The names below its wildcards that nobody serves: refused, or those of sites without a certificate. `None` if the
    /// previous process does not say.
    pub unserved_below: Option<HashSet<HostPattern>>,
}
