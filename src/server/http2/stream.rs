//! One HTTP/2 stream: a request becomes a head like any other, and its answer goes into the stream.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Method, Request, Response as HttpResponse, StatusCode};

use super::head::read as read_head;
use super::interim::StreamInterim;
use super::memory::{Held, Share};
use super::meter::Meter;
use crate::clock::Alarm;
use crate::message::{Fields, Framing, HeaderMapSink, RequestHead};
use crate::server::context::Context;
use crate::server::interim::InterimFilter;
use crate::server::record::{Outcome, Sent, record};
use crate::server::rejection::Rejection;
use crate::server::reply::Reply;
use crate::server::snapshot::SiteOfView;
use crate::server::trailers;
use crate::server::tunnel::{Duplex, Tunnelled};
use crate::server::{service, tunnel};
use crate::upstream::{ResponseBody, Upgraded, UpstreamError};
use crate::wire::body::{Body, Frame, RequestBody, RequestBodyError};
use crate::wire::http2_send::{SendError, Sender};
use crate::wire::min_rate::RateTimer;

/// How a stream came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was answered.
    Answered,
    /// The client did not wait for all of the answer.
    GivenUp,
}

/// Serves one request.
pub(super) async fn serve(
    request: Request<RecvStream>,
    respond: SendResponse<Held>,
    context: Rc<Context>,
    meter: Rc<Meter>,
    share: Rc<Share>,
) -> Ended {
    let respond = RefCell::new(respond);
    let begin = context.begin();
    let alarm = context.worker.clock.alarm();
    let (parts, recv) = request.into_parts();
    let view = context.worker.view();
    let limits = &view.shared.limits;
    let mut head = RequestHead::default();
    let rejection = read_head(&parts, recv.is_end_stream(), &limits.head(), &mut head).err().map(Rejection::Head);
    meter.payload(head.fields.size());
    let recv = Recv { stream: recv, left: limits.request_body, trailers: false, taken: 0, meter, share: share.clone() };
    let shared_recv = Rc::new(RefCell::new(recv));
    if let Some(rejection) = rejection {
        let asked = service::read_refused(&mut head, &context);
        let mut reply = service::reject(rejection, &head, asked.as_ref(), &context);
        let sent = send(&respond, &mut reply, &head, &context, &alarm, &shared_recv).await;
        record(&context, &head, asked.as_ref(), &Outcome::of(&reply, &sent, begin, asked.as_ref(), &context));
        discard(&shared_recv, &alarm, limits.linger).await;
        return Ended::of(&sent);
    }
    let asked = service::read(&mut head, &context);
    let body: Option<RequestBody> = match head.framing {
        Framing::None => None,
        _ => Some(Box::new(StreamBody { recv: shared_recv.clone(), site: asked.site.clone() })),
    };
    let reply = match service::answer_at_once(&head, &asked, &context) {
        Ok(reply) => Some(reply),
        Err(work) => {
            match check_body(&respond, &shared_recv, &head, &alarm, limits.body_progress).await {
                Ok(()) => {}
                Err(RequestBodyError::Gone) => {
                    record(&context, &head, Some(&asked), &Outcome::gone(begin));
                    return Ended::GivenUp;
                }
                Err(error) => {
                    let wrong = Rejection::Body(error);
                    record(&context, &head, Some(&asked), &Outcome::refused(wrong.status(), wrong.cause(), begin));
                    respond.borrow_mut().send_reset(Reason::PROTOCOL_ERROR);
                    return Ended::GivenUp;
                }
            }
            let filter = InterimFilter::new(&head, asked.site.as_ref().map(|site| &*site.response));
            let mut interim = StreamInterim::new(&respond, filter, share.clone());
            let done = match service::ask_at_once(work, &head, &asked, &context, &alarm) {
                Ok(mut asking) => {
                    unless_given_up(&respond, |cx| asking.poll(&head, &asked, &context, &alarm, &mut interim, cx)).await
                }
                Err(work) => Some(Err(work)),
            };
            match done {
                Some(Err(work)) => {
                    let answering = service::answer(work, &head, body, &asked, &context, &alarm, &mut interim);
                    let mut answering = Box::pin(answering);
                    unless_given_up(&respond, |cx| answering.as_mut().poll(cx)).await
                }
                done => done.and_then(Result::ok),
            }
        }
    };
    let Some(mut reply) = reply else {
        record(&context, &head, Some(&asked), &Outcome::gone(begin));
        return Ended::GivenUp;
    };
    if let Some(upgraded) = reply.upgraded.take() {
        // Boxed: streams that become no tunnel do not carry the room for one.
        let tunnelled = Box::pin(run_tunnel(&respond, shared_recv, &mut reply, *upgraded, &context, &alarm)).await;
        let Tunnelled { bytes, broken, .. } = tunnelled.unwrap_or_default();
        let broken = broken.map(|error| UpstreamError::Truncated(Some(error)));
        let sent = Sent { result: Ok(()), bytes, broken };
        record(&context, &head, Some(&asked), &Outcome::of(&reply, &sent, begin, Some(&asked), &context));
        return Ended::Answered;
    }
    let sent = send(&respond, &mut reply, &head, &context, &alarm, &shared_recv).await;
    alarm.uncap();
    record(&context, &head, Some(&asked), &Outcome::of(&reply, &sent, begin, Some(&asked), &context));
    // The upstream is let go of.
    drop(reply);
    if sent.result.is_ok() {
        discard(&shared_recv, &alarm, limits.linger).await;
    }
    Ended::of(&sent)
}

/// Checks what is known of a body before anything of its request is passed on. h2 holds a body to its content-length, and
/// gives the stream up: what has come by now has been looked at. A body that is said to have no byte is waited for, since
/// the request is forwarded as one without a body: an empty frame ends it, and any other is wrong.
async fn check_body(
    respond: &RefCell<SendResponse<Held>>,
    recv: &RefCell<Recv>,
    head: &RequestHead,
    alarm: &Alarm,
    limit: Duration,
) -> Result<(), RequestBodyError> {
    if recv.borrow().stream.is_end_stream() {
        return Ok(());
    }
    match poll_fn(|cx| Poll::Ready(respond.borrow_mut().poll_reset(cx))).await {
        Poll::Pending => {}
        Poll::Ready(Ok(Reason::PROTOCOL_ERROR)) => return Err(RequestBodyError::Length),
        Poll::Ready(_) => return Err(RequestBodyError::Gone),
    }
    if head.framing != Framing::None || head.websocket {
        return Ok(());
    }
    alarm.set(limit);
    let end = poll_fn(|cx| match recv.borrow_mut().poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(Some(frame)),
        Poll::Pending => alarm.poll_due(cx).map(|()| None),
    });
    match end.await {
        None => Err(RequestBodyError::TooSlow),
        Some(None | Some(Ok(Frame::Trailers(_)))) => Ok(()),
        Some(Some(_)) => Err(RequestBodyError::Length),
    }
}

/// Waits for something, as long as the client wants it.
async fn unless_given_up<T>(
    respond: &RefCell<SendResponse<Held>>,
    mut poll: impl FnMut(&mut TaskContext<'_>) -> Poll<T>,
) -> Option<T> {
    poll_fn(|cx| match poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => respond.borrow_mut().poll_reset(cx).map(|_| None),
    })
    .await
}

impl Ended {
    /// What the upstream has broken off is not the client's doing.
    fn of(sent: &Sent) -> Self {
        if sent.result.is_err() && sent.broken.is_none() { Self::GivenUp } else { Self::Answered }
    }
}

/// The receiving side of a stream, shared between the upstream that reads it and the end that drains it.
struct Recv {
    stream: RecvStream,
    left: u64,
    trailers: bool,
    /// The last piece's size: until the next is asked for, it is held, and the window knows.
    taken: usize,
    meter: Rc<Meter>,
    share: Rc<Share>,
}

impl Recv {
    fn poll_frame(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame, RequestBodyError>>> {
        if self.taken > 0 {
            let _ = self.stream.flow_control().release_capacity(std::mem::take(&mut self.taken));
        }
        while !self.trailers {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.taken = data.len();
                    self.meter.payload(data.len());
                    if data.is_empty() {
                        continue;
                    }
                    return Poll::Ready(Some(match self.left.checked_sub(data.len() as u64) {
                        Some(left) => {
                            self.left = left;
                            Ok(Frame::Data(data))
                        }
                        None => Err(RequestBodyError::TooLarge),
                    }));
                }
                Some(Err(_)) => return Poll::Ready(Some(Err(RequestBodyError::Gone))),
                None => self.trailers = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(map)) => {
                let mut fields = Fields::from(&map);
                fields.remove_if(|name, _, _| name.is_forbidden_trailer());
                Poll::Ready((!fields.is_empty()).then_some(Ok(Frame::Trailers(fields))))
            }
            Ok(None) => Poll::Ready(None),
            Err(_) => Poll::Ready(Some(Err(RequestBodyError::Gone))),
        }
    }
}

struct StreamBody {
    recv: Rc<RefCell<Recv>>,
    /// The site whose rules say which trailers pass.
    site: Option<SiteOfView>,
}

impl Body for StreamBody {
    type Error = RequestBodyError;

    fn poll_frame(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame, RequestBodyError>>> {
        let frame = ready!(self.recv.borrow_mut().poll_frame(cx));
        Poll::Ready(trailers::of_request(frame, self.site.as_ref()))
    }

    fn is_end(&self) -> bool {
        self.recv.borrow().stream.is_end_stream()
    }

    fn keep(&mut self, bytes: usize) -> bool {
        self.recv.borrow().share.keep(bytes)
    }
}

/// Sends an answer.
///
/// One that comes while the request's body still does is held back at its last piece until the client has sent the
/// rest, or has had its time: curl stops reading once it has the whole answer, misses the windows that open, and waits
/// for ever with its upload. A refusal is not held back: it is to be heard now.
async fn send(
    respond: &RefCell<SendResponse<Held>>,
    reply: &mut Reply,
    head: &RequestHead,
    context: &Context,
    alarm: &Alarm,
    recv: &RefCell<Recv>,
) -> Sent {
    let mut bytes = 0;
    let failed = |error: h2::Error, bytes| Sent { result: Err(io::Error::other(error)), bytes, broken: None };
    let view = context.worker.view();
    let limits = &view.shared.limits;
    let status = reply.head.status;
    // What the policies add comes to them.
    let mut fields = HeaderMapSink::with_capacity(reply.head.fields.len() + 8);
    reply.write_fields(&mut fields, &context.worker.clock.date());
    if reply.keeps_length_field(&head.method) {
        if let Some(stated) = reply.stated_length(&head.method) {
            fields.0.insert(http::header::CONTENT_LENGTH, stated.into());
        }
    } else if let (Some(length), false) = (reply.length(), status == StatusCode::NO_CONTENT) {
        fields.0.insert(http::header::CONTENT_LENGTH, length.into());
    }
    if head.method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        reply.body = ResponseBody::Empty;
    }
    let mut response = HttpResponse::new(());
    *response.status_mut() = status;
    *response.headers_mut() = fields.0;
    let empty = matches!(reply.body, ResponseBody::Empty);
    let share = recv.borrow().share.clone();
    share.hold_head(reply.head.fields.size());
    let early = !recv.borrow().stream.is_end_stream() && !status.is_client_error() && !status.is_server_error();
    if early && empty {
        discard(recv, alarm, limits.linger).await;
    }
    let sent = respond.borrow_mut().send_response(response, empty);
    let mut sender = match sent {
        // The client sees where the answer ends without the end of the stream.
        Ok(stream) if early && reply.length().is_some() => Sender::holding_last(stream, share),
        Ok(stream) => Sender::new(stream, share),
        Err(error) => return failed(error, 0),
    };
    if empty {
        return Sent { result: Ok(()), bytes, broken: None };
    }
    let meter = recv.borrow().meter.clone();
    let mut rate_timer = RateTimer::new(limits.min_rate());
    let mut result = send_body(&mut sender, reply, alarm, &mut rate_timer, &meter, &mut bytes).await;
    if early && matches!(result, Some(Ok(()))) {
        discard(recv, alarm, limits.linger).await;
        sender.release();
        result = send_body(&mut sender, reply, alarm, &mut rate_timer, &meter, &mut bytes).await;
    }
    match result {
        Some(Ok(())) => Sent { result: Ok(()), bytes, broken: None },
        Some(Err(SendError::Stream(error))) => failed(error, bytes),
        Some(Err(SendError::Body(error))) => {
            Sent { result: Err(io::ErrorKind::UnexpectedEof.into()), bytes, broken: Some(error) }
        }
        None => {
            // A window held shut (CVE-2019-9517), or a source that has dried up.
            let broken = match sender.waits_for_body() {
                _ if alarm.is_past_cap() => Some(UpstreamError::TotalTimeout),
                true => {
                    reply.body.give_up();
                    Some(UpstreamError::BodyTimeout)
                }
                false => None,
            };
            sender.reset(if broken.is_some() { Reason::INTERNAL_ERROR } else { Reason::CANCEL });
            Sent { result: Err(io::ErrorKind::TimedOut.into()), bytes, broken }
        }
    }
}

/// Sends what there is of a body; none when too little moves for too long.
async fn send_body(
    sender: &mut Sender<Rc<Share>>,
    reply: &mut Reply,
    alarm: &Alarm,
    rate_timer: &mut RateTimer,
    meter: &Meter,
    bytes: &mut u64,
) -> Option<Result<(), SendError<UpstreamError>>> {
    rate_timer.begin(alarm);
    poll_fn(|cx| {
        let mut moved = 0;
        let sent = sender.poll(cx, reply, &mut |n| moved += n);
        *bytes += moved as u64;
        meter.payload(moved);
        if let Poll::Ready(done) = sent {
            return Poll::Ready(Some(done));
        }
        if sender.waits_for_body() {
            rate_timer.wait_for_other(moved > 0, rate_timer.pause(), alarm);
        } else {
            rate_timer.wait_for_client(moved as u64, alarm);
        }
        alarm.poll_due(cx).map(|()| None)
    })
    .await
}

/// Answers an extended CONNECT (RFC 8441 section 5), and passes the WebSocket on. None if the client has given it up.
async fn run_tunnel(
    respond: &RefCell<SendResponse<Held>>,
    recv: Rc<RefCell<Recv>>,
    reply: &mut Reply,
    upgraded: Upgraded,
    context: &Context,
    alarm: &Alarm,
) -> Option<Tunnelled> {
    let mut fields = HeaderMapSink::default();
    reply.write_fields(&mut fields, &context.worker.clock.date());
    fields.0.remove("sec-websocket-accept");
    let mut response = HttpResponse::new(());
    *response.headers_mut() = fields.0;
    let send = respond.borrow_mut().send_response(response, false).ok()?;
    let recv = Rc::try_unwrap(recv).ok()?;
    let recv = recv.into_inner();
    let mut client = Metered(tunnel::Http2Duplex { recv: recv.stream, send, account: recv.share }, recv.meter);
    let Upgraded { mut transport, received, .. } = upgraded;
    let view = context.worker.view();
    let limits = &view.shared.limits;
    let (idle, linger) = (limits.websocket_idle, limits.linger);
    Some(tunnel::run(&mut client, &mut transport, BytesMut::new(), received, alarm, idle, linger).await)
}

/// The client's end of a tunnel, with what passes counted as worth its frames.
struct Metered(tunnel::Http2Duplex<Rc<Share>>, Rc<Meter>);

impl Duplex for Metered {
    fn poll_read(&mut self, cx: &mut TaskContext<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let read = self.0.poll_read(cx, buf);
        if let Poll::Ready(Ok(len)) = read {
            self.1.payload(len);
        }
        read
    }

    fn poll_write(&mut self, cx: &mut TaskContext<'_>, buf: &mut BytesMut) -> Poll<io::Result<()>> {
        let before = buf.len();
        let written = self.0.poll_write(cx, buf);
        self.1.payload(before - buf.len());
        written
    }

    fn poll_close(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.0.poll_close(cx)
    }
}

/// Reads on, for a while, what a client still sends although it has been answered.
async fn discard(recv: &RefCell<Recv>, alarm: &Alarm, limit: Duration) {
    if recv.borrow().stream.is_end_stream() {
        return;
    }
    alarm.set(limit);
    poll_fn(|cx| {
        let mut recv = recv.borrow_mut();
        recv.left = u64::MAX;
        loop {
            match recv.poll_frame(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return alarm.poll_due(cx),
            }
        }
    })
    .await;
}
