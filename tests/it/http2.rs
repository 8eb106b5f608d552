//! HTTP/2 towards clients: what curl does not show.

use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::harness::{Authority, BLOG, Client, Origin, Pintle, Reply, blog, in_time, whole};

/// A connection of our own.
pub async fn connect(authority: &Authority, pintle: &Pintle) -> SendRequest<Bytes> {
    let mut config = Client::config(authority);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = TcpStream::connect(pintle.https()).await.unwrap();
    let name = BLOG.try_into().unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
    let (sender, connection) = h2::client::handshake(tls).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(crate::harness::PATIENCE, future).await.unwrap() })
}

pub fn request(method: &str, path: &str) -> http::request::Builder {
    http::Request::builder().method(method).uri(format!("https://{BLOG}{path}"))
}

/// Sends a request without a body; gives status, fields and body.
async fn get(sender: &mut SendRequest<Bytes>, request: http::Request<()>) -> (u16, http::HeaderMap, Vec<u8>) {
    let (response, _) = sender.clone().ready().await.unwrap().send_request(request, true).unwrap();
    let (parts, mut body) = response.await.unwrap().into_parts();
    (parts.status.as_u16(), parts.headers, whole(&mut body).await.unwrap())
}

#[test]
fn many_streams_at_once_each_get_their_own_answer() {
    let authority = Authority::new();
    let origin = Origin::start(|request| Reply::ok(&format!("{}:{}", request.path(), "x".repeat(50_000))));
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    block_on(async {
        let sender = connect(&authority, &pintle).await;
        let tasks: Vec<_> = (0..60)
            .map(|n| {
                let mut sender = sender.clone();
                tokio::spawn(async move { get(&mut sender, request("GET", &format!("/{n}")).body(()).unwrap()).await })
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            let (status, _, body) = task.await.unwrap();
            assert_eq!((status, body.len()), (200, 50_000 + 2 + n.to_string().len()));
            assert!(body.starts_with(format!("/{n}:").as_bytes()));
        }
    });
}

#[test]
fn trailers_and_interim_responses_pass() {
    let authority = Authority::new();
    let origin = Origin::start(|_| {
        Reply::Bytes(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
              2\r\nok\r\n0\r\nX-Test: trailer\r\n\r\n"
                .to_vec(),
        )
    });
    let pintle = Pintle::start(
        &authority,
        &(blog(&authority, &origin)
            + "[site.request_headers]\ntrailers = [\"X-Test\"]\n[site.response_headers]\ntrailers = [\"X-Test\"]\n"),
    );
    block_on(async {
        let mut sender = connect(&authority, &pintle).await.ready().await.unwrap();
        let (mut response, mut send) = sender.send_request(request("POST", "/").body(()).unwrap(), false).unwrap();
        send.send_data("hello".into(), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-test", "mine".parse().unwrap());
        send.send_trailers(trailers).unwrap();
        let hints = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((hints.status().as_u16(), &hints.headers()["link"]), (103, &"</a.css>".parse().unwrap()));
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "ok");
        assert_eq!(body.trailers().await.unwrap().unwrap()["x-test"], "trailer");
    });
    let received = origin.request("/");
    assert_eq!((received.body.as_slice(), received.trailers.as_str()), (&b"hello"[..], "x-test: mine\r\n"));
}

#[test]
fn requests_are_translated_strictly() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &(blog(&authority, &origin) + "[site.hsts]\n"));
    block_on(async {
        let mut sender = connect(&authority, &pintle).await;
        // Crumbs of cookies are joined, and te is no field for an HTTP/1.1 upstream.
        let crumbs =
            request("GET", "/cookies").header("cookie", "a=1").header("cookie", "b=2").header("te", "trailers");
        assert_eq!(get(&mut sender, crumbs.body(()).unwrap()).await.0, 200);
        let received = origin.request("/cookies");
        assert_eq!((received.fields("cookie"), received.field("te")), (vec!["a=1; b=2"], None));
        // A Host that differs from :authority is an attempt at something.
        let (status, fields, _) =
            get(&mut sender, request("GET", "/host").header("host", "other.example.com").body(()).unwrap()).await;
        assert_eq!((status, fields.get("strict-transport-security")), (400, None));
        let same = request("GET", "/same").header("host", BLOG).body(()).unwrap();
        assert_eq!(get(&mut sender, same).await.0, 200);
        assert_eq!(origin.request("/same").fields("host"), [BLOG]);
        assert_eq!(get(&mut sender, request("TRACE", "/").body(()).unwrap()).await.0, 405);
        // One rule for both versions: a length is said once, in digits.
        let twice = request("POST", "/twice").header("content-length", "0").header("content-length", "0");
        assert_eq!(get(&mut sender, twice.body(()).unwrap()).await.0, 400);
        let once = request("POST", "/once").header("content-length", "0");
        assert_eq!(get(&mut sender, once.body(()).unwrap()).await.0, 200);
        let head = get(&mut sender, request("HEAD", "/head").body(()).unwrap()).await;
        assert_eq!((head.0, &head.1["content-length"], head.2.len()), (200, &"21".parse().unwrap(), 0));
    });
    assert!(origin.received().iter().all(|r| !["/host", "/twice"].contains(&r.path())));
}

#[test]
fn a_stream_that_is_given_up_frees_the_upstream() {
    use std::io::Read;
    let authority = Authority::new();
    let (gone, count_gone) = std::sync::mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let origin = Origin::start(move |request| {
        if request.path() == "/other" {
            return Reply::ok("other");
        }
        let gone = gone.lock().unwrap().clone();
        Reply::Custom(Box::new(move |socket| {
            let _ = gone.send(socket.read(&mut [0; 1])?);
            Ok(())
        }))
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    block_on(async {
        let mut sender = connect(&authority, &pintle).await;
        let (_response, mut send) = sender
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(request("POST", "/wait").body(()).unwrap(), false)
            .unwrap();
        send.send_data("x".into(), true).unwrap();
        while origin.received().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        send.send_reset(h2::Reason::CANCEL);
        assert_eq!(get(&mut sender, request("GET", "/other").body(()).unwrap()).await.0, 200);
    });
    assert_eq!(count_gone.recv_timeout(crate::harness::PATIENCE), Ok(0));
    assert_eq!(pintle.access_line("/wait")["status"], 499);
}

/// A client that opens its window no further is cut off, stream by stream; the others go on.
#[test]
fn a_window_held_shut_has_a_deadline() {
    let authority = Authority::new();
    let origin =
        Origin::start(|request| Reply::ok(&"x".repeat(if request.path() == "/large" { 1_000_000 } else { 5 })));
    let config = "[limits]\nbody_progress = \"1s\"\n".to_owned() + &blog(&authority, &origin);
    let pintle = Pintle::start(&authority, &config);
    block_on(async {
        let mut sender = connect(&authority, &pintle).await;
        let (response, _) = sender
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(request("GET", "/large").body(()).unwrap(), true)
            .unwrap();
        let mut body = response.await.unwrap().into_body();
        // Nothing is released: the first 64 KiB are all that fits.
        let mut got = 0;
        let end = loop {
            match body.data().await {
                Some(Ok(data)) => got += data.len(),
                Some(Err(error)) => break error,
                None => panic!("the body has ended after {got}"),
            }
        };
        assert!(got <= 65_535 && end.is_reset(), "{got} {end}");
        // What was received and not read holds the connection's window, too.
        drop(body);
        assert_eq!(get(&mut sender, request("GET", "/small").body(()).unwrap()).await.2.len(), 5);
    });
}

/// The buffers of a connection at rest are given back (vendor/README.md).
#[test]
fn idle_connections_take_little_memory() {
    const COUNT: usize = 400;
    /// Bytes for each, TLS and memory of the whole process included. Until they are frozen, it is 16 KiB.
    const MOST: u64 = 12 * 1024;
    let authority = Authority::new();
    let pintle = Pintle::start(&authority, &blog(&authority, &Origin::hello()));
    block_on(async {
        let (mut open, mut before) = (Vec::new(), 0);
        for number in 0..COUNT + 20 {
            if number == 20 {
                before = pintle.memory();
            }
            let mut sender = connect(&authority, &pintle).await;
            let (status, ..) = get(&mut sender, request("GET", "/").body(()).unwrap()).await;
            assert_eq!(status, 200);
            open.push(sender);
        }
        let mut each = 0;
        let frozen = in_time(|| {
            each = pintle.memory().saturating_sub(before) / COUNT as u64;
            (each < MOST).then_some(())
        });
        assert!(frozen.is_some(), "{each} bytes for each idle connection");
        // Both sides still have the same HPACK tables: fields of the first request are but numbers now.
        for sender in &mut open[..20] {
            for path in ["/", "/?again", "/"] {
                let (status, fields, body) = get(sender, request("GET", path).body(()).unwrap()).await;
                assert_eq!((status, &body[..]), (200, &b"hello from the origin"[..]), "{fields:?}");
            }
        }
    });
}
