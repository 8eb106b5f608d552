//! A response's body, wherever it comes from.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::error::UpstreamError;
use super::http1::Http1Body;
use super::http2::Http2Body;
use crate::wire::body::{Body, Frame};

/// A response's body.
pub enum ResponseBody {
    /// There is none, or it is over.
    Empty,
    /// All of it.
    Full(Bytes),
    /// The rest of an HTTP/1.1 exchange.
    Http1(Box<Http1Body>),
    /// The rest of an HTTP/2 stream.
    Http2(Box<Http2Body>),
}

impl ResponseBody {
    /// It has dried up: others are not to wait at the same source.
    pub fn give_up(&self) {
        if let Self::Http2(body) = self {
            body.give_up();
        }
    }
}

impl Body for ResponseBody {
    type Error = UpstreamError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, UpstreamError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(data) => {
                let data = std::mem::take(data);
                *self = Self::Empty;
                Poll::Ready((!data.is_empty()).then_some(Ok(Frame::Data(data))))
            }
            Self::Http1(body) => body.poll_frame(cx),
            Self::Http2(body) => body.poll_frame(cx),
        }
    }

    fn is_end(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(data) => data.is_empty(),
            Self::Http1(body) => body.is_end(),
            Self::Http2(body) => body.is_end(),
        }
    }

    fn read_at_most(&mut self, bytes: usize) {
        if let Self::Http1(body) = self {
            body.read_at_most(bytes);
        }
    }
}
