//! A response and its body, whichever protocol they came by.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::error::UpstreamError;
use super::filtered::FilteredBody;
use super::http1::{Http1Body, Rest, UpgradedConnection};
use super::http2::Http2Body;
use crate::filter::BodyFilter;
use crate::message::ResponseHead;
use crate::wire::body::{Body, Frame};

/// A response: its head has been received, its body may still come.
pub struct UpstreamResponse {
    /// The head.
    pub head: ResponseHead,
    /// The body.
    pub body: ResponseBody,
    /// The connection, if it has switched to WebSocket with a 101.
    pub upgraded: Option<Box<UpgradedConnection>>,
}

impl UpstreamResponse {
    /// Returns `true` if the upstream still has something to send.
    pub(super) fn is_under_way(&self) -> bool {
        self.upgraded.is_none() && !self.body.is_end()
    }

    /// Makes a response of what an HTTP/1.1 exchange has brought.
    pub(super) fn from_http1(head: ResponseHead, rest: Rest) -> Self {
        let (body, upgraded) = match rest {
            Rest::Empty => (ResponseBody::Empty, None),
            Rest::Full(data) => (ResponseBody::Full(data), None),
            Rest::Body(body) => (ResponseBody::Http1(body), None),
            Rest::Upgraded(upgraded) => (ResponseBody::Empty, Some(upgraded)),
        };
        Self { head, body, upgraded }
    }

    /// Makes a response of what an HTTP/2 exchange has brought.
    pub(super) fn from_http2(head: ResponseHead, body: Option<Box<Http2Body>>) -> Self {
        Self { head, body: body.map_or(ResponseBody::Empty, ResponseBody::Http2), upgraded: None }
    }
}

/// The largest piece of a stored body, in bytes.
const STORED_PIECE_MAX: usize = 64 * 1024;

/// A response's body.
pub enum ResponseBody {
    /// No body, or its end.
    Empty,
    /// The whole body.
    Full(Bytes),
    /// The whole body, which may be large and is shared with others: the rest of it, and the largest piece in bytes.
    Stored(Bytes, usize),
    /// A body that several requests read.
    Shared(Box<dyn Body<Error = UpstreamError>>),
    /// A body that a filter changes.
    Filtered(Box<FilteredBody<Self>>),
    /// The rest of an HTTP/1.1 exchange.
    Http1(Box<Http1Body>),
    /// The rest of an HTTP/2 stream.
    Http2(Box<Http2Body>),
}

impl ResponseBody {
    /// Makes a body of bytes that are shared with others.
    #[must_use]
    pub fn stored(data: Bytes) -> Self {
        if data.is_empty() { Self::Empty } else { Self::Stored(data, STORED_PIECE_MAX) }
    }

    /// Ends the use of its connection for other requests, because it has timed out.
    pub fn give_up(&self) {
        match self {
            Self::Http2(body) => body.give_up(),
            Self::Filtered(body) => body.source().give_up(),
            _ => {}
        }
    }

    /// Changes the body by a filter. Filters may be put on top of each other.
    #[must_use]
    pub fn filtered(self, filter: Box<dyn BodyFilter>) -> Self {
        Self::Filtered(Box::new(FilteredBody::new(self, filter)))
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
            Self::Stored(data, most) => {
                let piece = data.split_to(data.len().min(*most));
                Poll::Ready((!piece.is_empty()).then_some(Ok(Frame::Data(piece))))
            }
            Self::Shared(body) => body.poll_frame(cx),
            Self::Filtered(body) => body.poll_frame(cx),
            Self::Http1(body) => body.poll_frame(cx),
            Self::Http2(body) => body.poll_frame(cx),
        }
    }

    fn is_end(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(data) | Self::Stored(data, _) => data.is_empty(),
            Self::Shared(body) => body.is_end(),
            Self::Filtered(body) => body.is_end(),
            Self::Http1(body) => body.is_end(),
            Self::Http2(body) => body.is_end(),
        }
    }

    fn read_at_most(&mut self, bytes: usize) {
        match self {
            Self::Http1(body) => body.read_at_most(bytes),
            Self::Shared(body) => body.read_at_most(bytes),
            Self::Filtered(body) => body.read_at_most(bytes),
            Self::Stored(_, most) => *most = bytes.clamp(1, STORED_PIECE_MAX),
            Self::Empty | Self::Full(_) | Self::Http2(_) => {}
        }
    }
}
