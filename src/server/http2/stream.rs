//! Serves one HTTP/2 stream: a request becomes a head like any other, and its answer goes into the stream.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, StatusCode};
use tokio::time::Instant;

use super::exchange::Exchange;
use super::head::read as read_head;
use super::interim::StreamInterim;
use super::memory::{ChargedBytes, Share};
use super::meter::Meter;
use super::recv::{Recv, StreamBody, discard};
use super::send::send;
use super::tunnel;
use crate::message::{Framing, RequestHead};
use crate::server::admit;
use crate::server::asked::{self, Asked, Turn};
use crate::server::context::Context;
use crate::server::filters;
use crate::server::interim::InterimFilter;
use crate::server::local_reply::reject;
use crate::server::record::{RequestOutcome, Sent, record};
use crate::server::rejection::Rejection;
use crate::server::reply::Reply;
use crate::server::service::{self, Work};
use crate::server::tunnel::Tunnelled;
use crate::server::why;
use crate::upstream::{UpgradedConnection, UpstreamError};
use crate::wire::body::{Frame, RequestBody, RequestBodyError};

/// The end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// It was answered.
    Answered,
    /// The client did not wait for the whole answer.
    GivenUp,
}

impl StreamEnd {
    /// An answer that the upstream has broken off is not the client's fault.
    fn of(sent: &Sent) -> Self {
        if sent.result.is_err() && sent.broken.is_none() { Self::GivenUp } else { Self::Answered }
    }
}

/// Serves one request.
pub(super) async fn serve(
    request: Request<RecvStream>,
    respond: SendResponse<ChargedBytes>,
    context: Rc<Context>,
    meter: Rc<Meter>,
    share: Rc<Share>,
) -> StreamEnd {
    let begin = context.begin();
    let alarm = context.worker.clock.alarm();
    let (parts, recv) = request.into_parts();
    let view = context.worker.view();
    let limits = &view.shared.limits;
    let mut head = RequestHead::default();
    let read = read_head(&parts, recv.is_end_stream(), &limits.head(), &mut head);
    meter.payload(head.fields.size());
    let recv = Rc::new(RefCell::new(Recv::new(recv, limits.request_body, meter, share.clone())));
    let (owned, own_share) = (context.clone(), share.clone());
    let exchange = Exchange { respond: RefCell::new(respond), recv, share, context, alarm, begin };
    let Exchange { recv, context, alarm, .. } = &exchange;
    if let Err(fault) = read {
        let asked = asked::read_refused(&mut head, context);
        let unrecorded = Unrecorded::new(owned, own_share, &head, asked.as_ref(), begin);
        let mut reply = reject(Rejection::Head(fault), &head, asked.as_ref(), context);
        unrecorded.answering(&mut reply);
        let sent = send(&exchange, &mut reply, &head).await;
        unrecorded.record(RequestOutcome::of(&reply, &sent, begin, asked.as_ref(), context));
        discard(recv, alarm, limits.linger).await;
        return StreamEnd::of(&sent);
    }
    let asked = asked::read(&mut head, context);
    let unrecorded = Unrecorded::new(owned, own_share, &head, Some(&asked), begin);
    let turn = Turn { head: &head, asked: &asked, context, alarm };
    let reply = match service::answer_at_once(&turn) {
        Ok(reply) => Some(reply),
        Err(work) => answer(work, &exchange, &turn, &unrecorded).await,
    };
    let Some(mut reply) = reply else { return StreamEnd::GivenUp };
    unrecorded.answering(&mut reply);
    if let Some(upgraded) = reply.upgraded.take() {
        // Boxed: other streams reserve no memory for a tunnel.
        return Box::pin(serve_tunnel(exchange, &reply, *upgraded, &asked, &unrecorded)).await;
    }
    let sent = send(&exchange, &mut reply, &head).await;
    alarm.uncap();
    unrecorded.record(RequestOutcome::of(&reply, &sent, begin, Some(&asked), context));
    // This releases the connection to the upstream.
    drop(reply);
    if sent.result.is_ok() {
        discard(recv, alarm, limits.linger).await;
    }
    StreamEnd::of(&sent)
}

/// A request without a record. If it is dropped before it gets one, its client has ended the connection.
struct Unrecorded<'a> {
    context: Rc<Context>,
    share: Rc<Share>,
    head: &'a RequestHead,
    asked: Option<&'a Asked>,
    begin: Option<Instant>,
    /// The status of the answer, once one is on its way.
    status: Cell<Option<StatusCode>>,
    /// The time at which pintle began to send it.
    begun: Cell<Option<Instant>>,
    recorded: Cell<bool>,
}

impl<'a> Unrecorded<'a> {
    fn new(
        context: Rc<Context>,
        share: Rc<Share>,
        head: &'a RequestHead,
        asked: Option<&'a Asked>,
        begin: Option<Instant>,
    ) -> Self {
        Self {
            context,
            share,
            head,
            asked,
            begin,
            status: Cell::default(),
            begun: Cell::default(),
            recorded: Cell::default(),
        }
    }

    /// Notes that an answer is on its way.
    fn answering(&self, reply: &mut Reply) {
        reply.begins(self.context.begin());
        admit::add_fields(self.asked, reply);
        filters::for_client(reply, self.head, self.asked, &self.context);
        self.status.set(Some(reply.head.status));
        self.begun.set(reply.begun);
    }

    /// Records the request, once.
    fn record(&self, outcome: RequestOutcome) {
        if !self.recorded.replace(true) {
            record(&self.context, self.head, self.asked, &outcome.received(self.share.received.get()));
        }
    }
}

impl Drop for Unrecorded<'_> {
    fn drop(&mut self) {
        self.record(RequestOutcome::gone(self.begin).sent(self.status.get(), self.begun.get(), self.share.sent.get()));
    }
}

/// Does the work for an answer. Records the request and returns `None` if there is nobody to answer.
async fn answer(work: Work, exchange: &Exchange, turn: &Turn<'_>, unrecorded: &Unrecorded<'_>) -> Option<Reply> {
    let Exchange { respond, recv, share, begin, .. } = exchange;
    let Turn { head, asked, .. } = *turn;
    match check_body(exchange, head).await {
        Ok(()) => {}
        Err(RequestBodyError::Gone) => {
            unrecorded.record(RequestOutcome::gone(*begin));
            return None;
        }
        Err(error) => {
            let wrong = Rejection::Body(error);
            let why = why::of_rejection(&wrong);
            unrecorded.record(RequestOutcome::refused(wrong.status(), why, wrong.cause(), *begin));
            respond.borrow_mut().send_reset(Reason::PROTOCOL_ERROR);
            return None;
        }
    }
    let mut interim = StreamInterim::new(respond, InterimFilter::of(turn), share.clone());
    let done = match service::ask_at_once(work, turn) {
        Ok(mut asking) => exchange.unless_given_up(|cx| asking.poll(turn, &mut interim, cx)).await,
        Err(work) => Some(Err(work)),
    };
    let reply = match done {
        Some(Err(work)) => {
            let body: Option<RequestBody> = match head.framing {
                Framing::None => None,
                _ => Some(Box::new(StreamBody { recv: recv.clone(), site: asked.site.clone() })),
            };
            let mut answering = Box::pin(service::answer(work, body, turn, &mut interim));
            exchange.unless_given_up(|cx| answering.as_mut().poll(cx)).await
        }
        done => done.and_then(Result::ok),
    };
    if reply.is_none() {
        unrecorded.record(RequestOutcome::gone(*begin));
    }
    reply
}

/// Passes a WebSocket on until it ends.
async fn serve_tunnel(
    exchange: Exchange,
    reply: &Reply,
    upgraded: UpgradedConnection,
    asked: &Asked,
    unrecorded: &Unrecorded<'_>,
) -> StreamEnd {
    let Exchange { respond, recv, context, alarm, begin, .. } = exchange;
    let tunnelled = tunnel::run(respond.into_inner(), recv, reply, upgraded, &context, &alarm).await;
    let tunnelled = tunnelled.unwrap_or_default();
    let why = tunnelled.why();
    let Tunnelled { bytes, received, broken, .. } = tunnelled;
    unrecorded.share.received.set(received);
    let broken = broken.map(|error| UpstreamError::Truncated(Some(error)));
    let sent = Sent { result: Ok(()), bytes, broken, unsent: false };
    let outcome = RequestOutcome::of(reply, &sent, begin, Some(asked), &context);
    unrecorded.record(outcome.ended_by(why));
    StreamEnd::Answered
}

/// Checks a body as far as it has come, before anything of its request is passed on. h2 compares a body with its
/// content-length, and resets the stream if they differ. A request whose content-length is 0 is forwarded as one without a
/// body, so this waits for the empty frame that ends it; any other frame is an error.
async fn check_body(exchange: &Exchange, head: &RequestHead) -> Result<(), RequestBodyError> {
    let Exchange { respond, recv, context, alarm, .. } = exchange;
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
    alarm.set(context.worker.view().shared.limits.body_progress);
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
