//! HTTP/1.1 towards clients.
//!
//! The server side of HTTP/1.1 is our own, and not hyper's, for three reasons (ARCHITECTURE.md has the figures):
//! framing is read strictly, on the octets; every refusal, a malformed head's included, carries the page and the
//! policies of the site; and a request is passed on without a header map, a body channel or a task in between.

mod link;
mod respond;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Buf as _;
use tokio::time::Instant;

use super::connection::{ClientTransport, Context};
use super::record::{Outcome, record};
use super::rejection::Rejection;
use super::reply::Reply;
use super::service::{Asked, Work};
use super::{service, tunnel};
use crate::body::RequestBody;
use crate::clock::Alarm;
use crate::message::{Framing, HeadFault, RequestHead, parse_request};
use crate::upstream::Upgraded;

use link::{Link, LinkBody, LinkInterim};

/// What may be thrown away of a body to keep a connection that is good otherwise.
const DISCARD_TIME: Duration = Duration::from_millis(500);

/// Serves a connection to its end. At rest it holds the connection, and nothing else.
pub(super) async fn serve(transport: ClientTransport, received: Vec<u8>, context: Rc<Context>, alarm: Alarm) {
    let link = Rc::new(RefCell::new(Link::new(transport, received)));
    let mut requests = 0;
    loop {
        let limits = context.worker.view();
        let limits = &limits.shared.limits;
        alarm.set(limits.idle);
        if !rest(&link, &context, &alarm).await {
            break;
        }
        requests += 1;
        let last = requests >= limits.requests_per_connection;
        match Box::pin(exchange(&link, &context, &alarm, last)).await {
            Next::Request => {}
            Next::Close => break,
            Next::Linger => {
                linger(&link, &context, &alarm).await;
                return;
            }
            Next::Gone => return,
        }
    }
    alarm.set(context.worker.view().shared.limits.linger);
    poll_fn(|cx| match link.borrow_mut().transport.poll_shutdown(cx) {
        Poll::Pending => alarm.poll_due(cx),
        Poll::Ready(_) => Poll::Ready(()),
    })
    .await;
}

/// How an exchange leaves the connection.
enum Next {
    /// Ready for another.
    Request,
    /// To be ended.
    Close,
    /// To be ended, but the client still sends: it must get to read its answer first.
    Linger,
    /// There is nobody any more.
    Gone,
}

/// Waits for the next request. Says no when the connection is to end.
async fn rest(link: &Rc<RefCell<Link>>, context: &Context, alarm: &Alarm) -> bool {
    poll_fn(|cx| {
        let mut link = link.borrow_mut();
        if !link.received.is_empty() {
            return Poll::Ready(true);
        }
        // A buffer without contents is given back.
        link.received = bytes::BytesMut::new();
        match link.poll_receive(cx) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(false),
            Poll::Ready(Ok(_)) => Poll::Ready(true),
            Poll::Pending if context.worker.is_draining() => Poll::Ready(false),
            Poll::Pending => alarm.poll_due(cx).map(|()| false),
        }
    })
    .await
}

/// One request and its answer.
async fn exchange(link: &Rc<RefCell<Link>>, context: &Rc<Context>, alarm: &Alarm, last: bool) -> Next {
    let view = context.worker.view();
    let limits = &view.shared.limits;
    let mut head = RequestHead::default();
    alarm.set(limits.request_header);
    let read = read_head(link, &limits.head(), &mut head, alarm).await;
    let begin = Instant::now();
    let rejection = match read {
        Ok(true) => None,
        Ok(false) => return Next::Gone,
        Err(rejection) => Some(rejection),
    };
    if let Some(rejection) = rejection {
        head.keep_alive = false;
        let reply = service::reject(rejection, &head, None, context);
        return finish(link, context, alarm, &head, reply, None, begin).await;
    }
    link.borrow_mut().begin_body(head.framing, limits.request_body);
    head.keep_alive &= !last;
    let asked = service::read(&head, context);
    let reply = match service::answer_at_once(&head, &asked, context) {
        Ok(reply) => Some(reply),
        Err(work) => answer(work, link, context, alarm, &head, &asked).await,
    };
    match reply {
        Some(reply) => finish(link, context, alarm, &head, reply, Some(&asked), begin).await,
        None => {
            record(context, &head, Some(&asked), &Outcome::gone(begin));
            Next::Gone
        }
    }
}

/// Answers a request that takes its time, unless its client goes away meanwhile.
async fn answer(
    work: Work,
    link: &Rc<RefCell<Link>>,
    context: &Rc<Context>,
    alarm: &Alarm,
    head: &RequestHead,
    asked: &Asked,
) -> Option<Reply> {
    let body: Option<RequestBody> = match head.framing {
        Framing::None => None,
        _ => Some(Box::new(LinkBody(link.clone()))),
    };
    let mut interim = LinkInterim {
        link: link.clone(),
        version: head.version,
        expects_continue: head.expects_continue(),
        continued: false,
    };
    let mut answering = Box::pin(service::answer(work, head, body, asked, context, alarm, &mut interim));
    poll_fn(|cx| match answering.as_mut().poll(cx) {
        Poll::Ready(reply) => Poll::Ready(Some(reply)),
        Poll::Pending => {
            ready!(link.borrow_mut().poll_while_waiting(cx));
            Poll::Ready(None)
        }
    })
    .await
}

/// Reads a request's head. Says no when the client ends before it has begun one.
async fn read_head(
    link: &Rc<RefCell<Link>>,
    limits: &crate::message::HeadLimits,
    head: &mut RequestHead,
    alarm: &Alarm,
) -> Result<bool, Rejection> {
    poll_fn(|cx| {
        let mut link = link.borrow_mut();
        loop {
            if !link.received.is_empty() {
                match parse_request(&link.received, limits, head) {
                    Ok(Some(len)) => {
                        link.received.advance(len);
                        return Poll::Ready(Ok(true));
                    }
                    Ok(None) => {}
                    Err(fault) => return Poll::Ready(Err(Rejection::Head(fault))),
                }
            }
            match link.poll_receive(cx) {
                Poll::Ready(Ok(0)) if !link.received.is_empty() => {
                    return Poll::Ready(Err(Rejection::Head(HeadFault::Syntax("head cut short"))));
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    ready!(alarm.poll_due(cx));
                    return Poll::Ready(Err(Rejection::HeadTimeout));
                }
            }
        }
    })
    .await
}

/// Sends the answer, writes the log line, and says what becomes of the connection.
async fn finish(
    link: &Rc<RefCell<Link>>,
    context: &Rc<Context>,
    alarm: &Alarm,
    head: &RequestHead,
    mut reply: Reply,
    asked: Option<&Asked>,
    begin: Instant,
) -> Next {
    // An answer to a request that is not all there ends the connection: what comes is its rest, not the next one.
    let unread = !link.borrow().is_body_read();
    let keep_alive = head.keep_alive && !reply.closes && !unread && !context.worker.is_draining();
    let upgraded = reply.upgraded.take();
    let sent = respond::send(link, context, alarm, head, &mut reply, keep_alive).await;
    // The upstream's part is over, and with it the time that it had in all.
    alarm.uncap();
    let mut outcome = Outcome::of(&reply, &sent, begin, asked, context);
    if let (Ok(_), Some(upgraded)) = (&sent.result, upgraded) {
        outcome.bytes += run_tunnel(link, context, alarm, upgraded).await;
        record(context, head, asked, &outcome);
        return Next::Close;
    }
    record(context, head, asked, &outcome);
    match sent.result {
        Err(_) => Next::Gone,
        Ok(respond::After::Close) if unread => Next::Linger,
        Ok(respond::After::Close) if reply.closes => Next::Linger,
        Ok(respond::After::Close) => Next::Close,
        Ok(respond::After::KeepAlive) => Next::Request,
    }
}

async fn run_tunnel(link: &Rc<RefCell<Link>>, context: &Context, alarm: &Alarm, upgraded: Upgraded) -> u64 {
    let Upgraded { mut transport, received, .. } = upgraded;
    let view = context.worker.view();
    let limits = &view.shared.limits;
    let ahead = link.borrow_mut().received.split();
    tunnel::run(&mut link.clone(), &mut transport, ahead, received, alarm, limits.websocket_idle, limits.linger).await
}

/// Ends our side, and listens on for a while: an answer is lost when its connection is reset by octets that nobody
/// read (RFC 9112 section 9.6).
async fn linger(link: &Rc<RefCell<Link>>, context: &Context, alarm: &Alarm) {
    let limit = context.worker.view().shared.limits.linger;
    let body = poll_fn(|cx| {
        let mut link = link.borrow_mut();
        match link.poll_discard(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => alarm.poll_due(cx),
        }
    });
    // A body that is nearly all there ends of its own accord, and the client with it.
    alarm.set(DISCARD_TIME.min(limit));
    body.await;
    alarm.set(limit);
    poll_fn(|cx| {
        let mut link = link.borrow_mut();
        if link.transport.poll_shutdown(cx).is_pending() {
            return alarm.poll_due(cx);
        }
        match link.poll_discard_all(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => alarm.poll_due(cx),
        }
    })
    .await;
}
