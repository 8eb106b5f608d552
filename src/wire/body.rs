//! Bodies that pass through pintle, piece by piece.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::message::{BodyFault, Fields};

/// A piece of a body.
#[derive(Debug)]
pub enum Frame {
    /// Content. Never empty.
    Data(Bytes),
    /// The trailer section. Nothing follows it.
    Trailers(Fields),
}

/// A body that comes only as fast as it is read.
pub trait Body {
    /// The error of a body that breaks off.
    type Error;

    /// Returns the next piece; `None` at the end.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Self::Error>>>;

    /// Returns `true` if the body is known to have ended, without polling it.
    fn is_end(&self) -> bool;

    /// Limits the size of the next piece, for bodies that can choose it.
    fn read_at_most(&mut self, _bytes: usize) {}

    /// Charges kept bytes, `bytes` in all, to the connection that the body came over. Zero frees
    /// the charge, and so does the end of the body. Returns `false` if the connection holds too
    /// much: then nothing may be kept.
    fn keep(&mut self, _bytes: usize) -> bool {
        true
    }
}

/// A request's body from a client's connection.
pub type RequestBody = Box<dyn Body<Error = RequestBodyError>>;

/// The reason why a request's body broke off. The client is the cause of each but the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBodyError {
    /// The body does not follow its framing.
    Malformed(BodyFault),
    /// The client went away, or reset the stream.
    Gone,
    /// The length is not that of Content-Length, or the trailers are invalid: HTTP/2 has reset the
    /// stream.
    Length,
    /// The body is larger than the limit.
    TooLarge,
    /// The client sent more slowly than the limit.
    TooSlow,
    /// The disk does not give back what was buffered of it, or the client's part of the buffer is taken.
    Lost,
}

impl fmt::Display for RequestBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(fault) => write!(f, "request body: {fault}"),
            Self::Gone => f.write_str("the client went away"),
            Self::Length => f.write_str("request body: wrong length or invalid trailers"),
            Self::TooLarge => f.write_str("request body too large"),
            Self::TooSlow => f.write_str("request body too slow"),
            Self::Lost => f.write_str("no room for the request body, or its buffer cannot be read back"),
        }
    }
}

impl std::error::Error for RequestBodyError {}
