//! The control thread: what knows the operator. It loads and reloads, watches the files, keeps the ledger, and hands
//! snapshots to the workers; they never wait for it.

pub mod admin;
pub mod client;
pub mod sandbox_rules;
mod adopt;
mod ending;
mod prove;
mod ramp;
mod refresh;
mod reload;
pub mod served;
mod socket;
mod starting;
mod status;
mod takeover;
mod token;
mod upgrade;
mod watch;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::config::{Config, Context, Draft, LastGood, Looked, Problems, StandIn};
use crate::handover::Launcher;
use crate::ledger::leases::Leases;
use crate::ledger::time::{Doubt, Reading, Step, Time, wall};
use crate::ledger::{Book, Ledger, Notice, OpenError};
use crate::os::systemd::Notify;
use crate::policy::Scheme;
use crate::policy::guard::Seconds;
use crate::server::Server;
use crate::telemetry::LogThread;
use crate::tls::key_process;
use crate::upstream::dns::Resolver;

use admin::Command;
use refresh::Pending;
use reload::Fixed;
use socket::AdminListener;
use upgrade::Upgrade;
use watch::Watch;

pub use ending::Ended;
pub use refresh::Refused;
pub use reload::Verdict;
pub use starting::{Beginning, StartError};
pub use takeover::{Listeners, Newcomer};
pub use upgrade::Upgraded;

/// How often leases, ramps and the clock are looked at. A lease is at least eight of these long.
const TICK: Duration = Duration::from_millis(500);
/// A worker that has not ticked for this long does not live, as far as the service manager is told: it ticks twice a
/// second, if it gets to run.
const LIFE_MIN: Duration = Duration::from_secs(2);
/// Sites that are announced one by one at the start; a log of ten thousand would be read by nobody.
const ANNOUNCED_MAX: usize = 200;
/// Commands that wait for their turn.
const COMMANDS: usize = 16;
/// After a ledger could not be written, it is tried again after this time.
const LEDGER_RETRY: Duration = Duration::from_secs(5);
/// How often it is looked whether the ledger's file is still there, and as it was left.
const LEDGER_LOOK: Duration = Duration::from_secs(5);

/// What runs, and all that is known about it.
pub struct Control {
    draft: Draft,
    config: Config,
    fixed: Fixed,
    /// Copies of the pairs in use, if there is a place for them.
    copies: Option<LastGood>,
    ledger: Arc<Mutex<Ledger>>,
    time: RefCell<Time>,
    server: Server,
    resolver: Rc<Resolver>,
    leases: RefCell<Leases>,
    watch: Watch,
    pending: Option<Pending>,
    /// Sites whose files are not fit to be served, by their first name.
    refused: BTreeMap<String, Refused>,
    /// Why nothing that is on disk can be served.
    unservable: Vec<String>,
    ledger_trouble: Option<LedgerTrouble>,
    ledger_seen: Instant,
    counts: Counts,
    started: Timestamp,
    access_log: Option<LogThread>,
    /// Reports that have been seen, by site.
    reported: std::collections::HashMap<String, u64>,
    /// The last step of each site's pins that has waited because of reports.
    waited: BTreeMap<String, usize>,
    hangup: Signal,
    /// SIGUSR1: logs are to be reopened, and nothing else.
    reopen_asked: Signal,
    upgrade_asked: Signal,
    launcher: Option<Arc<Mutex<Launcher>>>,
    /// Why no upgrade is possible.
    no_launcher: Option<String>,
    upgrade: Option<Upgrade>,
    /// After an upgrade: the process before still has its name.
    released: Option<JoinHandle<()>>,
    draining: bool,
    notify: Notify,
    /// When the service manager was last told that all is well.
    shown: Instant,
    commands: mpsc::Receiver<Command>,
    sender: mpsc::Sender<Command>,
    door: AdminListener,
}

/// Which sites keep what they have, if what is on disk is no good.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Keep {
    /// None, and no pair either.
    NoPair,
    /// None: all is refused together. Pairs in use go on.
    Nothing,
    /// Those that cannot be served.
    Unfit,
    /// Those whose chain has become shorter, too: it may be half written. Not so at these sites.
    UnfitAndShorter(Vec<String>),
}

/// Why pins are not sent at present.
struct LedgerTrouble {
    error: String,
    /// It is the clock's fault, and not the disk's.
    by_clock: bool,
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

/// Opens a configuration's ledger. One that cannot be written is stood in for by one that says so at every write.
///
/// # Errors
///
/// When another process has it, when promises may be lost, or it cannot even be read: then nobody knows what was promised.
pub fn open_ledger(draft: &Draft) -> Result<(Ledger, Vec<Notice>), String> {
    open_ledger_with(draft, None)
}

/// The same, with a book of all that it should say, if there is one: then nothing can be lost.
fn open_ledger_with(draft: &Draft, known: Option<Book>) -> Result<(Ledger, Vec<Notice>), String> {
    let Some(folder) = draft.state() else {
        let mut ledger = Ledger::in_memory();
        ledger.believe(known.iter().flat_map(Book::records).collect());
        return Ok((ledger, Vec::new()));
    };
    let opened = match known.clone() {
        Some(known) => Ledger::mend(&folder, known, wall()),
        None => Ledger::open(&folder, wall()),
    };
    match opened {
        Ok(opened) => Ok(opened),
        Err(error @ OpenError::Damaged(_)) => Err(format!(
            "{}: {error}; a copy is kept as {}\n  hint: {}",
            folder.join(crate::ledger::FILE).display(),
            crate::ledger::DAMAGED,
            remedy(draft.path())
        )),
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
                    let hint = hint_to_read(&file, &unread).map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
                    return Err(format!("{}: what was promised cannot be read: {unread}{hint}", file.display()));
                }
            };
            let mut book = book;
            known.iter().flat_map(Book::records).for_each(|record| _ = book.apply(record));
            Ok((Ledger::broken(book, format!("{}: {error}", folder.display())), notices))
        }
    }
}

/// What to do about a ledger that may have lost promises.
#[must_use]
pub fn remedy(config: &Path) -> String {
    let (config, today) = (config.display(), crate::ledger::repair::day(wall()));
    format!(
        "if there is a newer copy of the file, put it back; `pintle ledger repair -c {config}` shows what is left. To go on \
         with that, and accept that clients who hold a lost promise may be locked out: pintle ledger repair -c {config} \
         --accept-loss {today}"
    )
}

/// What to do about a file of the state that this user may not read or write.
#[must_use]
pub fn hint_to_read(file: &Path, error: &io::Error) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    if error.kind() != io::ErrorKind::PermissionDenied {
        return None;
    }
    let folder = file.parent().unwrap_or(file);
    let owner = [file, folder].into_iter().find_map(|path| std::fs::metadata(path).ok()).map(|m| m.uid());
    let me = rustix::process::geteuid().as_raw();
    Some(match owner {
        Some(owner) if owner != me => format!(
            "it belongs to user {owner}, and this is user {me}: run the command as that user (`sudo -u '#{owner}' pintle \
             ...`) or as root; if pintle is to serve as user {me}: chown {me} {}",
            file.display()
        ),
        _ => format!("chmod u+rwX {} {}", folder.display(), file.display()),
    })
}

impl Control {
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

    /// Serves until it is told to stop, or another process does, and lets everything finish then.
    ///
    /// # Errors
    ///
    /// When a worker ended by a bug.
    pub async fn run(mut self, mut stop: impl AsyncFnMut()) -> io::Result<Ended> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.released.is_none() {
            self.notify.ready(&self.summary());
        }
        let successor = loop {
            tokio::select! {
                biased;
                // Whatever else is under way: a disk that hangs must not keep it from stopping.
                () = stop() => break None,
                successor = self.step(&mut tick) => if successor.is_some() { break successor },
            }
            if key_process::held().is_some_and(key_process::KeyProcess::is_gone) {
                tracing::error!(
                    "the key process has ended, and no handshake can be signed without it: stopping, so that both are \
                     started anew"
                );
                break None;
            }
        };
        self.end(successor, &mut stop).await
    }

    /// What it does, for the service manager.
    fn summary(&self) -> String {
        format!("serving {} sites by pintle {}", self.config.sites().len(), env!("CARGO_PKG_VERSION"))
    }

    /// One thing that has come up. Gives the process that has taken over, if one has.
    async fn step(&mut self, tick: &mut tokio::time::Interval) -> Option<upgrade::Successor> {
        let due = self.pending.as_ref().map(|p| p.due);
        tokio::select! {
            _ = self.hangup.recv() => {
                let _ = self.reload().await;
            }
            _ = self.reopen_asked.recv() => self.reopen_log().await,
            _ = self.upgrade_asked.recv() => self.begin_upgrade(None),
            standby = upgrade::stands_by(&mut self.upgrade) => return self.hand_over(standby).await,
            () = takeover::released(&mut self.released) => {
                self.released = None;
                self.open_door();
                self.notify.ready(&self.summary());
            }
            Some(command) = self.commands.recv() => self.obey(command).await,
            () = self.watch.changed() => self.files_changed(),
            () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                self.look_at_files().await;
            }
            _ = tick.tick() => self.tick().await,
        }
        None
    }

    /// Tells the service manager that all is well, if it is: this thread has come here, and each worker has ticked.
    fn show_life(&mut self) {
        let Some(period) = self.notify.watchdog().filter(|_| self.released.is_none()) else { return };
        if self.shown.elapsed() >= period / 4 && self.server.is_alive((period / 2).max(LIFE_MIN)) {
            self.shown = Instant::now();
            self.notify.alive();
        }
    }

    async fn tick(&mut self) {
        let _ = self.now();
        self.look_after_ledger().await;
        self.renew_leases().await;
        self.climb_ramps().await;
        self.watch_door();
        self.watch_launcher();
        self.show_life();
        self.server.tidy();
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

    /// The time that every judgement takes: after what the clocks did since they were looked at last has been taken into
    /// account. Not to be called by who holds the ledger.
    fn now(&self) -> Seconds {
        let reading = Reading::take();
        let mut time = self.time.borrow_mut();
        match time.step(reading) {
            Step::None => {}
            Step::Forward(behind) => {
                tracing::warn!(
                    seconds = behind.seconds,
                    "the clock was set forward, or this machine slept: promises are written down anew"
                );
                let mut ledger = self.ledger();
                let mended = self.leases.borrow_mut().was_behind(behind, ledger.book(), time.now(reading));
                ledger.believe(mended);
            }
            Step::Back(seconds) => tracing::warn!(seconds, "the clock was set back; no promise is shortened by that"),
            // It is told where pins are withheld for it. If the clock is right, all dates since the start are too early.
            Step::Doubtful(_) => self.leases.borrow_mut().revoke(),
        }
        time.judged(reading)
    }

    /// Checks the draft again, with what is in use.
    fn build(&self, draft: &Draft, keep: Keep, accept: Option<(String, String)>) -> (Option<Config>, Problems) {
        self.resolve_with(draft, Looked::default(), keep, accept)
    }

    /// The same, with files that were looked at just now.
    fn resolve_with(
        &self,
        draft: &Draft,
        looked: Looked,
        keep: Keep,
        accept: Option<(String, String)>,
    ) -> (Option<Config>, Problems) {
        let now = self.now();
        let ledger = self.ledger();
        let context = Context {
            before: Some(&self.config),
            keeps_sites: !matches!(keep, Keep::NoPair | Keep::Nothing),
            stand_in: if keep == Keep::NoPair { StandIn::Never } else { StandIn::Always },
            waits_for_chains: match keep {
                Keep::UnfitAndShorter(settled) => Some(settled),
                Keep::NoPair | Keep::Nothing | Keep::Unfit => None,
            },
            accept,
            looked,
            ..Context::new(ledger.book(), now)
        };
        draft.build(&context)
    }
}

impl LedgerTrouble {
    fn new(error: &io::Error) -> Self {
        Self { error: error.to_string(), by_clock: false, retry: Instant::now() + LEDGER_RETRY }
    }

    fn of_clock(doubt: Doubt) -> Self {
        Self { error: doubt.to_string(), by_clock: true, retry: Instant::now() }
    }

    fn tell(&self) {
        if self.by_clock {
            tracing::error!(
                error = self.error,
                "the clock cannot be right: pins are withheld, and everything else goes on"
            );
            return;
        }
        tracing::error!(
            error = self.error,
            "the ledger cannot be written: pins are withheld until it can, and everything else goes on; see that there is \
             room and leave to write in state.directory"
        );
    }

    /// Why pins are not sent, for `status`.
    fn why(&self) -> String {
        if self.by_clock { self.error.clone() } else { format!("the ledger cannot be written: {}", self.error) }
    }
}

fn lock(ledger: &Arc<Mutex<Ledger>>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
