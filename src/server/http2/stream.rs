//! Serves one HTTP/2 stream: a request becomes a head like any other, and its answer goes into the stream.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Request;

use super::exchange::Exchange;
use super::head::read as read_head;
use super::interim::StreamInterim;
use super::memory::{ChargedBytes, Share};
use super::meter::Meter;
use super::recv::{Recv, StreamBody, discard};
use super::send::send;
use super::tunnel;
use crate::message::{Framing, RequestHead};
use crate::server::asked::{self, Asked, Turn};
use crate::server::context::Context;
use crate::server::interim::InterimFilter;
use crate::server::local_reply::reject;
use crate::server::record::{Outcome, Sent, record};
use crate::server::rejection::Rejection;
use crate::server::reply::Reply;
use crate::server::service::{self, Work};
use crate::server::tunnel::Tunnelled;
use crate::upstream::{Upgraded, UpstreamError};
use crate::wire::body::{Frame, RequestBody, RequestBodyError};

/// The end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was answered.
    Answered,
    /// The client did not wait for the whole answer.
    GivenUp,
}

impl Ended {
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
) -> Ended {
    let begin = context.begin();
    let alarm = context.worker.clock.alarm();
    let (parts, recv) = request.into_parts();
    let view = context.worker.view();
    let limits = &view.shared.limits;
    let mut head = RequestHead::default();
    let read = read_head(&parts, recv.is_end_stream(), &limits.head(), &mut head);
    meter.payload(head.fields.size());
    let recv = Rc::new(RefCell::new(Recv::new(recv, limits.request_body, meter, share.clone())));
    let exchange = Exchange { respond: RefCell::new(respond), recv, share, context, alarm, begin };
    let Exchange { recv, context, alarm, .. } = &exchange;
    if let Err(fault) = read {
        let asked = asked::read_refused(&mut head, context);
        let mut reply = reject(Rejection::Head(fault), &head, asked.as_ref(), context);
        let sent = send(&exchange, &mut reply, &head).await;
        record(context, &head, asked.as_ref(), &Outcome::of(&reply, &sent, begin, asked.as_ref(), context));
        discard(recv, alarm, limits.linger).await;
        return Ended::of(&sent);
    }
    let asked = asked::read(&mut head, context);
    let turn = Turn { head: &head, asked: &asked, context, alarm };
    let reply = match service::answer_at_once(&turn) {
        Ok(reply) => Some(reply),
        Err(work) => answer(work, &exchange, &turn).await,
    };
    let Some(mut reply) = reply else { return Ended::GivenUp };
    if let Some(upgraded) = reply.upgraded.take() {
        // Boxed: other streams reserve no memory for a tunnel.
        return Box::pin(serve_tunnel(exchange, &reply, *upgraded, &head, &asked)).await;
    }
    let sent = send(&exchange, &mut reply, &head).await;
    alarm.uncap();
    record(context, &head, Some(&asked), &Outcome::of(&reply, &sent, begin, Some(&asked), context));
    // This releases the connection to the upstream.
    drop(reply);
    if sent.result.is_ok() {
        discard(recv, alarm, limits.linger).await;
    }
    Ended::of(&sent)
}

/// Does the work for an answer. Records the request and returns `None` if there is nobody to answer.
async fn answer(work: Work, exchange: &Exchange, turn: &Turn<'_>) -> Option<Reply> {
    let Exchange { respond, recv, share, begin, .. } = exchange;
    let Turn { head, asked, context, .. } = *turn;
    match check_body(exchange, head).await {
        Ok(()) => {}
        Err(RequestBodyError::Gone) => {
            record(context, head, Some(asked), &Outcome::gone(*begin));
            return None;
        }
        Err(error) => {
            let wrong = Rejection::Body(error);
            record(context, head, Some(asked), &Outcome::refused(wrong.status(), wrong.cause(), *begin));
            respond.borrow_mut().send_reset(Reason::PROTOCOL_ERROR);
            return None;
        }
    }
    let filter = InterimFilter::new(head, asked.site.as_ref().map(|site| &*site.response));
    let mut interim = StreamInterim::new(respond, filter, share.clone());
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
        record(context, head, Some(asked), &Outcome::gone(*begin));
    }
    reply
}

/// Passes a WebSocket on until it ends.
async fn serve_tunnel(
    exchange: Exchange,
    reply: &Reply,
    upgraded: Upgraded,
    head: &RequestHead,
    asked: &Asked,
) -> Ended {
    let Exchange { respond, recv, context, alarm, begin, .. } = exchange;
    let tunnelled = tunnel::run(respond.into_inner(), recv, reply, upgraded, &context, &alarm).await;
    let Tunnelled { bytes, broken, .. } = tunnelled.unwrap_or_default();
    let broken = broken.map(|error| UpstreamError::Truncated(Some(error)));
    let sent = Sent { result: Ok(()), bytes, broken };
    record(&context, head, Some(asked), &Outcome::of(reply, &sent, begin, Some(asked), &context));
    Ended::Answered
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
