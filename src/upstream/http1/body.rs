//! The body of a response over HTTP/1.1, and the rest of the request's, which may still be under
//! way.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, BytesMut};

use super::upload::{Upload, UploadError, poll_send};
use crate::message::{BodyDecoder, BodyFault, Decoded};
use crate::upstream::error::UpstreamError;
use crate::upstream::pool::Pool;
use crate::upstream::pool::connection::PooledConnection;
use crate::wire::body::{Body, Frame};
use crate::wire::write_buffer::WriteBuffer;

/// The size of a piece by the number of bodies that the worker has under way. Large pieces cost
/// less CPU, small ones less memory.
const PIECES: [(usize, usize); 2] = [(32, 256 * 1024), (256, 64 * 1024)];
const PIECE_MIN: usize = 16 * 1024;

/// Counts one more body under way in this worker, until it is dropped.
pub(super) struct Streaming(Rc<Cell<usize>>);

impl Streaming {
    pub(super) fn begin(count: Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }

    fn piece(&self) -> usize {
        PIECES.iter().find(|(bodies, _)| self.0.get() <= *bodies).map_or(PIECE_MIN, |(_, piece)| *piece)
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The rest of an exchange whose response has begun.
pub struct Http1Body {
    pub(super) connection: Option<Box<PooledConnection>>,
    pub(super) keep_alive: bool,
    pub(super) received: BytesMut,
    pub(super) decoder: BodyDecoder,
    pub(super) out: WriteBuffer,
    pub(super) upload: Option<Upload>,
    pub(super) streaming: Streaming,
    /// The largest piece that the reader of the body has room for.
    pub(super) most: usize,
    pub(super) pool: Rc<Pool>,
}

impl Http1Body {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, UpstreamError>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(None)) };
        if self.upload.is_some() || !self.out.is_empty() {
            let transport = &mut connection.transport;
            match poll_send(&mut self.out, &mut self.upload, transport, cx, &mut 0) {
                Poll::Ready(Err(UploadError::Client(error))) => {
                    return Poll::Ready(Err(UpstreamError::RequestBody(error)));
                }
                // An upstream that has answered may refuse the rest of the request.
                Poll::Ready(Err(UploadError::Upstream(_))) => {
                    self.upload = None;
                    self.out = WriteBuffer::default();
                    self.keep_alive = false;
                }
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        loop {
            match self.decoder.decode(&mut self.received).map_err(body_fault)? {
                Decoded::Data(data) => return Poll::Ready(Ok(Some(Frame::Data(data)))),
                Decoded::Trailers(fields) => return Poll::Ready(Ok(Some(Frame::Trailers(fields)))),
                Decoded::End => return Poll::Ready(Ok(None)),
                Decoded::More => {}
            }
            let piece = self.streaming.piece().min(self.most);
            let remaining = self.decoder.remaining().and_then(|n| usize::try_from(n).ok());
            // Reads into the small rest of a buffer would cost a call for few bytes.
            let want = remaining.unwrap_or(piece).clamp(4096, piece);
            if self.received.capacity() - self.received.len() < want.min(piece / 2) {
                self.received.reserve(want);
            }
            let room = self.received.capacity() - self.received.len();
            let mut free = (&mut self.received).limit(room);
            match ready!(connection.transport.poll_read(cx, &mut free)) {
                Ok(0) => self.decoder.finish().map_err(body_fault)?,
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(UpstreamError::Truncated(Some(error)))),
            }
        }
    }

    /// Gives the connection back to the pool at the end of the response, if it can carry another
    /// request.
    fn release(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.keep_alive
            && self.received.is_empty()
            && self.upload.is_none()
            && self.out.is_empty()
        {
            self.pool.put(connection);
        }
    }
}

fn body_fault(fault: BodyFault) -> UpstreamError {
    match fault {
        BodyFault::Truncated => UpstreamError::Truncated(None),
        BodyFault::ChunkSize => UpstreamError::Malformed("chunk size"),
        BodyFault::ChunkExtension => UpstreamError::Malformed("chunk extension"),
        BodyFault::ChunkEnd => UpstreamError::Malformed("chunk end"),
        BodyFault::Trailers => UpstreamError::Malformed("trailers"),
    }
}

impl Body for Http1Body {
    type Error = UpstreamError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, UpstreamError>>> {
        let piece = ready!(self.poll_piece(cx));
        match &piece {
            Err(_) => self.connection = None,
            Ok(_) if self.decoder.is_end() => self.release(),
            Ok(_) => {}
        }
        Poll::Ready(piece.transpose())
    }

    fn is_end(&self) -> bool {
        self.decoder.is_end()
    }

    fn read_at_most(&mut self, bytes: usize) {
        self.most = bytes.max(PIECE_MIN);
    }
}
