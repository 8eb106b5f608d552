//! Thousands of requests to an upstream that fails in every way, by both versions of HTTP, with the upstream plain and
//! under TLS: each answer is exact, or visibly broken; and in the end, nothing is left over.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::faults::{Fault, Faulty, Plan, Seen};
use super::{assert_no_leaks, open_at_first, seen, state};
use crate::harness::{Authority, BLOG, Client, Connection, PATIENCE, Pintle, blog_at, eventually};

const HTTP1_CLIENTS: u64 = 4;
const HTTP2_CLIENTS: u64 = 3;
/// Requests of each client.
const REQUESTS: u64 = 180;
/// Requests of an HTTP/2 client at the same time.
const AT_ONCE: usize = 12;
/// The bytes that are read of an endless body.
const ENOUGH: usize = 300_000;

#[test]
fn plain() {
    storm(false, 0x1000_0000);
}

#[test]
fn secure() {
    storm(true, 0x2000_0000);
}

fn storm(secure: bool, seeds: u64) {
    let authority = Authority::new();
    let leaf = authority.leaf("upstream", &["up.example.net"]);
    let upstream = Faulty::start(secure.then_some(&leaf));
    // A breaker that opens would answer in the upstream's place; it has its own tests.
    let limits = "[limits]\nbody_progress = \"3s\"\nupstream_idle = \"1s\"\nidle = \"2s\"\n";
    let options = format!(
        "[site.upstream_options]\nconnect = \"{}\"\nresponse_timeout = \"4s\"\n{}\n[site.circuit_breaker]\nfailures = 0\n",
        upstream.address,
        if secure { format!("ca = {:?}", authority.ca_path()) } else { String::new() }
    );
    let url = if secure { "https://up.example.net" } else { "http://up.example.net" };
    let pintle =
        Pintle::start(&authority, &(limits.to_owned() + &state(&authority) + &blog_at(&authority, url) + &options));
    let at_first = open_at_first(&pintle);
    let whole = Arc::new(AtomicUsize::new(0));
    let judge = |plan: &Plan, seen: &Seen| {
        plan.judge(seen);
        whole.fetch_add(usize::from(matches!(seen, Seen::Whole(200, _))), Ordering::Relaxed);
    };
    thread::scope(|scope| {
        for n in 0..HTTP1_CLIENTS {
            let (authority, pintle, judge) = (&authority, &pintle, &judge);
            scope.spawn(move || http1(authority, pintle, seeds + n * REQUESTS, judge));
        }
        scope.spawn(|| http2(&authority, &pintle, seeds + 0x100_0000, &judge));
    });
    assert_eq!(*upstream.wrong.lock().unwrap(), Vec::<String>::new());
    let (whole, all) = (whole.load(Ordering::Relaxed), ((HTTP1_CLIENTS + HTTP2_CLIENTS) * REQUESTS) as usize);
    assert!(whole > all / 3, "{whole} of {all}");
    eventually("all connections to the upstream are closed", || {
        (upstream.open.load(Ordering::SeqCst) == 0).then_some(())
    });
    assert_no_leaks(&pintle, &at_first);
}

/// One request after the other, on one connection for as long as it lasts.
fn http1(authority: &Authority, pintle: &Pintle, first: u64, judge: &impl Fn(&Plan, &Seen)) {
    let client = Client::new(authority);
    let mut connection = None;
    for seed in first..first + REQUESTS {
        let plan = Plan::of(seed);
        let mut open = connection.take().unwrap_or_else(|| client.connect(pintle.https(), BLOG));
        let (seen, goes_on) = ask(&mut open, &plan);
        judge(&plan, &seen);
        connection = goes_on.then_some(open);
    }
}

/// Sends a request; gives what came, and whether the connection may be used further.
fn ask(connection: &mut Connection, plan: &Plan) -> (Seen, bool) {
    let upload = plan.upload.as_deref().unwrap_or_default();
    let length = plan.upload.as_ref().map(|u| format!("Content-Length: {}\r\n", u.len())).unwrap_or_default();
    let head = format!("{} {} HTTP/1.1\r\nHost: {BLOG}\r\n{length}\r\n", plan.method(), plan.path());
    // An answer may come, and the connection end, before all is sent.
    let _ = connection.stream.write_all(head.as_bytes()).and_then(|()| connection.stream.write_all(upload));
    if plan.fault == Fault::Endless {
        let mut body: Vec<u8> = Vec::new();
        let mut buffer = [0; 10_000];
        while body.len() < ENOUGH {
            match connection.stream.read(&mut buffer) {
                Ok(len @ 1..) => body.extend(&buffer[..len]),
                _ => return (Seen::Whole(502, Vec::new()), false),
            }
        }
        return (Seen::Broken(Vec::new()), false);
    }
    seen(connection, plan.method(), &format_args!("{plan:.0?}"))
}

fn http2(authority: &Authority, pintle: &Pintle, seeds: u64, judge: &impl Fn(&Plan, &Seen)) {
    let mut config = Client::config(authority);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsConnector::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let clients = (0..HTTP2_CLIENTS).map(|n| http2_client(&tls, pintle, seeds + n * REQUESTS, judge));
        futures_util::future::join_all(clients).await;
    });
}

async fn http2_client(tls: &TlsConnector, pintle: &Pintle, first: u64, judge: &impl Fn(&Plan, &Seen)) {
    let socket = TcpStream::connect(pintle.https()).await.unwrap();
    let stream = tls.connect(ServerName::try_from(BLOG).unwrap(), socket).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 22);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    let driver = tokio::task::spawn_local(connection);
    let next = std::cell::Cell::new(first);
    let lanes = (0..AT_ONCE).map(|_| async {
        while next.get() < first + REQUESTS {
            let plan = Plan::of(next.replace(next.get() + 1));
            let seen = tokio::time::timeout(PATIENCE, stream_of(sender.clone(), &plan)).await;
            judge(&plan, &seen.unwrap_or_else(|_| panic!("{plan:.0?}: hangs")));
        }
    });
    futures_util::future::join_all(lanes).await;
    drop(sender);
    driver.abort();
}

async fn stream_of(sender: h2::client::SendRequest<Bytes>, plan: &Plan) -> Seen {
    let mut sender = sender.ready().await.expect("one stream's fault leaves the connection as it is");
    let uri = format!("https://{BLOG}{}", plan.path());
    let request = http::Request::builder().method(plan.method()).uri(uri).body(()).unwrap();
    let (response, mut body) = sender.send_request(request, plan.upload.is_none()).expect("the connection is open");
    let sending = async {
        let mut rest = Bytes::from(plan.upload.clone().unwrap_or_default());
        while !rest.is_empty() {
            body.reserve_capacity(rest.len());
            let Some(Ok(capacity)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else { return };
            let part = rest.split_to(capacity.min(rest.len()));
            if body.send_data(part, rest.is_empty()).is_err() {
                return;
            }
        }
    };
    let receiving = async {
        let Ok(response) = response.await else { return Seen::Broken(Vec::new()) };
        let status = response.status().as_u16();
        let mut recv = response.into_body();
        let mut body = Vec::new();
        while let Some(data) = recv.data().await {
            let Ok(data) = data else {
                return Seen::Broken(if plan.fault == Fault::Endless { Vec::new() } else { body });
            };
            let _ = recv.flow_control().release_capacity(data.len());
            body.extend_from_slice(&data);
            if plan.fault == Fault::Endless && body.len() > ENOUGH {
                return Seen::Broken(Vec::new());
            }
        }
        match recv.trailers().await {
            Ok(_) => Seen::Whole(status, body),
            Err(_) => Seen::Broken(body),
        }
    };
    let mut sending = std::pin::pin!(sending);
    let mut receiving = std::pin::pin!(receiving);
    let mut sent = plan.upload.is_none();
    loop {
        tokio::select! {
            () = &mut sending, if !sent => sent = true,
            seen = &mut receiving => return seen,
            () = tokio::time::sleep(Duration::from_secs(3600)) => {}
        }
    }
}
