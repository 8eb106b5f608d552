//! The circuit breaker, the queue for connections, and time limits: one upstream with one address.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::state;
use crate::harness::{
    Authority, BLOG, Client, Connection, Origin, Pintle, Reply, blog, blog_at, eventually, free_port, outcome, output,
};

const ONE_WORKER: &str = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\nerror_details = \"everybody\"\n";

fn health(pintle: &Pintle) -> Value {
    pintle.status()["sites"][0]["upstream_health"].clone()
}

#[test]
fn a_circuit_opens_and_one_probe_closes_it() {
    let authority = Authority::new();
    // A port that refuses, until an origin listens there.
    let port = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let config = state(&authority)
        + &blog_at(&authority, &format!("http://{port}"))
        + "[site.circuit_breaker]\nfailures = 3\nopen = \"1s\"\nopen_max = \"2s\"\n";
    let pintle = Pintle::start_listening(&authority, "error_details = \"everybody\"", &config);
    let client = Client::new(&authority);
    let get = || client.get(pintle.https(), BLOG, "/");
    assert_eq!(health(&pintle)["circuit"], "closed");
    let refused = eventually("the circuit opens", || {
        let response = get();
        let open = response.status == 503;
        assert!(open || response.status == 502, "{response:?}");
        open.then_some(response)
    });
    assert_eq!(refused.one("proxy-status"), "pintle; error=destination_unavailable");
    assert!(matches!(refused.one("retry-after"), "1" | "2"), "{refused:?}");
    assert!(refused.text().contains("does not answer at present"));
    // After a second it is half open.
    eventually("the status says so", || (health(&pintle)["circuit"] != "closed").then_some(()));
    let text = output(&mut pintle.command("status"));
    assert!(text.contains("CIRCUIT OPEN") || text.contains("CIRCUIT HALF OPEN"), "{text}");
    let recorded = eventually("its record says so", || {
        // Two workers write their lines by themselves: the last one need not be the last request's.
        let is_so = |line: &Value| line["error"].as_str().is_some_and(|error| error.contains("circuit open"));
        pintle.access().into_iter().find(is_so)
    });
    // The upstream was not asked: such requests make it neither faster nor slower.
    assert!(recorded.get("upstream_ms").is_none() && recorded.get("retries").is_none(), "{recorded}");
    // The upstream is back: the next probe finds out.
    let origin = Origin::start_at(&port.to_string(), |_| Reply::ok("back"));
    eventually("the circuit closes", || (get().status == 200).then_some(()));
    assert_eq!(health(&pintle)["circuit"], "closed");
    assert_eq!((0..20).filter(|_| get().status == 200).count(), 20);
    assert!(origin.received().len() > 20);
    // One line at each change.
    let opened = pintle.log_json("circuit open: upstream does not answer");
    let closed = pintle.log_json("circuit closed: upstream answers again");
    assert_eq!((opened.len(), closed.len()), (1, 1), "{}", pintle.log());
    assert!(opened[0]["error"].as_str().unwrap().contains("connection refused"), "{opened:?}");
    assert!(pintle.status()["counters"]["circuit_refused"].as_u64().unwrap() > 0);
}

/// While it is open, the upstream is asked no more than once each time; and what answers badly is not left alone.
#[test]
fn an_open_circuit_spares_the_upstream_and_errors_do_not_open_it() {
    let authority = Authority::new();
    let dead = Arc::new(AtomicBool::new(false));
    let says = dead.clone();
    let origin = Origin::start(move |request| match (says.load(Ordering::SeqCst), request.path()) {
        (true, _) => Reply::Close(Vec::new()),
        (false, "/garbage") => Reply::Close(b"junk\r\n\r\n".to_vec()),
        _ => Reply::new("500 Internal Server Error", "", "oops"),
    });
    let config = blog(&authority, &origin) + "[site.circuit_breaker]\nfailures = 2\nopen = \"2s\"\n";
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    let get = |path: &str| client.get(pintle.https(), BLOG, path).status;
    for _ in 0..4 {
        assert_eq!((get("/"), get("/garbage")), (500, 502));
        thread::sleep(Duration::from_millis(400));
    }
    dead.store(true, Ordering::SeqCst);
    eventually("the circuit opens", || (get("/") == 503).then_some(()));
    let before = origin.received().len();
    // A second probe would come four seconds after the first at the earliest.
    let answers: Vec<u16> = (0..50).map(|_| get("/")).collect();
    let asked = origin.received().len() - before;
    assert!(asked <= 3, "{asked} of {answers:?}");
}

#[test]
fn requests_wait_for_a_connection_in_their_order() {
    let authority = Authority::new();
    let gate = Arc::new(AtomicUsize::new(0));
    let open = gate.clone();
    let origin = Origin::start(move |request| {
        let number: usize = request.path()[1..].parse().unwrap_or(0);
        // Each is answered when its turn has come.
        while open.load(Ordering::SeqCst) < number {
            thread::sleep(Duration::from_millis(2));
        }
        Reply::ok(request.path())
    });
    let limits = "[limits]\nupstream_connections = 1\nupstream_queue = 3\nupstream_queue_wait = \"15s\"\n";
    let pintle = Pintle::start_with(
        &authority,
        ONE_WORKER,
        &(limits.to_owned() + &state(&authority) + &blog(&authority, &origin)),
    );
    let client = Client::new(&authority);
    let queued = || pintle.status()["counters"]["upstream_queued"].as_u64().unwrap();
    let ask = |number: usize| {
        let mut connection = client.connect(pintle.https(), BLOG);
        connection.send(format!("GET /{number} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        connection
    };
    let first = ask(1);
    eventually("the first is at the origin", || {
        (origin.received().len() == 1 || origin.connections() == 1).then_some(())
    });
    let mut waiting: Vec<Connection> = Vec::new();
    for number in 2..=4 {
        waiting.push(ask(number));
        eventually("it waits", || (queued() == number as u64 - 1).then_some(()));
    }
    // No room for more.
    let refused = client.get(pintle.https(), BLOG, "/5");
    assert_eq!((refused.status, refused.one("retry-after")), (503, "1"));
    assert_eq!(refused.one("proxy-status"), "pintle; error=connection_limit_reached");
    // One goes away, and leaves its place to another.
    drop(waiting.remove(1));
    eventually("its going is noticed", || {
        pintle.access().iter().any(|line| line["target"] == "/3" && line["status"] == 499).then_some(())
    });
    waiting.push(ask(6));
    eventually("it waits", || (queued() == 4).then_some(()));
    gate.store(100, Ordering::SeqCst);
    for (mut connection, body) in [first].into_iter().chain(waiting).zip(["/1", "/2", "/4", "/6"]) {
        assert_eq!(connection.response("GET").text(), body);
    }
    let order: Vec<String> = origin.received().iter().map(|r| r.path().to_owned()).collect();
    assert_eq!(order, ["/1", "/2", "/4", "/6"]);
    assert_eq!(origin.connections(), 1, "the connection was handed on");
}

#[test]
fn a_request_waits_for_a_connection_no_longer_than_it_may() {
    let authority = Authority::new();
    let origin = Origin::start(|_| Reply::Custom(Box::new(|socket| socket.read(&mut [0; 1]).map(drop))));
    let limits = "[limits]\nupstream_connections = 1\nupstream_queue_wait = \"1s\"\n";
    let pintle = Pintle::start_with(&authority, ONE_WORKER, &(limits.to_owned() + &blog(&authority, &origin)));
    let client = Client::new(&authority);
    let mut held = client.connect(pintle.https(), BLOG);
    held.send(format!("GET /held HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    eventually("it is at the origin", || (origin.received().len() == 1).then_some(()));
    assert_eq!(client.get(pintle.https(), BLOG, "/late").status, 503);
    assert!(pintle.access_line("/late")["error"].as_str().unwrap().contains("no connection became free"));
    pintle.logs("no connection became free");
}

#[test]
fn the_total_time_ends_what_the_other_limits_let_pass() {
    let authority = Authority::new();
    // Neither the head nor any piece of the body is late by itself.
    let origin = Origin::start(|request| match request.path() {
        "/drip" => Reply::Custom(Box::new(|socket| {
            socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                socket.write_all(b"1\r\nx\r\n")?;
                thread::sleep(Duration::from_millis(100));
            }
        })),
        "/head" => Reply::Custom(Box::new(|socket| {
            socket.write_all(b"HTTP/1.1 200 OK\r\n")?;
            loop {
                socket.write_all(b"X-Test: x\r\n")?;
                thread::sleep(Duration::from_millis(100));
            }
        })),
        _ => Reply::ok("ok"),
    });
    let config = blog(&authority, &origin) + "[site.upstream_options]\ntotal_timeout = \"2s\"\n";
    let pintle = Pintle::start(&authority, &config);
    for version in ["--http1.1", "--http2"] {
        let done = pintle.curl().arg(version).arg(format!("https://{BLOG}/drip")).output().unwrap();
        assert!(!done.status.success(), "{version}: {done:?}");
        let head = pintle
            .curl()
            .args([version, "--write-out", "%{http_code}", "--output", "/dev/null"])
            .arg(format!("https://{BLOG}/head"))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&head.stdout), "504", "{version}");
    }
    for path in ["/drip", "/head"] {
        assert!(pintle.access_line(path)["error"].as_str().unwrap().contains("total timeout"), "{path}");
    }
    // It is each request's own time, not the connection's.
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    for _ in 0..6 {
        assert_eq!(connection.get(BLOG, "/").status, 200);
        thread::sleep(Duration::from_millis(600));
    }
}

#[test]
fn a_body_that_comes_to_a_halt_is_the_upstreams_fault() {
    let authority = Authority::new();
    let origin = Origin::start(|_| {
        Reply::Custom(Box::new(|socket| {
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
            socket.read(&mut [0; 1]).map(drop)
        }))
    });
    let config = "[limits]\nbody_progress = \"1s\"\n".to_owned() + &state(&authority) + &blog(&authority, &origin);
    let pintle = Pintle::start(&authority, &config);
    for (version, path) in [("--http1.1", "/one"), ("--http2", "/two")] {
        let (code, _, _) = outcome(pintle.curl().arg(version).arg(format!("https://{BLOG}{path}")));
        assert!(matches!(code, 18 | 56 | 92), "{version}: {code}");
        let line = pintle.access_line(path);
        assert!(line["error"].as_str().unwrap().contains("response body timed out"), "{line}");
    }
    pintle.logs("response body timed out");
    assert_eq!(pintle.status()["counters"]["upstream_errors"], 2);
}

/// Requests that wait for one connection attempt fail with it, without a second wait.
#[test]
fn a_connection_attempt_fails_for_all_who_wait_for_it() {
    let authority = Authority::new();
    // Takes connections, and says nothing: TLS does not come about.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = silent.local_addr().unwrap();
    let config = blog_at(&authority, &format!("https://{address}"))
        + "[site.upstream_options]\nconnect_timeout = \"2s\"\n[site.circuit_breaker]\nfailures = 0\n";
    let pintle = Pintle::start_with(&authority, ONE_WORKER, &(state(&authority) + &config));
    let client = Client::new(&authority);
    let mut asked: Vec<Connection> = (0..8)
        .map(|_| {
            let mut connection = client.connect(pintle.https(), BLOG);
            connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
            connection
        })
        .collect();
    let begin = tokio::time::Instant::now();
    for connection in &mut asked {
        assert_eq!(connection.response("GET").status, 504);
    }
    // One after the other would take sixteen seconds.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn what_is_wrong_with_the_keys_is_told_at_once() {
    let authority = Authority::new();
    let check = |more: &str, want: &[&str]| {
        let config = authority.write("pintle.toml", blog_at(&authority, "http://127.0.0.1:1") + more);
        let (code, out, err) = outcome(crate::harness::pintle().args(["check", "-c"]).arg(config));
        assert_eq!(code, 1, "{out}{err}");
        for want in want {
            assert!(err.contains(want), "{want} in {err}");
        }
    };
    check(
        "[site.circuit_breaker]\nfailures = 2\nopen = \"5s\"\nopen_max = \"1s\"\n\
         [site.health_check]\npath = \"x\"\ninterval = \"1ms\"\nstatus = \"ok\"\nhealthy = 0\n\
         [site.upstream_options]\ntotal_timeout = 0\n",
        &[
            "open_max: must be at least open",
            "health_check.path",
            "health_check.interval",
            "invalid range of status codes",
            "healthy: must be between 1 and 1,000,000",
            "total_timeout: must be more than 0s",
        ],
    );
    check("[site.health_check]\n", &["health_check: path is missing", "hint: path = \"/\""]);
    let url = |url: &str, more: &str, want: &str| {
        let config = authority.write("pintle.toml", blog_at(&authority, url) + more);
        let (_, out, err) = outcome(crate::harness::pintle().args(["check", "-c"]).arg(config));
        assert!(if want.is_empty() { err.is_empty() } else { err.contains(want) }, "{want} in {err}{out}");
    };
    url("h2c://127.0.0.1:50051", "", "");
    url("h2c://127.0.0.1", "[site.upstream_options]\nhttp2 = false\n", "the upstream is h2c, not https");
    url("h2://127.0.0.1:50051", "", "unknown scheme");
    url("h2c://127.0.0.1:50051/package.Service", "", "has a path");
    url("h2c://grpc.example.net:50051", "", "is not encrypted");
}
