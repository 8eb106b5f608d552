//! PROXY protocol versions 1 and 2: from trusted peers where it is on, and from nobody else.

use std::io::Write;
use std::net::TcpStream;

use crate::harness::{Authority, BLOG, Client, Connection, Origin, PATIENCE, Pintle, blog};

const ON: &str = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true";
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 443\r\n";

fn v2(tlvs: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    let addresses = [192, 0, 2, 8, 10, 0, 0, 1, 0x13, 0x88, 0x01, 0xbb];
    header.extend_from_slice(&((addresses.len() + tlvs.len()) as u16).to_be_bytes());
    header.extend_from_slice(&addresses);
    header.extend_from_slice(tlvs);
    header
}

/// The client came over TLS; or it did not.
const TLS: [u8; 8] = [0x20, 0, 5, 1, 0, 0, 0, 0];
const NO_TLS: [u8; 8] = [0x20, 0, 5, 0, 0, 0, 0, 0];

fn connect(address: std::net::SocketAddr, header: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(header).unwrap();
    socket
}

fn plain(address: std::net::SocketAddr, header: &[u8]) -> Connection {
    Connection { stream: Box::new(connect(address, header)), received: Vec::new() }
}

#[test]
fn addresses_are_taken_from_the_header() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start_listening(&authority, ON, &blog(&authority, &origin));
    let client = Client::new(&authority);
    for (header, address) in [(V1.to_vec(), "192.0.2.7"), (v2(&[]), "192.0.2.8"), (v2(&TLS), "192.0.2.8")] {
        let mut connection = client.handshake(connect(pintle.https(), &header), BLOG).unwrap();
        // The client behind the balancer is a stranger, whatever it says.
        connection.send(format!("GET /{address} HTTP/1.1\r\nHost: {BLOG}\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n"));
        assert_eq!(connection.response("GET").status, 200);
        let received = origin.request(&format!("/{address}"));
        assert_eq!(received.fields("x-forwarded-for"), [address]);
        assert_eq!(pintle.access_line(&format!("/{address}"))["client"], address);
    }
}

#[test]
fn the_tls_tlv_is_the_scheme() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start_listening(&authority, ON, &blog(&authority, &origin));
    let ask = |header: &[u8], fields: &str| {
        let mut connection = plain(pintle.http(), header);
        connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n{fields}\r\n"));
        connection.response("GET").status
    };
    assert_eq!(ask(&v2(&TLS), ""), 200);
    assert_eq!(ask(&v2(&NO_TLS), ""), 301);
    // The TLV comes first; without one, the header of the trusted peer counts.
    assert_eq!(ask(&v2(&NO_TLS), "X-Forwarded-Proto: https\r\n"), 301);
    assert_eq!(ask(V1, "X-Forwarded-Proto: https\r\n"), 200);
    assert_eq!(ask(V1, ""), 301);
}

#[test]
fn a_header_may_come_in_pieces_and_speak_for_the_balancer_itself() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start_listening(&authority, ON, &blog(&authority, &origin));
    for (n, header) in
        [v2(&[]), V1.to_vec(), b"PROXY UNKNOWN\r\n".to_vec(), b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0".to_vec()]
            .into_iter()
            .enumerate()
    {
        let request = format!("GET /{n} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n");
        let mut connection = plain(pintle.http(), &[]);
        let all = [&header[..], request.as_bytes()].concat();
        for piece in all.chunks(7) {
            connection.send(piece);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(connection.response("GET").status, 301);
    }
}

#[test]
fn wrong_headers_and_missing_ones_end_the_connection() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start_listening(&authority, ON, &blog(&authority, &origin));
    let request = format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n");
    for header in [
        &b""[..],
        b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 99999\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 443\n",
        b"PROXY UDP4 192.0.2.7 10.0.0.1 5000 443\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01x",
    ] {
        let mut connection = plain(pintle.http(), &[header, request.as_bytes()].concat());
        connection.assert_closed();
    }
    let mut client = Client::new(&authority).handshake(connect(pintle.https(), &[]), BLOG);
    assert!(client.is_err(), "{:?}", client.as_mut().map(|c| c.get(BLOG, "/").status));
}

#[test]
fn strangers_headers_are_refused() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let others = "trusted_proxies = [\"192.0.2.0/24\"]\nproxy_protocol = true";
    for listen in [others, "trusted_proxies = [\"127.0.0.1\"]"] {
        let pintle = Pintle::start_listening(&authority, listen, &blog(&authority, &origin));
        let mut connection = plain(pintle.http(), V1);
        assert_eq!(connection.response("GET").status, 400);
        assert!(Client::new(&authority).handshake(connect(pintle.https(), V1), BLOG).is_err());
        // Without the header, they are served as anybody is.
        assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
    }
}
