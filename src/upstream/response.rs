//! A response and its body, whichever protocol they came by.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::error::UpstreamError;
use super::http1::{Http1Body, Rest, Upgraded};
use super::http2::Http2Body;
use crate::message::ResponseHead;
use crate::wire::body::{Body, Frame};

/// A response whose head is there.
pub struct Response {
    /// Its head.
    pub head: ResponseHead,
    /// Its body, as far as it goes.
    pub body: ResponseBody,
    /// After a 101: the connection, which is no longer HTTP.
    pub upgraded: Option<Box<Upgraded>>,
}

impl Response {
    /// Whether the upstream has more to say.
    pub(super) fn goes_on(&self) -> bool {
        self.upgraded.is_none() && !self.body.is_end()
    }

    pub(super) fn from_http1(head: ResponseHead, rest: Rest) -> Self {
        let (body, upgraded) = match rest {
            Rest::Empty => (ResponseBody::Empty, None),
            Rest::Full(data) => (ResponseBody::Full(data), None),
            Rest::Body(body) => (ResponseBody::Http1(body), None),
            Rest::Upgraded(upgraded) => (ResponseBody::Empty, Some(upgraded)),
        };
        Self { head, body, upgraded }
    }

    pub(super) fn from_http2(head: ResponseHead, body: Option<Box<Http2Body>>) -> Self {
        Self { head, body: body.map_or(ResponseBody::Empty, ResponseBody::Http2), upgraded: None }
    }
}

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
