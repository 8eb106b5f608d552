//! HTTP/1.1 towards clients.
//!
//! The server side of HTTP/1.1 is our own, and not hyper's, for three reasons (ARCHITECTURE.md has the figures):
//! framing is read strictly, on the bytes; every refusal, a malformed head's included, carries the page and the
//! policies of the site; and a request is passed on without a header map, a body channel or a task in between.

mod busy;
mod link;
mod respond;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use super::context::{ClientTransport, Context};
use super::rejection::Rejection;
use super::reply::Reply;
use super::service::Work;
use super::tunnel::Tunnelled;
use super::{service, tunnel};
use crate::clock::Alarm;
use crate::message::{Framing, HeadFault, RequestHead};
use crate::upstream::Upgraded;
use crate::wire::body::RequestBody;

use busy::Busy;
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
        if !rest(&link, &context, &alarm, requests == 0).await {
            break;
        }
        if requests == 0 {
            context.entry.speaks();
        }
        requests += 1;
        let last = requests >= limits.requests_per_connection;
        let begun = poll_fn(|cx| Poll::Ready(begin(&link, &context, &alarm, last, cx))).await;
        let next = match begun {
            Begun::Over(next) => next,
            Begun::Slowly(busy, waits) => Box::pin(go_on(busy, waits, &link, &context, &alarm, last)).await,
            Begun::Busy(mut busy) => match poll_fn(|cx| busy.poll(&link, &context, &alarm, cx)).await {
                Ok(next) => {
                    busy.leave();
                    next
                }
                Err(waits) => Box::pin(go_on(busy, waits, &link, &context, &alarm, last)).await,
            },
        };
        match next {
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

/// Waits for the next request, or the first one. Says no when the connection is to end.
async fn rest(link: &Rc<RefCell<Link>>, context: &Context, alarm: &Alarm, first: bool) -> bool {
    let since = context.worker.ticks();
    alarm.rests(true);
    let goes_on = poll_fn(|cx| {
        let mut link = link.borrow_mut();
        if !link.received.is_empty() {
            return Poll::Ready(true);
        }
        // A buffer without contents is given back.
        link.received = bytes::BytesMut::new();
        match link.poll_receive(cx) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(false),
            Poll::Ready(Ok(_)) => Poll::Ready(true),
            Poll::Pending if context.worker.ends_rest(first, since) => Poll::Ready(false),
            Poll::Pending => alarm.poll_due(cx).map(|()| false),
        }
    })
    .await;
    alarm.rests(false);
    goes_on
}

/// What a request waits for that takes a future of its own.
enum Waits {
    /// The rest of its head.
    Head,
    /// The upstream, mostly.
    Work(Work),
    /// What follows a 101.
    Tunnel(Box<Upgraded>),
}

/// How far a request has come when it has been looked at for the first time.
enum Begun {
    Over(Next),
    /// It goes on in place.
    Busy(Box<Busy>),
    Slowly(Box<Busy>, Waits),
}

/// Begins with a request; mostly its head is all there, and a connection to the upstream, too. What needs nobody else is
/// answered on the spot.
fn begin(
    link: &Rc<RefCell<Link>>,
    context: &Rc<Context>,
    alarm: &Alarm,
    last: bool,
    cx: &mut TaskContext<'_>,
) -> Begun {
    let view = context.worker.view();
    let limits = &view.shared.limits;
    alarm.set(limits.request_header);
    let mut busy = Busy::take();
    let read = link.borrow_mut().take_head(&limits.head(), &mut busy.head);
    let read = match read {
        Ok(false) => return Begun::Slowly(busy, Waits::Head),
        read => read.map(drop).map_err(Rejection::Head),
    };
    if let Err(work) = busy.consider(read, link, context, alarm, last) {
        return Begun::Slowly(busy, Waits::Work(work));
    }
    match busy.poll(link, context, alarm, cx) {
        Poll::Ready(Ok(next)) => {
            busy.leave();
            Begun::Over(next)
        }
        Poll::Ready(Err(waits)) => Begun::Slowly(busy, waits),
        Poll::Pending => Begun::Busy(busy),
    }
}

/// A request from where it waits for something out of the ordinary. A future of its own, so that a connection at rest
/// does not carry the room for it, nor a request that is forwarded as most are.
async fn go_on(
    mut busy: Box<Busy>,
    mut waits: Waits,
    link: &Rc<RefCell<Link>>,
    context: &Rc<Context>,
    alarm: &Alarm,
    last: bool,
) -> Next {
    loop {
        match waits {
            Waits::Head => {
                // There is no request before its head is whole.
                alarm.rests(true);
                let read = read_head(link, &context.worker.view().shared.limits.head(), &mut busy.head, alarm).await;
                alarm.rests(false);
                if matches!(read, Ok(false)) {
                    return Next::Gone;
                }
                if let Err(work) = busy.consider(read.map(drop), link, context, alarm, last) {
                    waits = Waits::Work(work);
                    continue;
                }
            }
            Waits::Work(work) => match answer(work, link, context, alarm, &busy).await {
                Some(reply) => busy.answer(reply, link, context, alarm),
                None => return busy.gone(context),
            },
            Waits::Tunnel(upgraded) => {
                let tunnelled = run_tunnel(link, context, alarm, *upgraded).await;
                return busy.end_tunnel(tunnelled, link, context);
            }
        }
        match poll_fn(|cx| busy.poll(link, context, alarm, cx)).await {
            Ok(next) => return next,
            Err(more) => waits = more,
        }
    }
}

/// Answers a request that takes its time, unless its client goes away meanwhile.
async fn answer(
    work: Work,
    link: &Rc<RefCell<Link>>,
    context: &Rc<Context>,
    alarm: &Alarm,
    busy: &Busy,
) -> Option<Reply> {
    let Busy { head, asked: Some(asked), .. } = busy else { return None };
    let body: Option<RequestBody> = match head.framing {
        Framing::None => None,
        _ => Some(Box::new(LinkBody { link: link.clone(), site: asked.site.clone() })),
    };
    let mut interim = LinkInterim::new(link, head, asked);
    let mut answering = pin!(service::answer(work, head, body, asked, context, alarm, &mut interim));
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
            match link.take_head(limits, head) {
                Ok(true) => return Poll::Ready(Ok(true)),
                Ok(false) => {}
                Err(fault) => return Poll::Ready(Err(Rejection::Head(fault))),
            }
            match link.poll_receive(cx) {
                Poll::Ready(Ok(0)) if !link.received.is_empty() => {
                    return Poll::Ready(Err(Rejection::Head(HeadFault::Syntax("head cut short"))));
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    ready!(alarm.poll_due(cx));
                    // Whoever has to make room is not answered, as that takes its time.
                    let fault = if alarm.was_rung() { Ok(false) } else { Err(Rejection::HeadTimeout) };
                    return Poll::Ready(fault);
                }
            }
        }
    })
    .await
}

async fn run_tunnel(link: &Rc<RefCell<Link>>, context: &Context, alarm: &Alarm, upgraded: Upgraded) -> Tunnelled {
    let Upgraded { mut transport, received, .. } = upgraded;
    let view = context.worker.view();
    let limits = &view.shared.limits;
    let ahead = link.borrow_mut().received.split();
    tunnel::run(&mut link.clone(), &mut transport, ahead, received, alarm, limits.websocket_idle, limits.linger).await
}

/// Ends our side, and listens on for a while: an answer is lost when its connection is reset by bytes that nobody
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
    poll_fn(|cx| match link.borrow_mut().transport.poll_linger(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => alarm.poll_due(cx),
    })
    .await;
}
