//! A request's body on its way to the upstream.

use std::io;
use std::task::{Context, Poll, ready};

use crate::upstream::settings::UpstreamTransport;
use crate::wire::body::{RequestBody, RequestBodyError};
use crate::wire::write_buffer::WriteBuffer;

/// A request's body that is being sent.
pub(super) struct Upload {
    body: RequestBody,
    chunked: bool,
    done: bool,
    /// The body waits for a 100, or for [`CONTINUE_WAIT`](crate::upstream::interim::CONTINUE_WAIT)
    /// to pass.
    pub(super) held: bool,
    touched: bool,
    /// The last poll ended because the client has sent nothing more yet.
    pub(super) waits_for_client: bool,
}

/// The side that failed, so that nothing more can be sent.
pub(super) enum UploadError {
    Client(RequestBodyError),
    Upstream(io::Error),
}

impl Upload {
    pub(super) fn new(body: RequestBody, chunked: bool, held: bool) -> Self {
        Self { body, chunked, done: false, held, touched: false, waits_for_client: false }
    }

    /// Returns the body, if nothing was read from it.
    pub(super) fn into_untouched(self) -> Option<RequestBody> {
        (!self.touched).then_some(self.body)
    }

    /// Returns `true` if nothing was read from the body.
    pub(super) fn is_untouched(&self) -> bool {
        !self.touched
    }

    /// Loads the next piece into `out`, which holds nothing but an unsent head.
    fn poll_load(&mut self, out: &mut WriteBuffer, cx: &mut Context<'_>) -> Poll<Result<(), RequestBodyError>> {
        if self.held {
            return Poll::Pending;
        }
        self.waits_for_client = true;
        self.touched = true;
        let frame = ready!(self.body.poll_frame(cx)).transpose()?;
        self.waits_for_client = false;
        self.done = out.load(frame, self.chunked) || (!self.chunked && self.body.is_end());
        Poll::Ready(Ok(()))
    }
}

/// Sends head and body for as long as neither side has to be waited for; ready when all is sent.
/// `moved` counts bytes.
pub(super) fn poll_send(
    out: &mut WriteBuffer,
    upload: &mut Option<Upload>,
    transport: &mut UpstreamTransport,
    cx: &mut Context<'_>,
    moved: &mut u64,
) -> Poll<Result<(), UploadError>> {
    loop {
        if let Some(up) = upload {
            // The first piece goes out together with the head.
            if out.is_loadable() && !up.done {
                match up.poll_load(out, cx).map_err(UploadError::Client)? {
                    Poll::Pending if out.is_empty() => {
                        ready!(transport.poll_flush(cx)).map_err(UploadError::Upstream)?;
                        return Poll::Pending;
                    }
                    _ => {}
                }
            }
            if up.done && out.is_empty() {
                *upload = None;
            }
        }
        if out.is_empty() {
            return transport.poll_flush(cx).map_err(UploadError::Upstream);
        }
        ready!(out.poll_write(transport, cx, &mut |n| *moved += n as u64)).map_err(UploadError::Upstream)?;
    }
}
