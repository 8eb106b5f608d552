//! PROXY protocol versions 1 and 2: from trusted peers where it is on, and from nobody else.

use std::io::Write;
use std::net::TcpStream;

use crate::harness::{Authority, BLOG, Client, Connection, Origin, PATIENCE, Pintle, blog};

const ON: &str = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\ntrust = \"proxy\"";
/// The same, where trusted proxies further out speak in fields.
const AND_FIELDS: &str = "trusted_proxies = [\"127.0.0.0/8\"]\nproxy_protocol = true";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0";
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
    assert_eq!(ask(&v2(&TLS), "X-Forwarded-Proto: http\r\nForwarded: proto=http\r\n"), 200);
    assert_eq!(ask(V1, ""), 301);
}

/// Whoever the PROXY header names is not the balancer: what stands in its requests, it has written itself.
#[test]
fn clients_that_the_header_names_are_believed_in_nothing() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let site = blog(&authority, &origin);
    let lies = "X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=203.0.113.1;proto=https\r\n\
                X-Forwarded-Host: evil.example\r\nX-Real-IP: 203.0.113.1\r\n";
    let contracts = ["\ntrust = \"x-forwarded\"", "\ntrust = \"forwarded\"", "\ntrust = \"proxy\"", ""];
    for trust in contracts {
        let pintle = Pintle::start_listening(&authority, &format!("{AND_FIELDS}{trust}"), &site);
        let headers = [
            (V1.to_vec(), "192.0.2.7"),
            (v2(&[]), "192.0.2.8"),
            (v2(&NO_TLS), "192.0.2.8"),
            (UNKNOWN.to_vec(), "127.0.0.1"),
            (LOCAL.to_vec(), "127.0.0.1"),
        ];
        for (n, (header, client)) in headers.into_iter().enumerate() {
            let target = format!("/{n}");
            let request = format!("GET {target} HTTP/1.1\r\nHost: {BLOG}\r\n{lies}\r\n");
            let mut connection = plain(pintle.http(), &header);
            connection.send(&request);
            let response = connection.response("GET");
            assert_eq!((response.status, response.one("cache-control")), (301, "no-store"), "{trust} {header:?}");
            assert_eq!(response.field("vary"), None, "no field has decided");
            assert_eq!(pintle.access_line(&target)["client"], client);
            // By TLS, they get their page, and are who they are.
            if header.ends_with(&NO_TLS) {
                continue;
            }
            let mut connection = Client::new(&authority).handshake(connect(pintle.https(), &header), BLOG).unwrap();
            let target = format!("/secure{trust}{n}").replace(['\n', ' ', '"'], "");
            connection.send(request.replacen(&format!("/{n}"), &target, 1));
            let response = connection.response("GET");
            assert_eq!((response.status, response.field("vary")), (200, None), "{trust} {header:?}");
            let received = origin.request(&target);
            assert_eq!(received.fields("x-forwarded-for"), [client]);
            assert_eq!(received.fields("x-forwarded-host"), [BLOG]);
            assert_eq!(received.fields("forwarded"), [format!("for={client};host={BLOG};proto=https")]);
            assert_eq!(received.field("x-real-ip"), None);
        }
    }
}

/// A balancer of connections in front of a trusted proxy: the header names the proxy, and that one speaks in fields.
#[test]
fn a_trusted_source_speaks_in_its_field() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let site = blog(&authority, &origin);
    let header = b"PROXY TCP4 127.0.0.9 10.0.0.1 5000 443\r\n";
    for (trust, fields) in [
        ("x-forwarded", "X-Forwarded-Proto: https\r\nX-Forwarded-For: 198.51.100.1\r\n"),
        ("forwarded", "Forwarded: for=198.51.100.1;proto=https\r\n"),
    ] {
        let pintle = Pintle::start_listening(&authority, &format!("{AND_FIELDS}\ntrust = {trust:?}"), &site);
        let mut connection = plain(pintle.http(), header);
        connection.send(format!("GET /{trust} HTTP/1.1\r\nHost: {BLOG}\r\n{fields}\r\n"));
        assert_eq!(connection.response("GET").status, 200);
        assert_eq!(pintle.access_line(&format!("/{trust}"))["client"], "198.51.100.1");
        assert_eq!(origin.request(&format!("/{trust}")).fields("x-forwarded-for"), ["198.51.100.1, 127.0.0.9"]);
    }
    let pintle = Pintle::start_listening(&authority, &format!("{AND_FIELDS}\ntrust = \"proxy\""), &site);
    let mut connection = plain(pintle.http(), header);
    connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nX-Forwarded-Proto: https\r\n\r\n"));
    assert_eq!(connection.response("GET").status, 301);
}

/// One client behind a balancer has no more connections than one that comes by itself.
#[test]
fn connections_count_for_the_source() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = format!("[limits]\nconnections_per_client = 2\n{}", blog(&authority, &origin));
    let pintle = Pintle::start_listening(&authority, AND_FIELDS, &config);
    let open = |header: &[u8]| {
        let mut connection = plain(pintle.http(), header);
        connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        let served = crate::harness::read_response(&mut connection, "GET").is_ok();
        served.then_some(connection)
    };
    let held: Vec<Connection> = (0..3).filter_map(|_| open(V1)).collect();
    // They are at rest, so that one of them gave way to the third.
    let is_open = |connection: &&Connection| {
        let socket = connection.stream.socket();
        socket.set_nonblocking(true).unwrap();
        socket.peek(&mut [0; 1]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    };
    crate::harness::eventually("two are open", || (held.iter().filter(is_open).count() == 2).then_some(()));
    // Others are not in its way, nor are the balancer's own probes and trusted proxies counted.
    assert!(open(&v2(&[])).is_some());
    for header in [UNKNOWN, LOCAL, b"PROXY TCP4 127.0.0.9 10.0.0.1 5000 443\r\n"] {
        let all: Vec<Connection> = (0..4).filter_map(|_| open(header)).collect();
        assert_eq!(all.len(), 4, "{header:?}");
    }
    assert!(open(V1).is_some());
}

/// A client may ask for the same page by http twice: the header speaks for it, and says nothing of TLS.
#[test]
fn clients_of_a_header_are_redirected_as_often_as_they_ask() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start_listening(&authority, ON, &blog(&authority, &origin));
    let trusted = b"PROXY TCP4 127.0.0.1 10.0.0.1 5000 80\r\n".to_vec();
    for header in [V1.to_vec(), v2(&[]), v2(&NO_TLS), UNKNOWN.to_vec(), LOCAL.to_vec(), trusted] {
        for n in 0..4 {
            let mut connection = plain(pintle.http(), &header);
            connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
            assert_eq!(connection.response("GET").status, 301, "{n}: {header:?}");
        }
    }
}

/// Only a header that names whom it is about says by its TLV how that one came; a Unix socket's is a program's.
#[test]
fn the_tlv_of_a_header_without_a_source() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start_listening(&authority, ON, &blog(&authority, &origin));
    let header = |command: u8, family: u8, addresses: usize| {
        let mut header = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family]].concat();
        header.extend_from_slice(&((addresses + TLS.len()) as u16).to_be_bytes());
        header.resize(header.len() + addresses, 0);
        header.extend_from_slice(&TLS);
        header
    };
    for (what, header, status) in [
        ("LOCAL", header(0x20, 0x00, 0), 301),
        ("LOCAL with addresses", header(0x20, 0x11, 12), 301),
        ("LOCAL with a family that nobody knows", header(0x20, 0x77, 3), 301),
        ("UNSPEC", header(0x21, 0x00, 0), 301),
        ("a Unix socket", header(0x21, 0x31, 216), 200),
    ] {
        let mut connection = plain(pintle.http(), &header);
        connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        assert_eq!(connection.response("GET").status, status, "{what}");
    }
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
