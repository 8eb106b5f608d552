//! Bodies on their way through, piece by piece.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::message::{BodyFault, Fields};

/// A piece of a body.
#[derive(Debug)]
pub enum Frame {
    /// Content; not empty.
    Data(Bytes),
    /// The trailer section; nothing comes behind it.
    Trailers(Fields),
}

/// A body that is read as fast as it is wanted.
pub trait Body {
    /// Why it may break off.
    type Error;

    /// The next piece; `None` at the end.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Self::Error>>>;

    /// Whether nothing comes any more, as far as is known without asking.
    fn is_end(&self) -> bool;

    /// How large the next piece may be: a wish, where a body has no say in it.
    fn read_at_most(&mut self, _bytes: usize) {}

    /// Charges to the connection that this came by what somebody keeps of it, `bytes` in all; zero gives all back, and
    /// so does its end. `false` if that connection holds too much: then nothing may be kept.
    fn keep(&mut self, _bytes: usize) -> bool {
        true
    }
}

/// A request's body as the client's side gives it.
pub type RequestBody = Box<dyn Body<Error = RequestBodyError>>;

/// Why a request's body ended before its end. All are the client's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBodyError {
    /// Not as its framing says.
    Malformed(BodyFault),
    /// The client went away, or gave the stream up.
    Gone,
    /// Not as long as content-length says, or with trailers that are none: HTTP/2 has given the stream up.
    Length,
    /// More than the limit.
    TooLarge,
    /// Nothing came for longer than the limit.
    TooSlow,
}

impl fmt::Display for RequestBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(fault) => write!(f, "request body: {fault}"),
            Self::Gone => f.write_str("the client went away"),
            Self::Length => f.write_str("request body: not as its content-length or its trailers have to be"),
            Self::TooLarge => f.write_str("request body too large"),
            Self::TooSlow => f.write_str("request body too slow"),
        }
    }
}

impl std::error::Error for RequestBodyError {}
