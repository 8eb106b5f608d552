//! Finds the TLS versions that a server accepts: sends a ClientHello of one version, and reads the
//! answer. rustls speaks TLS 1.2 and 1.3 only, so these hellos are written by hand. No key is
//! agreed, and nothing follows the answer.

use std::net::IpAddr;

/// A TLS version, requested alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// SSL 3.0 (RFC 6101); RFC 7568 forbids it.
    Ssl30,
    /// TLS 1.0 (RFC 2246); RFC 8996 forbids it.
    Tls10,
    /// TLS 1.1 (RFC 4346); RFC 8996 forbids it.
    Tls11,
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl TlsVersion {
    /// All versions, newest first.
    pub const ALL: [Self; 5] = [Self::Tls13, Self::Tls12, Self::Tls11, Self::Tls10, Self::Ssl30];

    /// Returns its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssl30 => "SSL 3.0",
            Self::Tls10 => "TLS 1.0",
            Self::Tls11 => "TLS 1.1",
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::Ssl30 => 0x0300,
            Self::Tls10 => 0x0301,
            Self::Tls11 => 0x0302,
            Self::Tls12 => 0x0303,
            Self::Tls13 => 0x0304,
        }
    }
}

/// The answer to a ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloAnswer {
    /// A ServerHello with the version that it chooses.
    Hello(u16),
    /// An alert (RFC 8446 section 6).
    Alert(u8),
    /// Anything but TLS.
    Other,
}

impl HelloAnswer {
    /// Returns `true` if the server continues in the version requested.
    #[must_use]
    pub fn accepts(self, version: TlsVersion) -> bool {
        self == Self::Hello(version.number())
    }
}

/// The most bytes of an answer that are read; a ServerHello has about a hundred.
pub const ANSWER_MAX: usize = 16 * 1024;
/// The random bytes of a ClientHello: its random, its session id, its key share.
pub const RANDOM_LEN: usize = 96;

/// The alert for a server name that the server does not serve (RFC 6066 section 3).
pub const UNRECOGNIZED_NAME: u8 = 112;
const RECORD_ALERT: u8 = 21;
const RECORD_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const SUPPORTED_VERSIONS: u16 = 43;

/// Cipher suites of TLS 1.3 and of all earlier versions, for servers of any age: RSA, ECDSA and
/// finite-field ones.
const SUITES_13: [u16; 3] = [0x1301, 0x1302, 0x1303];
const SUITES_12: [u16; 34] = [
    0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc023, 0xc027, 0xc024, 0xc028, 0x009c, 0x009d, 0x009e, 0x009f,
    0x003c, 0x003d, 0x0067, 0x006b, 0xccaa, 0xc009, 0xc013, 0xc00a, 0xc014, 0x0033, 0x0039, 0x002f, 0x0035, 0xc012,
    0x0016, 0x000a, 0x0005, 0x0004, 0xc011, 0x00ff,
];
/// X25519, P-256, P-384, P-521.
const GROUPS: [u16; 4] = [0x001d, 0x0017, 0x0018, 0x0019];
/// ECDSA, Ed25519, RSA-PSS, and PKCS #1 with SHA-2 and SHA-1.
const SIGNATURES: [u16; 13] =
    [0x0403, 0x0503, 0x0603, 0x0807, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0203, 0x0201, 0x0202];

/// Writes the record of a ClientHello that offers this version and no other.
#[must_use]
pub fn client_hello(version: TlsVersion, host: &str, random: &[u8; RANDOM_LEN]) -> Vec<u8> {
    let tls13 = version == TlsVersion::Tls13;
    let mut hello = Vec::with_capacity(512);
    // RFC 8446 section 4.1.2: an extension requests 1.3; the version field says 1.2.
    push_u16(&mut hello, version.number().min(TlsVersion::Tls12.number()));
    hello.extend_from_slice(&random[..32]);
    // Appendix D.4: middleboxes may block a ClientHello without a session id.
    if tls13 {
        with_len8(&mut hello, |out| out.extend_from_slice(&random[32..64]));
    } else {
        hello.push(0);
    }
    with_len16(&mut hello, |out| list(out, if tls13 { &SUITES_13 } else { &SUITES_12 }));
    // No compression.
    hello.extend_from_slice(&[1, 0]);
    // Servers of SSL 3.0 do not understand extensions.
    if version != TlsVersion::Ssl30 {
        with_len16(&mut hello, |out| extensions(out, version, host, random));
    }
    let mut message = vec![CLIENT_HELLO, 0];
    with_len16(&mut message, |out| out.extend_from_slice(&hello));
    let mut record = vec![RECORD_HANDSHAKE];
    // Appendix D: the record says 1.0 for any offer; only a record of SSL 3.0 says SSL 3.0.
    push_u16(&mut record, version.number().min(TlsVersion::Tls10.number()));
    with_len16(&mut record, |out| out.extend_from_slice(&message));
    record
}

fn extensions(out: &mut Vec<u8>, version: TlsVersion, host: &str, random: &[u8; RANDOM_LEN]) {
    // RFC 6066 section 3: no IP addresses.
    if host.parse::<IpAddr>().is_err() && !host.starts_with('[') {
        extension(out, 0, |out| {
            with_len16(out, |out| {
                out.push(0);
                with_len16(out, |out| out.extend_from_slice(host.as_bytes()));
            });
        });
    }
    extension(out, 10, |out| with_len16(out, |out| list(out, &GROUPS)));
    if version == TlsVersion::Tls13 {
        extension(out, SUPPORTED_VERSIONS, |out| with_len8(out, |out| list(out, &[version.number()])));
        // Any 32 bytes are a public key of X25519. It is never used: only the answer matters.
        extension(out, 51, |out| {
            with_len16(out, |out| {
                push_u16(out, GROUPS[0]);
                with_len16(out, |out| out.extend_from_slice(&random[64..]));
            });
        });
    } else {
        // Uncompressed points.
        extension(out, 11, |out| with_len8(out, |out| out.push(0)));
    }
    if matches!(version, TlsVersion::Tls12 | TlsVersion::Tls13) {
        extension(out, 13, |out| with_len16(out, |out| list(out, &SIGNATURES)));
    }
}

fn extension(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    push_u16(out, kind);
    with_len16(out, body);
}

fn list(out: &mut Vec<u8>, numbers: &[u16]) {
    for number in numbers {
        push_u16(out, *number);
    }
}

fn push_u16(out: &mut Vec<u8>, number: u16) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn with_len8(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    body(out);
    out[at] = u8::try_from(out.len() - at - 1).expect("what we write fits its length");
}

fn with_len16(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    push_u16(out, 0);
    body(out);
    let len = u16::try_from(out.len() - at - 2).expect("what we write fits its length");
    out[at..at + 2].copy_from_slice(&len.to_be_bytes());
}

/// Reads a server's answer. `None` if more bytes can still complete it.
#[must_use]
pub fn read_answer(bytes: &[u8]) -> Option<HelloAnswer> {
    // A handshake message may span records (RFC 8446 section 5.1).
    let (mut message, mut rest) = (Vec::new(), bytes);
    loop {
        let Some((&[kind, major, _, high, low], body)) = rest.split_first_chunk::<5>() else {
            // Bytes that do not begin like a record never become one.
            let hopeless = rest.first().is_some_and(|kind| !matches!(*kind, RECORD_ALERT | RECORD_HANDSHAKE));
            return (hopeless || bytes.len() >= ANSWER_MAX).then_some(HelloAnswer::Other);
        };
        if major != 3 || !matches!(kind, RECORD_ALERT | RECORD_HANDSHAKE) {
            return Some(HelloAnswer::Other);
        }
        let len = usize::from(u16::from_be_bytes([high, low]));
        let body_now = body.get(..len).unwrap_or(body);
        if kind == RECORD_ALERT {
            return match body_now {
                [_, description, ..] => Some(HelloAnswer::Alert(*description)),
                _ if body.len() < len => None,
                _ => Some(HelloAnswer::Other),
            };
        }
        message.extend_from_slice(body_now);
        if let Some(answer) = server_hello(&message) {
            return Some(answer);
        }
        if body.len() < len {
            return (bytes.len() >= ANSWER_MAX).then_some(HelloAnswer::Other);
        }
        rest = &body[len..];
    }
}

/// Returns the version that a ServerHello chooses; a HelloRetryRequest has the same form.
fn server_hello(message: &[u8]) -> Option<HelloAnswer> {
    let (&[kind, high, middle, low], body) = message.split_first_chunk::<4>()?;
    if kind != SERVER_HELLO {
        return Some(HelloAnswer::Other);
    }
    let len = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    if len > ANSWER_MAX {
        return Some(HelloAnswer::Other);
    }
    let body = body.get(..len)?;
    Some(chosen_version(body).map_or(HelloAnswer::Other, HelloAnswer::Hello))
}

/// RFC 8446 section 4.1.3: version, random, session id, suite, compression, extensions. The version
/// of 1.3 is in an extension (section 4.2.1); the version field says 1.2.
fn chosen_version(body: &[u8]) -> Option<u16> {
    let (version, rest) = take_u16(body)?;
    let (_, rest) = rest.split_at_checked(32)?;
    let (session, rest) = rest.split_first()?;
    let (_, rest) = rest.split_at_checked(usize::from(*session))?;
    let (_, rest) = rest.split_at_checked(3)?;
    if rest.is_empty() {
        return Some(version);
    }
    let (len, rest) = take_u16(rest)?;
    let mut extensions = rest.get(..usize::from(len))?;
    while !extensions.is_empty() {
        let (kind, rest) = take_u16(extensions)?;
        let (len, rest) = take_u16(rest)?;
        let (value, rest) = rest.split_at_checked(usize::from(len))?;
        if kind == SUPPORTED_VERSIONS {
            return take_u16(value).map(|(version, _)| version);
        }
        extensions = rest;
    }
    Some(version)
}

fn take_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustls::server::Acceptor;

    const RANDOM: [u8; RANDOM_LEN] = [9; RANDOM_LEN];

    /// rustls reads these hellos: name, suites, signatures.
    #[test]
    fn another_parser_understands_our_hello() {
        for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
            let mut acceptor = Acceptor::default();
            acceptor.read_tls(&mut &client_hello(version, "a.example", &RANDOM)[..]).unwrap();
            let accepted = acceptor.accept().unwrap_or_else(|(e, _)| panic!("{version:?}: {e}")).unwrap();
            let hello = accepted.client_hello();
            assert_eq!(hello.server_name(), Some("a.example"));
            let suites = if version == TlsVersion::Tls13 { SUITES_13.len() } else { SUITES_12.len() };
            assert_eq!(hello.cipher_suites().len(), suites);
            assert_eq!(hello.signature_schemes().len(), SIGNATURES.len());
        }
        for version in TlsVersion::ALL {
            let for_name = client_hello(version, "a.example", &RANDOM);
            let named = for_name.windows(9).any(|w| w == b"a.example");
            assert_eq!(named, version != TlsVersion::Ssl30, "{version:?}");
            assert!(!client_hello(version, "192.0.2.1", &RANDOM).windows(9).any(|w| w == b"192.0.2.1"));
        }
    }

    /// Writes a record with a ServerHello of this version, and of this one in its extension.
    fn hello(version: u16, extension: Option<u16>) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        body.extend_from_slice(&[7; 32]);
        body.extend_from_slice(&[2, 1, 1, 0x13, 1, 0]);
        if let Some(version) = extension {
            body.extend_from_slice(&[0, 11, 0, 51, 0, 1, 5, 0, 43, 0, 2]);
            body.extend_from_slice(&version.to_be_bytes());
        }
        let mut message = vec![SERVER_HELLO, 0];
        with_len16(&mut message, |out| out.extend_from_slice(&body));
        let mut record = vec![RECORD_HANDSHAKE, 3, 3];
        with_len16(&mut record, |out| out.extend_from_slice(&message));
        record
    }

    #[test]
    fn answers() {
        let check = |bytes: &[u8], want: Option<HelloAnswer>| assert_eq!(read_answer(bytes), want, "{bytes:x?}");
        check(&hello(0x0303, None), Some(HelloAnswer::Hello(0x0303)));
        check(&hello(0x0302, None), Some(HelloAnswer::Hello(0x0302)));
        check(&hello(0x0303, Some(0x0304)), Some(HelloAnswer::Hello(0x0304)));
        check(&[21, 3, 1, 0, 2, 2, 70], Some(HelloAnswer::Alert(70)));
        check(&[21, 3, 1, 0, 2, 2], None);
        check(&[21, 3, 1, 0, 1, 2], Some(HelloAnswer::Other));
        check(b"HTTP/1.1 400 Bad Request", Some(HelloAnswer::Other));
        check(b"H", Some(HelloAnswer::Other));
        check(&[22, 2, 0, 0, 0], Some(HelloAnswer::Other));
        check(&[22, 3, 3, 0, 4, 1, 0, 0, 0], Some(HelloAnswer::Other));
        check(b"", None);
        let whole = hello(0x0303, Some(0x0304));
        for cut in 0..whole.len() {
            check(&whole[..cut], None);
        }
        // The same in two records.
        let (first, second) = whole[5..].split_at(20);
        let mut records = Vec::new();
        for part in [first, second] {
            records.extend_from_slice(&[RECORD_HANDSHAKE, 3, 3]);
            with_len16(&mut records, |out| out.extend_from_slice(part));
        }
        check(&records, Some(HelloAnswer::Hello(0x0304)));
        assert!(
            HelloAnswer::Hello(0x0304).accepts(TlsVersion::Tls13)
                && !HelloAnswer::Hello(0x0303).accepts(TlsVersion::Tls11)
        );
    }

    proptest! {
        #[test]
        fn bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), like in any::<bool>()) {
            if like {
                bytes.splice(..0, [22, 3, 3, 0, 60, 2, 0, 0, 56, 3, 3]);
            }
            let _ = read_answer(&bytes);
        }
    }
}
