//! HTTP/1.1 to clients.
//!
//! The server side of HTTP/1.1 is our own, and not hyper's, for three reasons (ARCHITECTURE.md has the figures). It reads
//! framing strictly, on the bytes. Every refusal carries the page and the policies of the site, even for a malformed head.
//! And it forwards a request without a header map, a body channel or a task in between.

mod connection;
mod exchange;
mod link;
mod respond;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};

use super::asked::Turn;
use super::context::{ClientTransport, Context};
use super::rejection::Rejection;
use super::reply::Reply;
use super::service::{self, Work};
use crate::clock::Alarm;
use crate::message::Framing;
use crate::wire::body::RequestBody;

use connection::ClientConnection;
use exchange::{Exchange, Next, Slow};
use link::{Link, LinkBody, LinkInterim};

/// Serves a connection to its end. An idle connection holds no exchange and no buffer.
pub(super) fn serve(
    transport: ClientTransport,
    received: Vec<u8>,
    context: Rc<Context>,
    alarm: Alarm,
) -> impl Future<Output = ()> {
    // Here, since an `async fn` would keep room for its arguments.
    let link = Rc::new(RefCell::new(Link::new(transport, received)));
    run(ClientConnection { link, context, alarm })
}

async fn run(connection: ClientConnection) {
    let context = &connection.context;
    let mut requests = 0;
    loop {
        connection.alarm.set(context.worker.view().shared.limits.idle);
        if !connection.rest(requests == 0).await {
            break;
        }
        if requests == 0 {
            context.entry.speaks();
        }
        requests += 1;
        let last = requests >= context.worker.view().shared.limits.requests_per_connection;
        let (mut exchange, begun) = poll_fn(|cx| Poll::Ready(begin(&connection, last, cx))).await;
        let done = match begun {
            Poll::Ready(done) => done,
            Poll::Pending => poll_fn(|cx| exchange.poll(&connection, cx)).await,
        };
        let next = match done {
            Ok(next) => {
                exchange.leave();
                next
            }
            Err(slow) => Box::pin(finish(exchange, slow, &connection, last)).await,
        };
        match next {
            Next::Request => {}
            Next::Close => break,
            Next::Linger => return connection.linger().await,
            Next::Gone => return,
        }
    }
    connection.close().await;
}

/// Begins with a request, and polls it once. Mostly its head is complete, and a connection to the upstream is ready.
fn begin(
    connection: &ClientConnection,
    last: bool,
    cx: &mut TaskContext<'_>,
) -> (Box<Exchange>, Poll<Result<Next, Slow>>) {
    let view = connection.context.worker.view();
    let limits = &view.shared.limits;
    connection.alarm.set(limits.request_header);
    let mut exchange = Exchange::take();
    let read = connection.link.borrow_mut().take_head(&limits.head(), &mut exchange.head);
    let read = match read {
        Ok(false) => return (exchange, Poll::Ready(Err(Slow::Head))),
        read => read.map(drop).map_err(Rejection::Head),
    };
    let begun = match exchange.start(read, connection, last) {
        Ok(()) => exchange.poll(connection, cx),
        Err(work) => Poll::Ready(Err(Slow::Work(work))),
    };
    (exchange, begun)
}

/// Takes a request from its first slow step to its end. A future of its own, so that neither an idle connection nor a
/// request in its usual course reserves memory for it.
async fn finish(mut exchange: Box<Exchange>, mut slow: Slow, connection: &ClientConnection, last: bool) -> Next {
    loop {
        match slow {
            Slow::Head => {
                // Until its head is complete, a request may have to make room for another connection.
                connection.alarm.rests(true);
                let limits = connection.context.worker.view().shared.limits.head();
                let read = connection.read_head(&limits, &mut exchange.head).await;
                connection.alarm.rests(false);
                if matches!(read, Ok(false)) {
                    return Next::Gone;
                }
                if let Err(work) = exchange.start(read.map(drop), connection, last) {
                    slow = Slow::Work(work);
                    continue;
                }
            }
            Slow::Work(work) => match answer(work, connection, &exchange).await {
                Some(reply) => exchange.answer(reply, connection),
                None => return exchange.gone(connection),
            },
            Slow::Tunnel(upgraded) => {
                let tunnelled = connection.run_tunnel(*upgraded).await;
                return exchange.end_tunnel(tunnelled, connection);
            }
        }
        match poll_fn(|cx| exchange.poll(connection, cx)).await {
            Ok(next) => return next,
            Err(more) => slow = more,
        }
    }
}

/// Does the work for an answer. Returns `None` if the client leaves meanwhile.
async fn answer(work: Work, connection: &ClientConnection, exchange: &Exchange) -> Option<Reply> {
    let ClientConnection { link, context, alarm } = connection;
    let Exchange { head, asked: Some(asked), .. } = exchange else { return None };
    let body: Option<RequestBody> = match head.framing {
        Framing::None => None,
        _ => Some(Box::new(LinkBody { link: link.clone(), site: asked.site.clone() })),
    };
    let turn = Turn { head, asked, context, alarm };
    let mut interim = LinkInterim::new(link, &turn);
    let mut answering = pin!(service::answer(work, body, &turn, &mut interim));
    poll_fn(|cx| match answering.as_mut().poll(cx) {
        Poll::Ready(reply) => Poll::Ready(Some(reply)),
        Poll::Pending => {
            ready!(link.borrow_mut().poll_while_waiting(cx));
            Poll::Ready(None)
        }
    })
    .await
}
