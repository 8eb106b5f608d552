//! rustls' unbuffered API behind a simple interface: bytes in, plaintext out, and back. It has no
//! socket, so tests and fuzzers can feed it anything.
//!
//! The API has four pitfalls. Every call must see the bytes that rustls has not taken, even a
//! write: rustls remembers parts of handshake messages by position. A message that is not encoded
//! is lost. `PeerClosed` comes once. An error needs one more call for its alert.

use std::io::{self, IoSlice};

use bytes::BufMut;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus, WriteTraffic};

use super::outgoing::Outgoing;
use super::session::Session;

/// The most received bytes that may wait for the rest of a record or handshake message.
pub(super) const PENDING_MAX: usize = 40 * 1024;

/// Content types of records that may precede an alert.
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;

/// The phase of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Handshake,
    Open,
    /// The peer has sent close_notify.
    PeerClosed,
    /// The peer broke the protocol, and was sent an alert.
    Failed,
}

/// TLS over bytes.
pub struct Records<S> {
    pub(super) session: Box<S>,
    pub(super) outgoing: Outgoing,
    pub(super) phase: Phase,
    /// Received, but not taken by rustls: the beginning of a record.
    pending: Vec<u8>,
    /// Decrypted, but not read yet.
    plain: Vec<u8>,
    plain_at: usize,
    close_sent: bool,
}

impl<S: Session> Records<S> {
    /// Begins a connection; `received` are bytes that have already arrived.
    pub fn new(session: S, received: Vec<u8>) -> Self {
        Self {
            session: Box::new(session),
            outgoing: Outgoing::default(),
            phase: Phase::Handshake,
            pending: received,
            plain: Vec::new(),
            plain_at: 0,
            close_sent: false,
        }
    }

    pub(super) fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// Returns `true` if there is unread plaintext.
    pub(super) fn has_plain(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Moves waiting plaintext into `dst`; returns its length.
    pub(super) fn take_plain<B: BufMut>(&mut self, dst: &mut B) -> usize {
        let len = (self.plain.len() - self.plain_at).min(dst.remaining_mut());
        dst.put_slice(&self.plain[self.plain_at..self.plain_at + len]);
        self.plain_at += len;
        if self.plain_at == self.plain.len() {
            (self.plain, self.plain_at) = (Vec::new(), 0);
        }
        len
    }

    /// Processes `buffer`. Its first [`Self::pending_len`] bytes are free for the pending bytes,
    /// and its bytes up to `filled` are received. Plaintext goes to `dst` as far as it fits;
    /// returns how much did.
    pub(super) fn receive<B: BufMut>(&mut self, buffer: &mut [u8], filled: usize, dst: &mut B) -> io::Result<usize> {
        let pending = std::mem::take(&mut self.pending);
        buffer[..pending.len()].copy_from_slice(&pending);
        let before = dst.remaining_mut();
        if self.phase == Phase::Failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let used = self.open(&mut buffer[..filled], dst)?;
        let rest = &buffer[used..filled];
        if rest.len() > PENDING_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "handshake message too long"));
        }
        // An allocation of exact size, or none: most idle connections have nothing pending.
        self.pending = if rest.is_empty() { Vec::new() } else { rest.to_vec() };
        Ok(before - dst.remaining_mut())
    }

    fn open<B: BufMut>(&mut self, buffer: &mut [u8], dst: &mut B) -> io::Result<usize> {
        let mut at = 0;
        loop {
            let UnbufferedStatus { discard, state, .. } = self.session.process(&mut buffer[at..]);
            let (mut more, mut phase) = (true, None);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(tls_error)?;
                        at += record.discard;
                        let fits =
                            if self.plain.is_empty() { record.payload.len().min(dst.remaining_mut()) } else { 0 };
                        dst.put_slice(&record.payload[..fits]);
                        self.plain.extend_from_slice(&record.payload[fits..]);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(message)) => {
                    self.outgoing.encode(message)?;
                }
                // Our buffer keeps the order, so the message counts as transmitted once it is
                // there.
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::PeerClosed) => phase = Some(Phase::PeerClosed),
                Ok(ConnectionState::WriteTraffic(_)) => {
                    if self.phase == Phase::Handshake {
                        phase = Some(Phase::Open);
                    }
                    more = false;
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => more = false,
                Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "early data")),
                Err(error) => {
                    let old = alert_for_old_client(&error, &buffer[at..]);
                    self.fail(old, &mut buffer[at + discard..]);
                    return Err(tls_error(error));
                }
            }
            if let Some(phase) = phase {
                self.phase = phase;
            }
            at += discard;
            if !more {
                return Ok(at);
            }
        }
    }

    /// Ends the connection with an alert, which is among rustls' next messages. rustls must see its
    /// pending bytes here, too, as it remembers their position in a handshake message. It must not
    /// be called again once the alert is out: it would fail on the same bytes a second time.
    fn fail(&mut self, other: Option<u8>, rest: &mut [u8]) {
        let instead = self.session.alert_instead().or(other);
        let before = std::mem::replace(&mut self.phase, Phase::Failed);
        self.close_sent = true;
        self.outgoing.discard_staged();
        if let (Phase::Handshake, Some(description)) = (before, instead) {
            self.outgoing.plain_alert(description);
            return;
        }
        while let Ok(ConnectionState::EncodeTlsData(message)) = self.session.process(rest).state {
            if !matches!(self.outgoing.encode(message), Ok(HANDSHAKE | CHANGE_CIPHER_SPEC)) {
                return;
            }
        }
    }

    /// Holds back the tickets that end a handshake until there is a response to send, if its
    /// request has arrived. Otherwise they cost a system call and a packet of their own.
    pub(super) fn hold_tickets(&mut self) -> bool {
        self.phase == Phase::Open && self.has_plain() && self.session.ends_with_tickets() && self.outgoing.hold()
    }

    /// Takes plaintext to be sent, as much as fits.
    pub(super) fn write(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.close_sent || self.phase == Phase::Handshake {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match self.outgoing.stage(bufs) {
            Some(len) => Ok(len),
            None => self.with_traffic(|outgoing, traffic| outgoing.push(traffic, bufs)),
        }
    }

    /// Seals the staged plaintext.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        if self.outgoing.is_staged() { self.with_traffic(|outgoing, traffic| outgoing.seal(traffic)) } else { Ok(()) }
    }

    /// Sends close_notify, once.
    pub(super) fn close(&mut self) -> io::Result<()> {
        if self.close_sent || self.phase == Phase::Handshake {
            return Ok(());
        }
        self.seal()?;
        self.close_sent = true;
        self.with_traffic(|outgoing, traffic| outgoing.close(traffic))
    }

    /// Drives rustls to the state in which it can seal.
    fn with_traffic<R>(
        &mut self,
        act: impl FnOnce(&mut Outgoing, &mut WriteTraffic<'_, S::Data>) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.session.process(&mut self.pending);
            match state.map_err(tls_error)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let result = act(&mut self.outgoing, &mut traffic);
                    self.pending.drain(..discard);
                    return result;
                }
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(tls_error)?;
                        discard += record.discard;
                        self.plain.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(message) => {
                    self.outgoing.encode(message)?;
                }
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed => self.phase = Phase::PeerClosed,
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            }
            self.pending.drain(..discard);
        }
    }

    /// Feeds bytes, and returns the decrypted plaintext. For tests and fuzzers.
    #[doc(hidden)]
    pub fn feed(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        self.take_plain(&mut plain);
        let mut buffer = vec![0; self.pending.len()];
        buffer.extend_from_slice(bytes);
        let filled = buffer.len();
        self.receive(&mut buffer, filled, &mut plain)?;
        self.take_plain(&mut plain);
        Ok(plain)
    }

    /// Seals plaintext, and returns all bytes to be sent. For tests and fuzzers.
    #[doc(hidden)]
    pub fn drain(&mut self, plaintext: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut rest = plaintext;
        while !rest.is_empty() {
            let len = self.write(&[IoSlice::new(rest)])?;
            rest = &rest[len..];
            bytes.extend(self.outgoing.take_sealed());
        }
        self.seal()?;
        bytes.extend(self.outgoing.take_sealed());
        Ok(bytes)
    }
}

/// Returns the alert for a client of TLS 1.1 or older: protocol_version (RFC 8446 section 6.2).
/// rustls first notices its missing signature algorithms, and sends handshake_failure.
fn alert_for_old_client(error: &rustls::Error, hello: &[u8]) -> Option<u8> {
    const PROTOCOL_VERSION: u8 = 70;
    let missing = rustls::PeerIncompatible::SignatureAlgorithmsExtensionRequired;
    if !matches!(error, rustls::Error::PeerIncompatible(e) if *e == missing) {
        return None;
    }
    // A record header, a message header, and the version of the ClientHello.
    match hello {
        [22, _, _, _, _, 1, _, _, _, 3, ..=2, ..] => Some(PROTOCOL_VERSION),
        _ => None,
    }
}

fn tls_error(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
