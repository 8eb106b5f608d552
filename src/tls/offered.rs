//! The offers in a ClientHello, for the record of a handshake that has failed. Nothing is decided by them.

use rustls::NamedGroup;

/// The most values of one list. A client that sends more gets no longer record.
const LIST_MAX: usize = 16;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// The offers of a client, as far as they can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offered {
    /// The server name, as it was sent.
    pub name: Option<Vec<u8>>,
    /// The TLS versions: `1.3`, `1.2`, or `0x0305` for an unknown one.
    pub versions: Vec<String>,
    /// The groups by their names, or as numbers.
    pub groups: Vec<String>,
    /// The application protocols.
    pub alpn: Vec<Vec<u8>>,
}

impl Offered {
    /// Reads the beginning of a connection. A ClientHello that is cut short or malformed gives what stands before the fault.
    #[must_use]
    pub fn read(received: &[u8]) -> Self {
        let mut offered = Self::default();
        let message = message(received);
        let _ = offered.take(&mut Bytes(&message));
        offered
    }

    fn take(&mut self, hello: &mut Bytes<'_>) -> Option<()> {
        if hello.number(1)? != u32::from(CLIENT_HELLO) {
            return None;
        }
        hello.number(3)?;
        let legacy = hello.number(2)?;
        hello.take(32)?;
        hello.list(1)?;
        hello.list(2)?;
        hello.list(1)?;
        // Without the extension, the version here is the highest (RFC 8446 section 4.1.2).
        self.versions = vec![version(legacy)];
        let mut extensions = hello.begun_list(2)?;
        while let Some(kind) = extensions.number(2) {
            let mut body = extensions.list(2)?;
            match u16::try_from(kind).ok()? {
                SERVER_NAME => {
                    self.name = body.list(2).and_then(|mut names| {
                        names.number(1)?;
                        Some(names.list(2)?.0.to_vec())
                    })
                }
                SUPPORTED_GROUPS => self.groups = numbers(&mut body.list(2)?).map(group).collect(),
                SUPPORTED_VERSIONS => self.versions = numbers(&mut body.list(1)?).map(version).collect(),
                ALPN => {
                    let mut names = body.list(2)?;
                    self.alpn = std::iter::from_fn(|| Some(names.list(1)?.0.to_vec())).take(LIST_MAX).collect();
                }
                _ => {}
            }
        }
        Some(())
    }
}

/// Joins the handshake message from the records that carry it.
fn message(received: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    let mut records = Bytes(received);
    while records.number(1) == Some(u32::from(HANDSHAKE)) && records.number(2).is_some() {
        match records.begun_list(2) {
            Some(payload) => message.extend_from_slice(payload.0),
            None => break,
        }
    }
    message
}

/// Values of two bytes, without those that are meant to be ignored (RFC 8701).
fn numbers<'a>(list: &'a mut Bytes<'_>) -> impl Iterator<Item = u32> + 'a {
    let is_grease = |n: &u32| n & 0x0f0f == 0x0a0a && n >> 8 == n & 0xff;
    std::iter::from_fn(|| list.number(2)).filter(move |n| !is_grease(n)).take(LIST_MAX)
}

fn version(number: u32) -> String {
    match number {
        0x0300 => "ssl3".to_owned(),
        0x0301 => "1.0".to_owned(),
        0x0302 => "1.1".to_owned(),
        0x0303 => "1.2".to_owned(),
        0x0304 => "1.3".to_owned(),
        other => format!("0x{other:04x}"),
    }
}

fn group(number: u32) -> String {
    let known = u16::try_from(number).ok().and_then(|number| NamedGroup::from(number).as_str());
    known.map_or_else(|| format!("0x{number:04x}"), str::to_owned)
}

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<u32> {
        Some(self.take(bytes)?.iter().fold(0, |n, byte| n << 8 | u32::from(*byte)))
    }

    /// A list behind its length, which has that many bytes.
    fn list(&mut self, bytes: usize) -> Option<Self> {
        let len = usize::try_from(self.number(bytes)?).ok()?;
        self.take(len).map(Bytes)
    }

    /// The same list, as far as it has come.
    fn begun_list(&mut self, bytes: usize) -> Option<Self> {
        let len = usize::try_from(self.number(bytes)?).ok()?;
        self.take(len.min(self.0.len())).map(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A ClientHello in one record.
    fn hello() -> Vec<u8> {
        let sized = |bytes: &[u8], width: usize| {
            let len = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            [&len[4 - width..], bytes].concat()
        };
        let extension = |kind: u16, body: Vec<u8>| [&kind.to_be_bytes()[..], &sized(&body, 2)].concat();
        let name = sized(&[&[0][..], &sized(b"a.example", 2)].concat(), 2);
        let groups = sized(&[0x1a, 0x1a, 0, 29, 0, 23, 0x77, 0x77], 2);
        let alpn = sized(&[sized(b"h2", 1), sized(b"\xff\n", 1)].concat(), 2);
        let versions = sized(&[0x7a, 0x7a, 3, 5, 3, 4, 3, 3], 1);
        let extensions = [extension(0, name), extension(10, groups), extension(16, alpn), extension(43, versions)];
        let body = [
            &[3, 3][..],
            &[7; 32],
            &sized(&[1; 32], 1),
            &sized(&[0x13, 1], 2),
            &sized(&[0], 1),
            &sized(&extensions.concat(), 2),
        ];
        let message = [&[CLIENT_HELLO][..], &sized(&body.concat(), 3)].concat();
        [&[HANDSHAKE, 3, 1][..], &sized(&message, 2)].concat()
    }

    #[test]
    fn offers() {
        let hello = hello();
        let whole = Offered::read(&hello);
        assert_eq!(whole.name.as_deref(), Some(&b"a.example"[..]));
        assert_eq!(whole.versions, ["0x0305", "1.3", "1.2"]);
        assert_eq!(whole.groups, ["X25519", "secp256r1", "0x7777"]);
        assert_eq!(whole.alpn, [&b"h2"[..], b"\xff\n"]);
        // In many records.
        let (mut split, message) = (Vec::new(), &hello[5..]);
        for part in message.chunks(7) {
            split.extend_from_slice(&[22, 3, 1, 0, u8::try_from(part.len()).unwrap()]);
            split.extend_from_slice(part);
        }
        assert_eq!(Offered::read(&split), whole);
        assert_eq!(Offered::read(b"GET / HTTP/1.1\r\n"), Offered::default());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..200usize) {
            let _ = Offered::read(&bytes);
            let hello = hello();
            let _ = Offered::read(&hello[..cut.min(hello.len())]);
        }
    }
}
