//! A request under way, from its head to the end of its answer. The usual course is polled in place: a request that the
//! upstream is asked at once, and an answer that is sent.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};

use tokio::time::Instant;

use super::link::{Link, LinkInterim};
use super::respond::{After, Sending};
use super::{Next, Waits};
use crate::clock::Alarm;
use crate::message::RequestHead;
use crate::server::context::Context;
use crate::server::record::{Outcome, record};
use crate::server::rejection::Rejection;
use crate::server::reply::Reply;
use crate::server::service::{self, Asked, Asking, Work};
use crate::server::tunnel::Tunnelled;

/// Requests whose room a thread keeps for others.
const SPARE: usize = 64;

#[allow(clippy::vec_box, reason = "they are handed on, and stay where they are")]
type Rooms = Vec<Box<Busy>>;

thread_local! {
    /// A connection at rest has none of its own; its next request takes what another has left.
    static ROOMS: RefCell<Rooms> = const { RefCell::new(Vec::new()) };
}

/// A request, and its answer once there is one.
#[derive(Default)]
pub(super) struct Busy {
    pub(super) head: RequestHead,
    /// None where the head could not be read.
    pub(super) asked: Option<Asked>,
    begin: Option<Instant>,
    stage: Stage,
}

#[derive(Default)]
#[allow(clippy::large_enum_variant, reason = "it is the room for it")]
enum Stage {
    /// Something is to be done that is not done in place.
    #[default]
    Elsewhere,
    Asking(Asking),
    Answering(Answer),
}

/// An answer on its way.
struct Answer {
    reply: Reply,
    /// The request is not all there.
    unread: bool,
    sending: Sending,
}

impl Busy {
    /// Room for a request.
    pub(super) fn take() -> Box<Self> {
        ROOMS.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Leaves the room to others.
    pub(super) fn leave(mut self: Box<Self>) {
        if !self.head.fields.is_worth_keeping() {
            return;
        }
        self.head.clear();
        self.asked = None;
        self.stage = Stage::Elsewhere;
        ROOMS.with_borrow_mut(|rooms| {
            if rooms.len() < SPARE {
                rooms.push(self);
            }
        });
    }

    /// A head has been read, or cannot be: answers what needs nobody else, and asks the upstream where that is to be done
    /// at once. Else says what is to be done.
    pub(super) fn consider(
        &mut self,
        read: Result<(), Rejection>,
        link: &RefCell<Link>,
        context: &Context,
        alarm: &Alarm,
        last: bool,
    ) -> Result<(), Work> {
        self.begin = context.begin();
        if let Err(rejection) = read {
            self.head.keep_alive = false;
            self.asked = service::read_refused(&mut self.head, context);
            let reply = service::reject(rejection, &self.head, self.asked.as_ref(), context);
            self.answer(reply, link, context, alarm);
            return Ok(());
        }
        let head = &mut self.head;
        link.borrow_mut().begin_body(head.framing, context.worker.view().shared.limits.request_body);
        head.keep_alive &= !last;
        let asked = self.asked.insert(service::read(head, context));
        match service::answer_at_once(head, asked, context) {
            Ok(reply) => self.answer(reply, link, context, alarm),
            Err(work) => self.stage = Stage::Asking(service::ask_at_once(work, head, asked, context, alarm)?),
        }
        Ok(())
    }

    /// Has an answer, and begins to send it.
    pub(super) fn answer(&mut self, mut reply: Reply, link: &RefCell<Link>, context: &Context, alarm: &Alarm) {
        // An answer to a request that is not all there ends the connection: what comes is its rest, not the next one.
        let unread = !link.borrow().is_body_read();
        let keep_alive = self.head.keep_alive && !reply.closes && !unread && !context.worker.is_draining();
        let sending = Sending::begin(link, context, alarm, &self.head, &mut reply, keep_alive);
        self.stage = Stage::Answering(Answer { reply, unread, sending });
    }

    /// To its end, as long as nothing out of the ordinary is to be done; else says what that is.
    pub(super) fn poll(
        &mut self,
        link: &Rc<RefCell<Link>>,
        context: &Context,
        alarm: &Alarm,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<Next, Waits>> {
        if let (Stage::Asking(asking), Some(asked)) = (&mut self.stage, &self.asked) {
            let mut interim = LinkInterim::new(link, &self.head, asked);
            match asking.poll(&self.head, asked, context, alarm, &mut interim, cx) {
                Poll::Ready(Ok(reply)) => self.answer(reply, link, context, alarm),
                Poll::Ready(Err(work)) => return Poll::Ready(Err(Waits::Work(work))),
                Poll::Pending => {
                    ready!(link.borrow_mut().poll_while_waiting(cx));
                    return Poll::Ready(Ok(self.gone(context)));
                }
            }
        }
        let Stage::Answering(answer) = &mut self.stage else { return Poll::Ready(Ok(Next::Gone)) };
        let result = ready!(answer.sending.poll_sent(&mut answer.reply, link, alarm, cx));
        // The upstream's part is over, and with it the time that it had in all.
        alarm.uncap();
        Poll::Ready(match answer.reply.upgraded.take() {
            Some(upgraded) if result.is_ok() => Err(Waits::Tunnel(upgraded)),
            _ => Ok(self.end(result, context)),
        })
    }

    /// Writes the log line, and says what becomes of the connection.
    fn end(&mut self, result: io::Result<()>, context: &Context) -> Next {
        let Stage::Answering(answer) = &mut self.stage else { return Next::Gone };
        let sent = answer.sending.end(result);
        let outcome = Outcome::of(&answer.reply, &sent, self.begin, self.asked.as_ref(), context);
        record(context, &self.head, self.asked.as_ref(), &outcome);
        match sent.result {
            Err(_) => Next::Gone,
            Ok(After::Close) if answer.unread || answer.reply.closes => Next::Linger,
            Ok(After::Close) => Next::Close,
            Ok(After::KeepAlive) => Next::Request,
        }
    }

    /// The same for a tunnel. Unless the upstream's end was passed on, the connection ends without close_notify; and with a
    /// reset where there is no TLS.
    pub(super) fn end_tunnel(&mut self, tunnelled: Tunnelled, link: &RefCell<Link>, context: &Context) -> Next {
        if let Stage::Answering(answer) = &mut self.stage {
            answer.sending.add_tunnelled(tunnelled.bytes, tunnelled.broken);
        }
        let next = self.end(Ok(()), context);
        if tunnelled.whole {
            return next;
        }
        if !context.is_tls() {
            link.borrow().reset_on_close(true);
        }
        Next::Gone
    }

    /// There is nobody left to answer.
    pub(super) fn gone(&self, context: &Context) -> Next {
        record(context, &self.head, self.asked.as_ref(), &Outcome::gone(self.begin));
        Next::Gone
    }
}
