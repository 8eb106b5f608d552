//! The body of a response over HTTP/2, and the rest of the request's, which may still be under way.

use std::task::{Context, Poll, ready};

use h2::RecvStream;

use super::upload::Upload;
use crate::message::{Fields, is_forbidden_trailer};
use crate::upstream::error::UpstreamError;
use crate::upstream::pool::connection::StreamPermit;
use crate::wire::body::{Body, Frame};

/// A response's body from a stream.
pub struct Http2Body {
    pub(super) recv: RecvStream,
    pub(super) upload: Option<Upload>,
    /// The data has ended; trailers may follow.
    pub(super) data_ended: bool,
    pub(super) stream: StreamPermit,
}

impl Http2Body {
    /// Opens no more streams on the connection, which may be dead.
    pub(in crate::upstream) fn give_up(&self) {
        self.stream.retire();
    }
}

impl Body for Http2Body {
    type Error = UpstreamError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, UpstreamError>>> {
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(done) = upload.poll(cx, &mut 0)
        {
            self.upload = None;
            done?;
        }
        while !self.data_ended {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    // The caller asks for the next piece only when this one has been sent.
                    let _ = self.recv.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::Data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(truncated(error)))),
                None => self.data_ended = true,
            }
        }
        match ready!(self.recv.poll_trailers(cx)) {
            Ok(Some(map)) => {
                let mut fields = Fields::from(&map);
                fields.remove_if(|_, name, _| is_forbidden_trailer(name));
                Poll::Ready((!fields.is_empty()).then_some(Ok(Frame::Trailers(fields))))
            }
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(truncated(error)))),
        }
    }

    fn is_end(&self) -> bool {
        self.recv.is_end_stream()
    }
}

fn truncated(error: h2::Error) -> UpstreamError {
    UpstreamError::Truncated(Some(std::io::Error::other(error)))
}
