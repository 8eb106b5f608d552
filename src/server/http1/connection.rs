//! A connection between and after requests: waiting for the next head, tunnels, and the end.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;

use super::link::Link;
use crate::clock::Alarm;
use crate::message::{HeadFault, HeadLimits, RequestHead};
use crate::server::context::Context;
use crate::server::rejection::Rejection;
use crate::server::tunnel::{self, Tunnelled};
use crate::upstream::UpgradedConnection;

/// The longest time for the rest of a request's body. After it, only the client's end is waited for.
const DISCARD_TIME: Duration = Duration::from_millis(500);

/// A client's connection.
pub(super) struct ClientConnection {
    pub(super) link: Rc<RefCell<Link>>,
    pub(super) context: Rc<Context>,
    pub(super) alarm: Alarm,
}

impl ClientConnection {
    /// Waits for the first byte of a request. Returns `false` if the connection is to end. `first` if none came before.
    pub(super) async fn rest(&self, first: bool) -> bool {
        let worker = &self.context.worker;
        let since = worker.ticks();
        self.alarm.rests(true);
        let has_request = poll_fn(|cx| {
            let mut link = self.link.borrow_mut();
            if !link.received.is_empty() {
                return Poll::Ready(true);
            }
            // An idle connection holds no buffer.
            link.received = BytesMut::new();
            match link.poll_receive(cx) {
                Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(false),
                Poll::Ready(Ok(_)) => Poll::Ready(true),
                Poll::Pending if worker.ends_rest(first, since) => Poll::Ready(false),
                Poll::Pending => self.alarm.poll_due(cx).map(|()| false),
            }
        })
        .await;
        self.alarm.rests(false);
        has_request
    }

    /// Reads a request's head. Returns `false` if the client leaves before it has begun one.
    pub(super) async fn read_head(&self, limits: &HeadLimits, head: &mut RequestHead) -> Result<bool, Rejection> {
        poll_fn(|cx| {
            let mut link = self.link.borrow_mut();
            loop {
                match link.take_head(limits, head) {
                    Ok(true) => return Poll::Ready(Ok(true)),
                    Ok(false) => {}
                    Err(fault) => return Poll::Ready(Err(Rejection::Head(fault))),
                }
                match link.poll_receive(cx) {
                    Poll::Ready(Ok(0) | Err(_)) if !link.received.is_empty() => {
                        return Poll::Ready(Err(Rejection::Head(HeadFault::Syntax("head cut short"))));
                    }
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(false)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => {
                        ready!(self.alarm.poll_due(cx));
                        // A connection that makes room for another gets no answer: that would take time.
                        let fault = if self.alarm.was_rung() { Ok(false) } else { Err(Rejection::HeadTimeout) };
                        return Poll::Ready(fault);
                    }
                }
            }
        })
        .await
    }

    /// Passes a WebSocket on until it ends.
    pub(super) async fn run_tunnel(&self, upgraded: UpgradedConnection) -> Tunnelled {
        let UpgradedConnection { mut transport, received, .. } = upgraded;
        let _counted = self.context.worker.tunnel();
        let view = self.context.worker.view();
        let limits = &view.shared.limits;
        let (idle, linger) = (limits.websocket_idle, limits.linger);
        let ahead = self.link.borrow_mut().received.split();
        tunnel::run(&mut self.link.clone(), &mut transport, ahead, received, &self.alarm, idle, linger).await
    }

    /// Ends pintle's side.
    pub(super) async fn close(&self) {
        self.alarm.set(self.context.worker.view().shared.limits.linger);
        poll_fn(|cx| match self.link.borrow_mut().transport.poll_shutdown(cx) {
            Poll::Pending => self.alarm.poll_due(cx),
            Poll::Ready(_) => Poll::Ready(()),
        })
        .await;
    }

    /// Ends pintle's side, and reads on for a while: a connection that is closed with unread bytes is reset, and the reset
    /// can destroy the answer (RFC 9112 section 9.6).
    pub(super) async fn linger(&self) {
        let limit = self.context.worker.view().shared.limits.linger;
        let body = poll_fn(|cx| {
            let mut link = self.link.borrow_mut();
            match link.poll_discard(cx) {
                Poll::Ready(_) => Poll::Ready(()),
                Poll::Pending => self.alarm.poll_due(cx),
            }
        });
        // A client whose body is nearly complete finishes it, and then ends the connection itself.
        self.alarm.set(DISCARD_TIME.min(limit));
        body.await;
        self.alarm.set(limit);
        poll_fn(|cx| match self.link.borrow_mut().transport.poll_linger(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.alarm.poll_due(cx),
        })
        .await;
    }
}
