//! HTTP/2 to clients: h2 implements the protocol, one task drives the connection and all of its streams.
//!
//! pintle uses h2 without hyper, because interim responses (103, 100) and a deadline for streams with a closed window need
//! the stream itself.

mod corked;
mod exchange;
mod frozen;
pub(super) mod head;
mod heads;
mod interim;
mod memory;
mod meter;
mod recv;
mod send;
mod stream;
mod tunnel;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream as _};
use h2::Reason;
use h2::server::{self, Connection};

use self::corked::Corked;
use self::memory::{ChargedBytes, ConnectionMemory};
use self::meter::Meter;
use self::stream::StreamEnd;
use super::context::{ClientTransport, Context};
use super::record::{RequestOutcome, record};
use super::rejection::Rejection;
use super::why;
use crate::clock::Alarm;
use crate::limits::{HTTP2_WINDOW, Limits};
use crate::message::{RequestHead, Version};
use crate::wire::min_rate::RateTimer;

/// Bytes that h2 buffers for one stream until the window opens.
const SEND_BUFFER: usize = 400 * 1024;
/// Bytes that h2 may count on top of a head that pintle accepts: 32 for each field, and each crumb of a cookie is a field.
const CRUMBS: usize = 16 * 1024;
/// Streams that the client has reset before pintle has accepted them: more is an attack (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that the client has made pintle reset (CVE-2025-8671).
const LOCAL_RESETS: usize = 1024;
/// The time without streams after which a connection is frozen: at the next tick, when a busy one is seldom without. It then
/// happens twice a second at most, and what it frees serves the next connections.
const FREEZES_AFTER: Duration = Duration::ZERO;

/// Returns the settings of connections.
pub(super) fn builder(limits: &Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(HTTP2_WINDOW)
        .initial_connection_window_size(HTTP2_WINDOW)
        .max_concurrent_streams(limits.http2_streams)
        // h2 counts 32 bytes on top of each field, and itself refuses larger heads; below that, pintle answers.
        .max_header_list_size(u32::try_from(limits.header_size * 2 + CRUMBS).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(LOCAL_RESETS))
        .enable_connect_protocol();
    builder
}

/// Serves a connection to its end.
pub(super) fn serve(transport: ClientTransport, context: Rc<Context>, alarm: Alarm) -> impl Future<Output = ()> {
    // Here, since an `async fn` would keep room for its arguments.
    let io = Corked { transport: Rc::new(RefCell::new(transport)), meter: Rc::default() };
    let beginning = Box::pin(begin(io, context, alarm));
    async move {
        let Some(mut driver) = beginning.await else { return };
        loop {
            match poll_fn(|cx| driver.poll(cx)).await {
                DriverEvent::Rests => {
                    driver = match driver.freeze() {
                        Ok(frozen) => {
                            poll_fn(|cx| frozen.poll_woken(cx)).await;
                            frozen.thaw()
                        }
                        Err(driver) => driver,
                    };
                }
                DriverEvent::Over { lingers } => {
                    let ConnectionDriver { io, context, alarm, .. } = *driver;
                    if lingers {
                        Box::pin(linger(&io, &context, &alarm)).await;
                    }
                    return;
                }
            }
        }
    }
}

/// Takes part in the handshake of HTTP/2.
async fn begin(io: Corked, context: Rc<Context>, alarm: Alarm) -> Option<Box<ConnectionDriver>> {
    let view = context.worker.view();
    let limits = &view.shared.limits;
    let builder = builder(limits);
    alarm.set(limits.handshake);
    alarm.rests(true);
    let mut handshake = pin!(builder.handshake::<_, ChargedBytes>(io.clone()));
    let connection = poll_fn(|cx| {
        let done = handshake.as_mut().poll(cx);
        let sent = io.poll_send(cx);
        match (done, sent) {
            (Poll::Ready(done), _) => Poll::Ready(done.ok()),
            (_, Poll::Ready(Err(_))) => Poll::Ready(None),
            _ => alarm.poll_due(cx).map(|()| None),
        }
    })
    .await;
    alarm.rests(false);
    Some(Box::new(ConnectionDriver {
        connection: connection?,
        streams: FuturesUnordered::new(),
        requests: 0,
        since: context.worker.ticks(),
        closing: false,
        watch: WatchedEvent::Nothing,
        finished: false,
        alarm,
        stall: context.worker.clock.alarm(),
        rate_timer: RateTimer::new(limits.min_rate()),
        unsent: 0,
        meter: io.meter.clone(),
        memory: ConnectionMemory::new(limits),
        idle_end: 0,
        io,
        context,
    }))
}

/// Ends pintle's side, and reads on for a while. Frames still on their way, such as WINDOW_UPDATE, would cause a reset, which
/// can overtake the end of an answer.
async fn linger(io: &Corked, context: &Context, alarm: &Alarm) {
    alarm.set(context.worker.view().shared.limits.linger);
    poll_fn(|cx| match io.transport.borrow_mut().poll_linger(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => alarm.poll_due(cx),
    })
    .await;
}

type StreamFuture = Pin<Box<dyn Future<Output = StreamEnd>>>;

/// The event that the connection's alarm is set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WatchedEvent {
    /// None: streams are open, and have their own limits.
    Nothing,
    /// No stream is open: the idle time runs.
    Rest,
    /// The head of that number has begun, and has its own time to be completed.
    Head(u64),
}

/// The reason for which the driver returns to its caller.
enum DriverEvent {
    /// The connection is over. If `lingers`, the client may still have to read something.
    Over { lingers: bool },
    /// No stream is open for a while.
    Rests,
}

struct ConnectionDriver {
    io: Corked,
    connection: Connection<Corked, ChargedBytes>,
    streams: FuturesUnordered<StreamFuture>,
    requests: u64,
    /// The tick at which it began.
    since: u32,
    /// GOAWAY has been sent, or is about to be.
    closing: bool,
    watch: WatchedEvent,
    /// The tick at which the idle time is over that has begun last.
    idle_end: u32,
    /// The connection is over, except for bytes that wait to be sent.
    finished: bool,
    alarm: Alarm,
    /// The longest time that the client may leave sent bytes unread.
    stall: Alarm,
    rate_timer: RateTimer,
    unsent: usize,
    meter: Rc<Meter>,
    memory: Rc<ConnectionMemory>,
    context: Rc<Context>,
}

impl ConnectionDriver {
    /// Reads, polls the streams, and sends the result with one write.
    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<DriverEvent> {
        self.set_alarm();
        self.meter.begin_turn();
        let worker = &self.context.worker;
        if worker.is_draining() && (self.requests > 0 || worker.ends_rest(true, self.since)) {
            self.close();
        }
        if !self.finished {
            self.finished = self.poll_accept(cx);
        }
        if !self.finished && self.poll_streams(cx) {
            // Turns the streams' output into frames.
            self.finished = self.connection.poll_closed(cx).is_ready();
        }
        if self.meter.is_flood() && !self.finished {
            self.end_flood("frames that request nothing", cx);
        }
        match self.poll_send(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(DriverEvent::Over { lingers: false }),
            // pintle does not read on from a client that floods.
            Poll::Ready(Ok(())) if self.finished => {
                return Poll::Ready(DriverEvent::Over { lingers: !self.meter.is_flood() });
            }
            _ => {}
        }
        self.set_alarm();
        if self.alarm.poll_due(cx).is_ready() {
            if self.alarm.was_rung() {
                return self.make_room(cx);
            }
            if self.watch == WatchedEvent::Rest {
                if self.closing {
                    return Poll::Ready(DriverEvent::Over { lingers: false });
                }
                if self.context.worker.ticks() < self.idle_end {
                    self.alarm.set_tick(self.idle_end);
                    return Poll::Ready(DriverEvent::Rests);
                }
            }
            if let WatchedEvent::Head(_) = self.watch {
                self.give_up_head(cx);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.close();
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn poll_accept(&mut self, cx: &mut TaskContext<'_>) -> bool {
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, mut respond)))) => {
                    self.requests += 1;
                    let limit = self.context.worker.view().shared.limits.requests_per_connection;
                    if self.requests >= limit {
                        self.close();
                    }
                    let Some(share) = self.memory.admit(head::bytes(&request)) else {
                        // It was not processed (RFC 9113 section 8.7). The refusal counts as a stream given up.
                        tracing::debug!(client = self.context.client.address(), "no memory for another request head");
                        respond.send_reset(Reason::REFUSED_STREAM);
                        self.streams.push(Box::pin(std::future::ready(StreamEnd::GivenUp)));
                        continue;
                    };
                    let stream = stream::serve(request, respond, self.context.clone(), self.meter.clone(), share);
                    self.streams.push(Box::pin(stream));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.note_end(&error);
                    return true;
                }
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
    }

    /// Returns `true` if streams were polled.
    fn poll_streams(&mut self, cx: &mut TaskContext<'_>) -> bool {
        if self.streams.is_empty() {
            return false;
        }
        while let Poll::Ready(Some(ended)) = Pin::new(&mut self.streams).poll_next(cx) {
            if ended == StreamEnd::GivenUp {
                let most = self.context.worker.view().shared.limits.http2_resets;
                if self.meter.give_up(self.context.worker.clock.ticks(), most) {
                    self.context.worker.limit_reached("http2_resets");
                    self.end_flood("streams opened and cancelled", cx);
                    return false;
                }
            }
        }
        true
    }

    /// Counts a connection that h2 has ended: by its own limits on floods, it gives this reason only.
    fn note_end(&self, error: &h2::Error) {
        if error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
            self.context.worker.counters.http2_floods.increment();
        }
        tracing::debug!(client = self.context.client.address(), %error, "HTTP/2 connection ended");
    }

    fn end_flood(&mut self, what: &'static str, cx: &mut TaskContext<'_>) {
        self.context.worker.counters.http2_floods.increment();
        tracing::debug!(client = self.context.client.address(), what, "HTTP/2 flood");
        self.end_abruptly(cx);
    }

    /// Sends. A client that takes nothing has as long as one that takes no body, even if no stream waits for it.
    fn poll_send(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        let sent = self.io.poll_send(cx);
        let taken = self.meter.take_written();
        if sent.is_ready() {
            self.unsent = 0;
            self.stall.clear();
            self.rate_timer.rest();
            return sent;
        }
        let unsent = self.io.transport.borrow().unsent();
        // Bytes that have reached the socket.
        let moved = (self.unsent + taken).saturating_sub(unsent);
        self.unsent = unsent;
        self.rate_timer.wait_for_client(moved as u64, &self.stall);
        if self.stall.poll_due(cx).is_ready() {
            self.context.worker.counters.http2_floods.increment();
            tracing::debug!(client = self.context.client.address(), "HTTP/2 client reads nothing");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }

    /// Ends an idle connection at once to make room for others. GOAWAY names the last stream that pintle has seen, so that a
    /// client may send any other request again (RFC 9113 section 6.8).
    fn make_room(&mut self, cx: &mut TaskContext<'_>) -> Poll<DriverEvent> {
        self.connection.abrupt_shutdown(Reason::NO_ERROR);
        let _ = self.connection.poll_closed(cx);
        let _ = self.poll_send(cx);
        Poll::Ready(DriverEvent::Over { lingers: false })
    }

    fn close(&mut self) {
        if !self.closing {
            self.closing = true;
            self.connection.graceful_shutdown();
            // Streams under way have their own limits. The client closes a connection without streams.
            self.watch = WatchedEvent::Nothing;
        }
    }

    /// Sets the alarm. The idle time runs while there are no streams. A head that has begun has its own time, as in HTTP/1.1:
    /// until it is complete nothing else can be received.
    fn set_alarm(&mut self) {
        // An incomplete head is not a request yet.
        self.alarm.rests(self.streams.is_empty());
        let watch = match self.meter.unfinished_head() {
            Some(number) => WatchedEvent::Head(number),
            None if self.streams.is_empty() => WatchedEvent::Rest,
            None => WatchedEvent::Nothing,
        };
        if watch == self.watch {
            return;
        }
        self.watch = watch;
        let view = self.context.worker.view();
        let limits = &view.shared.limits;
        match watch {
            WatchedEvent::Head(_) => self.alarm.set(limits.request_header),
            WatchedEvent::Rest if self.closing => self.alarm.set(limits.linger),
            WatchedEvent::Rest => {
                self.idle_end = self.alarm.tick_after(limits.idle);
                self.alarm.set(FREEZES_AFTER.min(limits.idle));
            }
            WatchedEvent::Nothing => self.alarm.clear(),
        }
    }

    /// Records a head that took too long, and ends the connection: there is no stream yet to answer on.
    fn give_up_head(&mut self, cx: &mut TaskContext<'_>) {
        self.context.worker.counters.rejections.increment();
        let mut head = RequestHead::default();
        head.version = Version::Http2;
        let timeout = Rejection::HeadTimeout;
        let why = why::of_rejection(&timeout);
        record(&self.context, &head, None, &RequestOutcome::refused(timeout.status(), why, timeout.cause(), None));
        self.end_abruptly(cx);
    }

    /// Ends the connection and all of its streams with ENHANCE_YOUR_CALM (RFC 9113 section 10.5).
    fn end_abruptly(&mut self, cx: &mut TaskContext<'_>) {
        self.streams.clear();
        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        let _ = self.connection.poll_closed(cx);
        self.finished = true;
        self.alarm.clear();
    }
}
