//! A request's body on its way to the upstream.

use std::task::{Context, Poll, ready};

use crate::upstream::error::UpstreamError;
use crate::upstream::replay::Replay;
use crate::wire::http2_send::{SendError, Sender, Unaccounted};

/// A request's body on its way up.
pub(super) struct Upload {
    pub(super) body: Box<Replay>,
    pub(super) sender: Sender<Unaccounted>,
    /// Until the upstream says 100, or a second has passed.
    pub(super) held: bool,
    /// It has gone, all of it; until an answer begins, it may be needed again.
    pub(super) done: bool,
}

impl Upload {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, moved: &mut usize) -> Poll<Result<(), UpstreamError>> {
        if self.held {
            return Poll::Pending;
        }
        let sent = ready!(self.sender.poll(cx, &mut *self.body, &mut |n| *moved += n));
        self.done = true;
        Poll::Ready(match sent {
            // A stream that was reset with NO_ERROR has an answer that did not need the body.
            Ok(()) | Err(SendError::Stream(_)) => Ok(()),
            Err(SendError::Body(error)) => Err(UpstreamError::RequestBody(error)),
        })
    }
}
