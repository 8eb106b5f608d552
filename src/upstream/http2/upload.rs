//! A request's body on its way to the upstream.

use std::task::{Context, Poll, ready};

use crate::upstream::error::UpstreamError;
use crate::upstream::replay::Replay;
use crate::wire::http2_send::{SendError, Sender, Unaccounted};

/// A request's body that is being sent.
pub(super) struct Upload {
    pub(super) body: Box<Replay>,
    pub(super) sender: Sender<Unaccounted>,
    /// The body waits for a 100, or for [`CONTINUE_WAIT`](crate::upstream::interim::CONTINUE_WAIT)
    /// to pass.
    pub(super) held: bool,
    /// The whole body was sent. It is kept until an answer begins, since it may have to be sent
    /// again.
    pub(super) done: bool,
}

impl Upload {
    /// Sends what the client has sent and the upstream takes; ready at the end. `moved` counts
    /// bytes.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, moved: &mut usize) -> Poll<Result<(), UpstreamError>> {
        if self.held {
            return Poll::Pending;
        }
        let sent = ready!(self.sender.poll(cx, &mut *self.body, &mut |n| *moved += n));
        self.done = true;
        Poll::Ready(match sent {
            // An upstream resets a stream with NO_ERROR if its answer does not need the body.
            Ok(()) | Err(SendError::Stream(_)) => Ok(()),
            Err(SendError::Body(error)) => Err(UpstreamError::RequestBody(error)),
        })
    }
}
