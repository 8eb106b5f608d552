//! The commands of the admin listener, and the values of their answers.

mod acme;
mod cache;
mod config;
mod explain;
mod install;
mod keys;
mod outcome;
mod pages;
mod records;
pub(super) mod refusal;
mod served;

use std::sync::Arc;

use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::config::report::SiteReport;
use crate::config::{DaysInUse, NamedKeys, Outline};
use crate::keys::pin::Pin;
use crate::ledger::Record;
use crate::policy::promise::Seconds;
use crate::reason::Reason;
use crate::telemetry::exposition::{Exposition, Format};

pub(super) use acme::AcmeCommand;
pub(super) use cache::{CacheCall, PurgeReply};
pub(super) use config::{Change, Changed, CheckedText, InUse};
pub use explain::DescribedRequest;
pub(super) use install::{InstallFacts, InstallJob, InstallStep, JudgedInstall, ReplacedFiles, Swapped};
pub(super) use keys::WantedKeys;
pub(super) use outcome::{AdoptionOrigin, Installed, Tested};
pub use outcome::{ReloadOutcome, UpgradeOutcome};
pub(super) use pages::{PageQuestion, PinsQuestion, RotationQuestion, WantedSites};
pub(super) use records::KeptRecords;
pub(super) use refusal::{Answered, PageRefusal};
pub use served::{CertificateToJudge, LockedOutSite, Objection};

/// The answer of `/ready` from a process that accepts no connections any more.
pub(super) const DRAINING: &str = "draining";

/// A command of the operator.
pub(super) enum AdminCommand {
    Reload {
        origin: AdoptionOrigin,
        reply: oneshot::Sender<ReloadOutcome>,
    },
    /// Look at a site's files now, and accept a lockout until `accept`: by any chain, or by the installed one.
    Certificates {
        host: String,
        accept: Option<String>,
        installed: Option<Installed>,
        reply: oneshot::Sender<ReloadOutcome>,
    },
    Status(oneshot::Sender<Value>),
    Metrics {
        format: Format,
        reply: oneshot::Sender<Exposition>,
    },
    /// Is this process accepting connections? `strict`: and has each site its certificate, and no renewal is overdue? The
    /// reason if not.
    Ready {
        strict: bool,
        reply: oneshot::Sender<Result<(), String>>,
    },
    Upgrade(oneshot::Sender<UpgradeOutcome>),
    /// Add records to the ledger. Answers with the number of new ones.
    Ledger {
        records: Vec<Record>,
        reply: oneshot::Sender<Result<usize, Reason>>,
    },
    /// Make promises for another program. Refused if a chain in use breaks them.
    Promise {
        records: Vec<Record>,
        reply: oneshot::Sender<Result<usize, Objection>>,
    },
    /// Return the served sites.
    Served(oneshot::Sender<Value>),
    /// May this certificate be served? It is not in place yet.
    Judge {
        asked: CertificateToJudge,
        reply: oneshot::Sender<ReloadOutcome>,
    },
    /// Since when is each pin of a site promised?
    Promised {
        site: String,
        reply: oneshot::Sender<Vec<(Pin, i64)>>,
    },
    /// The keys of the sites.
    Keys {
        wanted: WantedKeys,
        reply: oneshot::Sender<Value>,
    },
    /// The sites and their files, as the configuration in use names them.
    Outline(oneshot::Sender<Option<Arc<Outline>>>),
    /// The configuration in use, and where it is.
    Config(oneshot::Sender<InUse>),
    /// Judge a text as if it were the configuration file.
    CheckConfig {
        text: String,
        reply: oneshot::Sender<CheckedText>,
    },
    /// Change the configuration file, and put it into use.
    ChangeConfig {
        change: Box<Change>,
        reply: oneshot::Sender<Changed>,
    },
    /// A step of an installation.
    Install(InstallStep),
    /// About the certificates that pintle obtains.
    Acme(AcmeCommand),
    /// Explain a request.
    Explain {
        asked: Box<DescribedRequest>,
        shows_secrets: bool,
        reply: oneshot::Sender<Result<Value, Reason>>,
    },
    /// Return the recent records of the access log.
    Records(oneshot::Sender<KeptRecords>),
    /// Tell why a record's request ended as it did.
    ExplainRecord {
        record: Box<Value>,
        shows_secrets: bool,
        reply: oneshot::Sender<Value>,
    },
    /// Send a test to a hook, or to all. Answers with each hook and its failure.
    TestHooks {
        name: Option<String>,
        reply: oneshot::Sender<Tested>,
    },
    /// Show the caches, or what is stored of a URL.
    Cache {
        call: CacheCall,
        reply: oneshot::Sender<Result<Value, Reason>>,
    },
    /// Purge stored responses.
    Purge {
        call: CacheCall,
        reply: oneshot::Sender<Result<Value, Reason>>,
    },
    /// All records of the ledger.
    Book(oneshot::Sender<PromisesInForce>),
    /// Answer a question of a page.
    View {
        question: PageQuestion,
        reply: oneshot::Sender<Answered>,
    },
    /// Keep the report of `pintle doctor`.
    Findings {
        report: Value,
        reply: oneshot::Sender<()>,
    },
}

/// The process's knowledge of promises, and its time for judgements.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PromisesInForce {
    /// The time, in seconds since 1970.
    pub now: Seconds,
    /// The book, one line per record.
    pub lines: Vec<String>,
    /// The days in `accept_lockout_until` of the configuration in use.
    #[serde(default)]
    pub days: Option<DaysInUse>,
    /// The keys that refusals have named.
    #[serde(default)]
    pub named: Option<NamedKeys>,
}

/// Looks for a text in the names of a site: of ten thousand of them, so it is prepared once.
fn in_names(text: &str) -> impl Fn(&SiteReport) -> bool {
    let finder = Finder::new(text);
    move |site| text.is_empty() || site.hosts.iter().any(|host| finder.find(host.as_bytes()).is_some())
}
