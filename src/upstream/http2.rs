//! Requests over HTTP/2, where the upstream has chosen it.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderName, HeaderValue, StatusCode};

use super::body::ResponseBody;
use super::error::UpstreamError;
use super::exchange::{INTERIM_MAX, Interim, Response};
use super::pool::{Connection, Pool};
use super::queue::Places;
use super::request::Outbound;
use crate::body::{Body, Frame, RequestBody, RequestBodyError};
use crate::clock::Alarm;
use crate::h2_send::{SendError, Sender, Unaccounted};
use crate::message::{Fields, Framing, Name, ResponseHead, field_fits, octets_of};
use crate::pace::Pacer;

/// How much one response may send ahead of its client.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Streams of one connection before another is opened.
const STREAMS: u32 = 100;
/// What all responses of a connection may send ahead together: as much as each of them may, so that clients who do not
/// read hold up nobody else.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;
/// Fields of a response. A header map has room for more, and for our own fields beside them.
const FIELDS_MAX: usize = 4096;
/// What h2 gathers of one request's body before the upstream takes it.
const SEND_BUFFER: usize = 64 * 1024;

/// A connection that streams are opened on.
#[derive(Clone)]
pub(super) struct Http2 {
    sender: SendRequest<Bytes>,
    streams: Rc<Cell<usize>>,
    closed: Rc<Cell<bool>>,
    idle_since: Rc<Cell<u32>>,
    address: SocketAddr,
}

impl Http2 {
    /// Whether another stream may be opened.
    pub(super) fn has_room(&self) -> bool {
        !self.is_closed() && self.streams() < STREAMS as usize
    }

    /// Where it leads.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// What is open on it goes on; there is nothing new.
    fn retire(&self) {
        self.closed.set(true);
    }

    fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Whether no stream was open since that tick; `now` starts the count.
    pub(super) fn is_idle_since(&mut self, oldest: u32, now: u32) -> bool {
        if self.streams() > 0 || self.idle_since.get() == 0 {
            self.idle_since.set(now);
        }
        self.idle_since.get() < oldest
    }
}

/// Begins HTTP/2 on a connection. One task drives it for as long as it lives. It may take as long to end as it may to
/// begin: `ending` is the alarm for that.
pub(super) async fn start(
    connection: Connection,
    pool: &Pool,
    alarm: &Alarm,
    ending: Alarm,
) -> Result<Http2, UpstreamError> {
    let Connection { transport, address, slot } = connection;
    let (timeout, head_max) = (pool.upstream.connect_timeout, pool.limits().response_head.head);
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        // h2 counts 32 octets on top of each field.
        .max_header_list_size(u32::try_from(head_max * 2).unwrap_or(u32::MAX));
    alarm.set(timeout);
    let mut handshake = Box::pin(builder.handshake(transport));
    let (sender, driver) = poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(done.map_err(UpstreamError::Http2)),
        Poll::Pending => alarm.poll_due(cx).map(|()| Err(UpstreamError::ConnectTimeout)),
    })
    .await?;
    let closed = Rc::new(Cell::new(false));
    let http2 = Http2 { sender, streams: Rc::default(), closed: closed.clone(), idle_since: Rc::default(), address };
    let users = http2.streams.clone();
    tokio::task::spawn_local(async move {
        let mut driver = Box::pin(driver);
        let mut unused = false;
        let ended = poll_fn(|cx| {
            if let Poll::Ready(ended) = driver.as_mut().poll(cx) {
                return Poll::Ready(ended.err());
            }
            // h2 wakes this task when it is let go of, and then says goodbye: to somebody who may not listen.
            if Rc::strong_count(&users) == 1 && !std::mem::replace(&mut unused, true) {
                ending.set(timeout);
            }
            if unused { ending.poll_due(cx).map(|()| None) } else { Poll::Pending }
        });
        if let Some(error) = ended.await {
            tracing::debug!(%error, "upstream connection ended");
        }
        closed.set(true);
        drop(slot);
    });
    Ok(http2)
}

/// Leave for one stream on a connection: it counts as long as this is held, and goes to who waits for one then.
pub(super) struct Stream {
    http2: Http2,
    places: Rc<Places>,
}

impl Stream {
    pub(super) fn open(http2: &Http2, places: &Rc<Places>) -> Self {
        http2.streams.set(http2.streams.get() + 1);
        Self { http2: http2.clone(), places: places.clone() }
    }

    /// Where the connection leads.
    pub(super) fn address(&self) -> SocketAddr {
        self.http2.address
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.http2.streams.set(self.http2.streams.get() - 1);
        if self.places.wants_streams() && self.http2.has_room() {
            let unwanted = self.places.offer_stream(Self::open(&self.http2, &self.places));
            debug_assert!(unwanted.is_none(), "somebody wants it");
        }
    }
}

/// What may be tried again, and what may not.
pub(super) enum Failure {
    /// The upstream has said that it did not process the request (RFC 9113 section 8.7).
    Unprocessed(UpstreamError, Option<RequestBody>),
    Final(UpstreamError),
}

/// Sends a request on a stream of its own, and waits for the response's head.
pub(super) async fn send(
    pool: &Rc<Pool>,
    mut stream: Stream,
    outbound: &Outbound<'_>,
    body: Option<RequestBody>,
    alarm: &Alarm,
    interim: &mut dyn Interim,
) -> Result<Response, Failure> {
    let http2 = &mut stream.http2;
    alarm.set(pool.upstream.connect_timeout);
    let ready = poll_fn(|cx| match http2.sender.poll_ready(cx) {
        Poll::Ready(done) => Poll::Ready(done.map_err(UpstreamError::Http2)),
        Poll::Pending => alarm.poll_due(cx).map(|()| Err(UpstreamError::QueueTimeout)),
    });
    if let Err(error) = ready.await {
        http2.closed.set(matches!(error, UpstreamError::Http2(_)));
        return Err(Failure::Unprocessed(error, body));
    }
    let request = outbound
        .to_http2(&pool.upstream)
        .map_err(|_| Failure::Final(UpstreamError::Malformed("the request has no form in HTTP/2")))?;
    let (response, sender) = match http2.sender.send_request(request, body.is_none()) {
        Ok(sent) => sent,
        Err(error) => return Err(Failure::Unprocessed(UpstreamError::Http2(error), body)),
    };
    let mut exchange = Exchange {
        response,
        upload: body.map(|body| Upload {
            body,
            sender: Sender::new(sender, Unaccounted),
            held: outbound.head.expects_continue(),
            touched: false,
        }),
        waits_for_client: false,
    };
    match exchange.head(pool, alarm, interim).await {
        Ok(response) => {
            let (head, recv) = response;
            Ok(exchange.respond(head, recv, stream))
        }
        Err(error) => {
            // It may be one slow page, or a connection that leads nowhere any more, where each request would take as long
            // again.
            if matches!(
                error,
                UpstreamError::ResponseTimeout | UpstreamError::TotalTimeout | UpstreamError::Malformed(_)
            ) {
                stream.http2.retire();
            }
            if let UpstreamError::Http2(e) = &error {
                if e.is_go_away() || e.is_io() {
                    stream.http2.retire();
                }
                let refused = e.reason() == Some(Reason::REFUSED_STREAM) || (e.is_go_away() && e.is_remote());
                let untouched = exchange.upload.as_ref().is_none_or(|u| !u.touched);
                if refused && untouched {
                    return Err(Failure::Unprocessed(error, exchange.upload.map(|u| u.body)));
                }
            }
            Err(Failure::Final(error))
        }
    }
}

struct Exchange {
    response: ResponseFuture,
    upload: Option<Upload>,
    waits_for_client: bool,
}

/// A request's body on its way up.
struct Upload {
    body: RequestBody,
    sender: Sender<Unaccounted>,
    /// Until the upstream says 100, or a second has passed.
    held: bool,
    touched: bool,
}

impl Upload {
    fn poll(&mut self, cx: &mut Context<'_>, moved: &mut usize) -> Poll<Result<(), UpstreamError>> {
        if self.held {
            return Poll::Pending;
        }
        self.touched = true;
        self.sender.poll(cx, &mut *self.body, &mut |n| *moved += n).map(|done| match done {
            // A stream that was reset with NO_ERROR has an answer that did not need the body.
            Ok(()) | Err(SendError::Stream(_)) => Ok(()),
            Err(SendError::Body(error)) => Err(UpstreamError::RequestBody(error)),
        })
    }
}

impl Exchange {
    async fn head(
        &mut self,
        pool: &Pool,
        alarm: &Alarm,
        interim: &mut dyn Interim,
    ) -> Result<(http::response::Parts, RecvStream), UpstreamError> {
        let timeout = pool.upstream.response_timeout;
        alarm.set(if self.upload.as_ref().is_some_and(|u| u.held) { super::exchange::CONTINUE_WAIT } else { timeout });
        let mut pacer = Pacer::new(pool.limits().pace);
        let mut interims = 0;
        poll_fn(|cx| {
            loop {
                let mut moved = 0;
                if let Some(upload) = &mut self.upload {
                    match upload.poll(cx, &mut moved) {
                        Poll::Ready(done) => {
                            done?;
                            self.upload = None;
                            moved = 1;
                            self.waits_for_client = false;
                        }
                        Poll::Pending => self.waits_for_client = !upload.held && upload.sender.waits_for_body(),
                    }
                }
                if self.waits_for_client {
                    pacer.wait_for_client(moved as u64, alarm);
                } else if !self.upload.as_ref().is_some_and(|u| u.held) {
                    pacer.wait_for_other(moved > 0, timeout, alarm);
                }
                if let Poll::Ready(Some(informational)) = self.response.poll_informational(cx) {
                    let informational = informational.map_err(UpstreamError::Http2)?;
                    interims += 1;
                    if interims > INTERIM_MAX {
                        return Poll::Ready(Err(UpstreamError::Malformed("too many interim responses")));
                    }
                    if informational.status() == StatusCode::CONTINUE
                        && let Some(upload) = &mut self.upload
                    {
                        upload.held = false;
                        alarm.set(timeout);
                    }
                    interim.interim(&head_of(informational.status(), informational.headers()));
                    continue;
                }
                if let Poll::Ready(response) = std::pin::Pin::new(&mut self.response).poll(cx) {
                    let (parts, recv) = response.map_err(UpstreamError::Http2)?.into_parts();
                    let limits = pool.limits().response_head;
                    if octets_of(&parts.headers) > limits.head || parts.headers.len() > FIELDS_MAX {
                        return Poll::Ready(Err(UpstreamError::Malformed("head too large")));
                    }
                    let fits = |name: &HeaderName, value: &HeaderValue| {
                        field_fits(name.as_str().as_bytes(), value.as_bytes(), limits.field)
                    };
                    if !parts.headers.iter().all(|(name, value)| fits(name, value)) {
                        return Poll::Ready(Err(UpstreamError::Malformed("field too large")));
                    }
                    return Poll::Ready(Ok((parts, recv)));
                }
                ready!(alarm.poll_due(cx));
                match &mut self.upload {
                    Some(upload) if upload.held => {
                        upload.held = false;
                        interim.interim(&ResponseHead { status: StatusCode::CONTINUE, ..ResponseHead::default() });
                        alarm.set(timeout);
                    }
                    Some(_) if self.waits_for_client => {
                        return Poll::Ready(Err(UpstreamError::RequestBody(RequestBodyError::TooSlow)));
                    }
                    _ if alarm.is_past_cap() => return Poll::Ready(Err(UpstreamError::TotalTimeout)),
                    _ => return Poll::Ready(Err(UpstreamError::ResponseTimeout)),
                }
            }
        })
        .await
    }

    fn respond(self, parts: http::response::Parts, recv: RecvStream, stream: Stream) -> Response {
        let mut head = head_of(parts.status, &parts.headers);
        let length = head.fields.get(Name::ContentLength).and_then(|v| std::str::from_utf8(v).ok()?.parse().ok());
        head.framing = match length {
            _ if recv.is_end_stream() => Framing::None,
            Some(n) => Framing::Length(n),
            None => Framing::Chunked,
        };
        let body = if recv.is_end_stream() && self.upload.is_none() {
            ResponseBody::Empty
        } else {
            ResponseBody::Http2(Box::new(Http2Body { recv, upload: self.upload, trailers: false, stream }))
        };
        Response { head, body, upgraded: None }
    }
}

fn head_of(status: StatusCode, fields: &http::HeaderMap) -> ResponseHead {
    let mut head = ResponseHead { status, fields: Fields::from(fields), ..ResponseHead::default() };
    head.fields.remove_if(|name, _, _| name.is_hop_by_hop());
    head
}

/// A response's body from a stream.
pub struct Http2Body {
    recv: RecvStream,
    upload: Option<Upload>,
    trailers: bool,
    stream: Stream,
}

impl Http2Body {
    /// Nothing comes any more: its connection may lead nowhere.
    pub(super) fn give_up(&self) {
        self.stream.http2.retire();
    }
}

impl Body for Http2Body {
    type Error = UpstreamError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, UpstreamError>>> {
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(done) = upload.poll(cx, &mut 0)
        {
            self.upload = None;
            done?;
        }
        while !self.trailers {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    // Handed on is as good as consumed: the next piece is asked for only when this one is gone.
                    let _ = self.recv.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::Data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(truncated(error)))),
                None => self.trailers = true,
            }
        }
        match ready!(self.recv.poll_trailers(cx)) {
            Ok(Some(map)) => {
                let mut fields = Fields::from(&map);
                fields.remove_if(|name, _, _| name.is_forbidden_trailer());
                Poll::Ready((!fields.is_empty()).then_some(Ok(Frame::Trailers(fields))))
            }
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(truncated(error)))),
        }
    }

    fn is_end(&self) -> bool {
        self.recv.is_end_stream()
    }
}

fn truncated(error: h2::Error) -> UpstreamError {
    UpstreamError::Truncated(Some(std::io::Error::other(error)))
}
