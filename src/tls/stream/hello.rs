//! Gathers a client's first message until it is complete: before that, a client costs no
//! cryptography.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::SCRATCH_BUFFER;
use super::records::PENDING_MAX;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// A record's type, version and length.
const RECORD_HEAD: usize = 5;
/// A message's type and length.
const MESSAGE_HEAD: usize = 4;
/// The longest record (RFC 8446 section 5.1).
const RECORD_MAX: usize = 16 * 1024;

/// The state of gathering. It keeps no memory until bytes arrive.
#[derive(Debug, Default)]
pub struct FirstMessage {
    received: Vec<u8>,
    /// The beginning of the first record that was not examined.
    at: usize,
    head: Vec<u8>,
    /// Bytes of the message in the previous records.
    len: usize,
}

impl FirstMessage {
    /// The received bytes.
    #[must_use]
    pub fn new(received: Vec<u8>) -> Self {
        Self { received, ..Self::default() }
    }

    /// Returns all received bytes, for [`super::TlsStream::new`].
    #[must_use]
    pub fn into_received(self) -> Vec<u8> {
        self.received
    }

    /// Returns the received bytes.
    #[must_use]
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Ready when the message is complete, or when it never can be: rustls reports the fault then.
    ///
    /// # Errors
    ///
    /// Errors of the socket; `UnexpectedEof` at its end.
    pub fn poll_whole(&mut self, socket: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_whole() {
            let read = SCRATCH_BUFFER.with_borrow_mut(|scratch| {
                let mut read = ReadBuf::new(&mut scratch[..PENDING_MAX]);
                ready!(Pin::new(&mut *socket).poll_read(cx, &mut read))?;
                self.received.extend_from_slice(read.filled());
                Poll::Ready(Ok::<_, io::Error>(read.filled().len()))
            });
            if ready!(read)? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Examines the records that have arrived since the last call.
    fn is_whole(&mut self) -> bool {
        while let [kind, major, ..] = self.received[self.at..] {
            if kind != HANDSHAKE || major != 3 {
                return true;
            }
            let record = &self.received[self.at..];
            let Some(len) = record.get(3..RECORD_HEAD).map(|l| usize::from(l[0]) << 8 | usize::from(l[1])) else {
                break;
            };
            if len == 0 || len > RECORD_MAX {
                return true;
            }
            let Some(payload) = record.get(RECORD_HEAD..RECORD_HEAD + len) else { break };
            let missing = (MESSAGE_HEAD - self.head.len()).min(len);
            self.head.extend_from_slice(&payload[..missing]);
            self.at += RECORD_HEAD + len;
            self.len += len;
            if let [kind, high, middle, low] = self.head[..] {
                let wanted = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                if kind != CLIENT_HELLO || wanted > PENDING_MAX || self.len >= MESSAGE_HEAD + wanted {
                    return true;
                }
            }
        }
        self.received.len() >= PENDING_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&[HANDSHAKE, 3, 1][..], &len, payload].concat()
    }

    /// Returns the number of single bytes until the message counts as complete.
    fn whole_at(bytes: &[u8]) -> Option<usize> {
        let mut message = FirstMessage::default();
        bytes.iter().position(|byte| {
            message.received.push(*byte);
            message.is_whole()
        })
    }

    #[test]
    fn whole_with_its_last_byte() {
        let hello = [&[CLIENT_HELLO, 0, 0, 200][..], &[7; 200]].concat();
        let one = record(&hello);
        assert_eq!(whole_at(&one), Some(one.len() - 1));
        for size in [1, 2, 3, 5, 64] {
            let many: Vec<u8> = hello.chunks(size).flat_map(record).collect();
            assert_eq!(whole_at(&many), Some(many.len() - 1), "{size}");
        }
        assert!(FirstMessage::new([&one[..], b"more"].concat()).is_whole());
        for len in 0..one.len() {
            assert!(!FirstMessage::new(one[..len].to_vec()).is_whole(), "{len}");
        }
    }

    #[test]
    fn what_cannot_become_one_is_not_waited_for() {
        for (bytes, at) in [
            (&b"GET / HTTP/1.1\r\n"[..], 1),
            (&[HANDSHAKE, 2, 0], 1),
            (&[HANDSHAKE, 3, 1, 0, 0, 1], 4),
            (&[HANDSHAKE, 3, 1, 0xff, 0xff, 1], 4),
            (&record(&[2, 0, 0, 1, 0]), 9),
            (&record(&[CLIENT_HELLO, 0xff, 0, 0]), 8),
        ] {
            assert_eq!(whole_at(bytes), Some(at), "{bytes:x?}");
        }
        let endless = record(&[CLIENT_HELLO, 0, 0x90, 0]).into_iter().chain(record(&[0]).repeat(10_000));
        assert_eq!(whole_at(&endless.collect::<Vec<_>>()), Some(PENDING_MAX - 1));
    }
}
