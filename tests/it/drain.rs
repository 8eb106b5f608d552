//! The end: what is under way is finished, and nothing is dropped.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::harness::{Authority, BLOG, Client, Origin, Pintle, Reply, blog, eventually};

/// An origin whose answers wait for the word.
fn waiting_origin() -> (Origin, mpsc::Sender<()>) {
    let (word, wait) = mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |request| {
        if request.path() == "/wait" {
            let _ = wait.lock().unwrap().recv();
        }
        Reply::ok("done")
    });
    (origin, word)
}

#[test]
fn requests_under_way_finish_and_new_ones_are_not_accepted() {
    let authority = Authority::new();
    let (origin, word) = waiting_origin();
    let mut pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let client = Client::new(&authority);
    let mut idle = client.connect(pintle.https(), BLOG);
    assert_eq!(idle.get(BLOG, "/").status, 200);
    let mut busy = client.connect(pintle.https(), BLOG);
    busy.send(format!("GET /wait HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    origin.request("/wait");
    let mut curl = pintle.curl();
    curl.args(["--http2", "--write-out", "%{http_code}"]).arg(format!("https://{BLOG}/wait"));
    let http2 = thread::spawn(move || crate::harness::output(&mut curl));
    eventually("both wait", || (origin.received().iter().filter(|r| r.path() == "/wait").count() == 2).then_some(()));
    pintle.signal("TERM");
    eventually("the drain begins", || pintle.log().contains("draining").then_some(()));
    // Those at rest are closed at once, and properly.
    let (rest, end) = idle.read_to_end();
    assert!(rest.is_empty() && end.is_ok());
    eventually("nobody listens", || client.try_connect(pintle.https(), BLOG).is_err().then_some(()));
    word.send(()).unwrap();
    word.send(()).unwrap();
    let response = busy.response("GET");
    assert_eq!((response.text().as_str(), response.one("connection")), ("done", "close"));
    assert_eq!(http2.join().unwrap(), "done200");
    assert_eq!(pintle.wait().code(), Some(0));
}

#[test]
fn the_time_for_it_is_limited() {
    let authority = Authority::new();
    let (origin, _word) = waiting_origin();
    let config = "[limits]\ndrain = \"1s\"\n".to_owned() + &blog(&authority, &origin);
    let mut pintle = Pintle::start(&authority, &config);
    let mut busy = Client::new(&authority).connect(pintle.https(), BLOG);
    busy.send(format!("GET /wait HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    origin.request("/wait");
    let begin = Instant::now();
    pintle.signal("QUIT");
    assert_eq!(pintle.wait().code(), Some(0));
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&begin.elapsed()));
    pintle.logs("drain timed out");
}

#[test]
fn who_asks_twice_does_not_wait() {
    let authority = Authority::new();
    let (origin, _word) = waiting_origin();
    let mut pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut busy = Client::new(&authority).connect(pintle.https(), BLOG);
    busy.send(format!("GET /wait HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    origin.request("/wait");
    pintle.signal("INT");
    eventually("the drain begins", || pintle.log().contains("draining").then_some(()));
    pintle.signal("INT");
    assert_eq!(pintle.wait().code(), Some(1));
}

/// A configuration with an admin socket in this folder.
fn with_admin(folder: &tempfile::TempDir, config: &str) -> String {
    format!("[admin]\nlisten = \"unix:{}\"\n{config}", folder.path().join("admin.sock").display())
}

#[test]
fn while_it_drains_it_says_so() {
    let (authority, folder) = (Authority::new(), tempfile::TempDir::new().unwrap());
    let (origin, word) = waiting_origin();
    let mut pintle = Pintle::start(&authority, &with_admin(&folder, &blog(&authority, &origin)));
    let ask = |path: &str| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["--silent", "--write-out", "%{http_code}", "--unix-socket"]).arg(folder.path().join("admin.sock"));
        crate::harness::output(curl.arg(format!("http://localhost{path}")))
    };
    assert_eq!(ask("/ready"), "ready\n200");
    assert!(ask("/metrics").contains("\npintle_draining 0\n"));
    let mut busy = Client::new(&authority).connect(pintle.https(), BLOG);
    busy.send(format!("GET /wait HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    origin.request("/wait");
    assert_eq!(pintle.status()["connections"], 1);
    pintle.signal("TERM");
    pintle.logs("draining: no new connections");
    assert_eq!(ask("/ready"), "draining\n503");
    let metrics = ask("/metrics");
    assert!(metrics.contains("\npintle_draining 1\n") && metrics.contains("\npintle_connections 1\n"), "{metrics}");
    assert_eq!(pintle.status()["draining"], true);
    let shown = crate::harness::output(&mut pintle.command("status"));
    assert!(shown.contains("DRAINING       1 connection left"), "{shown}");
    let (code, _, err) = crate::harness::outcome(&mut pintle.command("reload"));
    assert!(code == 1 && err.contains("pintle is stopping"), "{err}");
    // And, every few seconds, by itself.
    let line = eventually("progress in the log", || pintle.log_json("draining").pop());
    assert_eq!(line["connections"], 1);
    word.send(()).unwrap();
    assert_eq!(busy.response("GET").text(), "done");
    assert_eq!(pintle.wait().code(), Some(0));
}

/// A client that reached a listener gets an answer.
#[test]
fn who_was_just_let_in_is_answered() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let mut pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let client = Client::new(&authority);
    let mut secure = client.connect(pintle.https(), BLOG);
    let mut plain = crate::harness::Connection::plain(pintle.http());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let http2 = runtime.block_on(super::http2::connect(&authority, &pintle));
    pintle.signal("TERM");
    pintle.logs("draining: no new connections");
    let response = secure.get(BLOG, "/");
    assert_eq!((response.status, response.one("connection")), (200, "close"));
    let response = plain.get(BLOG, "/");
    assert_eq!((response.status, response.one("connection")), (301, "close"));
    runtime.block_on(async {
        let request = http::Request::get(format!("https://{BLOG}/")).body(()).unwrap();
        let (response, _) = http2.ready().await.unwrap().send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    });
    assert_eq!(pintle.wait().code(), Some(0));
}

/// Their frames are not ours to write: they go on until the time is up, and are cut then.
#[test]
fn websockets_go_on_until_the_time_is_up() {
    use tokio_tungstenite::tungstenite::{self, Message};
    let authority = Authority::new();
    let echo = super::websocket::echo_server();
    let config = "[limits]\ndrain = \"3s\"\n".to_owned() + &crate::harness::blog_at(&authority, &echo);
    let mut pintle = Pintle::start(&authority, &config);
    let connection = Client::new(&authority).connect(pintle.https(), BLOG);
    let (mut socket, _) = tungstenite::client(format!("wss://{BLOG}/echo"), connection.stream).unwrap();
    pintle.signal("TERM");
    pintle.logs("draining: no new connections");
    let message = Message::text("still there");
    socket.send(message.clone()).unwrap();
    assert_eq!(socket.read().unwrap(), message);
    assert!(socket.read().is_err());
    pintle.logs("drain timed out");
    assert_eq!(pintle.wait().code(), Some(0));
}

/// A stop under load: every request that was sent on an open connection is answered.
#[test]
fn a_stop_under_load_loses_nothing() {
    let authority = Authority::new();
    let origin = Origin::start(|_| {
        thread::sleep(Duration::from_millis(2));
        Reply::ok("done")
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let address = pintle.https();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let mut config = Client::config(&authority);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let client = Client::with(config);
            thread::spawn(move || {
                let mut answered = 0;
                loop {
                    let Ok(mut connection) = client.try_connect(address, BLOG) else { return answered };
                    loop {
                        use std::io::Write;
                        let request = format!("GET /load HTTP/1.1\r\nHost: {BLOG}\r\n\r\n");
                        if connection.stream.write_all(request.as_bytes()).is_err() {
                            break;
                        }
                        match crate::harness::read_response(&mut connection, "GET") {
                            Ok(response) => {
                                assert_eq!(response.status, 200);
                                answered += 1;
                                if response.field("connection") == Some("close") {
                                    break;
                                }
                            }
                            // A connection at rest may be closed just as the next request is sent; not in its midst.
                            Err(_) => {
                                assert!(connection.received.is_empty());
                                break;
                            }
                        }
                    }
                }
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(pintle.stop(), 0);
    let answered: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
    let at_origin = origin.received().len();
    assert!(answered > 100 && answered == at_origin, "{answered} of {at_origin}");
}
