//! An upgrade, seen from the serving process: it has a new process started, waits until that has
//! checked everything, and hands over. If anything fails before the new one serves, this one
//! continues.

use std::collections::HashSet;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Control;
use super::admin::UpgradeOutcome;
use super::cache::{close_disk, open_disk};
use super::changed_pages::{note_changes, note_no_changes};
use super::state::{Standby, StandingBy, Successor, Upgrade};
use crate::acme::request::DriverEnd;
use crate::config::LastGood;
use crate::config::value::show_duration;
use crate::handover::channel::ChannelError;
use crate::handover::{
    Channel, Go, HandedCopy, HandoverAnswer, Hello, Launcher, Released, ServedSite, Sockets, VERSION,
};
use crate::keys::pem;
use crate::ledger::Record;
use crate::os::words::words;
use crate::policy::Scheme;
use crate::reason::{Problem, Reason, of_peer, texts};

/// Time limit for sending a message: the new process reads at once.
const SEND: Duration = Duration::from_secs(10);
/// Time limit between the release of the ledger and the new process's service. Everything is
/// checked before; a look at recent changes and a few writes remain.
const TAKE_OVER: Duration = Duration::from_secs(15);
/// The wait for the exit status of a process that is about to end.
const END_WAIT: Duration = Duration::from_millis(100);
const OUT_OF_ORDER: &str = "the new process sent a message out of order";
const TRY_IT: &str = "check that the program file is a pintle for this host: `pintle --version`, then `pintle check`";

impl Control {
    /// Has a new process started, unless an upgrade is under way.
    pub(super) async fn begin_upgrade(&mut self, reply: Option<oneshot::Sender<UpgradeOutcome>>) {
        // The new process reads the file, too. It gets the contents, so a failure is harmless.
        let _ = self.keep_ledger().await;
        match self.have_started() {
            Ok((standing_by, called_off)) => {
                tracing::info!("upgrade: a new process is started, and checks everything");
                self.upgrades.under_way = Some(Upgrade { standing_by, called_off, reply });
            }
            Err(why) => self.upgrade_failed(reply, vec![why.into()]),
        }
    }

    fn have_started(&self) -> Result<(StandingBy, Arc<AtomicBool>), Reason> {
        if self.upgrades.under_way.is_some() {
            return Err("an upgrade is under way already".into());
        }
        if let Some(tie) = self.upgrades.tie {
            return Err(tie.reason());
        }
        let Some(launcher) = self.upgrades.launcher.clone() else {
            let why = self.upgrades.no_launcher.as_deref().unwrap_or("it has been dismissed");
            let what = format!("this process has no launcher ({why}), and cannot start another one");
            return Err(Reason::new(what).hint("restart pintle"));
        };
        let mut hello = Hello {
            version: VERSION,
            sockets: Vec::new(),
            ledger: self.known().lines,
            whole: true,
            served: Some(self.served_sites()),
            pages: Vec::new(),
            pages_chains: self.pages_chains(),
            named: Some(self.files.named.borrow().iter().cloned().collect()),
            copies: self.copies_to_hand_over(),
            state: Some(self.fixed.state.iter().cloned().collect()),
        };
        let mut files = Vec::new();
        for shared in self.server.shared() {
            hello.sockets.push(Sockets {
                asked: shared.asked,
                address: shared.address,
                tls: shared.scheme == Scheme::Https,
                count: shared.listeners.len(),
            });
            for listener in &shared.listeners {
                files.push(
                    listener.try_clone().map_err(|error| format!("a listener cannot be shared: {}", words(&error)))?,
                );
            }
        }
        let pages = self.operator.listener.pages.shared();
        for page in pages.map_err(|error| format!("a listener of the pages cannot be shared: {}", words(&error)))? {
            hello.pages.push(page.asked);
            files.push(page.socket);
        }
        let (called_off, limit) = (Arc::<AtomicBool>::default(), self.config.snapshot.limits.upgrade);
        let call_off = called_off.clone();
        let standing_by = spawn_blocking(move || {
            let mut launcher = launcher.lock().unwrap_or_else(PoisonError::into_inner);
            stand_by(&mut launcher, &hello, &files, limit, &call_off)
        });
        Ok((standing_by, called_off))
    }

    /// Handles the new process's readiness or failure. On success, it serves when this returns.
    pub(super) async fn hand_over(&mut self, standby: Result<Standby, Vec<Problem>>) -> Option<Successor> {
        let reply = self.upgrades.under_way.take().and_then(|mut upgrade| upgrade.reply.take());
        let standby = match standby {
            Ok(standby) => standby,
            Err(reasons) => {
                self.upgrade_failed(reply, reasons);
                return None;
            }
        };
        let (pid, version, notes) = (standby.pid, standby.version.clone(), standby.notes.clone());
        let state = standby.state.clone();
        // The new process continues the orders.
        drop(self.end_acme(DriverEnd::HandOver).await);
        if let Err(error) = self.keep_ledger().await {
            tracing::warn!(error = %words(&error), "cannot write the ledger's file: the new process gets its contents");
        }
        let go = self.go();
        self.lend_ledger();
        note_changes(&self.config);
        if let Some(closing) = close_disk(&self.config) {
            let _ = closing.await;
        }
        let taking_over = spawn_blocking(move || take_over(standby, &go)).await;
        match taking_over.unwrap_or_else(|panic| Err(vec![panic.to_string().into()])) {
            Ok(mut successor) => {
                successor.rotates = self.is_rotated(state.clone()).await;
                tracing::info!(pid, version, notes = notes.join("; "), "upgrade: the new process serves");
                self.set_ledger_aside(state).await;
                if let Some(reply) = reply {
                    let upgraded = UpgradeOutcome {
                        ok: true,
                        notes,
                        pid: Some(pid),
                        version: Some(version),
                        ..UpgradeOutcome::default()
                    };
                    let _ = reply.send(upgraded);
                }
                Some(successor)
            }
            Err(mut reasons) => {
                reasons.extend(self.give_up_successor().await.ok().flatten().map(Problem::from));
                self.retake_ledger().await;
                note_no_changes(&self.config);
                open_disk(&self.config, None);
                // The new process may have replaced these copies.
                self.forget_other_pairs(&self.config);
                self.keep_pairs(None);
                self.drive_acme().await;
                self.upgrade_failed(reply, reasons);
                None
            }
        }
    }

    /// The sites with a certificate: the new process must not be without one for them.
    fn served_sites(&self) -> Vec<ServedSite> {
        let (mut days, mut below) = (self.config.days(), self.config.unserved_below());
        let with_certificate = self.config.sites().filter(|site| !site.certificates.is_empty());
        let served = with_certificate.map(|site| {
            // A name that another pair serves must be served again.
            let refused: HashSet<&String> = site.refused_names.iter().collect();
            let (apart, replaced): (Vec<String>, Vec<String>) =
                site.names_apart.iter().cloned().partition(|name| refused.contains(&name));
            ServedSite {
                hosts: site.hosts.clone(),
                missing: site.missing.iter().filter_map(|missing| missing.path.clone()).collect(),
                apart,
                replaced,
                unserved_below: Some(site.hosts.iter().filter_map(|host| below.remove(host)).flatten().collect()),
                accept_lockout_until: days.remove(site.name()),
            }
        });
        served.collect()
    }

    /// The pairs in use that the new process would find nowhere: their files have others, and no folder has copies.
    fn copies_to_hand_over(&self) -> Vec<HandedCopy> {
        let has_all = |copies: &LastGood| !copies.has_failed() && !copies.is_incomplete();
        if self.files.copies.as_ref().is_some_and(has_all) {
            return Vec::new();
        }
        let now = self.now();
        self.config.pairs_to_hand_over(self.ledger().book(), now)
    }

    /// The chains that the pages over TLS are served with, in the form of [`Hello::pages_chains`].
    fn pages_chains(&self) -> Option<Vec<String>> {
        let Some(pages) = self.config.admin_https.as_deref() else { return Some(Vec::new()) };
        let certificates = &pages.tls.as_ref()?.certificates;
        Some(certificates.iter().map(|one| pem::certificates(one.der())).collect())
    }

    /// The message that tells the new process to take over.
    fn go(&self) -> Go {
        Go {
            tickets: self.config.tickets().keys(),
            chains: Vec::new(),
            ledger: self.known().lines,
            whole: true,
            since: Some(self.promises.time.borrow().since()),
            rates: self.config.snapshot.rates.as_ref().map(|rates| rates.counts.hand_over()),
        }
    }

    /// Ends a new process that does not serve. Returns an error if it may still run.
    pub(super) fn give_up_successor(&self) -> JoinHandle<Option<String>> {
        let launcher = self.upgrades.launcher.clone();
        spawn_blocking(move || launcher?.lock().unwrap_or_else(PoisonError::into_inner).kill().err())
    }

    /// Logs the launcher's end, once. During an upgrade, the upgrade notices it.
    pub(super) fn watch_launcher(&mut self) {
        let Some(launcher) = &self.upgrades.launcher else { return };
        let Ok(mut held) = launcher.try_lock() else { return };
        let Some(how) = held.ended() else { return };
        drop(held);
        tracing::error!(how, hint = "restart pintle", "the launcher has ended: no more upgrades");
        self.upgrades.launcher = None;
        self.upgrades.no_launcher = Some(format!("it has ended: {how}"));
    }

    fn upgrade_failed(&self, reply: Option<oneshot::Sender<UpgradeOutcome>>, reasons: Vec<Problem>) {
        let reasons = self.naming_keys(reasons);
        for Problem { reason, .. } in reasons.iter().filter(|problem| problem.is_error()) {
            tracing::error!(
                reason = reason.line(),
                hint = reason.hint_line(),
                "upgrade failed; the old process keeps serving"
            );
        }
        if let Some(reply) = reply {
            let _ = reply.send(UpgradeOutcome { problems: texts(&reasons), reasons, ..UpgradeOutcome::default() });
        }
    }

    /// Tells the service manager and the successor that this process has no name any more. Returns the channel.
    pub(super) async fn make_way(&mut self, successor: Successor) -> Option<Channel> {
        self.close_admin_listener();
        if let Some(launcher) = self.upgrades.launcher.take().and_then(|l| Arc::try_unwrap(l).ok()) {
            let launcher = launcher.into_inner().unwrap_or_else(PoisonError::into_inner);
            let _ = spawn_blocking(move || launcher.dismiss()).await;
        }
        let Successor { mut channel, pid, .. } = successor;
        self.operator.notify.successor(pid);
        let released = spawn_blocking(move || channel.send(&Released {}, &[], SEND).map(|()| channel)).await;
        released.ok()?.ok()
    }
}

/// Completes when the new process of an upgrade is ready, or has failed.
pub(super) async fn stands_by(upgrade: &mut Option<Upgrade>) -> Result<Standby, Vec<Problem>> {
    match upgrade {
        Some(upgrade) => {
            (&mut upgrade.standing_by).await.unwrap_or_else(|panic| Err(vec![format!("upgrade: {panic}").into()]))
        }
        None => std::future::pending().await,
    }
}

/// Starts a new process, and waits until it is ready. A process that fails is killed.
fn stand_by(
    launcher: &mut Launcher,
    hello: &Hello,
    files: &[TcpListener],
    limit: Duration,
    called_off: &AtomicBool,
) -> Result<Standby, Vec<Problem>> {
    let failed = |error: &dyn std::fmt::Display| vec![Problem::from(error.to_string())];
    let (mut channel, theirs) = Channel::pair().map_err(|e| failed(&e))?;
    let pid = launcher.launch(theirs).map_err(|e| failed(&e))?;
    let files: Vec<BorrowedFd<'_>> = files.iter().map(|f| f.as_fd()).collect();
    // If the process ends without listening, its reasons arrive below.
    let _ = channel.send(hello, &files, SEND.min(limit));
    let reason = match channel.receive(Some(limit), Some(called_off)) {
        Ok(HandoverAnswer::Ready { version, kept, notes, state }) => {
            return Ok(Standby { channel, pid, version, kept, notes, state });
        }
        Ok(HandoverAnswer::Failed { reasons, problems, named }) => {
            let _ = launcher.kill();
            return Err(refused(problems, &reasons, named));
        }
        Ok(HandoverAnswer::Serving) => Reason::new(OUT_OF_ORDER),
        Err(ChannelError::Ended) => {
            // It may be about to end: its exit status is worth the wait.
            std::thread::sleep(END_WAIT);
            let how = launcher.kill().unwrap_or_else(|why| why);
            let what = format!("the new process ended before it was ready ({how})");
            return Err(vec![Reason::new(what).hint(TRY_IT).into()]);
        }
        Err(ChannelError::Silent(_)) => {
            let limit = show_duration(limit);
            Reason::new(format!("the new process was not ready within {limit} (limits.upgrade), and was killed"))
                .hint(TRY_IT)
        }
        Err(error) => Reason::new(format!("the new process: {error}")),
    };
    let _ = launcher.kill();
    Err(vec![reason.into()])
}

/// The reasons of a new process that fails, with the keys that they refuse.
fn refused(problems: Vec<Problem>, reasons: &[String], named: Vec<(String, String)>) -> Vec<Problem> {
    let mut problems = of_peer(problems, reasons);
    for (site, key) in named {
        let is_its = |problem: &&mut Problem| problem.site.as_ref() == Some(&site) && problem.key.is_none();
        if let Some(problem) = problems.iter_mut().find(is_its) {
            problem.key = Some(key.into());
        }
    }
    problems
}

/// Tells the new process to take over, and waits until it serves.
fn take_over(standby: Standby, go: &Go) -> Result<Successor, Vec<Problem>> {
    let Standby { mut channel, pid, kept, .. } = standby;
    let answer = channel.send(go, &[], SEND).and_then(|()| channel.receive(Some(TAKE_OVER), None));
    match answer {
        Ok(HandoverAnswer::Serving) => {
            let scheme = |tls| if tls { Scheme::Https } else { Scheme::Http };
            let kept = kept.into_iter().map(|(a, tls)| (a, scheme(tls))).collect();
            Ok(Successor { channel, pid, kept, rotates: false })
        }
        Ok(HandoverAnswer::Failed { reasons, problems, named }) => Err(refused(problems, &reasons, named)),
        Ok(HandoverAnswer::Ready { .. }) => Err(vec![OUT_OF_ORDER.into()]),
        Err(ChannelError::Ended) => Err(vec!["the new process ended while taking over".into()]),
        Err(error) => Err(vec![format!("the new process did not take over: {error}").into()]),
    }
}

/// Parses ledger lines as records.
pub(super) fn records(lines: &[String]) -> io::Result<Vec<Record>> {
    let (book, notices) = crate::ledger::read_book(lines.concat().as_bytes());
    match notices.first() {
        None => Ok(book.records().collect()),
        Some(notice) => Err(io::Error::other(notice.to_string())),
    }
}
