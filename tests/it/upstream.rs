//! The way to the upstream: TLS and its names, HTTP/2, DNS, and addresses of both families.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use tokio_rustls::TlsAcceptor;

use crate::harness::{
    Authority, BLOG, Client, Leaf, Origin, Pintle, Reply, blog_at, eventually, output, server_config,
};

/// The facts about a connection or a request that an HTTPS upstream has seen.
#[derive(Debug, Clone, Default)]
struct Seen {
    sni: Option<String>,
    alpn: Option<Vec<u8>>,
    host: String,
    via: String,
}

/// An HTTPS upstream with HTTP/1.1 and HTTP/2.
struct Secure {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Secure {
    fn start(leaf: &Leaf, protocols: &[&[u8]]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (list, acceptor) = (seen.clone(), TlsAcceptor::from(server_config(leaf, protocols)));
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (list, acceptor) = (list.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(socket).await else { return };
                    let state = tls.get_ref().1;
                    let facts = Seen {
                        sni: state.server_name().map(str::to_owned),
                        alpn: state.alpn_protocol().map(<[u8]>::to_vec),
                        ..Seen::default()
                    };
                    if facts.alpn.as_deref() == Some(b"h2") {
                        http2(tls, facts, list).await
                    } else {
                        http1(tls, facts, list).await
                    }
                });
            }
        });
        Self { address, seen, _runtime: runtime }
    }

    fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().unwrap()
    }
}

type ServerTls = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;

async fn http2(tls: ServerTls, facts: Seen, list: Arc<Mutex<Vec<Seen>>>) {
    let Ok(mut connection) = h2::server::handshake(tls).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let via = request.headers().get("via").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        list.lock().unwrap().push(Seen { host, via, ..facts.clone() });
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut echoed = b"h2:".to_vec();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                echoed.extend_from_slice(&data);
            }
            let _ = body.trailers().await;
            let mut send = respond.send_response(http::Response::new(()), false).unwrap();
            send.reserve_capacity(echoed.len());
            let mut rest = Bytes::from(echoed);
            while !rest.is_empty() {
                let Some(Ok(capacity)) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await else { return };
                let part = rest.split_to(capacity.min(rest.len()));
                let _ = send.send_data(part, rest.is_empty());
            }
        });
    }
}

async fn http1(mut tls: ServerTls, facts: Seen, list: Arc<Mutex<Vec<Seen>>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = Vec::new();
    loop {
        while !buffer.windows(4).any(|w| w == b"\r\n\r\n") {
            if tls.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let head = String::from_utf8_lossy(&buffer).into_owned();
        buffer.clear();
        let field = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().to_owned();
        list.lock().unwrap().push(Seen { host: field("Host: "), via: field("Via: "), ..facts.clone() });
        if tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhttp1").await.is_err() {
            return;
        }
    }
}

fn options(authority: &Authority, secure: &Secure, more: &str) -> String {
    let ca = authority.ca_path();
    format!("[site.upstream_options]\nconnect = \"{}\"\nca = {ca:?}\n{more}\n", secure.address)
}

#[test]
fn the_four_names() {
    let authority = Authority::new();
    let leaf = authority.leaf("upstream", &["example.wordpress.com", "cert.example.net"]);
    let secure = Secure::start(&leaf, &[b"http/1.1"]);
    let client = Client::new(&authority);
    let get = |more: &str| {
        let config = blog_at(&authority, "https://example.wordpress.com") + &options(&authority, &secure, more);
        let pintle = Pintle::start(&authority, &config);
        let response = client.get(pintle.https(), BLOG, "/");
        let cause = pintle.access_line("/")["error"].as_str().unwrap_or_default().to_owned();
        (response.status, cause)
    };
    assert_eq!(get(""), (200, String::new()));
    let seen = secure.last();
    assert_eq!((seen.sni.as_deref(), seen.host.as_str()), (Some("example.wordpress.com"), "example.wordpress.com"));
    assert_eq!(
        get(
            "server_name = \"sni.example.net\"\nverify_name = \"cert.example.net\"\nhost_header = \"host.example.net\""
        ),
        (200, String::new())
    );
    let seen = secure.last();
    assert_eq!((seen.sni.as_deref(), seen.host.as_str()), (Some("sni.example.net"), "host.example.net"));
    assert_eq!(get("host_header = \"client\"").0, 200);
    assert_eq!(secure.last().host, BLOG);
    // A stranger's certificate is refused, whoever signed it.
    let (status, cause) = get("verify_name = \"other.example.net\"");
    assert!(status == 502 && cause.contains("certificate name mismatch"), "{status} {cause}");
    let (status, cause) = get("server_name = \"sni.example.net\"");
    assert!(status == 502 && cause.contains("certificate name mismatch"), "{status} {cause}");
}

#[test]
fn upstream_certificates_are_verified() {
    let authority = Authority::new();
    let secure = Secure::start(&authority.leaf("upstream", &["up.example.net"]), &[b"http/1.1"]);
    let expired = Secure::start(
        &authority.leaf_of("expired", &["up.example.net"], crate::harness::KeyKind::Ecdsa, -9, -1),
        &[b"http/1.1"],
    );
    let client = Client::new(&authority);
    let get = |secure: &Secure, more: &str| {
        let config = blog_at(&authority, "https://up.example.net")
            + &format!("[site.upstream_options]\nconnect = \"{}\"\n{more}\n", secure.address);
        let pintle = Pintle::start_listening(&authority, "error_details = \"everybody\"", &config);
        let response = client.get(pintle.https(), BLOG, "/");
        (
            response.status,
            pintle.access_line("/")["error"].as_str().unwrap_or_default().to_owned(),
            response.field("proxy-status").map(str::to_owned),
        )
    };
    let ca = format!("ca = {:?}", authority.ca_path());
    assert_eq!(get(&secure, &ca).0, 200);
    // Mozilla's roots do not know the test's CA.
    let (status, cause, proxy_status) = get(&secure, "");
    assert!(status == 502 && cause.contains("unknown issuer"), "{cause}");
    assert_eq!(proxy_status.as_deref(), Some("pintle; error=tls_certificate_error"));
    let (status, cause, _) = get(&expired, &ca);
    assert!(status == 502 && cause.contains("certificate expired"), "{cause}");
    assert_eq!(get(&expired, "insecure_skip_verify = true").0, 200);
}

#[test]
fn http_2_where_the_upstream_chooses_it() {
    let authority = Authority::new();
    let leaf = authority.leaf("upstream", &["up.example.net"]);
    let secure = Secure::start(&leaf, &[b"h2", b"http/1.1"]);
    let config = blog_at(&authority, "https://up.example.net") + &options(&authority, &secure, "");
    let pintle = Pintle::start(&authority, &config);
    for version in ["--http1.1", "--http2"] {
        let text = output(pintle.curl().args([version, "--data", "hello"]).arg(format!("https://{BLOG}/")));
        assert_eq!(text, "h2:hello");
    }
    let seen = secure.last();
    assert_eq!(
        (seen.alpn.as_deref(), seen.host.as_str(), seen.via.as_str()),
        (Some(&b"h2"[..]), "up.example.net", "2 pintle")
    );
    // A large body each way.
    let file = authority.write("large", vec![b'x'; 5_000_000]);
    let data = format!("@{}", file.display());
    let text = output(pintle.curl().args(["--http1.1", "--data-binary", &data]).arg(format!("https://{BLOG}/")));
    assert_eq!(text.len(), 5_000_003);
    // Where it is switched off, it is not offered.
    let config = blog_at(&authority, "https://up.example.net") + &options(&authority, &secure, "http2 = false");
    let pintle = Pintle::start(&authority, &config);
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").text(), "http1");
}

/// The bodies of a POST and its answer through a TLS connection that is used again and again.
#[test]
fn secure_connections_are_reused() {
    let authority = Authority::new();
    let secure = Secure::start(&authority.leaf("upstream", &["up.example.net"]), &[b"http/1.1"]);
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let config = blog_at(&authority, "https://up.example.net") + &options(&authority, &secure, "");
    let pintle = Pintle::start_with(&authority, listen, &config);
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    for _ in 0..20 {
        assert_eq!(connection.get(BLOG, "/").text(), "http1");
    }
    let sockets =
        Command::new("ss").args(["-Htn", "state", "established", "dst", &secure.address.to_string()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&sockets.stdout).lines().count(), 1);
}

/// A connection on which a body was announced where none may be is not used again: what comes late would be read as the
/// next answer.
#[test]
fn bodies_announced_where_there_are_none_end_the_connection() {
    const HEADS: [(&str, &str, &str, bool); 11] = [
        ("GET", "204 No Content", "", true),
        ("GET", "204 No Content", "Content-Length: 40\r\n", false),
        ("GET", "204 No Content", "Transfer-Encoding: chunked\r\n", false),
        ("DELETE", "204 No Content", "Content-Length: 40\r\n", false),
        ("HEAD", "204 No Content", "Content-Length: 40\r\n", false),
        ("GET", "304 Not Modified", "Content-Length: 40\r\n", true),
        ("GET", "304 Not Modified", "Transfer-Encoding: chunked\r\n", false),
        ("HEAD", "200 OK", "Content-Length: 40\r\n", true),
        ("HEAD", "200 OK", "Transfer-Encoding: chunked\r\n", false),
        ("GET", "103 Early Hints", "Content-Length: 40\r\n", false),
        ("GET", "103 Early Hints", "Link: </a.css>\r\n", true),
    ];
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path()[1..].parse::<usize>() {
        Ok(n) => {
            let (_, status, fields, _) = HEADS[n];
            let mut bytes = format!("HTTP/1.1 {status}\r\n{fields}\r\n");
            if status.starts_with('1') {
                bytes += "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            }
            Reply::Bytes(bytes.into_bytes())
        }
        Err(_) => Reply::ok("plain"),
    });
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let pintle = Pintle::start_with(&authority, listen, &blog_at(&authority, &origin.url()));
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    assert_eq!(connection.get(BLOG, "/plain").text(), "plain");
    for (n, (method, status, fields, kept)) in HEADS.into_iter().enumerate() {
        let before = origin.connections();
        connection.send(format!("{method} /{n} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        while connection.response(method).status < 200 {}
        assert_eq!(connection.get(BLOG, "/plain").text(), "plain");
        assert_eq!(origin.connections() == before, kept, "{method} {status} {fields:?}");
    }
}

/// Other ways to the upstream are none to the site.
#[test]
fn alternatives_of_the_upstream_stay_with_it() {
    let authority = Authority::new();
    let origin = Origin::start(|_| Reply::new("200 OK", "Alt-Svc: h3=\":443\"; ma=86400\r\n", "x"));
    for (more, want) in [("", 0), ("[site.response_headers]\nset = { \"Alt-Svc\" = \"clear\" }\n", 1)] {
        let pintle = Pintle::start(&authority, &(blog_at(&authority, &origin.url()) + more));
        for version in ["--http1.1", "--http2"] {
            let said = output(pintle.curl().args([version, "--include"]).arg(format!("https://{BLOG}/")));
            let lines: Vec<_> = said.lines().filter(|l| l.to_ascii_lowercase().starts_with("alt-svc:")).collect();
            assert!(lines.len() == want && !said.contains("h3="), "{said}");
        }
    }
}

/// A name server of the test's own: answers A queries for any name with one address, for one second.
struct NameServer {
    address: SocketAddr,
    /// The last byte of 127.0.0.x; zero is silence.
    answer: Arc<AtomicU8>,
    queries: Arc<AtomicU32>,
}

impl NameServer {
    fn start(answer: u8) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (answer, queries) = (Arc::new(AtomicU8::new(answer)), Arc::new(AtomicU32::new(0)));
        let (current, count) = (answer.clone(), queries.clone());
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                let last = current.load(Ordering::SeqCst);
                if last > 0 {
                    let _ = socket.send_to(&dns_answer(&buffer[..len], Ipv4Addr::new(127, 0, 0, last)), from);
                }
            }
        });
        Self { address, answer, queries }
    }
}

fn dns_answer(query: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let name_end = 12 + query[12..].iter().position(|b| *b == 0).unwrap() + 1;
    let is_a = query[name_end..name_end + 2] == [0, 1];
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(&query[12..name_end + 4]);
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}

#[test]
fn names_are_followed_by_their_ttl_and_outlive_dns() {
    let authority = Authority::new();
    let old = Origin::start_at("127.0.0.2:0", |_| Reply::ok("old"));
    let port = old.address.port();
    let _new = Origin::start_at(&format!("127.0.0.3:{port}"), |_| Reply::ok("new"));
    let dns = NameServer::start(0);
    let config = format!("[resolver]\nname_servers = [\"{}\"]\n", dns.address)
        + &blog_at(&authority, &format!("http://origin.example.net:{port}"))
        + "[site.upstream_options]\nconnect_timeout = \"2s\"\n";
    // DNS is silent: pintle starts all the same, and says 502.
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    let get = || client.get(pintle.https(), BLOG, "/");
    assert_eq!(get().status, 502);
    dns.answer.store(2, Ordering::SeqCst);
    eventually("the name resolves", || (get().text() == "old").then_some(()));
    // The record is good for a second; the provider moves.
    dns.answer.store(3, Ordering::SeqCst);
    eventually("the new address is in use", || (get().text() == "new").then_some(()));
    // DNS fails: the last good address stays.
    dns.answer.store(0, Ordering::SeqCst);
    let before = dns.queries.load(Ordering::SeqCst);
    eventually("DNS has been asked in vain", || (dns.queries.load(Ordering::SeqCst) > before + 2).then_some(()));
    eventually("the failure is logged", || (!pintle.log_json("name does not resolve").is_empty()).then_some(()));
    assert_eq!(get().text(), "new");
}

#[test]
fn both_families_are_tried() {
    let authority = Authority::new();
    // localhost is ::1 and 127.0.0.1; the origin listens on one of them.
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let origin = Origin::start_at(address, |_| Reply::ok("here"));
        let config = blog_at(&authority, &format!("http://localhost:{}", origin.address.port()));
        let pintle = Pintle::start(&authority, &config);
        assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").text(), "here", "{address}");
        assert_eq!(origin.request("/").field("host"), Some(&*format!("localhost:{}", origin.address.port())));
    }
    let _: IpAddr = Ipv4Addr::LOCALHOST.into();
}

/// `openssl s_server` as the upstream: another TLS stack, TLS 1.2 and 1.3.
#[test]
fn another_tls_stack_as_upstream() {
    let authority = Authority::new();
    let leaf = authority.leaf("upstream", &["up.example.net"]);
    for version in ["-tls1_2", "-tls1_3"] {
        let server = OpensslServer::start(&leaf, version);
        let config = blog_at(&authority, "https://up.example.net")
            + &format!(
                "[site.upstream_options]\nconnect = \"127.0.0.1:{}\"\nca = {:?}\n",
                server.port,
                authority.ca_path()
            );
        let pintle = Pintle::start(&authority, &config);
        let response = Client::new(&authority).get(pintle.https(), BLOG, "/");
        assert_eq!(response.status, 200, "{version}");
        assert!(
            response
                .text()
                .contains(&format!("Protocol  : {}", if version == "-tls1_2" { "TLSv1.2" } else { "TLSv1.3" })),
            "{}",
            response.text()
        );
    }
}

struct OpensslServer {
    child: Child,
    port: u16,
}

impl OpensslServer {
    fn start(leaf: &Leaf, version: &str) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-www", version, "-cert"])
            .arg(&leaf.chain)
            .arg("-key")
            .arg(&leaf.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = Vec::new();
        let mut out = child.stdout.take().unwrap();
        let port = loop {
            let mut byte = [0; 1];
            out.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
            let text = String::from_utf8_lossy(&said);
            if let Some(line) = text.lines().find(|l| l.starts_with("ACCEPT") && text.ends_with('\n')) {
                break line.rsplit(':').next().unwrap().trim().parse().unwrap();
            }
        };
        thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let _ = child.stdin.as_mut().unwrap().flush();
        Self { child, port }
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
