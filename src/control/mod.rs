//! The control thread: what knows the operator. It loads and reloads, watches the files, keeps the ledger, and hands
//! snapshots to the workers; they never wait for it.

pub mod admin;
pub mod client;
pub mod confinement;
mod adopt;
mod ramp;
mod refresh;
mod reload;
mod socket;
mod status;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::config::{AccessTarget, Config, Context, Draft, Problems};
use crate::ledger::leases::Leases;
use crate::ledger::time::{Reading, Step, Time, wall};
use crate::ledger::{Ledger, Notice, OpenError};
use crate::policy::Scheme;
use crate::server::{Bound, Server};
use crate::telemetry::LogThread;
use crate::tls::keeper;
use crate::upstream::resolve::Resolver;

use admin::Command;
use refresh::Pending;
use reload::Fixed;
use socket::Door;
use watch::Watch;

pub use refresh::Refused;
pub use reload::Verdict;

/// How often leases, ramps and the clock are looked at. A lease is at least eight of these long.
const TICK: Duration = Duration::from_millis(500);
/// Sites that are announced one by one at the start; a log of ten thousand would be read by nobody.
const ANNOUNCED_MAX: usize = 200;
/// Commands that wait for their turn.
const COMMANDS: usize = 16;
/// After a ledger could not be written, it is tried again after this time.
const LEDGER_RETRY: Duration = Duration::from_secs(5);

/// What runs, and all that is known about it.
pub struct Control {
    draft: Draft,
    config: Config,
    fixed: Fixed,
    ledger: Arc<Mutex<Ledger>>,
    time: Time,
    server: Server,
    resolver: Rc<Resolver>,
    leases: Leases,
    watch: Watch,
    pending: Option<Pending>,
    /// Sites whose files are not fit to be served, by their first name.
    refused: BTreeMap<String, Refused>,
    /// Why nothing that is on disk can be served.
    unservable: Vec<String>,
    ledger_trouble: Option<LedgerTrouble>,
    counts: Counts,
    started: Timestamp,
    access_log: Option<LogThread>,
    /// Reports that have been seen, by site.
    reported: std::collections::HashMap<String, u64>,
    hangup: Signal,
    commands: mpsc::Receiver<Command>,
    sender: mpsc::Sender<Command>,
    door: Door,
}

/// Which sites keep what they have, if what is on disk is no good.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Keep {
    /// None: all is refused together.
    Nothing,
    /// Those that cannot be served.
    Unfit,
    /// Those whose chain has become shorter, too: it may be half written. Not so at these sites.
    UnfitAndShorter(Vec<String>),
}

/// Why pins are not sent at present.
struct LedgerTrouble {
    error: String,
    retry: Instant,
}

/// What has happened since the start.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Certificates that came into use after the start.
    pub rotations: u64,
    /// Certificates that were refused.
    pub rotations_refused: u64,
    /// Lockouts that the operator has accepted.
    pub lockouts_accepted: u64,
    /// Reloads that were carried out.
    pub reloads: u64,
    /// Reloads that were refused.
    pub reloads_refused: u64,
}

/// Why it cannot start.
#[derive(Debug)]
pub struct StartError(pub String);

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Opens a configuration's ledger. One that cannot be written is stood in for by one that says so at every write.
///
/// # Errors
///
/// When another process has it, or it cannot even be read: then nobody knows what was promised.
pub fn open_ledger(draft: &Draft) -> Result<(Ledger, Vec<Notice>), String> {
    let Some(folder) = draft.state() else { return Ok((Ledger::in_memory(), Vec::new())) };
    match Ledger::open(&folder, wall()) {
        Ok(opened) => Ok(opened),
        Err(OpenError::Locked) => Err(format!(
            "state.directory: {}: another process has the ledger; each pintle needs a state of its own",
            folder.display()
        )),
        Err(OpenError::Io(error)) => {
            let (book, notices) = match crate::ledger::look(&folder) {
                Ok(found) => found,
                // What is no folder has no ledger in it.
                Err(unread) if unread.kind() == io::ErrorKind::NotADirectory => Default::default(),
                Err(unread) => {
                    let file = folder.join(crate::ledger::FILE);
                    return Err(format!("{}: what was promised cannot be read: {unread}", file.display()));
                }
            };
            Ok((Ledger::broken(book, format!("{}: {error}", folder.display())), notices))
        }
    }
}

impl Control {
    /// Writes down what is about to be promised, and starts the workers on what is bound. Must be called on the thread's runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`], when it cannot serve.
    pub async fn start(draft: Draft, config: Config, ledger: Ledger, bound: Bound) -> Result<Self, StartError> {
        let hangup = signal(SignalKind::hangup())?;
        let fixed = Fixed::of(&config);
        let access_log = access_log(&config.access).map_err(StartError)?;
        let access = access_log.as_ref().and_then(LogThread::sink).map(|sink| (sink, config.access_format));
        let resolver = Rc::new(Resolver::new(config.name_servers.clone()));
        let reading = Reading::take();
        let time = Time::start(ledger.book().newest(), reading);
        let mut ledger = ledger;
        let mut leases = Leases::default();
        let counts = Counts { lockouts_accepted: config.accepted.len() as u64, ..Counts::default() };
        // A lockout that is not on record is none that was accepted.
        adopt::record_decisions(&mut ledger, &config).map_err(|e| StartError(format!("the ledger: {e}")))?;
        leases.hold(&config.pledges);
        let mut ledger_trouble = None;
        if let Some(renewal) = leases.due(time.now(reading), reading.uptime) {
            match ledger.record(renewal.records.clone()) {
                Ok(()) => leases.granted(&renewal),
                Err(error) => ledger_trouble = Some(LedgerTrouble::new(&error)),
            }
        }
        let server = Server::start(bound, config.snapshot.clone(), access)?;
        let (sender, commands) = mpsc::channel(COMMANDS);
        let mut control = Self {
            draft,
            fixed,
            ledger: Arc::new(Mutex::new(ledger)),
            time,
            server,
            resolver,
            leases,
            watch: Watch::start(),
            pending: None,
            refused: BTreeMap::new(),
            unservable: Vec::new(),
            ledger_trouble,
            counts,
            started: Timestamp::now(),
            access_log,
            reported: std::collections::HashMap::new(),
            hangup,
            commands,
            sender,
            door: Door::new(),
            config,
        };
        control.follow_names();
        control.watch.files(control.config.files().map(ToOwned::to_owned).collect());
        control.open_door();
        if let Some(trouble) = &control.ledger_trouble {
            trouble.tell();
        }
        Ok(control)
    }

    /// Where it listens, with the ports that the kernel chose.
    #[must_use]
    pub fn listening(&self) -> &[(SocketAddr, Scheme)] {
        self.server.listening()
    }

    /// Says what is live now.
    pub fn announce(&self) {
        for (address, scheme) in self.listening() {
            tracing::info!(%address, scheme = scheme.as_str(), "listening");
        }
        for site in self.config.sites().take(ANNOUNCED_MAX) {
            adopt::announce_site(site);
        }
        if let more @ 1.. = self.config.sites().len().saturating_sub(ANNOUNCED_MAX) {
            tracing::info!(sites = more, "and more sites: `pintle status` has them all");
        }
        if self.config.sites().any(|s| s.hpkp.is_some()) && self.fixed.state.is_none() {
            tracing::warn!(
                "state.directory is not set: what is promised to clients is forgotten at the next start, and cannot be \
                 kept then"
            );
        }
        tracing::info!(workers = self.server.workers(), sites = self.config.sites().len(), "serving");
    }

    /// Serves until it is told to stop; then the server is to be drained.
    pub async fn run(mut self, mut stop: impl AsyncFnMut()) -> (Server, Option<LogThread>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                // Whatever else is under way: a disk that hangs must not keep it from stopping.
                () = stop() => break,
                () = self.step(&mut tick) => {}
            }
            if keeper::held().is_some_and(keeper::Keeper::is_gone) {
                tracing::error!(
                    "the key process has ended, and no handshake can be signed without it: stopping, so that both are \
                     started anew"
                );
                break;
            }
        }
        self.close_door();
        (self.server, self.access_log)
    }

    async fn step(&mut self, tick: &mut tokio::time::Interval) {
        let due = self.pending.as_ref().map(|p| p.due);
        tokio::select! {
            _ = self.hangup.recv() => {
                let _ = self.reload().await;
            }
            Some(command) = self.commands.recv() => self.obey(command).await,
            () = self.watch.changed() => self.files_changed(),
            () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                self.look_at_files().await;
            }
            _ = tick.tick() => self.tick().await,
        }
    }

    async fn tick(&mut self) {
        let reading = Reading::take();
        match self.time.step(reading) {
            Step::None => {}
            Step::Forward(behind) => {
                tracing::warn!(
                    seconds = behind.seconds,
                    "the clock was set forward, or this machine slept: promises are written down anew"
                );
                let mut ledger = lock(&self.ledger);
                let mended = self.leases.was_behind(behind, ledger.book(), self.time.now(reading));
                ledger.believe(mended);
            }
            Step::Back(seconds) => tracing::warn!(seconds, "the clock was set back; no promise is shortened by that"),
        }
        self.renew_leases().await;
        self.climb_ramps().await;
        self.watch_door();
        if self.refused.values().any(|refused| refused.look_again <= Instant::now()) {
            self.look_at_files().await;
        }
        if self.server.has_failed() {
            tracing::error!("a worker has ended by a bug; please report it");
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Checks the draft again, with what is in use.
    fn resolve(&self, draft: &Draft, keep: Keep, accept: Option<(String, String)>) -> (Option<Config>, Problems) {
        let ledger = self.ledger();
        let context = Context {
            before: Some(&self.config),
            keeps_sites: keep != Keep::Nothing,
            waits_for_chains: match keep {
                Keep::UnfitAndShorter(settled) => Some(settled),
                Keep::Nothing | Keep::Unfit => None,
            },
            accept,
            ..Context::new(ledger.book(), wall())
        };
        draft.resolve(&context)
    }
}

impl LedgerTrouble {
    fn new(error: &io::Error) -> Self {
        Self { error: error.to_string(), retry: Instant::now() + LEDGER_RETRY }
    }

    fn tell(&self) {
        tracing::error!(
            error = self.error,
            "the ledger cannot be written: pins are withheld until it can, and everything else goes on; see that there is \
             room and leave to write in state.directory"
        );
    }
}

fn lock(ledger: &Arc<Mutex<Ledger>>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

fn access_log(target: &AccessTarget) -> Result<Option<LogThread>, String> {
    match target {
        AccessTarget::Off => Ok(None),
        AccessTarget::Stdout => LogThread::stdout().map(Some).map_err(|e| e.to_string()),
        AccessTarget::File(path) => {
            LogThread::file(path).map(Some).map_err(|e| format!("log.access: {}: {e}", path.display()))
        }
    }
}
