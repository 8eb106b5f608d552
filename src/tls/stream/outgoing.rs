//! The outgoing side: gathers plaintext into full records, seals them with rustls, and writes them
//! with one call. The thread lends the buffer while it contains data. Bytes that can wait for the
//! next call are kept in an allocation of their own size.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::unbuffered::{EncodeError, EncodeTlsData, EncryptError, WriteTraffic};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// The most plaintext of one record (RFC 8446 section 5.1).
pub(super) const RECORD: usize = 16 * 1024;
/// A sealed record: header, plaintext, content type, tag, and the explicit nonce of TLS 1.2.
const SEALED: usize = 5 + RECORD + 1 + 16 + 8;
/// Sealed records that one buffer holds before it must be written.
const RECORDS: usize = 6;
const SEALED_MAX: usize = RECORDS * SEALED;
/// Space for messages of rustls itself: alerts, tickets, a KeyUpdate. The buffer grows if they need
/// more.
const SLACK: usize = 1024;
/// The content type of a record with an alert.
const ALERT: u8 = 21;
/// A record's type, version and length.
const RECORD_HEAD: usize = 5;
/// The record being gathered lies after both.
const STAGE: usize = SEALED_MAX + SLACK;
/// The most buffers that a thread keeps for reuse.
const SPARE: usize = 8;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The outgoing side of one connection. It holds nothing while idle.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// `STAGE + RECORD` bytes, or more after `STAGE` if rustls had long messages.
    buffer: Option<Vec<u8>>,
    /// Written up to here.
    start: usize,
    /// Filled up to here.
    end: usize,
    /// Plaintext gathered and not yet sealed.
    staged: usize,
    /// Sealed bytes that go out ahead of the next write. Nobody waits for them.
    held: Vec<u8>,
    /// The last alert that went out unencrypted.
    alert_sent: Option<u8>,
}

impl Outgoing {
    fn lend(&mut self) -> &mut [u8] {
        self.buffer.get_or_insert_with(|| BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; STAGE + RECORD]))
    }

    /// Sets sealed bytes aside for the next write; returns `false` if they are too many.
    pub(super) fn hold(&mut self) -> bool {
        let sealed = self.buffer.as_ref().and_then(|buffer| buffer.get(self.start..self.end));
        let Some(sealed) = sealed.filter(|sealed| sealed.len() <= SLACK && self.staged == 0 && self.held.is_empty())
        else {
            return false;
        };
        self.held = sealed.to_vec();
        self.give_back();
        true
    }

    /// Puts the bytes set aside at the beginning of a buffer.
    fn take_up_held(&mut self) {
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            self.lend()[..held.len()].copy_from_slice(&held);
            self.end = held.len();
        }
    }

    /// Returns the last alert that went out unencrypted.
    pub(super) fn alert_sent(&self) -> Option<u8> {
        self.alert_sent
    }

    fn has_room(&self) -> bool {
        self.end + SEALED <= SEALED_MAX
    }

    /// Returns `true` if it must be written before it takes more.
    pub(super) fn is_full(&self) -> bool {
        !self.has_room()
    }

    /// Returns `true` if plaintext waits to be sealed.
    pub(super) fn is_staged(&self) -> bool {
        self.staged > 0
    }

    /// Returns `true` if sealed records wait to be written.
    pub(super) fn is_sealed(&self) -> bool {
        self.start < self.end
    }

    /// Returns `true` if nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.staged == 0 && self.start == self.end
    }

    /// Returns the number of bytes that wait to be sealed or written.
    pub(super) fn len(&self) -> usize {
        self.staged + self.end - self.start
    }

    /// Takes all of `bufs` if that does not fill a record: rustls is not needed yet.
    pub(super) fn stage(&mut self, bufs: &[IoSlice<'_>]) -> Option<usize> {
        self.take_up_held();
        let len: usize = bufs.iter().map(|b| b.len()).sum();
        if self.staged + len >= RECORD || !self.has_room() {
            return None;
        }
        let mut at = STAGE + self.staged;
        let buffer = self.lend();
        for b in bufs {
            buffer[at..at + b.len()].copy_from_slice(b);
            at += b.len();
        }
        self.staged += len;
        Some(len)
    }

    /// Takes as much of `bufs` as fits, and seals full records. Seals complete records in place,
    /// without a copy.
    pub(super) fn push<D>(&mut self, traffic: &mut WriteTraffic<'_, D>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.take_up_held();
        let mut taken = 0;
        for b in bufs {
            let mut b = &b[..];
            while !b.is_empty() && self.has_room() {
                let len = if self.staged == 0 && b.len() >= RECORD {
                    let len = RECORD * (b.len() / RECORD).min((SEALED_MAX - self.end) / SEALED);
                    let end = self.end;
                    self.end += traffic.encrypt(&b[..len], &mut self.lend()[end..STAGE]).map_err(seal_error)?;
                    len
                } else {
                    let len = b.len().min(RECORD - self.staged);
                    let at = STAGE + self.staged;
                    self.lend()[at..at + len].copy_from_slice(&b[..len]);
                    self.staged += len;
                    if self.staged == RECORD {
                        self.seal(traffic)?;
                    }
                    len
                };
                taken += len;
                b = &b[len..];
            }
        }
        Ok(taken)
    }

    /// Seals the staged plaintext.
    pub(super) fn seal<D>(&mut self, traffic: &mut WriteTraffic<'_, D>) -> io::Result<()> {
        let (end, len) = (self.end, std::mem::take(&mut self.staged));
        let (sealed, stage) = self.lend().split_at_mut(STAGE);
        self.end += traffic.encrypt(&stage[..len], &mut sealed[end..]).map_err(seal_error)?;
        Ok(())
    }

    /// Takes a message of rustls, and returns the content type of its record. A message that is not
    /// encoded now is lost.
    pub(super) fn encode<D>(&mut self, mut message: EncodeTlsData<'_, D>) -> io::Result<u8> {
        self.take_up_held();
        loop {
            let end = self.end;
            // The stage may be in use, and a flight of the handshake may extend over it.
            let limit = if self.staged > 0 { STAGE } else { usize::MAX };
            let buffer = self.lend();
            let limit = limit.min(buffer.len());
            match message.encode(&mut buffer[end.min(limit)..limit]) {
                Ok(len) => {
                    let content_type = buffer.get(end).copied().unwrap_or_default();
                    if let (ALERT, Some([_, description])) = (content_type, buffer.get(end + RECORD_HEAD..end + len)) {
                        self.alert_sent = Some(*description);
                    }
                    self.end += len;
                    return Ok(content_type);
                }
                Err(EncodeError::InsufficientSize(e)) if self.staged == 0 => {
                    let buffer = self.buffer.get_or_insert_default();
                    buffer.resize(end + e.required_size, 0);
                }
                Err(e) => return Err(io::Error::other(e.to_string())),
            }
        }
    }

    /// Discards plaintext that is not sealed yet.
    pub(super) fn discard_staged(&mut self) {
        self.staged = 0;
        if self.start == self.end {
            self.give_back();
        }
    }

    /// Adds an alert of ours as a plaintext record: only before encryption begins.
    pub(super) fn plain_alert(&mut self, description: u8) {
        const FATAL: u8 = 2;
        let end = self.end;
        self.alert_sent = Some(description);
        if end + 7 <= SEALED_MAX {
            self.lend()[end..end + 7].copy_from_slice(&[ALERT, 3, 3, 0, 2, FATAL, description]);
            self.end += 7;
        }
    }

    /// Adds close_notify (RFC 8446 section 6.1).
    pub(super) fn close<D>(&mut self, traffic: &mut WriteTraffic<'_, D>) -> io::Result<()> {
        self.take_up_held();
        let end = self.end.min(STAGE);
        self.end = end + traffic.queue_close_notify(&mut self.lend()[end..STAGE]).map_err(seal_error)?;
        Ok(())
    }

    /// Writes all sealed bytes.
    pub(super) fn poll_send(&mut self, socket: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(buffer) = &self.buffer {
            while self.start < self.end {
                let len = ready!(Pin::new(&mut *socket).poll_write(cx, &buffer[self.start..self.end]))?;
                if len == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.start += len;
            }
            self.sent();
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the sealed bytes, for callers that send them without a socket.
    #[doc(hidden)]
    pub(super) fn take_sealed(&mut self) -> Vec<u8> {
        let sealed = self.buffer.as_ref().map_or_else(Vec::new, |b| b[self.start..self.end].to_vec());
        self.sent();
        sealed
    }

    /// All sealed bytes are written; the buffer stays for the staged plaintext.
    fn sent(&mut self) {
        (self.start, self.end) = (0, 0);
        if self.staged == 0 {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            BUFFERS.with_borrow_mut(|spare| {
                if spare.len() < SPARE && buffer.len() == STAGE + RECORD {
                    spare.push(buffer);
                }
            });
        }
        (self.start, self.end) = (0, 0);
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // Resets a buffer for another connection. Unsent plaintext must not remain in it, and the
        // indices start at zero again.
        self.staged = 0;
        self.give_back();
    }
}

fn seal_error(error: EncryptError) -> io::Error {
    io::Error::other(error.to_string())
}
