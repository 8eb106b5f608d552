//! A hook with the events that wait for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::hook::{Hook, HookLimits};
use super::kind::Event;
use super::outcome::Tried;

/// A hook and its events, shared by the control thread and the thread that delivers.
pub struct HookLine {
    /// The hook.
    pub hook: Hook,
    pub(super) limits: HookLimits,
    queue: Mutex<EventQueue>,
    wake: Notify,
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    disabled: AtomicBool,
}

/// The counters of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HookCounters {
    /// Events that the receiver has.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Events that were given up: the queue was full, all attempts failed, or the hook is disabled.
    pub dropped: u64,
    /// Events that wait.
    pub waiting: usize,
}

#[derive(Default)]
struct EventQueue {
    events: VecDeque<WaitingEvent>,
    paused_until: Option<Instant>,
    /// The last failure; `None` once something was delivered.
    problem: Option<String>,
    end: LineEnd,
    /// The line of the same hook after a change of its settings. It takes the events of a closed line.
    successor: Option<Arc<HookLine>>,
}

/// The end of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum LineEnd {
    /// It does not.
    #[default]
    Open,
    /// Events that were not tried yet are tried once.
    LastTries,
    /// At once.
    Closed,
}

/// An event that waits.
pub(super) struct WaitingEvent {
    pub(super) event: Arc<Event>,
    tries: usize,
    due: Instant,
    /// The caller of a test.
    reply: Option<oneshot::Sender<Tried>>,
}

/// The next step of the task that delivers.
pub(super) enum DeliveryTurn {
    Deliver(WaitingEvent),
    WaitUntil(Option<Instant>),
    End,
}

impl HookLine {
    pub(super) fn new(hook: Hook, limits: HookLimits) -> Self {
        Self {
            hook,
            limits,
            queue: Mutex::default(),
            wake: Notify::new(),
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            disabled: AtomicBool::new(false),
        }
    }

    fn queue(&self) -> MutexGuard<'_, EventQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_dropped(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Adds an event. If the queue is full, the oldest one is given up: newer news are worth more.
    pub(super) fn push(&self, event: Arc<Event>) {
        if self.is_disabled() {
            return self.count_dropped(1);
        }
        let mut queue = self.queue();
        queue.events.push_back(WaitingEvent { event, tries: 0, due: Instant::now(), reply: None });
        self.keep_bound(&mut queue);
        drop(queue);
        self.wake.notify_one();
    }

    fn keep_bound(&self, queue: &mut EventQueue) {
        while queue.events.len() > self.limits.queue {
            queue.events.pop_front();
            self.count_dropped(1);
        }
    }

    /// Adds a test: tried once, before all others, whatever the state of the hook.
    pub(super) fn push_test(&self, event: Event) -> oneshot::Receiver<Tried> {
        let (reply, tried) = oneshot::channel();
        let test = WaitingEvent { event: Arc::new(event), tries: 0, due: Instant::now(), reply: Some(reply) };
        self.queue().events.push_front(test);
        self.wake.notify_one();
        tried
    }

    pub(super) fn turn(&self, now: Instant) -> DeliveryTurn {
        let mut queue = self.queue();
        let end = queue.end;
        match end {
            LineEnd::Open => {}
            LineEnd::LastTries => {
                let all = queue.events.len();
                queue.events.retain(|waiting| waiting.tries == 0);
                self.count_dropped(all.saturating_sub(queue.events.len()));
                return queue.events.pop_front().map_or(DeliveryTurn::End, DeliveryTurn::Deliver);
            }
            LineEnd::Closed => {
                drop(queue);
                self.hand_over();
                return DeliveryTurn::End;
            }
        }
        let paused_until = queue.paused_until.filter(|until| *until > now);
        let due = |waiting: &WaitingEvent| match (&waiting.reply, paused_until) {
            (None, Some(until)) => waiting.due.max(until),
            _ => waiting.due,
        };
        let next = queue.events.iter().map(due).enumerate().min_by_key(|(at, due)| (*due, *at));
        match next {
            Some((at, due)) if due <= now => match queue.events.remove(at) {
                Some(waiting) => DeliveryTurn::Deliver(waiting),
                None => DeliveryTurn::WaitUntil(None),
            },
            next => DeliveryTurn::WaitUntil(next.map(|(_, due)| due)),
        }
    }

    /// Waits for a new event, or for that time.
    pub(super) async fn wait(&self, until: Option<Instant>) {
        tokio::select! {
            () = self.wake.notified() => {}
            () = async { tokio::time::sleep_until(until.unwrap_or_else(Instant::now)).await }, if until.is_some() => {}
        }
    }

    /// Notes the outcome of an attempt, and puts the event back if there will be another one.
    pub(super) fn note(&self, mut waiting: WaitingEvent, tried: Tried) {
        let (hook, event, id) = (self.hook.name.as_str(), waiting.event.kind.name(), waiting.event.id.as_str());
        if let Some(reply) = waiting.reply.take() {
            let _ = reply.send(tried);
            return;
        }
        let mut queue = self.queue();
        match &tried {
            Tried::Delivered => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
                if queue.problem.take().is_some() {
                    tracing::info!(hook, event, id, "hook works again");
                }
            }
            Tried::Gone => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.count_dropped(1 + queue.events.len());
                queue.events.clear();
                queue.problem = tried.why().map(str::to_owned);
                self.disabled.store(true, Ordering::Relaxed);
                let hint = "remove the hook, or `pintle reload` to try it again";
                tracing::error!(hook, event, id, hint, "hook disabled: its receiver answers 410");
            }
            Tried::Failed { why, throttles, pause } => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let next = self.hook.retry.get(waiting.tries).map(|pause| with_jitter(*pause));
                let next_try_seconds = next.map(|next| next.max(pause.unwrap_or_default()).as_secs());
                if queue.problem.is_none() {
                    tracing::warn!(hook, event, id, error = why, next_try_seconds, "hook failed");
                } else {
                    tracing::debug!(hook, event, id, error = why, next_try_seconds, "hook failed");
                }
                queue.problem = Some(why.clone());
                let now = Instant::now();
                if *throttles {
                    queue.paused_until = Some(now + pause.or(next).unwrap_or_default());
                }
                match next {
                    Some(next) => {
                        waiting.tries += 1;
                        waiting.due = now + next.max(pause.unwrap_or_default());
                        // It is older than those that wait.
                        queue.events.push_front(waiting);
                        self.keep_bound(&mut queue);
                    }
                    None => {
                        self.count_dropped(1);
                        tracing::error!(hook, event, id, error = why, "hook: event given up");
                    }
                }
            }
        }
    }

    /// Lets events that were not tried yet be tried once, then ends.
    pub(super) fn try_last(&self) {
        self.queue().end = LineEnd::LastTries;
        self.wake.notify_one();
    }

    /// Hands all events to the hook's next line, or gives them up, and ends.
    pub(super) fn close(&self, successor: Option<Arc<Self>>) {
        let mut queue = self.queue();
        (queue.end, queue.successor) = (LineEnd::Closed, successor);
        drop(queue);
        self.wake.notify_one();
    }

    /// Hands the events and the counters of a closed line on.
    fn hand_over(&self) {
        let mut queue = self.queue();
        let (events, successor) = (std::mem::take(&mut queue.events), queue.successor.clone());
        drop(queue);
        match successor {
            Some(successor) => successor.take_over(self, events),
            None => self.count_dropped(events.len()),
        }
    }

    /// Takes the events and the counters of the line before. It may have failed because of its settings, so each
    /// event is due now, with all of its attempts.
    fn take_over(&self, former: &Self, events: VecDeque<WaitingEvent>) {
        let counters =
            [(&self.delivered, &former.delivered), (&self.failed, &former.failed), (&self.dropped, &former.dropped)];
        for (own, before) in counters {
            own.fetch_add(before.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
        let mut queue = self.queue();
        // Not later than the events that wait here: the older ones come first.
        let now = Instant::now();
        let due = queue.events.front().map_or(now, |first| first.due.min(now));
        let wanted =
            events.into_iter().filter(|waiting| waiting.reply.is_none() && self.hook.wants(waiting.event.kind));
        for WaitingEvent { event, .. } in wanted.rev() {
            queue.events.push_front(WaitingEvent { event, tries: 0, due, reply: None });
        }
        self.keep_bound(&mut queue);
        let has_ended = queue.end == LineEnd::Closed;
        drop(queue);
        if has_ended {
            // The settings have changed again meanwhile.
            self.hand_over();
        }
        self.wake.notify_one();
    }

    /// Tries a disabled hook again.
    pub(super) fn enable(&self) {
        if self.disabled.swap(false, Ordering::Relaxed) {
            self.queue().problem = None;
        }
    }

    /// Returns `true` if the receiver wants no more events.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::Relaxed)
    }

    /// Returns why the last attempt failed; `None` if it did not.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.queue().problem.clone()
    }

    /// Returns the counters.
    #[must_use]
    pub fn numbers(&self) -> HookCounters {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let (delivered, failed, dropped) = (of(&self.delivered), of(&self.failed), of(&self.dropped));
        HookCounters { delivered, failed, dropped, waiting: self.queue().events.len() }
    }
}

/// A pause that differs by up to a fifth, so that many senders do not return at the same moment.
fn with_jitter(pause: Duration) -> Duration {
    let mut random = [0; 2];
    let _ = rand::fill(&mut random);
    let part = f64::from(u16::from_ne_bytes(random)) / f64::from(u16::MAX);
    pause.mul_f64(0.8 + 0.4 * part)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::events::hook::{HookTarget, RETRY};
    use crate::events::kind::{EventKind, Pattern};

    fn line(queue: usize, retry: &[Duration]) -> HookLine {
        let target = HookTarget::Command("/bin/true".into());
        let hook = Hook { name: "x".into(), events: vec![Pattern::All], target, retry: retry.to_vec() };
        HookLine::new(hook, HookLimits { queue, time: Duration::from_secs(20) })
    }

    fn event() -> Arc<Event> {
        Arc::new(Event::new(EventKind::UpstreamDown, Value::Null))
    }

    fn taken(line: &HookLine, now: Instant) -> WaitingEvent {
        match line.turn(now) {
            DeliveryTurn::Deliver(waiting) => waiting,
            DeliveryTurn::WaitUntil(_) | DeliveryTurn::End => panic!("nothing to deliver"),
        }
    }

    fn failed(throttles: bool, pause: Option<u64>) -> Tried {
        Tried::Failed { why: "no".into(), throttles, pause: pause.map(Duration::from_secs) }
    }

    #[test]
    fn retries_follow_the_schedule_and_keep_the_id() {
        let line = line(10, &RETRY);
        line.push(event());
        let mut now = Instant::now();
        let mut ids = Vec::new();
        for pause in RETRY {
            let waiting = taken(&line, now);
            ids.push(waiting.event.id.clone());
            line.note(waiting, failed(false, None));
            // Not at `now`, which is ahead: a later pause may be the shorter one, by its jitter.
            let DeliveryTurn::WaitUntil(Some(due)) = line.turn(Instant::now()) else { panic!("no retry") };
            let real = due.duration_since(Instant::now()).as_secs_f64();
            let want = pause.as_secs_f64();
            assert!(real > want * 0.79 - 1.0 && real < want * 1.21, "{real} {want}");
            now = due;
        }
        let waiting = taken(&line, now);
        ids.push(waiting.event.id.clone());
        line.note(waiting, failed(false, None));
        assert!(ids.iter().all(|id| *id == ids[0]));
        assert_eq!(line.numbers(), HookCounters { delivered: 0, failed: 10, dropped: 1, waiting: 0 });
    }

    #[test]
    fn a_full_queue_gives_the_oldest_up() {
        let line = line(2, &[]);
        let events: Vec<_> = (0..3).map(|_| event()).collect();
        events.iter().for_each(|event| line.push(event.clone()));
        assert_eq!(line.numbers().dropped, 1);
        let now = Instant::now();
        assert_eq!(taken(&line, now).event.id, events[1].id);
        assert_eq!(taken(&line, now).event.id, events[2].id);
    }

    #[test]
    fn an_overloaded_receiver_holds_all_events() {
        let line = line(10, &[Duration::from_secs(1)]);
        line.push(event());
        line.push(event());
        let now = Instant::now();
        line.note(taken(&line, now), failed(true, Some(100)));
        let DeliveryTurn::WaitUntil(Some(due)) = line.turn(now) else { panic!("not held") };
        assert!(due.duration_since(now).as_secs() >= 99);
        // A test passes.
        let mut tried = line.push_test(Event::new(EventKind::HookTest, Value::Null));
        line.note(taken(&line, Instant::now()), Tried::Delivered);
        assert_eq!(tried.try_recv().unwrap(), Tried::Delivered);
        assert_eq!(line.numbers().delivered, 0);
    }

    #[test]
    fn status_410_disables() {
        let line = line(10, &RETRY);
        line.push(event());
        line.push(event());
        line.note(taken(&line, Instant::now()), Tried::Gone);
        line.push(event());
        assert!(line.is_disabled() && line.problem().is_some());
        assert_eq!(line.numbers(), HookCounters { delivered: 0, failed: 1, dropped: 3, waiting: 0 });
        line.enable();
        line.push(event());
        assert_eq!(line.numbers().waiting, 1);
    }

    #[test]
    fn a_changed_hook_keeps_its_events() {
        let lines = [(); 3].map(|()| Arc::new(line(10, &RETRY)));
        let [first, second, third] = &lines;
        (0..3).for_each(|_| first.push(event()));
        let now = Instant::now();
        first.note(taken(first, now), Tried::Delivered);
        let under_way = taken(first, now);
        let mut ids = vec![under_way.event.id.clone()];
        let mut test = first.push_test(Event::new(EventKind::HookTest, Value::Null));
        // Changed twice while an attempt is under way; the line between has ended by then.
        first.close(Some(second.clone()));
        second.close(Some(third.clone()));
        assert!(matches!(second.turn(now), DeliveryTurn::End));
        third.push(event());
        first.note(under_way, failed(true, Some(100)));
        assert!(matches!(first.turn(now), DeliveryTurn::End));
        assert_eq!(third.numbers(), HookCounters { delivered: 1, failed: 1, dropped: 0, waiting: 3 });
        assert!(test.try_recv().is_err(), "a test is of the hook as it was");
        let now = Instant::now();
        let again = taken(third, now);
        ids.push(again.event.id.clone());
        assert_eq!((&ids[0], again.tries), (&ids[1], 0));
        // Without a successor, they are given up.
        third.close(None);
        assert!(matches!(third.turn(now), DeliveryTurn::End));
        assert_eq!(third.numbers().dropped, 2);
    }

    #[test]
    fn the_end_tries_new_events_once() {
        let line = line(10, &RETRY);
        line.push(event());
        let now = Instant::now();
        line.note(taken(&line, now), failed(false, None));
        line.push(event());
        line.try_last();
        line.note(taken(&line, now), failed(false, None));
        assert!(matches!(line.turn(now), DeliveryTurn::End));
        assert_eq!(line.numbers().dropped, 2);
    }
}
