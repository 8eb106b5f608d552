//! The start: what is on disk before anything is sent, and what is bound before anything is logged.

use std::collections::HashSet;
use std::io::{self, IsTerminal as _};
use std::rc::Rc;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use super::admin::AdoptionOrigin;
use super::cache::open_disk;
use super::ledger_trouble::LedgerTrouble;
use super::promises::sent_sets;
use super::reload::log_warnings;
use super::state::{
    Desk, Fixed, LedgerState, LoadHistory, Operator, PageSocket, Recorder, Reporter, SiteFiles, Spans, Upgrades,
};
use super::{Control, ProcessCounts, adopt};
use crate::config::history::How;
use crate::config::{AccessTarget, CheckContext, Config, Draft, LastGood, MayLack, StandIn};
use crate::handover::Launcher;
use crate::lease::Lease;
use crate::ledger::leases::Leases;
use crate::ledger::time::{ClockReading, Time, judged_now};
use crate::ledger::{Book, Ledger, LeftMark, boot, set_id};
use crate::os::supervisor::Tie;
use crate::os::systemd::Notify;
use crate::os::words::words;
use crate::policy::promise::Seconds;
use crate::reason::{Problem, Reason};
use crate::server::{Bound, Lent, Server};
use crate::telemetry::{AccessFormat, LogSink, LogThread, RecentRecords, Syslog};
use crate::upstream::dns::Resolver;

/// The parts that a process is started with.
#[derive(Default)]
pub struct Beginning {
    /// Sockets from the service manager.
    pub lent: Vec<Lent>,
    /// The launcher of a later upgrade.
    pub launcher: Option<Launcher>,
    /// `true` for a demo, which has no launcher by design.
    pub is_demo: bool,
    /// `true` to refuse every configuration in which a site would be without a certificate.
    pub strict: bool,
    /// The container or service that ends with this process; there is no launcher then.
    pub tie: Option<Tie>,
    /// The connection to the service manager.
    pub notify: Notify,
    /// The occasion, for the history of the configuration.
    pub how: How,
    /// The warnings about the configuration.
    pub warnings: usize,
    /// Bound sockets for the pages over TLS.
    pub pages: Vec<PageSocket>,
    /// The marks of folders whose promises the ledger takes along.
    pub left: Vec<LeftMark>,
}

/// The parts made before anything is bound or promised.
pub(super) struct Parts {
    hangup: Signal,
    reopen_asked: Signal,
    upgrade_asked: Signal,
    pub(super) access_log: Option<LogThread>,
    pub(super) spans: Spans,
    pub(super) resolver: Rc<Resolver>,
    /// Copies of the pairs in use; `None` without state.directory.
    pub(super) copies: Option<LastGood>,
}

/// The ledger and its clock, before anything is sent.
pub(super) struct Promised {
    ledger: Ledger,
    time: Time,
    leases: Leases,
    trouble: Option<LedgerTrouble>,
}

/// The reason why pintle cannot start.
#[derive(Debug)]
pub struct StartError(pub Reason);

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string().into())
    }
}

impl Control {
    /// Writes the promises of the configuration to the ledger, and starts the workers on the bound
    /// listeners. Must be called on the thread's runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`] if pintle cannot serve.
    pub async fn start(
        draft: Draft,
        config: Config,
        ledger: Ledger,
        bound: Bound,
        beginning: Beginning,
    ) -> Result<Self, StartError> {
        let parts = Parts::new(&config)?;
        let (ledger, config) = judged_by_all(&draft, ledger, config, beginning.strict)?;
        let promised = promise(ledger, &config, parts.copies.as_ref(), None, None).await?;
        mark_left(&beginning.left, &config);
        open_disk(&config, None);
        let server = parts.server(bound, &config)?;
        let mut control = Self::of_parts(draft, config, parts, promised, server, beginning);
        control.open_admin_listener();
        Ok(control)
    }

    pub(super) fn of_parts(
        draft: Draft,
        mut config: Config,
        parts: Parts,
        promised: Promised,
        server: Server,
        beginning: Beginning,
    ) -> Self {
        let (how, warnings) = (beginning.how, beginning.warnings);
        let Parts { hangup, reopen_asked, upgrade_asked, access_log, spans, resolver, copies } = parts;
        let Promised { mut ledger, time, leases, trouble } = promised;
        ledger.note_served();
        let names = std::mem::take(&mut config.names);
        let mut control = Self {
            strict: beginning.strict,
            observed: Default::default(),
            known_text: Default::default(),
            fixed: Fixed::of(&config),
            recorder: Recorder::of(config.state.as_deref(), draft.path()),
            server,
            resolver,
            promises: LedgerState::new(ledger, time, leases, trouble),
            files: SiteFiles::new(&draft, &config, copies),
            draft: Arc::new(draft),
            operator: Operator::new(hangup, reopen_asked, beginning.notify, access_log, spans),
            upgrades: Upgrades::new(upgrade_asked, beginning.launcher, beginning.is_demo, beginning.tie),
            counts: ProcessCounts { lockouts_accepted: config.accepted.len() as u64, ..ProcessCounts::default() },
            acme: Desk::default(),
            reporter: Reporter::new(config.name_servers.clone()),
            loads: LoadHistory::begin(),
            draining: false,
            config: Arc::new(config),
        };
        control.operator.listener.pages.bound = beginning.pages;
        control.keep_pairs(None);
        control.keep_version(AdoptionOrigin::own(how), warnings, &[]);
        control.follow_upstreams(names);
        control.files.watch.files(control.config.stamps().cloned().collect());
        if let Some(trouble) = &control.promises.trouble {
            trouble.log();
        }
        control
    }
}

impl Parts {
    /// Starts the workers on bound listeners.
    pub(super) fn server(&self, bound: Bound, config: &Config) -> io::Result<Server> {
        let access = access(self.access_log.as_ref(), config);
        Server::start(bound, config.snapshot.clone(), access, self.spans.sink.clone())
    }

    pub(super) fn new(config: &Config) -> Result<Self, StartError> {
        let parts = Self {
            hangup: signal(SignalKind::hangup())?,
            reopen_asked: signal(SignalKind::user_defined1())?,
            upgrade_asked: signal(SignalKind::user_defined2())?,
            access_log: access_log(config).map_err(StartError)?,
            spans: Spans::default(),
            resolver: Rc::new(Resolver::new(config.name_servers.clone())),
            copies: config.state.as_deref().map(LastGood::of),
        };
        // From here on the signals have a listener.
        crate::os::signals::let_in();
        Ok(parts)
    }
}

/// Judges a configuration once more if another program has put promises into the ledger's file since it was opened: nobody
/// has judged by them. This comes before anything of the configuration is copied.
fn judged_by_all(
    draft: &Draft,
    mut ledger: Ledger,
    config: Config,
    strict: bool,
) -> Result<(Ledger, Config), StartError> {
    let reading = ClockReading::take();
    let time = Time::start(ledger.book().newest(), reading);
    // A disk that cannot read the file may write it all the same.
    let foreign = ledger.foreign(time.undoubted(reading)).unwrap_or_default();
    if foreign.is_empty() {
        return Ok((ledger, config));
    }
    ledger.believe(foreign);
    tracing::warn!("another program has put promises into the ledger meanwhile: they count");
    let (now, _) = judged_now(ledger.book().newest());
    let context = CheckContext {
        last_good: config.state.as_deref().map(LastGood::of),
        stand_in: StandIn::Always,
        may_lack: if strict { MayLack::None } else { MayLack::All },
        ..CheckContext::new(ledger.book(), now)
    };
    let (again, problems) = draft.build(&context);
    let problems = problems.shown();
    match again {
        Some(again) => {
            log_warnings(&problems);
            Ok((ledger, again))
        }
        None => {
            let errors = problems.into_iter().filter(Problem::is_error).map(|problem| problem.reason);
            Err(StartError(Reason::of_all(&errors.collect::<Vec<_>>())))
        }
    }
}

/// Marks the folders whose promises the ledger has now: if one of them is named again, its start looks here.
pub(super) fn mark_left(left: &[LeftMark], config: &Config) {
    let Some(folder) = config.state.as_deref() else { return };
    let errors: Vec<io::Error> = left.iter().filter_map(|mark| mark.write(folder).err()).collect();
    if let Some(error) = errors.first() {
        tracing::warn!(error = %words(error), "cannot note in another folder that its promises are here now");
    }
}

/// Copies the pairs of a configuration, writes its promises to the ledger, and grants the leases.
/// `since` is when the previous process, if any, began to date promises by this clock, and `before` is its book: it still
/// serves, so only the sets that it sends, too, are granted now.
pub(super) async fn promise(
    mut ledger: Ledger,
    config: &Config,
    copies: Option<&LastGood>,
    since: Option<Seconds>,
    before: Option<&Book>,
) -> Result<Promised, StartError> {
    let reading = ClockReading::take();
    let time = Time::start(ledger.book().newest(), reading).dated_since(since);
    let time = time.dated_since(boot::dated_since(ledger.book()));
    let mut leases = Leases::default();
    let copying =
        copies.and_then(|copies| adopt::copy_first(copies, config, None, ledger.book(), time.judged(reading)));
    if let Some(copying) = copying {
        let _ = timeout(adopt::COPY_PATIENCE, copying).await;
    }
    // The configuration was judged by the book of a moment ago.
    if ledger.foreign(time.undoubted(reading)).is_ok_and(|foreign| !foreign.is_empty()) {
        let what = "another program has put promises into the ledger meanwhile: nobody has judged by them";
        return Err(StartError(Reason::new(what).hint("try again")));
    }
    // Writes the first records of a new ledger. After a failure, the next write tries again.
    let _ = ledger.keep();
    // A lockout that is not in the ledger is not accepted, and the copies stay.
    adopt::record_decisions(&mut ledger, config)
        .map_err(|e| StartError(format!("the ledger: {}", words(&e)).into()))?;
    adopt::forget_other_pairs(copies, config, ledger.book(), time.judged(reading));
    leases.hold(&config.pledges);
    let mut trouble = time.doubt(reading).map(LedgerTrouble::of_clock);
    if trouble.is_none()
        && let Some(mut renewal) = leases.due(time.now(reading), reading.uptime)
    {
        renewal.records.extend(boot::note(ledger.book(), &time));
        match ledger.record(renewal.records.clone()) {
            Ok(()) => {
                let now = match before {
                    Some(before) => {
                        let sets = sent_sets(before, time.now(reading));
                        let sent = config.pledges.iter().filter(|pledge| sets.contains(&set_id(&pledge.promise)));
                        let sent: HashSet<*const Lease> = sent.map(|pledge| Arc::as_ptr(&pledge.lease)).collect();
                        renewal.part(|lease| sent.contains(&Arc::as_ptr(lease)))
                    }
                    None => renewal,
                };
                leases.granted(&now);
            }
            Err(error) => trouble = Some(LedgerTrouble::new(&error)),
        }
    }
    Ok(Promised { ledger, time, leases, trouble })
}

fn access(log: Option<&LogThread>, config: &Config) -> Option<(LogSink, AccessFormat)> {
    let log = log?;
    log.bound(config.snapshot.limits.log_queue);
    // A person reads a terminal. Programs read everything else.
    let is_terminal = config.access == AccessTarget::Stdout && io::stdout().is_terminal();
    let format = match (&config.access, config.access_format) {
        // For the recent records alone.
        (AccessTarget::Off, _) => AccessFormat::Json,
        (_, Some(format)) => format,
        (_, None) if is_terminal => AccessFormat::Short,
        (_, None) => AccessFormat::Json,
    };
    Some((log.sink()?, format))
}

fn access_log(config: &Config) -> Result<Option<LogThread>, Reason> {
    let recent = (config.recent > 0).then(|| RecentRecords::new(config.recent));
    match &config.access {
        AccessTarget::Off => recent.map(LogThread::nowhere).transpose().map_err(|e| e.to_string().into()),
        AccessTarget::Stdout => LogThread::stdout(recent).map(Some).map_err(|e| e.to_string().into()),
        AccessTarget::Syslog(place) => {
            LogThread::syslog(Syslog::new(place.clone()), recent).map(Some).map_err(|e| e.to_string().into())
        }
        AccessTarget::File(path) => {
            let hint = |e: &io::Error| match e.kind() {
                io::ErrorKind::InvalidInput => Some("move it away, or name another file, or \"stdout\"".to_owned()),
                _ => None,
            };
            let reason =
                |e: io::Error| Reason::new(format!("log.access: {}: {}", path.display(), words(&e))).hints(hint(&e));
            LogThread::file(path, recent).map(Some).map_err(reason)
        }
    }
}
