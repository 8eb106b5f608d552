//! One stream: the two sides of it, and what belongs to it until it ends.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};

use h2::server::SendResponse;
use tokio::time::Instant;

use super::memory::{ChargedBytes, Share};
use super::recv::Recv;
use crate::clock::Alarm;
use crate::server::context::Context;

/// A stream with a request.
pub(super) struct Exchange {
    pub(super) respond: RefCell<SendResponse<ChargedBytes>>,
    pub(super) recv: Rc<RefCell<Recv>>,
    pub(super) share: Rc<Share>,
    pub(super) context: Rc<Context>,
    pub(super) alarm: Alarm,
    /// The beginning of the request; `None` if nobody measures.
    pub(super) begin: Option<Instant>,
}

impl Exchange {
    /// Polls for something until the client gives the stream up. Returns `None` if it does.
    pub(super) async fn unless_given_up<T>(&self, mut poll: impl FnMut(&mut TaskContext<'_>) -> Poll<T>) -> Option<T> {
        poll_fn(|cx| match poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.respond.borrow_mut().poll_reset(cx).map(|_| None),
        })
        .await
    }
}
