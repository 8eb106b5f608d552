//! A request under way, from its head to the end of its answer. The usual course is polled in place: a request that is
//! sent upstream at once, and an answer that is sent back.

use std::cell::RefCell;
use std::io;
use std::task::{Context as TaskContext, Poll, ready};

use tokio::time::Instant;

use super::connection::ClientConnection;
use super::link::LinkInterim;
use super::respond::Sending;
use crate::message::RequestHead;
use crate::server::admit;
use crate::server::asked::{self, Asked, Turn};
use crate::server::filters;
use crate::server::local_reply::reject;
use crate::server::record::{RequestOutcome, record};
use crate::server::rejection::Rejection;
use crate::server::reply::Reply;
use crate::server::service::{self, Asking, Work};
use crate::server::tunnel::Tunnelled;
use crate::upstream::UpgradedConnection;

/// Exchanges that a thread keeps for reuse.
const SPARE_MAX: usize = 64;

#[allow(clippy::vec_box, reason = "they are handed on, and stay where they are")]
type Spare = Vec<Box<Exchange>>;

thread_local! {
    /// An idle connection holds no exchange; its next request takes one that another has left.
    static SPARE: RefCell<Spare> = const { RefCell::new(Vec::new()) };
}

/// A request, and its answer once there is one.
#[derive(Default)]
pub(super) struct Exchange {
    pub(super) head: RequestHead,
    /// `None` if the head could not be read.
    pub(super) asked: Option<Asked>,
    begin: Option<Instant>,
    stage: Stage,
}

#[derive(Default)]
#[allow(clippy::large_enum_variant, reason = "an exchange is boxed and reused")]
enum Stage {
    /// Nothing to poll in place: a [`Slow`] step is due.
    #[default]
    Idle,
    Asking(Asking),
    Answering(Answering),
}

/// An answer on its way.
struct Answering {
    reply: Reply,
    /// Part of the request's body is still to come.
    unread: bool,
    sending: Sending,
}

/// A step that takes a future of its own.
pub(super) enum Slow {
    /// The rest of the request's head.
    Head,
    /// An answer that needs more than a ready connection to the upstream.
    Work(Work),
    /// The tunnel behind a 101.
    Tunnel(Box<UpgradedConnection>),
}

/// The fate of the connection after an exchange.
pub(super) enum Next {
    /// It takes another request.
    Request,
    /// pintle ends it.
    Close,
    /// pintle ends its side, and reads on so that the client gets to read the answer.
    Linger,
    /// The client has left.
    Gone,
}

impl Exchange {
    /// Takes an unused exchange.
    pub(super) fn take() -> Box<Self> {
        SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Clears the exchange, and keeps it for another request.
    pub(super) fn leave(mut self: Box<Self>) {
        if !self.head.fields.is_worth_keeping() {
            return;
        }
        self.head.clear();
        self.asked = None;
        self.stage = Stage::Idle;
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(self);
            }
        });
    }

    /// Starts with a head that has been read or refused: answers if nobody else is needed, or sends the request upstream if
    /// that can be done at once. Else returns the work that is left. `last` ends the connection with this request.
    pub(super) fn start(
        &mut self,
        read: Result<(), Rejection>,
        connection: &ClientConnection,
        last: bool,
    ) -> Result<(), Work> {
        let ClientConnection { link, context, alarm } = connection;
        self.begin = context.begin();
        if let Err(rejection) = read {
            self.head.keep_alive = false;
            self.asked = asked::read_refused(&mut self.head, context);
            let reply = reject(rejection, &self.head, self.asked.as_ref(), context);
            self.answer(reply, connection);
            return Ok(());
        }
        let head = &mut self.head;
        link.borrow_mut().begin_body(head.framing, context.worker.view().shared.limits.request_body);
        head.keep_alive &= !last;
        let asked = self.asked.insert(asked::read(head, context));
        let turn = Turn { head, asked, context, alarm };
        match service::answer_at_once(&turn) {
            Ok(reply) => self.answer(reply, connection),
            Err(work) => self.stage = Stage::Asking(service::ask_at_once(work, &turn)?),
        }
        Ok(())
    }

    /// Begins to send an answer.
    pub(super) fn answer(&mut self, mut reply: Reply, connection: &ClientConnection) {
        // An answer before the end of the request ends the connection: the next bytes are the request's rest.
        let unread = !connection.link.borrow().is_body_read();
        let keep_alive = self.head.keep_alive && !reply.closes && !unread && !connection.context.worker.is_draining();
        reply.begins(connection.context.begin());
        admit::add_fields(self.asked.as_ref(), &mut reply);
        filters::for_client(&mut reply, &self.head, self.asked.as_ref(), &connection.context);
        let sending = Sending::begin(connection, &self.head, &mut reply, keep_alive);
        self.stage = Stage::Answering(Answering { reply, unread, sending });
    }

    /// Polls the exchange to its end, or to a slow step.
    pub(super) fn poll(&mut self, connection: &ClientConnection, cx: &mut TaskContext<'_>) -> Poll<Result<Next, Slow>> {
        let ClientConnection { link, context, alarm } = connection;
        if let (Stage::Asking(asking), Some(asked)) = (&mut self.stage, &self.asked) {
            let turn = Turn { head: &self.head, asked, context, alarm };
            let mut interim = LinkInterim::new(link, &turn);
            match asking.poll(&turn, &mut interim, cx) {
                Poll::Ready(Ok(reply)) => self.answer(reply, connection),
                Poll::Ready(Err(work)) => return Poll::Ready(Err(Slow::Work(work))),
                Poll::Pending => {
                    ready!(link.borrow_mut().poll_while_waiting(cx));
                    return Poll::Ready(Ok(self.gone(connection)));
                }
            }
        }
        let Stage::Answering(answering) = &mut self.stage else { return Poll::Ready(Ok(Next::Gone)) };
        let result = ready!(answering.sending.poll_sent(&mut answering.reply, connection, cx));
        // The upstream has done its part: its total time no longer applies.
        alarm.uncap();
        Poll::Ready(match answering.reply.upgraded.take() {
            Some(upgraded) if result.is_ok() => Err(Slow::Tunnel(upgraded)),
            _ => Ok(self.end(result, connection, None)),
        })
    }

    /// Records the exchange, and decides about the connection.
    fn end(&mut self, result: io::Result<()>, connection: &ClientConnection, tunnelled: Option<&Tunnelled>) -> Next {
        let context = &connection.context;
        let Stage::Answering(answering) = &mut self.stage else { return Next::Gone };
        let sent = answering.sending.end(result, &connection.link);
        let received = tunnelled.map_or_else(|| connection.link.borrow().body_read(), |tunnelled| tunnelled.received);
        let outcome = RequestOutcome::of(&answering.reply, &sent, self.begin, self.asked.as_ref(), context);
        let outcome = outcome.received(received).ended_by(tunnelled.and_then(Tunnelled::why));
        record(context, &self.head, self.asked.as_ref(), &outcome);
        match sent.result {
            Err(_) => Next::Gone,
            Ok(()) if answering.sending.keeps_alive() => Next::Request,
            Ok(()) if answering.unread || answering.reply.closes => Next::Linger,
            Ok(()) => Next::Close,
        }
    }

    /// Ends an exchange that became a tunnel. Unless the upstream's end was passed on, the connection ends without
    /// close_notify; or with a reset, if it has no TLS.
    pub(super) fn end_tunnel(&mut self, mut tunnelled: Tunnelled, connection: &ClientConnection) -> Next {
        if let Stage::Answering(answering) = &mut self.stage {
            answering.sending.add_tunnelled(tunnelled.bytes, tunnelled.broken.take());
        }
        let next = self.end(Ok(()), connection, Some(&tunnelled));
        if tunnelled.whole {
            return next;
        }
        if !connection.context.is_tls() {
            connection.link.borrow().reset_on_close(true);
        }
        Next::Gone
    }

    /// Records a request whose client has left before the answer.
    pub(super) fn gone(&self, connection: &ClientConnection) -> Next {
        let outcome = RequestOutcome::gone(self.begin).received(connection.link.borrow().body_read());
        record(&connection.context, &self.head, self.asked.as_ref(), &outcome);
        Next::Gone
    }
}
