//! A response that ends at each of its bytes, by the end of the connection or by a reset; and a TLS connection that
//! ends at any place, its handshake included.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::{assert_no_leaks, open_at_first, state};
use crate::harness::{
    Authority, BLOG, Client, Origin, Pintle, Reply, SecureServer, blog, blog_at, page, read_response,
};

const BODY: &str = "hello from the origin";

fn responses() -> [String; 3] {
    [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Test: a\r\n\r\n{BODY}", BODY.len()),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
            &BODY[..5],
            BODY.len() - 5,
            &BODY[5..]
        ),
        format!(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{BODY}",
            BODY.len()
        ),
    ]
}

/// `/KIND/LENGTH/fin` or `/KIND/LENGTH/rst`
fn cut(path: &str) -> Option<(Vec<u8>, bool)> {
    let mut parts = path.split('/').skip(1);
    let (kind, length, end) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = responses()[kind.parse::<usize>().ok()?].clone().into_bytes();
    Some((bytes[..length.parse().ok()?].to_vec(), end == "rst"))
}

#[test]
fn at_each_byte() {
    let authority = Authority::new();
    let origin = Origin::start(|request| {
        let (bytes, reset) = cut(request.path()).unwrap();
        Reply::Custom(Box::new(move |socket| {
            socket.write_all(&bytes)?;
            if reset {
                // What was sent is there before the reset is.
                thread::sleep(Duration::from_millis(1));
                socket2::SockRef::from(&*socket).set_linger(Some(Duration::ZERO))?;
            }
            // The origin reads by another handle of the socket.
            socket.shutdown(if reset { Shutdown::Read } else { Shutdown::Both })
        }))
    });
    let config = state(&authority) + &blog(&authority, &origin) + "[site.circuit_breaker]\nfailures = 0\n";
    let pintle = Pintle::start(&authority, &config);
    let at_first = open_at_first(&pintle);
    let client = Client::new(&authority);
    for (kind, response) in responses().iter().enumerate() {
        for end in ["fin", "rst"] {
            let mut connection = None;
            for length in 0..=response.len() {
                let path = format!("/{kind}/{length}/{end}");
                let mut open = connection.take().unwrap_or_else(|| client.connect(pintle.https(), BLOG));
                open.send(format!("GET {path} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
                let answer = loop {
                    match read_response(&mut open, "GET") {
                        Ok(interim) if interim.status < 200 => {}
                        answer => break answer.ok(),
                    }
                };
                let whole = length == response.len();
                match answer {
                    Some(answer) if answer.status == 200 => {
                        assert!(whole && answer.text() == BODY, "{path}: {answer:?}");
                        connection = Some(open);
                    }
                    Some(answer) => {
                        assert!(answer.status == 502 && (!whole || end == "rst"), "{path}: {answer:?}");
                        connection = Some(open);
                    }
                    None => assert!(!whole || end == "rst", "{path}: broken off"),
                }
            }
        }
    }
    // The same over HTTP/2, all at once; curl says how each ended.
    for (kind, response) in responses().iter().enumerate() {
        let mut curl = pintle.curl();
        curl.args([
            "--http2",
            "--parallel",
            "--parallel-max",
            "50",
            "--write-out",
            "%{url} %{http_code} %{exitcode} %{size_download}\\n",
        ]);
        for length in 0..=response.len() {
            curl.args(["--output", "/dev/null"]).arg(format!("https://{BLOG}/{kind}/{length}/fin"));
        }
        let said = String::from_utf8(curl.output().unwrap().stdout).unwrap();
        assert_eq!(said.lines().count(), response.len() + 1, "{said}");
        for line in said.lines() {
            let whole = line.contains(&format!("/{kind}/{}/fin", response.len()));
            let ends_well = line.ends_with(&format!(" 200 0 {}", BODY.len()));
            let error_page = line.contains(" 502 0 ");
            // A stream that is reset at once may take its head with it.
            let broken = (line.contains(" 200 ") || line.contains(" 000 ")) && !line.contains(" 0 ");
            assert!(if whole { ends_well } else { error_page || broken }, "{line}");
        }
    }
    drop(client);
    assert_no_leaks(&pintle, &at_first);
}

/// Passes bytes on, and ends both sides when so many have come from the upstream.
fn relay(to: SocketAddr, limit: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let limit = limit.load(Ordering::SeqCst);
            thread::spawn(move || {
                let upstream = TcpStream::connect(to).unwrap();
                let (mut up, mut from) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from, &mut up));
                let _ = std::io::copy(&mut (&upstream).take(limit as u64), &mut &client);
                let _ = client.shutdown(Shutdown::Both);
                let _ = upstream.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

#[test]
fn anywhere_in_tls() {
    let authority = Authority::new();
    let upstream = SecureServer::start(&[&authority.leaf("upstream", &["up.example.net"])], |_, _| page("", BODY));
    let limit = Arc::new(AtomicUsize::new(0));
    let relay = relay(upstream.address, limit.clone());
    let config = state(&authority)
        + &blog_at(&authority, "https://up.example.net")
        + &format!("[site.upstream_options]\nconnect = \"{relay}\"\nca = {:?}\n", authority.ca_path())
        + "[site.circuit_breaker]\nfailures = 0\n";
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    let at_first = open_at_first(&pintle);
    let (mut whole, mut refused) = (0, 0);
    for at in (0..4000).step_by(53) {
        limit.store(at, Ordering::SeqCst);
        let mut connection = client.connect(pintle.https(), BLOG);
        connection.send(format!("GET /{at} HTTP/1.1\r\nHost: {BLOG}\r\nConnection: close\r\n\r\n"));
        match read_response(&mut connection, "GET") {
            Ok(answer) if answer.status == 200 => {
                assert_eq!(answer.text(), BODY, "{at}");
                whole += 1;
            }
            Ok(answer) => {
                assert_eq!(answer.status, 502, "{at}");
                refused += 1;
            }
            Err(_) => {}
        }
    }
    assert!(whole > 0 && refused > 10, "{whole} whole, {refused} refused");
    drop(client);
    assert_no_leaks(&pintle, &at_first);
}
