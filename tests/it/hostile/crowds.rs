//! More connections than there may be: whoever says nothing gives way first, then whoever rests; a request never does.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::tls::{NULL, client_hello, records};
use super::{PING, Raw, SETTINGS, bytes};
use crate::fuzz::targets::http2::PREFACE;
use crate::harness::{Authority, BLOG, Client, Connection, Origin, PATIENCE, Pintle, Reply, blog, eventually};

/// A connection from an address of loopback's.
fn from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// The state is where `status` finds the process.
fn config(authority: &Authority, limits: &str, origin: &Origin) -> String {
    format!("{limits}[state]\ndirectory = {:?}\n{}", authority.folder().join("state"), blog(authority, origin))
}

fn is_closed(socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    let closed = !matches!(socket.peek(&mut [0; 1]), Err(e) if e.kind() == ErrorKind::WouldBlock);
    socket.set_nonblocking(false).unwrap();
    closed
}

/// The crowd's network, and another one.
const CROWD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 9);
/// As many as there may be are 256, of one network 32.
const LIMITS: &str = "[limits]\nconnections = 256\nhandshakes = 16\nhandshake = \"60s\"\nrequest_header = \"60s\"\n";

/// A crowd that does something and waits then; meanwhile twenty of twenty handshakes succeed, and so do their requests:
/// of another network, and of the crowd's own.
fn nobody_is_kept_out(listen: &str, header: &str, begin: impl Fn(&Authority, &Pintle, Ipv4Addr) -> Option<Connection>) {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start_listening(&authority, listen, &config(&authority, LIMITS, &origin));
    let honest = |source: Ipv4Addr, header: &str| {
        for n in 0..20 {
            let mut socket = from(source, pintle.https());
            socket.write_all(header.as_bytes()).unwrap();
            let connection = Client::new(&authority).handshake(socket, BLOG);
            let mut connection = connection.unwrap_or_else(|e| panic!("handshake {n} from {source}: {e}"));
            assert_eq!(connection.get(BLOG, "/").status, 200, "{n} from {source}");
        }
    };
    // One network alone: it gets no more than its share.
    let crowd: Vec<_> = (0..300).filter_map(|_| begin(&authority, &pintle, CROWD)).collect();
    honest(OTHER, &header.replace("192.0.2.1", "198.51.100.1"));
    honest(CROWD, header);
    eventually("no more are open than may be", || {
        (crowd.iter().filter(|c| !is_closed(c.stream.socket())).count() <= 32).then_some(())
    });
    // Many networks, until there are no more to be had.
    let networks = (1..=20).map(|n| Ipv4Addr::new(127, 0, 1, n));
    let crowds: Vec<_> = networks
        .flat_map(|from| (0..20).filter_map(|_| begin(&authority, &pintle, from)).collect::<Vec<_>>())
        .collect();
    honest(OTHER, &header.replace("192.0.2.1", "198.51.100.1"));
    honest(Ipv4Addr::new(127, 0, 1, 1), header);
    assert!(pintle.status()["connections"].as_u64().unwrap() <= 256);
    assert!(pintle.status()["counters"]["connections_shed"].as_u64().unwrap() > 0);
    drop((crowd, crowds));
}

fn says(address: SocketAddr, source: Ipv4Addr, bytes: &[u8]) -> Option<Connection> {
    let mut socket = from(source, address);
    let _ = socket.write_all(bytes);
    Some(Connection { stream: Box::new(socket), received: Vec::new() })
}

#[test]
fn silent_connections() {
    nobody_is_kept_out("", "", |_, pintle, source| says(pintle.https(), source, b""));
}

#[test]
fn hellos_that_are_cut_short() {
    let hello = records(0x0303, &client_hello(0x0303, &[NULL]), 1000);
    nobody_is_kept_out("", "", |_, pintle, source| says(pintle.https(), source, &hello[..hello.len() - 1]));
}

/// Whole hellos, and nothing after them: these cost cryptography, and a network has no more than its share of that, either.
#[test]
fn hellos_that_are_left_alone() {
    let hello = records(0x0303, &client_hello(0x0303, &[NULL]), 1000);
    let (authority, origin) = (Authority::new(), Origin::hello());
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let pintle = Pintle::start_with(&authority, listen, &config(&authority, LIMITS, &origin));
    let crowd: Vec<_> = (0..200).filter_map(|_| says(pintle.https(), CROWD, &hello)).collect();
    for n in 0..20 {
        let connection = Client::new(&authority).handshake(from(OTHER, pintle.https()), BLOG);
        assert!(connection.is_ok(), "{n}: {:?}", connection.err());
    }
    eventually("no more are open than may be under way", || {
        (crowd.iter().filter(|c| !is_closed(c.stream.socket())).count() <= 16).then_some(())
    });
    assert!(pintle.status()["counters"]["handshakes_shed"].as_u64().unwrap() > 0);
}

#[test]
fn silent_connections_on_a_plain_port() {
    nobody_is_kept_out("", "", |_, pintle, source| says(pintle.http(), source, b""));
}

#[test]
fn heads_that_are_cut_short() {
    nobody_is_kept_out("", "", |_, pintle, source| says(pintle.http(), source, b"GET / HTTP/1.1\r\nHost: "));
}

#[test]
fn silent_connections_behind_a_proxy_header() {
    let listen = "trusted_proxies = [\"127.0.0.0/8\"]\nproxy_protocol = true";
    let header = "PROXY TCP4 192.0.2.1 10.0.0.1 5000 443\r\n";
    nobody_is_kept_out(listen, header, |_, pintle, source| {
        let header = header.replace("192.0.2.1", &format!("192.0.2.{}", source.octets()[3]));
        says(pintle.https(), source, header.as_bytes())
    });
}

/// The PROXY header itself comes to no end.
#[test]
fn proxy_headers_that_are_cut_short() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let listen = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true";
    let pintle = Pintle::start_listening(&authority, listen, &config(&authority, LIMITS, &origin));
    let _crowd: Vec<_> = (0..300).filter_map(|_| says(pintle.https(), CROWD, b"PROXY TCP4 192")).collect();
    for n in 0..20 {
        let mut socket = from(CROWD, pintle.https());
        socket.write_all(b"PROXY TCP4 198.51.100.1 10.0.0.1 5000 443\r\n").unwrap();
        assert!(Client::new(&authority).handshake(socket, BLOG).is_ok(), "{n}");
    }
}

#[test]
fn tls_connections_without_a_request() {
    nobody_is_kept_out("", "", |authority, pintle, source| {
        Client::new(authority).handshake(from(source, pintle.https()), BLOG).ok()
    });
}

#[test]
fn http2_connections_without_streams() {
    nobody_is_kept_out("", "", |authority, pintle, source| {
        let mut config = Client::config(authority);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut connection = Client::with(config).handshake(from(source, pintle.https()), BLOG).ok()?;
        let _ = connection.stream.write_all(&[PREFACE, &bytes(SETTINGS, 0, 0, &[])].concat());
        let _ = connection.stream.flush();
        Some(connection)
    });
}

/// A hello that comes byte by byte is not whole for a long time; the clients that trickle are those that give way.
#[test]
fn hellos_that_trickle() {
    let hello = records(0x0303, &client_hello(0x0303, &[NULL]), 1000);
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &config(&authority, LIMITS, &origin));
    let mut crowd: Vec<_> = (0..100).filter_map(|_| says(pintle.https(), CROWD, &hello[..1])).collect();
    for (n, byte) in hello[1..hello.len() - 1].iter().enumerate().take(40) {
        crowd.iter_mut().for_each(|c| drop(c.stream.write_all(&[*byte])));
        let source = if n % 2 == 0 { CROWD } else { OTHER };
        let mut connection = Client::new(&authority).handshake(from(source, pintle.https()), BLOG).unwrap();
        assert_eq!(connection.get(BLOG, "/").status, 200);
    }
}

/// Near the limit, connections at rest are closed in good order, the request under way is not, and the newcomer gets in.
#[test]
fn connections_at_rest_give_way() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/hold" => Reply::Custom(Box::new(|socket| {
            thread::sleep(Duration::from_secs(2));
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nheld")
        })),
        _ => Reply::ok("ok"),
    });
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let config = config(&authority, "[limits]\nconnections = 32\nconnections_per_client = 8\n", &origin);
    let pintle = Pintle::start_with(&authority, listen, &config);
    let connect = |n: u8| {
        let socket = from(Ipv4Addr::new(127, 0, 2, n), pintle.https());
        Client::new(&authority).handshake(socket, BLOG).unwrap_or_else(|e| panic!("{n}: {e}"))
    };
    // The oldest of all, and busy.
    let mut busy = connect(1);
    busy.send(format!("GET /hold HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    eventually("it is at the origin", || (origin.received().len() == 1).then_some(()));
    let mut http2 = Raw::new(&authority, &pintle, &[]);
    let mut resting: Vec<Connection> = (10..50).map(connect).collect();
    for connection in &mut resting[30..] {
        assert_eq!(connection.get(BLOG, "/").status, 200);
    }
    assert!(pintle.status()["connections"].as_u64().unwrap() <= 32);
    assert_eq!(pintle.status()["counters"]["connections_refused"], 0);
    // In good order: with close_notify, and with GOAWAY that is no reproach.
    let (rest, end) = resting[0].read_to_end();
    assert!(rest.is_empty() && end.is_ok(), "{end:?}");
    http2.until("the end", |raw| raw.over);
    assert_eq!(http2.goaways, [0], "NO_ERROR");
    assert_eq!(busy.response("GET").text(), "held");
}

/// All are busy: then the newcomer is refused, and the others do not notice.
#[test]
fn requests_under_way_never_give_way() {
    let authority = Authority::new();
    let origin = Origin::start(|_| {
        Reply::Custom(Box::new(|socket| {
            thread::sleep(Duration::from_secs(2));
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nheld")
        }))
    });
    let config = config(&authority, "[limits]\nconnections = 4\nconnections_per_client = 4\n", &origin);
    let pintle = Pintle::start(&authority, &config);
    let mut busy: Vec<Connection> = (0..4)
        .map(|n| {
            let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
            connection.send(format!("GET /{n} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
            connection
        })
        .collect();
    eventually("all are at the origin", || (origin.received().len() == 4).then_some(()));
    assert!(Client::new(&authority).try_connect(pintle.https(), BLOG).is_err());
    let other = Client::new(&authority).handshake(from(OTHER, pintle.https()), BLOG);
    assert!(other.is_err(), "there are four in all");
    for connection in &mut busy {
        assert_eq!(connection.response("GET").text(), "held");
    }
    assert_eq!(pintle.status()["counters"]["connections_refused"], 2);
    assert!(Client::new(&authority).try_connect(pintle.https(), BLOG).is_ok(), "now they rest");
}

/// Each client behind a PROXY header counts for itself, and not the proxy.
#[test]
fn clients_behind_a_proxy_header_are_counted() {
    let authority = Authority::new();
    let origin = Origin::start(|_| {
        Reply::Custom(Box::new(|socket| {
            thread::sleep(Duration::from_secs(2));
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nheld")
        }))
    });
    let config = config(&authority, "[limits]\nconnections_per_client = 2\n", &origin);
    let listen = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true";
    let pintle = Pintle::start_listening(&authority, listen, &config);
    let mut connect = |client: IpAddr| {
        let mut socket = from(CROWD, pintle.https());
        socket.write_all(format!("PROXY TCP4 {client} 10.0.0.1 5000 443\r\n").as_bytes()).unwrap();
        let mut connection = Client::new(&authority).handshake(socket, BLOG).ok()?;
        connection.send(format!("GET /{client} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        let target = format!("/{client}");
        origin.request(&target);
        Some(connection)
    };
    let [one, two]: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
    let held: Vec<_> = [one, one, one, two, two].into_iter().map(&mut connect).collect();
    assert_eq!(held.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, true, true]);
}

/// Above the mark, whoever rests for the longest time gives way to each newcomer; a request under way does not, over HTTP/1.1
/// or HTTP/2.
#[test]
fn the_longest_idle_connection_gives_way_first() {
    let authority = Authority::new();
    let (word, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |request| {
        if request.path() == "/hold" {
            let _ = wait.lock().unwrap().recv();
        }
        Reply::ok("ok")
    });
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let limits = "[limits]\nconnections = 100\nconnections_per_client = 100\nshed_idle_at = 8\n";
    let pintle = Pintle::start_with(&authority, listen, &config(&authority, limits, &origin));
    let open = || Client::new(&authority).connect(pintle.https(), BLOG);
    let mut busy = open();
    busy.send(format!("GET /hold HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    origin.request("/hold");
    let mut http2 = Raw::new(&authority, &pintle, &[]);
    http2.connection.send(bytes(PING, 0, 0, &[0; 8]));
    http2.until("the end of its preface", |raw| (raw.acknowledged > 0).then_some(()));
    let mut resting: Vec<Connection> = (0..6).map(|_| open()).collect();
    for connection in &mut resting {
        assert_eq!(connection.get(BLOG, "/").status, 200);
    }
    // The first one speaks again: it is the youngest at rest now.
    assert_eq!(resting[0].get(BLOG, "/").status, 200);
    let mut newcomers = Vec::new();
    // The HTTP/2 connection has rested since its preface.
    let mut newcomer = || {
        let mut connection = open();
        assert_eq!(connection.get(BLOG, "/").status, 200);
        newcomers.push(connection);
    };
    newcomer();
    http2.until("the end", |raw| raw.over);
    assert_eq!(http2.goaways, [0], "NO_ERROR");
    for at in [1, 2, 3, 4, 5, 0] {
        let open_before: Vec<usize> = (0..6).filter(|n| !is_closed(resting[*n].stream.socket())).collect();
        newcomer();
        let (rest, end) = resting[at].read_to_end();
        assert!(rest.is_empty() && end.is_ok(), "{at} of {open_before:?}: {end:?}");
    }
    assert_eq!(pintle.status()["counters"]["connections_shed"], 7);
    word.send(()).unwrap();
    assert_eq!(busy.response("GET").text(), "ok");
    // Without a newcomer, nobody gives way.
    assert_eq!(newcomers.last_mut().unwrap().get(BLOG, "/").status, 200);
}
