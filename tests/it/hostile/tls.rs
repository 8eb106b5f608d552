//! Features that TLS has given up for good reasons, requested with bytes of our own and with OpenSSL.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::harness::{Authority, BLOG, Client, Origin, PATIENCE, Pintle, blog, eventually};

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const PROTOCOL_VERSION: u8 = 70;

pub(super) const NULL: u8 = 0;
const DEFLATE: u8 = 1;

/// With its length in so many bytes in front.
fn counted(width: usize, bytes: &[u8]) -> Vec<u8> {
    [&bytes.len().to_be_bytes()[8 - width..], bytes].concat()
}

fn extension(kind: u16, bytes: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &counted(2, bytes)].concat()
}

/// A ClientHello without its record: this version, at most TLS 1.2, and these methods of compression.
pub(super) fn client_hello(version: u16, compression: &[u8]) -> Vec<u8> {
    // ECDHE-ECDSA-AES128-GCM-SHA256; suites of old, for those who would take them.
    let suites = [0xc0, 0x2b, 0xc0, 0x09, 0xc0, 0x0a, 0xc0, 0x13, 0x00, 0x2f, 0x00, 0x35, 0x00, 0x0a];
    let name = [&[0][..], &counted(2, BLOG.as_bytes())].concat();
    let extensions = [
        extension(0, &counted(2, &name)),
        // x25519 and P-256; uncompressed points; ECDSA and RSA, with SHA-256 and SHA-1.
        extension(10, &counted(2, &[0, 29, 0, 23])),
        extension(11, &counted(1, &[0])),
        extension(13, &counted(2, &[4, 3, 4, 1, 8, 4, 2, 3, 2, 1])),
    ]
    .concat();
    let body = [
        &version.to_be_bytes()[..],
        &[0x5a; 32],
        &counted(1, &[]),
        &counted(2, &suites),
        &counted(1, compression),
        &counted(2, &extensions),
    ]
    .concat();
    [&[1][..], &counted(3, &body)].concat()
}

/// In records of so many bytes.
pub(super) fn records(version: u16, message: &[u8], size: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[HANDSHAKE][..], &version.min(0x0301).to_be_bytes(), &counted(2, piece)].concat();
    message.chunks(size).flat_map(record).collect()
}

/// The answer: the first record; empty if the connection ends without one.
fn answer(pintle: &Pintle, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(pintle.https()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = socket.write_all(bytes);
    let mut head = [0; 5];
    match socket.read_exact(&mut head) {
        Ok(()) => {
            let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
            socket.read_exact(&mut body).unwrap();
            [&head[..], &body].concat()
        }
        Err(e) => {
            assert!(!matches!(e.kind(), std::io::ErrorKind::WouldBlock), "nothing is said, and nothing ends");
            Vec::new()
        }
    }
}

/// The method of compression of a ServerHello.
fn compression(answer: &[u8]) -> u8 {
    assert_eq!((answer[0], answer[5]), (HANDSHAKE, SERVER_HELLO), "{answer:x?}");
    // Record, message, version, random; the session; the suite.
    let session = 5 + 4 + 2 + 32;
    answer[session + 1 + usize::from(answer[session]) + 2]
}

fn start() -> (Authority, Pintle) {
    let authority = Authority::new();
    let config = format!("[state]\ndirectory = {:?}\n", authority.folder().join("state"));
    let pintle = Pintle::start(&authority, &(config + &blog(&authority, &Origin::hello())));
    (authority, pintle)
}

#[test]
fn versions_of_old_are_refused() {
    let (authority, pintle) = start();
    for version in [0x0300, 0x0301, 0x0302] {
        let answer = answer(&pintle, &records(version, &client_hello(version, &[NULL]), 16_384));
        assert_eq!((answer.first(), answer.last()), (Some(&ALERT), Some(&PROTOCOL_VERSION)), "{version:x} {answer:x?}");
    }
    // The hello of SSL 2.0, which asks for SSL 2.0, or says that it could do TLS 1.2 (RFC 5246 appendix E.2).
    for version in [[0, 2], [3, 3]] {
        let body = [&[1][..], &version, &[0, 9, 0, 0, 0, 16], &[1, 0, 0x80, 7, 0, 0xc0, 0, 0, 0x2f], &[7; 16]].concat();
        let hello = [&[0x80, body.len() as u8][..], &body].concat();
        let answer = answer(&pintle, &hello);
        assert!(answer.is_empty() || answer[0] == ALERT, "{answer:x?}");
    }
    // The same hello with a version that is taken is answered.
    assert_eq!(compression(&answer(&pintle, &records(0x0303, &client_hello(0x0303, &[NULL]), 16_384))), NULL);
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
}

#[test]
fn nothing_is_compressed() {
    let (_authority, pintle) = start();
    for offer in [&[DEFLATE, NULL][..], &[NULL, DEFLATE], &[64, DEFLATE, NULL]] {
        let answer = answer(&pintle, &records(0x0303, &client_hello(0x0303, offer), 16_384));
        assert_eq!(compression(&answer), NULL, "{offer:?}");
    }
    // Who leaves no choice is refused (RFC 5246 section 7.4.1.2: null must be offered).
    for offer in [&[DEFLATE][..], &[]] {
        let answer = answer(&pintle, &records(0x0303, &client_hello(0x0303, offer), 16_384));
        assert!(answer.is_empty() || answer[0] == ALERT, "{offer:?}: {answer:x?}");
    }
}

/// Each byte in a record of its own, which RFC 8446 section 5.1 allows; and a hello that comes to no end.
#[test]
fn a_hello_byte_by_byte() {
    let (_authority, pintle) = start();
    let hello = records(0x0303, &client_hello(0x0303, &[NULL]), 1);
    let first = answer(&pintle, &hello);
    assert!(first[0] == ALERT || compression(&first) == NULL, "{first:x?}");
    // A message that says it has 16 MiB, in small records: it is not gathered.
    let memory = pintle.memory();
    let endless = [vec![1, 0xff, 0xff, 0xff], vec![0; 4_000_000]].concat();
    let first = answer(&pintle, &records(0x0303, &endless, 16));
    assert!(first.is_empty() || first[0] == ALERT, "{first:x?}");
    assert!(pintle.memory().saturating_sub(memory) < 4 << 20);
    // Records of nothing, without end.
    let empty = [HANDSHAKE, 3, 1, 0, 0].repeat(100_000);
    let first = answer(&pintle, &empty);
    assert!(first.is_empty() || first[0] == ALERT, "{first:x?}");
}

/// A second handshake on a connection: refused (RFC 5746 section 4.5), whatever comes of the connection.
#[test]
fn renegotiation_is_refused() {
    let (authority, pintle) = start();
    let mut child = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-servername", BLOG, "-CAfile"])
        .arg(authority.ca_path())
        .arg("-connect")
        .arg(pintle.https().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let handshakes = || pintle.status()["counters"]["handshakes"].as_u64().unwrap();
    eventually("the first handshake", || (handshakes() == 1).then_some(()));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"R\n").unwrap();
    // It ends by itself: the client's half of a handshake is answered by an alert, or by the end.
    let status = eventually("s_client gives up", || child.try_wait().unwrap());
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("RENEGOTIATING") && !status.success(), "{status}: {said}");
    assert_eq!(handshakes(), 1);
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
}
