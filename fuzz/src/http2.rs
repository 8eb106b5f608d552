//! Requests over HTTP/2: frames as a client may send them, and what they become for an upstream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use h2::server::Builder;
use http::Method;
use pintle::message::{HeadLimits, RequestHead};
use pintle::policy::forwarded::TrustedField;
use pintle::server::fuzzing::read_http2_head;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::messages::{LIMITS, forward, largest};

/// The start of a client's connection (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
/// Bytes of a frame that nobody needs to announce (RFC 9113 section 4.2).
const FRAME_MAX: usize = 16 * 1024;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Fields of a request, one to a line, then an empty line, then a body; behind a NUL raw frames. What h2 and we accept
/// goes upstream as one request.
pub fn http2_request(data: &[u8]) {
    let cut = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    let (text, frames) = data.split_at(cut);
    let mut bytes = request(text);
    bytes.extend_from_slice(frames.get(1..).unwrap_or_default());
    let little = serve(bytes.clone(), &LIMITS);
    for (head, _) in serve(bytes, &largest()).into_iter().chain(little) {
        if head.method == Method::CONNECT && !head.websocket {
            continue;
        }
        assert!(head.target() == "*" || head.target().starts_with('/'));
        if !head.host().is_empty() {
            forward(&head, None);
            forward(&head, Some(TrustedField::XForwarded));
        }
    }
}

/// The bytes of a connection with one request: `name: value` lines in their order, pseudo-fields included.
pub fn request(text: &[u8]) -> Vec<u8> {
    let (fields, body) = match text.windows(2).position(|w| w == b"\n\n") {
        Some(at) => (&text[..at], Some(&text[at + 2..])),
        None => (text, None),
    };
    let block = block(fields);
    let mut bytes = PREFACE.to_vec();
    frame(SETTINGS, 0, 0, &[], &mut bytes);
    // A frame has 16 KiB at most; what is more comes in further ones (RFC 9113 section 6.10).
    let mut parts = block.chunks(FRAME_MAX).peekable();
    let mut kind = (HEADERS, if body.is_none() { END_STREAM } else { 0 });
    while let Some(part) = parts.next() {
        let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
        frame(kind.0, kind.1 | last, 1, part, &mut bytes);
        kind = (CONTINUATION, 0);
    }
    if let Some(body) = body {
        frame(DATA, END_STREAM, 1, body, &mut bytes);
    }
    bytes
}

/// Fields, one to a line, as literals.
pub fn block(fields: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for line in fields.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        // The colon of a pseudo-field is part of its name.
        let at = line.iter().skip(1).position(|b| *b == b':').map_or(line.len(), |at| at + 1);
        let value = line.get(at + 1..).unwrap_or_default();
        // RFC 7541 section 6.2.2: a literal field without indexing, with a new name.
        block.push(0);
        literal(&line[..at], &mut block);
        literal(value.strip_prefix(b" ").unwrap_or(value), &mut block);
    }
    block
}

/// Adds a text (RFC 7541 section 5.2), as it is.
pub fn literal(text: &[u8], block: &mut Vec<u8>) {
    // RFC 7541 section 5.1: an integer with a prefix of seven bits.
    let mut len = text.len();
    if len < 127 {
        block.push(len as u8);
    } else {
        block.push(127);
        len -= 127;
        while len >= 128 {
            block.push((len % 128) as u8 | 128);
            len /= 128;
        }
        block.push(len as u8);
    }
    block.extend_from_slice(text);
}

/// Adds a frame (RFC 9113 section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

/// The requests that a connection with these bytes brings, with their bodies; none for what is refused or cut short.
pub fn serve(bytes: Vec<u8>, limits: &HeadLimits) -> Vec<(RequestHead, Option<Vec<u8>>)> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut handshake = Box::pin(Builder::new().enable_connect_protocol().handshake::<_, bytes::Bytes>(Wire(bytes, 0)));
    let Poll::Ready(Ok(mut connection)) = handshake.as_mut().poll(&mut cx) else { return Vec::new() };
    let mut accepted = Vec::new();
    while let Poll::Ready(Some(Ok(stream))) = connection.poll_accept(&mut cx) {
        accepted.push(stream);
    }
    let mut requests = Vec::new();
    for (request, respond) in accepted {
        let (parts, mut recv) = request.into_parts();
        let mut head = RequestHead::default();
        if read_http2_head(&parts, recv.is_end_stream(), limits, &mut head).is_err() {
            continue;
        }
        let mut body = Vec::new();
        let whole = loop {
            match recv.poll_data(&mut cx) {
                Poll::Ready(Some(Ok(data))) => body.extend_from_slice(&data),
                Poll::Ready(None) => break true,
                Poll::Ready(Some(Err(_))) | Poll::Pending => break false,
            }
        };
        drop(respond);
        requests.push((head, whole.then_some(body)));
    }
    requests
}

/// A connection whose bytes are all there, and that takes everything.
struct Wire(Vec<u8>, usize);

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = self.0.get(self.1..).unwrap_or_default();
        if rest.is_empty() {
            return Poll::Pending;
        }
        let part = &rest[..rest.len().min(buf.remaining())];
        buf.put_slice(part);
        let len = part.len();
        self.1 += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
