//! HTTP/1.1 towards clients.
//!
//! The server side of HTTP/1.1 is our own, and not hyper's, for three reasons (ARCHITECTURE.md has the figures):
//! framing is read strictly, on the octets; every refusal, a malformed head's included, carries the page and the
//! policies of the site; and a request is passed on without a header map, a body channel or a task in between.

mod link;
mod respond;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{ClientTransport, Context};
use super::record::{Outcome, record};
use super::rejection::Rejection;
use super::reply::Reply;
use super::service::{Asked, Work};
use super::{service, tunnel};
use crate::body::RequestBody;
use crate::clock::Alarm;
use crate::message::{Framing, HeadFault, RequestHead};
use crate::upstream::Upgraded;

use link::{Link, LinkBody, LinkInterim};
use respond::{After, Sending};

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
        requests += 1;
        let last = requests >= limits.requests_per_connection;
        let begun = poll_fn(|cx| Poll::Ready(begin(&link, &context, &alarm, last, cx))).await;
        let next = match begun {
            Ok(next) => next,
            Err(rest) => rest.await,
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
            Poll::Pending if context.worker.ends_rest(first, since) => Poll::Ready(false),
            Poll::Pending => alarm.poll_due(cx).map(|()| false),
        }
    })
    .await
}

/// A request whose head has been read, and what is known of it.
struct Request {
    head: RequestHead,
    /// None where it could not be read.
    asked: Option<Asked>,
    begin: Instant,
}

/// An answer to it.
struct Answer {
    request: Request,
    reply: Reply,
    /// The request is not all there.
    unread: bool,
    sending: Sending,
}

/// What a request waits for.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once, within a box")]
enum Waits {
    /// The rest of its head.
    Head,
    /// The upstream, mostly.
    Work(Request, Asked, Work),
    /// The client, to take the answer.
    Client(Answer),
}

/// Begins with a request; mostly its head is all there. What needs nobody else is answered on the spot. The rest is a
/// future of its own, so that a connection at rest does not carry the room for it.
fn begin<'a>(
    link: &'a Rc<RefCell<Link>>,
    context: &'a Rc<Context>,
    alarm: &'a Alarm,
    last: bool,
    cx: &mut TaskContext<'_>,
) -> Result<Next, Pin<Box<impl Future<Output = Next> + use<'a>>>> {
    let view = context.worker.view();
    let limits = &view.shared.limits;
    alarm.set(limits.request_header);
    let mut head = RequestHead::default();
    let read = link.borrow_mut().take_head(&limits.head(), &mut head);
    let waits = match read.map_err(Rejection::Head) {
        Ok(false) => Waits::Head,
        read => match consider(read.map(drop), head, link, context, last) {
            Err((request, asked, work)) => Waits::Work(request, asked, work),
            Ok((request, reply)) => {
                let mut answer = Answer::new(request, reply, link, context, alarm);
                match answer.sending.poll_sent(&mut answer.reply.body, link, alarm, cx) {
                    Poll::Ready(result) => return Ok(answer.end(result, 0, context)),
                    Poll::Pending => Waits::Client(answer),
                }
            }
        },
    };
    Err(Box::pin(go_on(waits, link, context, alarm, last)))
}

/// One request and its answer, from where it has to wait.
async fn go_on(waits: Waits, link: &Rc<RefCell<Link>>, context: &Rc<Context>, alarm: &Alarm, last: bool) -> Next {
    let considered = match waits {
        Waits::Client(answer) => return answer.send(link, context, alarm).await,
        Waits::Work(request, asked, work) => Err((request, asked, work)),
        Waits::Head => {
            let mut head = RequestHead::default();
            let read = read_head(link, &context.worker.view().shared.limits.head(), &mut head, alarm).await;
            match read {
                Ok(false) => return Next::Gone,
                read => consider(read.map(drop), head, link, context, last),
            }
        }
    };
    let (request, reply) = match considered {
        Ok(answered) => answered,
        Err((mut request, asked, work)) => {
            let reply = answer(work, link, context, alarm, &request.head, &asked).await;
            request.asked = Some(asked);
            match reply {
                Some(reply) => (request, reply),
                None => {
                    let outcome = Outcome::gone(request.begin);
                    record(context, &request.head, request.asked.as_ref(), &outcome);
                    return Next::Gone;
                }
            }
        }
    };
    Answer::new(request, reply, link, context, alarm).send(link, context, alarm).await
}

/// Answers a request that needs nobody else, or could not be read; else says what is to be done.
#[allow(clippy::type_complexity, clippy::result_large_err, reason = "taken apart at once by its two callers")]
fn consider(
    read: Result<(), Rejection>,
    mut head: RequestHead,
    link: &RefCell<Link>,
    context: &Context,
    last: bool,
) -> Result<(Request, Reply), (Request, Asked, Work)> {
    let begin = Instant::now();
    if let Err(rejection) = read {
        head.keep_alive = false;
        let reply = service::reject(rejection, &head, None, context);
        return Ok((Request { head, asked: None, begin }, reply));
    }
    link.borrow_mut().begin_body(head.framing, context.worker.view().shared.limits.request_body);
    head.keep_alive &= !last;
    let asked = service::read(&head, context);
    match service::answer_at_once(&head, &asked, context) {
        Ok(reply) => Ok((Request { head, asked: Some(asked), begin }, reply)),
        Err(work) => Err((Request { head, asked: None, begin }, asked, work)),
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
                    return Poll::Ready(Err(Rejection::HeadTimeout));
                }
            }
        }
    })
    .await
}

impl Answer {
    fn new(request: Request, mut reply: Reply, link: &RefCell<Link>, context: &Context, alarm: &Alarm) -> Self {
        // An answer to a request that is not all there ends the connection: what comes is its rest, not the next one.
        let unread = !link.borrow().is_body_read();
        let keep_alive = request.head.keep_alive && !reply.closes && !unread && !context.worker.is_draining();
        let sending = Sending::begin(link, context, alarm, &request.head, &mut reply, keep_alive);
        Self { request, reply, unread, sending }
    }

    /// Sends it, and what follows a 101.
    async fn send(mut self, link: &Rc<RefCell<Link>>, context: &Context, alarm: &Alarm) -> Next {
        let result = poll_fn(|cx| self.sending.poll_sent(&mut self.reply.body, link, alarm, cx)).await;
        // The upstream's part is over, and with it the time that it had in all.
        alarm.uncap();
        let mut tunnelled = 0;
        if let (Ok(()), Some(upgraded)) = (&result, self.reply.upgraded.take()) {
            tunnelled = run_tunnel(link, context, alarm, *upgraded).await;
        }
        self.end(result, tunnelled, context)
    }

    /// Writes the log line, and says what becomes of the connection.
    fn end(self, result: io::Result<()>, tunnelled: u64, context: &Context) -> Next {
        let Self { request, reply, unread, sending, .. } = self;
        let sent = sending.end(result);
        let mut outcome = Outcome::of(&reply, &sent, request.begin, request.asked.as_ref(), context);
        outcome.bytes += tunnelled;
        record(context, &request.head, request.asked.as_ref(), &outcome);
        match sent.result {
            Err(_) => Next::Gone,
            Ok(After::Close) if unread || reply.closes => Next::Linger,
            Ok(After::Close) => Next::Close,
            Ok(After::KeepAlive) => Next::Request,
        }
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
