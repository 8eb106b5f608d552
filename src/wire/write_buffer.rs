//! The unwritten bytes of an HTTP/1.1 connection of either side: a head, and a body piece by piece.

use std::io::{self, IoSlice, Write as _};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};

use crate::message::FieldSink as _;
use crate::tls::Session;
use crate::wire::body::Frame;
use crate::wire::transport::Transport;

/// Unwritten bytes: a head or a chunk's size, one piece of a body, and the end of the chunk.
#[derive(Debug, Default)]
pub struct WriteBuffer {
    head: Vec<u8>,
    sent: usize,
    data: Bytes,
    tail: &'static [u8],
}

impl WriteBuffer {
    /// Makes a buffer with the head of a message.
    #[must_use]
    pub fn new(head: Vec<u8>) -> Self {
        Self { head, ..Self::default() }
    }

    /// Appends bytes to the head.
    pub fn append(&mut self, bytes: &[u8]) {
        if self.sent == self.head.len() {
            self.head.clear();
            self.sent = 0;
        }
        self.head.extend_from_slice(bytes);
    }

    /// Returns the unwritten part of the head.
    #[must_use]
    pub fn unsent_head(&self) -> &[u8] {
        &self.head[self.sent..]
    }

    /// Returns `true` if everything was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent == self.head.len() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Returns `true` if no byte was written.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.sent == 0
    }

    /// Returns `true` if the next piece of the body may be loaded, alone or together with the head.
    #[must_use]
    pub fn is_loadable(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty()
    }

    /// Returns the emptied buffer, once everything was written.
    #[must_use]
    pub fn into_buffer(mut self) -> Vec<u8> {
        self.head.clear();
        self.head
    }

    /// Loads the next piece, as a chunk or as it is. Returns `true` if it was the last. Without
    /// chunks, trailers are dropped.
    pub fn load(&mut self, frame: Option<Frame>, chunked: bool) -> bool {
        if self.sent == self.head.len() {
            self.head.clear();
            self.sent = 0;
        }
        match frame {
            Some(Frame::Data(data)) => {
                if chunked {
                    let _ = write!(self.head, "{:x}\r\n", data.len());
                    self.tail = b"\r\n";
                }
                self.data = data;
                false
            }
            Some(Frame::Trailers(fields)) => {
                if chunked {
                    self.head.extend_from_slice(b"0\r\n");
                    for (_, name, value) in fields.iter() {
                        self.head.field(name, value);
                    }
                    self.tail = b"\r\n";
                }
                true
            }
            None => {
                if chunked {
                    self.tail = b"0\r\n\r\n";
                }
                true
            }
        }
    }

    /// Returns the unwritten bytes, in their order.
    #[must_use]
    pub fn waiting(&self) -> [&[u8]; 3] {
        [&self.head[self.sent..], &self.data, self.tail]
    }

    fn advance(&mut self, mut len: usize) {
        let head = len.min(self.head.len() - self.sent);
        self.sent += head;
        len -= head;
        let data = len.min(self.data.len());
        self.data.advance(data);
        self.tail = &self.tail[len - data..];
    }

    /// Writes everything; under TLS, a flush may still be needed. `progress` gets the number of
    /// bytes of each step.
    pub fn poll_write<S: Session>(
        &mut self,
        transport: &mut Transport<S>,
        cx: &mut Context<'_>,
        progress: &mut impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let head = &self.head[self.sent..];
            let len = if self.data.is_empty() && self.tail.is_empty() {
                ready!(transport.poll_write_vectored(cx, &[IoSlice::new(head)]))?
            } else {
                let slices = [IoSlice::new(head), IoSlice::new(&self.data), IoSlice::new(self.tail)];
                ready!(transport.poll_write_vectored(cx, &slices))?
            };
            self.advance(len);
            progress(len);
        }
        Poll::Ready(Ok(()))
    }
}
