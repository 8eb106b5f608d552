//! The protocol of a channel: frames of a four-byte length in network order, and that many bytes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::SignatureScheme;
use tokio::time::Instant;

use crate::keys::pin::Pin;
use crate::reason::Reason;

/// The longest request or answer, in bytes: a path, or an RSA key's public part.
const FRAME_MAX: usize = 8 * 1024;
/// The longest plan, in bytes: the folders of very many keys.
const PLAN_MAX: usize = 64 << 20;
/// The longest handshake to be signed, in bytes: TLS 1.2 with a P-521 point has 203, TLS 1.3 with
/// SHA-512 has 162.
const MESSAGE_MAX: usize = 256;

/// The timeout of both sides: an answer takes well under a millisecond, or never comes.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

const LOAD: u8 = 1;
const SIGN: u8 = 2;
const DONE: u8 = 0;
const REFUSED: u8 = 1;

/// A request to the key process.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyRequest {
    /// Read the key of a file.
    Load(Vec<u8>),
    /// Sign with the key of this pin.
    Sign { pin: [u8; 32], scheme: SignatureScheme, message: Vec<u8> },
}

/// The public facts of a loaded key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoadedKey {
    /// DER of the SubjectPublicKeyInfo.
    pub(super) public: Vec<u8>,
    /// The signature schemes that it supports, the best first.
    pub(super) schemes: Vec<SignatureScheme>,
}

impl KeyRequest {
    pub(super) fn load(path: &Path) -> Self {
        Self::Load(path.as_os_str().as_encoded_bytes().to_vec())
    }

    pub(super) fn sign(pin: &Pin, scheme: SignatureScheme, message: &[u8]) -> Self {
        Self::Sign { pin: *pin.as_bytes(), scheme, message: message.to_vec() }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Load(path) => [&[LOAD], path.as_slice()].concat(),
            Self::Sign { pin, scheme, message } => {
                [&[SIGN], pin.as_slice(), &u16::from(*scheme).to_be_bytes(), message.as_slice()].concat()
            }
        }
    }

    /// Returns `None` for a malformed request.
    pub(super) fn decode(frame: &[u8]) -> Option<Self> {
        let (kind, rest) = frame.split_first()?;
        match *kind {
            LOAD => Some(Self::Load(rest.to_vec())),
            SIGN => {
                let (pin, rest) = rest.split_first_chunk::<32>()?;
                let (scheme, message) = rest.split_first_chunk::<2>()?;
                let scheme = SignatureScheme::from(u16::from_be_bytes(*scheme));
                is_handshake(message).then(|| Self::Sign { pin: *pin, scheme, message: message.to_vec() })
            }
            _ => None,
        }
    }
}

impl LoadedKey {
    pub(super) fn encode(&self) -> Vec<u8> {
        let count = u8::try_from(self.schemes.len()).unwrap_or(u8::MAX);
        let schemes = self.schemes.iter().take(count.into()).flat_map(|s| u16::from(*s).to_be_bytes());
        std::iter::once(count).chain(schemes).chain(self.public.iter().copied()).collect()
    }

    pub(super) fn decode(answer: &[u8]) -> Option<Self> {
        let (count, rest) = answer.split_first()?;
        let (schemes, public) = rest.split_at_checked(usize::from(*count) * 2)?;
        let schemes =
            schemes.chunks_exact(2).map(|s| SignatureScheme::from(u16::from_be_bytes([s[0], s[1]]))).collect();
        Some(Self { public: public.to_vec(), schemes })
    }
}

/// Returns `true` if this is exactly what a server signs in a handshake, so that the key serves no
/// other purpose: RFC 8446 section 4.4.3, or the parameters of RFC 8422 section 5.4 after the two
/// random numbers.
fn is_handshake(message: &[u8]) -> bool {
    if message.len() > MESSAGE_MAX {
        return false;
    }
    let tls13 = || {
        let rest = message.strip_prefix(&[b' '; 64])?.strip_prefix(b"TLS 1.3, server CertificateVerify\0")?;
        Some(matches!(rest.len(), 32 | 48 | 64))
    };
    // named_curve(3), the curve, and a point with its length.
    let tls12 = || {
        let (kind, rest) = message.get(64..)?.split_first()?;
        let (_, rest) = rest.split_first_chunk::<2>()?;
        let (length, point) = rest.split_first()?;
        Some(*kind == 3 && usize::from(*length) == point.len() && !point.is_empty())
    };
    tls13().unwrap_or_else(|| tls12().unwrap_or(false))
}

/// Reads a frame; `None` at the end.
pub(super) fn read(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    read_up_to(FRAME_MAX, stream)
}

/// Reads the plan of the process, before the first channel.
pub(super) fn read_plan(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    read_up_to(PLAN_MAX, stream)
}

/// Writes the plan.
pub(super) fn write_plan(stream: &mut impl Write, plan: &[u8]) -> io::Result<()> {
    write_up_to(PLAN_MAX, stream, plan)
}

fn read_up_to(most: usize, stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(Some(frame))
}

/// Reads a frame; `None` at the end. Waits without limit for its first byte, then at most
/// `TIMEOUT`.
pub(super) fn read_in_time(stream: &UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut first = [0];
    match (&*stream).read(&mut first) {
        Ok(0) => return Ok(None),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return read_in_time(stream),
        Err(error) => return Err(error),
    }
    read(&mut first.chain(InTime::begin(stream)))
}

/// Writes a frame within `TIMEOUT`.
pub(super) fn write_in_time(stream: &UnixStream, frame: &[u8]) -> io::Result<()> {
    write(&mut InTime::begin(stream), frame)
}

/// A channel with a deadline. (A socket timeout would need a system call that the key process is
/// not allowed.)
struct InTime<'s> {
    stream: &'s UnixStream,
    until: Instant,
}

impl<'s> InTime<'s> {
    fn begin(stream: &'s UnixStream) -> Self {
        Self { stream, until: Instant::now() + TIMEOUT }
    }

    /// Tries an operation until it succeeds or the deadline passes.
    fn attempt(&self, ready: PollFlags, mut act: impl FnMut() -> Result<usize, Errno>) -> io::Result<usize> {
        loop {
            match act() {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {}
                other => return Ok(other?),
            }
            let left = self.until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            match poll(&mut [PollFd::new(self.stream, ready)], Some(&left)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Read for InTime<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.attempt(PollFlags::IN, || recv(self.stream, &mut *buffer, RecvFlags::DONTWAIT).map(|(read, _)| read))
    }
}

impl Write for InTime<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.attempt(PollFlags::OUT, || send(self.stream, buffer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a frame without a deadline.
pub(super) fn write(stream: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    write_up_to(FRAME_MAX, stream, frame)
}

fn write_up_to(most: usize, stream: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= most);
    let length = length.ok_or(io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), frame].concat())
}

/// Encodes an answer.
pub(super) fn answer(outcome: Result<Vec<u8>, Reason>) -> Vec<u8> {
    match outcome {
        Ok(bytes) => [&[DONE], bytes.as_slice()].concat(),
        Err(why) => [&[REFUSED], serde_json::to_vec(&why).unwrap_or_default().as_slice()].concat(),
    }
}

/// Decodes an answer; `None` if it is malformed.
pub(super) fn outcome(frame: &[u8]) -> Option<Result<Vec<u8>, Reason>> {
    match frame.split_first()? {
        (&DONE, bytes) => Some(Ok(bytes.to_vec())),
        (&REFUSED, why) => serde_json::from_slice(why).ok().map(Err),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_signed() {
        let check = |message: &[u8], is: bool| assert_eq!(is_handshake(message), is, "{message:02x?}");
        let tls13 = |context: &str, hash: usize| [&[b' '; 64], context.as_bytes(), &vec![7; hash]].concat();
        check(&tls13("TLS 1.3, server CertificateVerify\0", 32), true);
        check(&tls13("TLS 1.3, server CertificateVerify\0", 48), true);
        check(&tls13("TLS 1.3, server CertificateVerify\0", 33), false);
        check(&tls13("TLS 1.3, client CertificateVerify\0", 32), false);
        let tls12 = |parameters: &[u8]| [&[9; 64], parameters].concat();
        check(&tls12(&[&[3, 0, 29, 32][..], &[1; 32]].concat()), true);
        check(&tls12(&[&[3, 0, 29, 32][..], &[1; 31]].concat()), false);
        check(&tls12(&[&[1, 0, 29, 32][..], &[1; 32]].concat()), false);
        check(&tls12(&[3, 0, 29, 0]), false);
        check(&[0x30; 32], false); // a digest
        check(&[0x30; 200], false); // the beginning of a certificate
        check(&[], false);
    }

    #[test]
    fn half_a_frame_is_not_waited_for_for_ever() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        write(&mut &ours, b"whole").unwrap();
        assert_eq!(read_in_time(&theirs).unwrap().unwrap(), b"whole");
        for half in [&[0, 0][..], &[0, 0, 0, 9, 1, 2]] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(half).unwrap();
            assert_eq!(read_in_time(&theirs).unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        // A peer that does not read is not waited for, either.
        let frame = vec![7; FRAME_MAX];
        let error = std::iter::repeat_with(|| write_in_time(&theirs, &frame)).find_map(Result::err).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    proptest! {
        #[test]
        fn requests_come_out_as_they_went_in(path in proptest::collection::vec(any::<u8>(), 0..100), pin: [u8; 32], scheme: u16, point in proptest::collection::vec(any::<u8>(), 1..134)) {
            let mut message = vec![5; 64];
            message.extend([3, 0, 29, u8::try_from(point.len()).unwrap()]);
            message.extend(point);
            for request in [KeyRequest::Load(path), KeyRequest::Sign { pin, scheme: scheme.into(), message }] {
                let mut wire = Vec::new();
                write(&mut wire, &request.encode()).unwrap();
                let frame = read(&mut wire.as_slice()).unwrap().unwrap();
                prop_assert_eq!(KeyRequest::decode(&frame), Some(request));
            }
        }

        #[test]
        fn anything_else_is_none(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = (KeyRequest::decode(&bytes), LoadedKey::decode(&bytes), outcome(&bytes), read(&mut bytes.as_slice()));
        }
    }
}
