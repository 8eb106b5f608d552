//! The course of an HTTP/1.1 exchange: the request goes out, interim responses pass, and the head
//! comes.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::StatusCode;

use super::body::{Http1Body, Streaming};
use super::upload::{Upload, UploadError, poll_send};
use crate::clock::Alarm;
use crate::message::{BodyDecoder, Framing, HeadFault, ParseProgress, ResponseHead, parse_response};
use crate::upstream::error::{HeadLimit, UpstreamError};
use crate::upstream::interim::{CONTINUE_WAIT, INTERIM_MAX, Interim};
use crate::upstream::pool::Pool;
use crate::upstream::pool::connection::{PooledConnection, Slot};
use crate::upstream::request::UpstreamRequest;
use crate::upstream::settings::UpstreamTransport;
use crate::wire::body::{RequestBody, RequestBodyError};
use crate::wire::min_rate::RateTimer;
use crate::wire::write_buffer::WriteBuffer;

/// The most that one read takes before the response's head is known; bytes.
const HEAD_READ: usize = 16 * 1024;
/// Buffers for request heads that a thread keeps.
const SPARE_HEADS: usize = 64;
thread_local! {
    static HEAD_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; HEAD_READ].into_boxed_slice());
    static HEADS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The outcome of sending a request over one connection.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once, and a box would cost each request one")]
pub(in crate::upstream) enum SendOutcome {
    /// The response's head, and what follows it.
    Response(ResponseHead, Rest),
    /// The connection ended before an answer came. The request may be sent again, with this body.
    Stale(Option<RequestBody>, UpstreamError),
    Failed(UpstreamError),
}

/// The part of a response after its head.
pub(in crate::upstream) enum Rest {
    /// Nothing.
    Empty,
    /// The whole body, already received.
    Full(Bytes),
    /// A body that streams.
    Body(Box<Http1Body>),
    /// A WebSocket connection.
    Upgraded(Box<UpgradedConnection>),
}

/// A connection that has switched to WebSocket.
pub struct UpgradedConnection {
    /// The connection.
    pub transport: UpstreamTransport,
    /// Bytes that came behind the 101.
    pub received: BytesMut,
    _slot: Slot,
}

/// A request under way on a connection.
pub(in crate::upstream) struct Exchange {
    pool: Rc<Pool>,
    connection: Box<PooledConnection>,
    out: WriteBuffer,
    /// The rest of the request's body.
    upload: Option<Upload>,
    has_body: bool,
    received: BytesMut,
    /// The bytes of an incomplete head at its last parse.
    progress: ParseProgress,
    rate_timer: RateTimer,
    /// The reason why the upstream takes no more of the request. It may have answered all the same.
    broken: Option<io::Error>,
    interims: usize,
    /// An interim response announced a body. The bytes that follow may be that body, so the
    /// connection is not kept.
    stray: bool,
    to_head: bool,
    websocket: bool,
    idempotent: bool,
}

impl Exchange {
    /// Begins an exchange. Nothing is sent yet; the alarm is set for the first wait.
    pub(in crate::upstream) fn new(
        pool: &Rc<Pool>,
        upstream_request: &UpstreamRequest<'_>,
        connection: Box<PooledConnection>,
        body: Option<RequestBody>,
        alarm: &Alarm,
    ) -> Self {
        let mut head = HEADS.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(2048));
        upstream_request.write_http1(&pool.upstream, &mut head);
        let chunked = upstream_request.head.framing == Framing::Chunked;
        let held = body.is_some() && upstream_request.head.expects_continue();
        alarm.set(if held { CONTINUE_WAIT } else { pool.upstream.response_timeout });
        Self {
            pool: pool.clone(),
            connection,
            out: WriteBuffer::new(head),
            has_body: body.is_some(),
            upload: body.map(|body| Upload::new(body, chunked, held)),
            received: BytesMut::new(),
            progress: ParseProgress::default(),
            rate_timer: RateTimer::new(pool.limits().min_rate),
            broken: None,
            interims: 0,
            stray: false,
            to_head: upstream_request.head.method == http::Method::HEAD,
            websocket: upstream_request.head.websocket,
            idempotent: upstream_request.method().is_idempotent(),
        }
    }

    /// Returns the address of the upstream's end.
    pub(in crate::upstream) fn address(&self) -> SocketAddr {
        self.connection.address
    }

    /// Returns the outcome, once [`Self::poll_head`] is ready.
    pub(in crate::upstream) fn end(self, outcome: Result<ResponseHead, UpstreamError>) -> SendOutcome {
        let error = match outcome {
            Ok(head) => return self.finish(head),
            Err(error) => error,
        };
        let nothing_sent = self.out.is_untouched();
        // A body that was sent whole has no upload any more.
        let untouched = !self.has_body || self.upload.as_ref().is_some_and(Upload::is_untouched);
        let repeatable = self.idempotent || nothing_sent;
        if matches!(error, UpstreamError::Closed(_)) && self.received.is_empty() && untouched && repeatable {
            return SendOutcome::Stale(self.upload.and_then(Upload::into_untouched), error);
        }
        SendOutcome::Failed(error)
    }

    /// Sends the request and reads until the response's head is complete.
    pub(in crate::upstream) fn poll_head(
        &mut self,
        alarm: &Alarm,
        interim: &mut dyn Interim,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        loop {
            self.poll_upload(alarm, cx)?;
            match self.poll_response(cx)? {
                Poll::Ready(head) if is_interim(head.status) => self.pass_interim(&head, alarm, interim)?,
                Poll::Ready(head) => return Poll::Ready(Ok(head)),
                Poll::Pending => {
                    ready!(alarm.poll_due(cx));
                    self.overdue(alarm, interim)?;
                }
            }
        }
    }

    /// Sends more of the request. A write error is not a failure yet: an upstream may answer, and
    /// stop reading, before it has read everything.
    fn poll_upload(&mut self, alarm: &Alarm, cx: &mut Context<'_>) -> Result<(), UpstreamError> {
        if self.broken.is_some()
            || (self.upload.is_none() && self.out.is_empty() && self.connection.transport.is_flushed())
        {
            return Ok(());
        }
        let mut moved = 0;
        let transport = &mut self.connection.transport;
        match poll_send(&mut self.out, &mut self.upload, transport, cx, &mut moved) {
            Poll::Ready(Err(UploadError::Client(error))) => return Err(UpstreamError::RequestBody(error)),
            Poll::Ready(Err(UploadError::Upstream(error))) => self.broken = Some(error),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        match &self.upload {
            Some(upload) if upload.held => {}
            Some(upload) if upload.waits_for_client && self.broken.is_none() => {
                self.rate_timer.wait_for_client(moved, alarm);
            }
            _ => self.rate_timer.wait_for_other(moved > 0, self.pool.upstream.response_timeout, alarm),
        }
        Ok(())
    }

    /// Reads until a head is complete, of an interim response or of the final one.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, UpstreamError>> {
        let mut head = ResponseHead::default();
        let max = self.pool.limits().response_head;
        // Bytes that came behind an interim response.
        if !self.received.is_empty()
            && self.interims > 0
            && self.progress.is_worth_it(&self.received, &[max.head])
            && let Some(len) = parse_response(&self.received, self.to_head, &max, &mut head).map_err(head_fault)?
        {
            self.progress = ParseProgress::default();
            bytes::Buf::advance(&mut self.received, len);
            return Poll::Ready(Ok(head));
        }
        HEAD_BUFFER.with_borrow_mut(|buffer| {
            loop {
                let mut free: &mut [u8] = buffer;
                let read = match ready!(self.connection.transport.poll_read(cx, &mut free)) {
                    Ok(0) => Err(self.broken.take()),
                    Ok(read) => Ok(read),
                    Err(error) => Err(Some(self.broken.take().unwrap_or(error))),
                };
                let read = match read {
                    Ok(read) => read,
                    Err(why) if self.received.is_empty() => return Poll::Ready(Err(UpstreamError::Closed(why))),
                    Err(_) => return Poll::Ready(Err(UpstreamError::Malformed("head cut short"))),
                };
                let mut bytes = &buffer[..read];
                let begun = !self.received.is_empty();
                if begun {
                    self.received.extend_from_slice(bytes);
                    bytes = &self.received;
                    if !self.progress.is_worth_it(bytes, &[max.head]) {
                        continue;
                    }
                }
                match parse_response(bytes, self.to_head, &max, &mut head).map_err(head_fault)? {
                    Some(len) => {
                        self.received = BytesMut::from(&bytes[len..]);
                        self.progress = ParseProgress::default();
                        return Poll::Ready(Ok(head));
                    }
                    None if begun => {}
                    None => self.received = BytesMut::from(bytes),
                }
            }
        })
    }

    fn pass_interim(&mut self, head: &ResponseHead, alarm: &Alarm, to: &mut dyn Interim) -> Result<(), UpstreamError> {
        self.interims += 1;
        if self.interims > INTERIM_MAX {
            return Err(UpstreamError::Malformed("too many interim responses"));
        }
        self.stray |= !head.keep_alive;
        if head.status == StatusCode::CONTINUE
            && let Some(upload) = &mut self.upload
            && std::mem::take(&mut upload.held)
        {
            alarm.set(self.pool.upstream.response_timeout);
        }
        to.interim(head);
        Ok(())
    }

    /// Handles an alarm that rang: continues without a 100, or says whose time is up.
    fn overdue(&mut self, alarm: &Alarm, interim: &mut dyn Interim) -> Result<(), UpstreamError> {
        match &mut self.upload {
            // Many upstreams never send 100: the body is sent all the same.
            Some(upload) if upload.held => {
                upload.held = false;
                interim.interim(&ResponseHead { status: StatusCode::CONTINUE, ..ResponseHead::default() });
                alarm.set(self.pool.upstream.response_timeout);
                Ok(())
            }
            _ if alarm.is_past_cap() => Err(UpstreamError::TotalTimeout),
            Some(upload) if upload.waits_for_client && self.broken.is_none() => {
                Err(UpstreamError::RequestBody(RequestBodyError::TooSlow))
            }
            _ => Err(UpstreamError::ResponseTimeout),
        }
    }

    fn finish(self, head: ResponseHead) -> SendOutcome {
        let Self { pool, connection, out, upload, mut received, broken, websocket, stray, .. } = self;
        let keep_alive = head.keep_alive && !stray;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            if !websocket || upload.is_some() {
                return SendOutcome::Failed(UpstreamError::Upgrade("not asked for"));
            }
            let PooledConnection { transport, slot, .. } = *connection;
            let upgraded = Box::new(UpgradedConnection { transport, received, _slot: slot });
            return SendOutcome::Response(head, Rest::Upgraded(upgraded));
        }
        let sent = upload.is_none() && broken.is_none() && out.is_empty();
        // The whole response has come, as nearly always: the connection is free before pintle
        // answers.
        let whole = match head.framing {
            Framing::None => Some(0),
            Framing::Length(n) => usize::try_from(n).ok().filter(|n| *n <= received.len()),
            _ => None,
        };
        if let (Some(len), true) = (whole, sent) {
            recycle(out.into_buffer());
            // A buffer that holds nothing but the body becomes the body. A part of a buffer would
            // need a reference count.
            let surplus = received.len() > len;
            received.truncate(len);
            let data = received.freeze();
            if keep_alive && !surplus {
                pool.put(connection);
            }
            return SendOutcome::Response(head, if data.is_empty() { Rest::Empty } else { Rest::Full(data) });
        }
        let body = Http1Body {
            connection: Some(connection),
            keep_alive: keep_alive && broken.is_none(),
            received,
            decoder: BodyDecoder::response(head.framing),
            out,
            upload: if broken.is_none() { upload } else { None },
            streaming: Streaming::begin(pool.streaming.clone()),
            most: usize::MAX,
            pool,
        };
        SendOutcome::Response(head, Rest::Body(Box::new(body)))
    }
}

/// Returns `true` if another response follows. Behind a 101 no HTTP follows.
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Keeps the buffer of a request's head for the next one.
fn recycle(head: Vec<u8>) {
    HEADS.with_borrow_mut(|heads| {
        if heads.len() < SPARE_HEADS {
            heads.push(head);
        }
    });
}

fn head_fault(fault: HeadFault) -> UpstreamError {
    match fault {
        HeadFault::Syntax(what) | HeadFault::Framing(what) => UpstreamError::Malformed(what),
        HeadFault::TooLarge | HeadFault::TargetTooLong => UpstreamError::HeadLimit(HeadLimit::Size),
        HeadFault::TooMany => UpstreamError::HeadLimit(HeadLimit::Count),
        HeadFault::FieldTooLarge => UpstreamError::HeadLimit(HeadLimit::Field),
        HeadFault::Version | HeadFault::Host(_) | HeadFault::Coding => UpstreamError::Malformed("not HTTP/1"),
    }
}
