//! rustls' unbuffered API, its sharp edges kept in: bytes in, plaintext out, and back. No socket here, so that tests
//! and fuzzers can feed it anything.
//!
//! The edges: bytes that rustls has not taken must be shown to it on every call, writes included (it remembers parts
//! of handshake messages by position); a message that it wants to say is lost unless it is encoded; `PeerClosed` comes
//! once; and an error needs one more call for its alert.

use std::io::{self, IoSlice};

use bytes::BufMut;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus, WriteTraffic};

use super::outgoing::Outgoing;
use super::session::Session;

/// Received bytes that may wait for the rest of a record or of a handshake message.
pub(super) const PENDING_MAX: usize = 40 * 1024;

/// Content types of records that may go out before an alert does.
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;

/// How far the connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Handshake,
    Open,
    /// The peer has sent close_notify.
    PeerClosed,
    /// The peer broke the rules, and was told so.
    Failed,
}

/// TLS over bytes.
pub struct Records<S> {
    pub(super) session: Box<S>,
    pub(super) outgoing: Outgoing,
    pub(super) phase: Phase,
    /// Received and not taken by rustls: the beginning of a record.
    pending: Vec<u8>,
    /// Opened and not read yet.
    plain: Vec<u8>,
    plain_at: usize,
    close_sent: bool,
}

impl<S: Session> Records<S> {
    /// A new connection; `received` has come already.
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

    /// Whether there is plaintext that was not read yet.
    pub(super) fn has_plain(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Moves plaintext that waits into `dst`.
    pub(super) fn take_plain<B: BufMut>(&mut self, dst: &mut B) -> usize {
        let len = (self.plain.len() - self.plain_at).min(dst.remaining_mut());
        dst.put_slice(&self.plain[self.plain_at..self.plain_at + len]);
        self.plain_at += len;
        if self.plain_at == self.plain.len() {
            (self.plain, self.plain_at) = (Vec::new(), 0);
        }
        len
    }

    /// Works through `buffer`, whose first [`Self::pending_len`] bytes are free for what is pending, and whose bytes
    /// up to `filled` have been received. Plaintext goes to `dst` as far as it fits; gives how much did.
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
        // An allocation of its own size, or none: most connections rest with nothing pending.
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
                // Our buffer keeps the order, so that it counts as transmitted once it lies there.
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

    /// Ends the connection with an alert: rustls' own is among the next things that it wants to say. It must be shown
    /// what it has not taken here, too: where it stands in a handshake message it remembers by position. And it must
    /// not be asked again once the alert is out, or it would stumble over the same bytes a second time.
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

    /// Keeps the tickets that end a handshake until there is an answer to send: what it answers has come already.
    /// Otherwise they cost a system call and a packet of their own.
    pub(super) fn hold_tickets(&mut self) -> bool {
        self.phase == Phase::Open && self.has_plain() && self.session.ends_with_tickets() && self.outgoing.hold()
    }

    /// Takes plaintext to be sent, as much as there is room for.
    pub(super) fn write(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.close_sent || self.phase == Phase::Handshake {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match self.outgoing.stage(bufs) {
            Some(len) => Ok(len),
            None => self.with_traffic(|outgoing, traffic| outgoing.push(traffic, bufs)),
        }
    }

    /// Seals what is staged.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        if self.outgoing.is_staged() { self.with_traffic(|outgoing, traffic| outgoing.seal(traffic)) } else { Ok(()) }
    }

    /// Says close_notify, once.
    pub(super) fn close(&mut self) -> io::Result<()> {
        if self.close_sent || self.phase == Phase::Handshake {
            return Ok(());
        }
        self.seal()?;
        self.close_sent = true;
        self.with_traffic(|outgoing, traffic| outgoing.close(traffic))
    }

    /// Gets rustls to where it can seal.
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

    /// For tests and fuzzers: feeds bytes, and gives the plaintext that came out.
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

    /// For tests and fuzzers: seals plaintext, and gives all bytes that are to be sent.
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

/// A client of TLS 1.1 or older is told so (RFC 8446 section 6.2, protocol_version); rustls misses its signature
/// algorithms first, and calls that a handshake failure.
fn alert_for_old_client(error: &rustls::Error, hello: &[u8]) -> Option<u8> {
    const PROTOCOL_VERSION: u8 = 70;
    let missing = rustls::PeerIncompatible::SignatureAlgorithmsExtensionRequired;
    if !matches!(error, rustls::Error::PeerIncompatible(e) if *e == missing) {
        return None;
    }
    // A record's header, a message's header, and the version of the ClientHello.
    match hello {
        [22, _, _, _, _, 1, _, _, _, 3, ..=2, ..] => Some(PROTOCOL_VERSION),
        _ => None,
    }
}

fn tls_error(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
