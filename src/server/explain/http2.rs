//! A request over HTTP/2, read as a connection reads it: its frames go through h2, with the settings of the server.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use h2::Reason;
use http::request::Parts;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex};

use super::FieldList;
use crate::limits::Limits;
use crate::server::http2::builder;
use crate::telemetry::protobuf::push_varint;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The most bytes of a frame's payload (RFC 9113 section 4.2).
const PAYLOAD_MAX: usize = 16_384;
/// The length of a frame header.
const FRAME_HEAD: usize = 9;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The result of reading a head.
pub(super) enum ReadHead {
    /// h2 passes the request on. `ended` if it has no body.
    Request { parts: Box<Parts>, ended: bool },
    /// h2 answers it itself with 431: the head is far too large.
    TooLarge,
    /// h2 ends the stream, or the connection.
    Reset(Reason),
}

/// Reads a head, with its pseudo-fields first.
pub(super) async fn read(fields: &FieldList, limits: &Limits) -> ReadHead {
    let sent = frames(fields);
    let (mut client, server) = duplex(sent.len() + PAYLOAD_MAX);
    if client.write_all(&sent).await.is_err() {
        return ReadHead::Reset(Reason::INTERNAL_ERROR);
    }
    let mut connection = match builder(limits).handshake::<_, Bytes>(server).await {
        Ok(connection) => connection,
        Err(error) => return reset(&error),
    };
    let mut received = Vec::new();
    poll_fn(|cx| {
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, _)))) => {
                let (parts, body) = request.into_parts();
                return Poll::Ready(ReadHead::Request { parts: Box::new(parts), ended: body.is_end_stream() });
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(reset(&error)),
            Poll::Ready(None) => return Poll::Ready(ReadHead::Reset(Reason::PROTOCOL_ERROR)),
            Poll::Pending => {}
        }
        loop {
            if let Some(answer) = answer(&received) {
                return Poll::Ready(answer);
            }
            match poll_read(&mut client, cx, &mut received) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(ReadHead::Reset(Reason::PROTOCOL_ERROR)),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

fn reset(error: &h2::Error) -> ReadHead {
    ReadHead::Reset(error.reason().unwrap_or(Reason::PROTOCOL_ERROR))
}

/// Reads what the server sends. `false` at the end.
fn poll_read(client: &mut DuplexStream, cx: &mut TaskContext<'_>, received: &mut Vec<u8>) -> Poll<bool> {
    let mut space = [0; 1024];
    let mut buffer = ReadBuf::new(&mut space);
    Pin::new(client).poll_read(cx, &mut buffer).map(|read| {
        received.extend_from_slice(buffer.filled());
        read.is_ok() && !buffer.filled().is_empty()
    })
}

/// The first frame of h2's that refuses the request.
fn answer(mut received: &[u8]) -> Option<ReadHead> {
    loop {
        let (head, rest) = received.split_first_chunk::<FRAME_HEAD>()?;
        let [a, b, c, kind, ..] = *head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let (payload, rest) = rest.split_at_checked(length)?;
        let number = |at: usize| payload.get(at..)?.first_chunk::<4>().map(|code| u32::from_be_bytes(*code));
        match kind {
            HEADERS => return Some(ReadHead::TooLarge),
            RST_STREAM => return Some(ReadHead::Reset(number(0).unwrap_or_default().into())),
            GOAWAY if number(4) != Some(0) => return Some(ReadHead::Reset(number(4).unwrap_or_default().into())),
            _ => received = rest,
        }
    }
}

/// The bytes of a client: preface, SETTINGS, and the head of one stream.
fn frames(fields: &FieldList) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        // A literal that is not indexed (RFC 7541 section 6.2.2).
        block.push(0);
        string(name, &mut block);
        string(value, &mut block);
    }
    // No body comes, unless the client states one.
    let is_length = |(name, value): &&(Vec<u8>, Vec<u8>)| name == b"content-length" && value.iter().any(|b| *b != b'0');
    let ends = if fields.iter().any(|field| is_length(&field)) { 0 } else { END_STREAM };
    let mut bytes = PREFACE.to_vec();
    frame(SETTINGS, 0, 0, &[], &mut bytes);
    let mut pieces = block.chunks(PAYLOAD_MAX).peekable();
    let mut kind = (HEADERS, ends);
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        frame(kind.0, kind.1 | last, 1, piece, &mut bytes);
        kind = (CONTINUATION, 0);
    }
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    // A payload has at most `PAYLOAD_MAX` bytes.
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A string without Huffman code, its length with a prefix of seven bits (RFC 7541 section 5).
fn string(text: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(text.len()) {
        Ok(short @ ..127) => out.push(short),
        _ => {
            out.push(127);
            // The rest has the form that Protocol Buffers use, too.
            push_varint(out, text.len() as u64 - 127);
        }
    }
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_of(fields: &[(&str, &str)]) -> ReadHead {
        let pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", "a.example"), (":path", "/x")];
        let all = pseudo.iter().chain(fields);
        let fields = all.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        read(&fields, &Limits::default()).await
    }

    #[tokio::test]
    async fn heads() {
        let long = "x".repeat(40_000);
        for (fields, ended) in [
            (&[][..], true),
            (&[("accept", "text/html"), ("te", "trailers")], true),
            (&[("content-length", "3")], false),
            (&[("x-long", &long)], true),
        ] {
            let ReadHead::Request { parts, ended: has_ended } = read_of(fields).await else { panic!("{fields:?}") };
            assert_eq!((has_ended, parts.uri.path()), (ended, "/x"));
            assert!(fields.iter().all(|(name, value)| parts.headers.get(*name).unwrap() == value));
        }
        for wrong in
            [("connection", "close"), ("Upper", "x"), ("te", "gzip"), ("transfer-encoding", "chunked"), (":path", "/")]
        {
            assert!(matches!(read_of(&[wrong]).await, ReadHead::Reset(Reason::PROTOCOL_ERROR)), "{wrong:?}");
        }
        // Still larger ones end the connection.
        assert!(matches!(read_of(&[("x-huge", &"x".repeat(400_000))]).await, ReadHead::Reset(_)));
        let huge = "x".repeat(120_000);
        assert!(matches!(read_of(&[("x-huge", &huge)]).await, ReadHead::TooLarge));
    }
}
