//! The thread that delivers events.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::hook::{Hook, HookLimits};
use super::kind::Event;
use super::line::{DeliveryTurn, HookLine};
use super::outcome::{Means, Tried};
use crate::os::runtime;
use crate::upstream::dns::NameServers;

type HookLines = Arc<[Arc<HookLine>]>;

/// All hooks, as the control thread holds them.
pub struct Hooks {
    servers: NameServers,
    lines: HookLines,
    thread: Option<(watch::Sender<HookLines>, JoinHandle<()>)>,
}

impl Hooks {
    /// No hooks yet, and no thread.
    #[must_use]
    pub fn new(servers: NameServers) -> Self {
        Self { servers, lines: Arc::default(), thread: None }
    }

    /// Sets the hooks. They keep the events that wait, by their names if they have changed. Those that were
    /// disabled are tried again. Starts the thread if it is needed for the first time.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub fn set(&mut self, hooks: &[Hook], limits: HookLimits) -> io::Result<()> {
        let known = |hook: &Hook| self.lines.iter().find(|line| line.hook == *hook && line.limits == limits).cloned();
        let fresh = |hook: &Hook| Arc::new(HookLine::new(hook.clone(), limits));
        let lines: HookLines = hooks.iter().map(|hook| known(hook).unwrap_or_else(|| fresh(hook))).collect();
        lines.iter().for_each(|line| line.enable());
        let is_kept = |line: &Arc<HookLine>| lines.iter().any(|kept| Arc::ptr_eq(kept, line));
        for former in self.lines.iter().filter(|line| !is_kept(line)) {
            former.close(lines.iter().find(|line| line.hook.name == former.hook.name).cloned());
        }
        self.lines = lines;
        match &self.thread {
            Some((sender, _)) => _ = sender.send_replace(self.lines.clone()),
            None if !self.lines.is_empty() => self.thread = Some(self.start()?),
            None => {}
        }
        Ok(())
    }

    fn start(&self) -> io::Result<(watch::Sender<HookLines>, JoinHandle<()>)> {
        let (sender, lines) = watch::channel(self.lines.clone());
        let servers = self.servers.clone();
        let lost = "hooks: no runtime; no event is delivered";
        Ok((sender, runtime::spawn("hooks", lost, move || run(lines, servers))?))
    }

    /// Returns `true` without hooks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Returns the hooks.
    #[must_use]
    pub fn lines(&self) -> &[Arc<HookLine>] {
        &self.lines
    }

    /// Hands an event to each hook that wants it.
    pub fn emit(&self, event: Event) {
        let event = Arc::new(event);
        self.lines.iter().filter(|line| line.hook.wants(event.kind)).for_each(|line| line.push(event.clone()));
    }

    /// Sends an event to the hook with this name, or to each, at once and whatever it wants. Returns the names with the
    /// outcomes.
    pub fn test(&self, name: Option<&str>, event: impl Fn() -> Event) -> Vec<(String, oneshot::Receiver<Tried>)> {
        let lines = self.lines.iter().filter(|line| name.is_none_or(|name| line.hook.name == name));
        lines.map(|line| (line.hook.name.clone(), line.push_test(event()))).collect()
    }

    /// Ends the thread. Each event that was not tried yet is tried once; the returned future waits for that, for up to
    /// `limit`.
    pub fn end(&mut self, limit: Duration) -> impl Future<Output = ()> + use<> {
        let (thread, lines) = (self.thread.take(), self.lines.clone());
        async move {
            let Some((sender, thread)) = thread else { return };
            lines.iter().for_each(|line| line.try_last());
            drop(sender);
            let joined = tokio::task::spawn_blocking(move || thread.join());
            if timeout(limit, joined).await.is_err() {
                let waiting: usize = lines.iter().map(|line| line.numbers().waiting).sum();
                tracing::warn!(waiting, "hooks: events are given up, as this process ends");
            }
        }
    }
}

/// Runs a task for each hook until the control thread lets go.
async fn run(mut lines: watch::Receiver<HookLines>, servers: NameServers) {
    let mut known: Vec<Arc<HookLine>> = Vec::new();
    let mut tasks = JoinSet::new();
    loop {
        let now = lines.borrow_and_update().clone();
        for line in now.iter().filter(|line| !known.iter().any(|known| Arc::ptr_eq(known, line))) {
            tasks.spawn_local(serve(line.clone(), servers.clone()));
        }
        known = now.to_vec();
        if lines.changed().await.is_err() {
            break;
        }
    }
    while tasks.join_next().await.is_some() {}
}

async fn serve(line: Arc<HookLine>, servers: NameServers) {
    let mut means = Means::of(&line.hook, &servers, line.limits);
    loop {
        match line.turn(Instant::now()) {
            DeliveryTurn::Deliver(waiting) => {
                let tried = means.deliver(&line.hook, &waiting.event).await;
                line.note(waiting, tried);
            }
            DeliveryTurn::WaitUntil(until) => line.wait(until).await,
            DeliveryTurn::End => return,
        }
    }
}
