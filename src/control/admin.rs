//! The commands of the admin listener, and the control thread's part in them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use super::config::{Change, Changed, CheckedText, InUse};
use super::events::Tested;
use super::explain::DescribedRequest;
use super::history::AdoptionOrigin;
use super::reload::{Installed, ReloadOutcome};
use super::served::{CertificateToJudge, Objection};
use super::upgrade::UpgradeOutcome;
use super::{Control, acme, cache, install, keys, records, views};
use crate::config::{DaysInUse, Outline};
use crate::keys::pin::Pin;
use crate::ledger::Record;
use crate::policy::promise::Seconds;
use crate::reason::Reason;
use crate::telemetry::exposition::{Exposition, Format};

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
        wanted: keys::WantedKeys,
        reply: oneshot::Sender<Value>,
    },
    /// The sites and their files, as the configuration in use names them.
    Outline(oneshot::Sender<Option<Outline>>),
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
    Install(install::InstallStep),
    /// About the certificates that pintle obtains.
    Acme(acme::AcmeCommand),
    /// Explain a request.
    Explain {
        asked: Box<DescribedRequest>,
        reply: oneshot::Sender<Result<Value, Reason>>,
    },
    /// Return the recent records of the access log.
    Records(oneshot::Sender<records::KeptRecords>),
    /// Tell why a record's request ended as it did.
    ExplainRecord {
        record: Box<Value>,
        reply: oneshot::Sender<Value>,
    },
    /// Send a test to a hook, or to all. Answers with each hook and its failure.
    TestHooks {
        name: Option<String>,
        reply: oneshot::Sender<Tested>,
    },
    /// Show the caches, or what is stored of a URL.
    Cache {
        call: cache::CacheCall,
        reply: oneshot::Sender<Result<Value, Reason>>,
    },
    /// Purge stored responses.
    Purge {
        call: cache::CacheCall,
        reply: oneshot::Sender<Result<Value, Reason>>,
    },
    /// All records of the ledger.
    Book(oneshot::Sender<PromisesInForce>),
    /// Answer a question of a page.
    View {
        question: views::PageQuestion,
        reply: oneshot::Sender<views::Answered>,
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
}

impl Control {
    /// Carries out a command. The answer is dropped if its caller has gone.
    pub(super) async fn obey(&mut self, command: AdminCommand) {
        match command {
            AdminCommand::Reload { origin, reply } => {
                let verdict = self.reload(origin).await;
                let _ = reply.send(verdict);
            }
            AdminCommand::Certificates { host, accept, installed, reply } => {
                let verdict = self.look_at_site(&host, accept, installed).await;
                let _ = reply.send(verdict);
            }
            AdminCommand::Ready { strict, reply } => {
                _ = reply.send(if strict { self.strictly_ready() } else { Ok(()) })
            }
            AdminCommand::Upgrade(reply) => self.begin_upgrade(Some(reply)).await,
            AdminCommand::Status(reply) => _ = reply.send(self.status()),
            AdminCommand::Metrics { format, reply } => _ = reply.send(self.metrics(format)),
            AdminCommand::Ledger { records, reply } => {
                let result = self.merge(records).await;
                let _ = reply.send(result);
            }
            AdminCommand::Promise { records, reply } => {
                let result = self.promise(records).await;
                let _ = reply.send(result);
            }
            AdminCommand::Served(reply) => _ = reply.send(self.served()),
            AdminCommand::Judge { asked, reply } => _ = reply.send(self.judge_certificate(&asked)),
            AdminCommand::Promised { site, reply } => _ = reply.send(self.promised(&site)),
            AdminCommand::Explain { asked, reply } => {
                let report = self.explain(&asked).await;
                let _ = reply.send(report);
            }
            AdminCommand::Records(reply) => _ = reply.send(self.kept_records()),
            AdminCommand::ExplainRecord { record, reply } => {
                let explained = self.explain_record(&record).await;
                let _ = reply.send(explained);
            }
            AdminCommand::Keys { wanted, reply } => _ = reply.send(self.keys(&wanted)),
            AdminCommand::Outline(reply) => _ = reply.send(self.draft.outline()),
            AdminCommand::Config(reply) => self.config_in_use(reply),
            AdminCommand::CheckConfig { text, reply } => _ = reply.send(self.check_config(text)),
            AdminCommand::ChangeConfig { change, reply } => {
                let changed = self.change_config(*change).await;
                let _ = reply.send(changed);
            }
            AdminCommand::Install(step) => self.obey_install(step).await,
            AdminCommand::Acme(asked) => self.ask_acme(asked),
            AdminCommand::TestHooks { name, reply } => self.test_hooks(name.as_deref(), reply),
            AdminCommand::View { question, reply } => _ = reply.send(self.view(question)),
            AdminCommand::Findings { report, reply } => self.keep_findings(report, reply),
            AdminCommand::Cache { call, reply } => _ = reply.send(self.cache(&call)),
            AdminCommand::Purge { call, reply } => self.purge(&call, reply),
            AdminCommand::Book(reply) => {
                // The caller reads the file, too.
                let _ = self.keep_ledger().await;
                let _ = reply.send(self.known());
            }
        }
    }
}
