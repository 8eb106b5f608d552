//! A connection at rest. It holds what h2 has to remember (HPACK tables, settings, windows and stream numbers), and no
//! buffers, queues or streams: these are made anew when bytes come.

use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use h2::server::{Connection, Frozen};

use super::corked::Corked;
use super::memory::ConnectionMemory;
use super::{ConnectionDriver, FREEZES_AFTER, WatchedEvent};
use crate::clock::Alarm;
use crate::server::context::Context;
use crate::wire::min_rate::{MinRate, RateTimer};

/// The time until another attempt.
const RETRIES_AFTER: Duration = Duration::from_secs(1);

/// The rest of a [`ConnectionDriver`] without streams.
pub(super) struct FrozenConnection {
    h2: Frozen,
    io: Corked,
    requests: u64,
    since: u32,
    idle_end: u32,
    alarm: Alarm,
    min_rate: MinRate,
    memory: Rc<ConnectionMemory>,
    context: Rc<Context>,
}

impl ConnectionDriver {
    /// Returns the driver itself if anything is under way. It tries again later: h2 remembers a reset stream for a second.
    pub(super) fn freeze(self: Box<Self>) -> Result<Box<FrozenConnection>, Box<Self>> {
        let is_quiet = !self.closing
            && !self.finished
            && self.streams.is_empty()
            && self.meter.unfinished_head().is_none()
            && self.io.transport.borrow().is_flushed();
        let Some(h2) = is_quiet.then(|| self.connection.freeze()).flatten() else {
            if !self.alarm.is_due() {
                self.alarm.set_tick(self.alarm.tick_after(RETRIES_AFTER).min(self.idle_end));
            }
            return Err(self);
        };
        let Self { io, requests, since, idle_end, alarm, rate_timer, memory, context, .. } = *self;
        let min_rate = rate_timer.min_rate();
        Ok(Box::new(FrozenConnection { h2, io, requests, since, idle_end, alarm, min_rate, memory, context }))
    }
}

impl FrozenConnection {
    /// Ready when bytes come, or when the driver has something to decide: it is late, or the worker drains.
    pub(super) fn poll_woken(&self, cx: &mut TaskContext<'_>) -> Poll<()> {
        if self.context.worker.is_draining() || self.alarm.poll_due(cx).is_ready() {
            return Poll::Ready(());
        }
        self.io.transport.borrow().poll_readable(cx).map(drop)
    }

    /// Continues with the connection.
    pub(super) fn thaw(self: Box<Self>) -> Box<ConnectionDriver> {
        let Self { h2, io, requests, since, idle_end, alarm, min_rate, memory, context } = *self;
        if !alarm.is_due() {
            // Unless a stream opens, it is frozen again.
            alarm.set_tick(alarm.tick_after(FREEZES_AFTER).min(idle_end));
        }
        Box::new(ConnectionDriver {
            connection: Connection::thaw(h2, io.clone()),
            streams: FuturesUnordered::new(),
            requests,
            since,
            closing: false,
            watch: WatchedEvent::Rest,
            idle_end,
            finished: false,
            alarm,
            stall: context.worker.clock.alarm(),
            rate_timer: RateTimer::new(min_rate),
            unsent: 0,
            meter: io.meter.clone(),
            memory,
            io,
            context,
        })
    }
}
