//! A worker's clock: one tick, twice a second, instead of a timer for each wait.
//!
//! A task that waits holds an [`Alarm`] and sets its deadline; the tick wakes tasks whose alarms
//! are due. Setting an alarm is one store, so every read and write may extend its deadline.

pub mod boot;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::time::Instant;

/// The time between two ticks.
pub const TICK: Duration = Duration::from_millis(500);

/// A tick in the infinite future: the alarm is off.
const NEVER: u32 = u32::MAX;
/// A tick in the past: the alarm was rung.
const RUNG: u32 = 0;

/// Milliseconds since the process started, by a clock that never goes back and that does not stop
/// while the machine sleeps: a lease ends in its sleep, too. All threads count from the same start.
#[must_use]
pub fn uptime() -> u64 {
    let start = started();
    since_boot().saturating_sub(start)
}

/// The start of [`uptime`], by [`since_boot`].
#[must_use]
pub fn started() -> u64 {
    static START: LazyLock<u64> = LazyLock::new(since_boot);
    *START
}

/// Milliseconds since the machine was started. Its sleep counts.
#[must_use]
pub fn since_boot() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let [seconds, nanoseconds] = [now.tv_sec, now.tv_nsec].map(|part| u64::try_from(part).unwrap_or_default());
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)
}

/// The clock of one worker.
#[derive(Debug)]
pub struct Clock {
    now: Cell<u32>,
    uptime: Cell<u64>,
    /// The reading of this turn, once it was taken.
    reading: Cell<Option<Instant>>,
    /// The last tick, with its wall clock time in microseconds since 1970.
    wall: Cell<(Instant, i64)>,
    /// The last answer of [`wall`](Self::wall) since the tick, which many requests of a turn ask for.
    walled: Cell<Option<(Instant, i64)>>,
    alarms: RefCell<Vec<Rc<ClockState>>>,
    /// The rests of connections so far.
    rests: Cell<u64>,
    date: RefCell<(i64, Rc<str>)>,
}

#[derive(Debug)]
struct ClockState {
    due: Cell<u32>,
    /// The latest tick at which the alarm is due, however it is set.
    cap: Cell<u32>,
    /// The number of its rest, which grows with time, while the connection waits for its client with no request under way.
    /// Otherwise zero.
    rests: Cell<u64>,
    waker: RefCell<Option<Waker>>,
    /// The alarm's index in the clock's list.
    at: Cell<usize>,
}

impl Default for Clock {
    fn default() -> Self {
        let now = Timestamp::now();
        Self {
            now: Cell::new(1),
            uptime: Cell::new(uptime()),
            reading: Cell::default(),
            wall: Cell::new((Instant::now(), now.as_microsecond())),
            walled: Cell::default(),
            alarms: RefCell::default(),
            rests: Cell::new(0),
            date: RefCell::new((now.as_second(), date_of(now))),
        }
    }
}

impl Clock {
    /// Ticks until the worker ends.
    pub async fn run(&self) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.tick();
        }
    }

    pub(crate) fn tick(&self) {
        let now = self.now.get() + 1;
        self.now.set(now);
        self.uptime.set(uptime());
        let time = Timestamp::now();
        self.wall.set((Instant::now(), time.as_microsecond()));
        self.walled.set(None);
        if self.date.borrow().0 != time.as_second() {
            *self.date.borrow_mut() = (time.as_second(), date_of(time));
        }
        for alarm in self.alarms.borrow().iter() {
            if alarm.due.get() <= now {
                alarm.wake();
            }
        }
    }

    /// Wakes every task that holds an alarm, due or not.
    pub fn wake_all(&self) {
        for alarm in self.alarms.borrow().iter() {
            alarm.wake();
        }
    }

    /// Begins a turn of a connection's task: the time is read anew.
    pub fn begin_turn(&self) {
        self.reading.set(None);
    }

    /// The time of this turn. One reading serves all that a task does before it waits again.
    #[must_use]
    pub fn time(&self) -> Instant {
        let time = self.reading.get().unwrap_or_else(Instant::now);
        self.reading.set(Some(time));
        time
    }

    /// The wall clock's time at this instant, in milliseconds since 1970. After a step of that clock, right from the next
    /// tick on.
    #[must_use]
    pub fn wall(&self, at: Instant) -> i64 {
        if let Some((_, millis)) = self.walled.get().filter(|(known, _)| *known == at) {
            return millis;
        }
        let (tick, micros) = self.wall.get();
        let since = i64::try_from(at.saturating_duration_since(tick).as_micros()).unwrap_or_default();
        let millis = micros.saturating_add(since).div_euclid(1000);
        self.walled.set(Some((at, millis)));
        millis
    }

    /// The number of ticks so far.
    #[must_use]
    pub fn ticks(&self) -> u32 {
        self.now.get()
    }

    /// The [`uptime`] of the last tick: long ago, if the machine has slept since.
    #[must_use]
    pub fn uptime(&self) -> u64 {
        self.uptime.get()
    }

    /// Creates an alarm that is off.
    #[must_use]
    pub fn alarm(self: &Rc<Self>) -> Alarm {
        let mut alarms = self.alarms.borrow_mut();
        let state = Rc::new(ClockState {
            due: Cell::new(NEVER),
            cap: Cell::new(NEVER),
            rests: Cell::new(0),
            waker: RefCell::default(),
            at: Cell::new(alarms.len()),
        });
        alarms.push(state.clone());
        Alarm { clock: self.clone(), state }
    }

    /// The time for a Date field (RFC 9110 section 5.6.7), at most one tick old.
    #[must_use]
    pub fn date(&self) -> Rc<str> {
        self.date.borrow().1.clone()
    }
}

fn date_of(time: Timestamp) -> Rc<str> {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap_or_default().into()
}

impl ClockState {
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// A duration in ticks, rounded up.
#[must_use]
pub fn ticks_of(time: Duration) -> u32 {
    const A_SECOND: u64 = 1_000_000_000 / TICK.subsec_nanos() as u64;
    // Seconds and the rest apart: this runs at every read and write, and the milliseconds of the
    // longest duration do not fit into 64 bits.
    let part = u64::from(time.subsec_nanos()).div_ceil(u64::from(TICK.subsec_nanos()));
    let ticks = time.as_secs().saturating_mul(A_SECOND).saturating_add(part);
    u32::try_from(ticks).unwrap_or(u32::MAX).min(NEVER / 2)
}

/// A deadline for one task, beside its other wake-ups.
#[derive(Debug)]
pub struct Alarm {
    clock: Rc<Clock>,
    state: Rc<ClockState>,
}

impl Alarm {
    /// Sets the deadline: never early, at most one tick late.
    pub fn set(&self, after: Duration) {
        self.set_tick(self.tick_after(after));
    }

    /// The tick at which the alarm would be due if it were set now.
    #[must_use]
    pub fn tick_after(&self, after: Duration) -> u32 {
        self.clock.now.get() + ticks_of(after) + 1
    }

    /// Sets the deadline to a tick that [`Self::tick_after`] has returned.
    pub fn set_tick(&self, tick: u32) {
        self.state.due.set(tick.min(self.state.cap.get()));
    }

    /// Switches the alarm off, except for the cap.
    pub fn clear(&self) {
        self.state.due.set(self.state.cap.get());
    }

    /// Caps the deadline: from now on the alarm is due after `after` at the latest, however it is
    /// set, until [`Self::uncap`].
    pub fn cap(&self, after: Duration) {
        self.state.cap.set(self.clock.now.get() + ticks_of(after) + 1);
    }

    /// Removes the cap. The deadline stays.
    pub fn uncap(&self) {
        self.state.cap.set(NEVER);
    }

    /// `true` if the cap's time has passed.
    #[must_use]
    pub fn is_past_cap(&self) -> bool {
        self.state.cap.get() <= self.clock.now.get()
    }

    /// Notes whether the connection waits for its client with no request under way. Such a
    /// connection may be closed to make room for another one.
    pub fn rests(&self, rests: bool) {
        match (rests, self.state.rests.get()) {
            (true, 0) => {
                let number = self.clock.rests.get() + 1;
                self.clock.rests.set(number);
                self.state.rests.set(number);
            }
            (true, _) => {}
            (false, _) => self.state.rests.set(0),
        }
    }

    /// `true` if the alarm was rung early.
    #[must_use]
    pub fn was_rung(&self) -> bool {
        self.state.due.get() == RUNG
    }

    /// A handle that can ring the alarm early.
    #[must_use]
    pub fn ringer(&self) -> Ringer {
        Ringer(self.state.clone())
    }

    /// Ready once the alarm is due. Otherwise wakes the task then, and when the clock wakes every
    /// task.
    pub fn poll_due(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_due() {
            return Poll::Ready(());
        }
        let mut waker = self.state.waker.borrow_mut();
        match &*waker {
            Some(w) if w.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// `true` if the alarm is due.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.state.due.get() <= self.clock.now.get()
    }
}

/// A handle that makes an alarm of another task due.
#[derive(Debug)]
pub struct Ringer(Rc<ClockState>);

impl Ringer {
    /// Rings the alarm.
    pub fn ring(&self) {
        self.0.due.set(RUNG);
        self.0.wake();
    }

    /// `true` if the connection waits for its client with no request under way, and the alarm was
    /// not rung yet.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        self.rest().is_some()
    }

    /// The number of the connection's rest, if it is at rest: who has rested for longer has a smaller one.
    #[must_use]
    pub fn rest(&self) -> Option<u64> {
        Some(self.0.rests.get()).filter(|rest| *rest != 0 && self.0.due.get() != RUNG)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut alarms = self.clock.alarms.borrow_mut();
        let at = self.state.at.get();
        alarms.swap_remove(at);
        if let Some(moved) = alarms.get(at) {
            moved.at.set(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn alarms_ring_when_due_and_not_before() {
        let clock = Rc::new(Clock::default());
        let (alarm, other) = (clock.alarm(), clock.alarm());
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let cx = Context::from_waker(&waker);
        alarm.set(Duration::from_millis(800));
        assert!(alarm.poll_due(&cx).is_pending() && other.poll_due(&cx).is_pending());
        clock.tick();
        clock.tick();
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        assert!(!alarm.is_due());
        clock.tick();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(alarm.poll_due(&cx).is_ready() && !other.is_due());
        alarm.clear();
        assert!(!alarm.is_due());
        drop(alarm);
        clock.wake_all();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        drop(other);
        clock.wake_all();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_cap_holds_however_the_alarm_is_set() {
        let clock = Rc::new(Clock::default());
        let alarm = clock.alarm();
        alarm.cap(Duration::from_secs(1));
        for _ in 0..3 {
            alarm.set(Duration::from_secs(100));
            assert!(!alarm.is_due() && !alarm.is_past_cap());
            clock.tick();
        }
        assert!(alarm.is_due() && alarm.is_past_cap());
        alarm.clear();
        assert!(alarm.is_due());
        alarm.uncap();
        alarm.set(Duration::from_secs(1));
        assert!(!alarm.is_due() && !alarm.is_past_cap());
    }

    #[test]
    fn one_reading_serves_a_turn() {
        let clock = Clock::default();
        let (first, second) = (clock.time(), clock.time());
        assert_eq!(first, second);
        let wall = clock.wall(first);
        assert!((Timestamp::now().as_millisecond() - wall).abs() < 10_000, "{wall}");
        assert_eq!(clock.wall(first + Duration::from_millis(7)), wall + 7);
        std::thread::sleep(Duration::from_millis(1));
        clock.begin_turn();
        assert!(clock.time() > first);
    }

    #[test]
    fn date_form() {
        assert_eq!(&*date_of(Timestamp::from_second(784_111_777).unwrap()), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
