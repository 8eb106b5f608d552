//! One request to the origin for many that wait.

use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;

use super::{Bed, Got, VERSIONS};
use crate::harness::{Origin, Reply, eventually};

const WAITERS: usize = 8;

/// An origin whose answers wait until the test lets them go.
struct Gated {
    bed: Bed,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Gated {
    /// Answers with these fields; bodies below `/body` have their first half before the gate.
    fn new(cache: &str, fields: &'static str, chunked: bool) -> Self {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let opened = gate.clone();
        let origin = Origin::start(move |received| {
            let path = received.path().to_owned();
            let (open, changed) = &*opened;
            if path.starts_with("/body") {
                let opened = opened.clone();
                return Reply::Custom(Box::new(move |stream| {
                    use std::io::Write as _;
                    write!(stream, "HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
                    stream.flush()?;
                    let (open, changed) = &*opened;
                    drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
                    if path == "/body-cut" {
                        return stream.shutdown(std::net::Shutdown::Both);
                    }
                    write!(stream, "6\r\n, last\r\n0\r\n\r\n")
                }));
            }
            drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
            if path == "/closed" {
                return Reply::Close(Vec::new());
            }
            if chunked {
                return Reply::Bytes(
                    format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
                        .into_bytes(),
                );
            }
            Reply::new("200 OK", fields, "body")
        });
        Self { bed: Bed::before(origin, super::Pages::default(), cache, ""), gate }
    }

    fn open(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }

    /// Asks from several clients at the same time, and opens the gate once `ready` holds.
    fn ask(&self, path: &str, ready: impl Fn(&Bed) -> bool) -> Vec<Got> {
        let barrier = Barrier::new(WAITERS);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..WAITERS)
                .map(|n| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        let mut curl = self.bed.curl(VERSIONS[n % 2], path, &[]);
                        barrier.wait();
                        super::read(&mut curl)
                    })
                })
                .collect();
            eventually("the requests", || ready(&self.bed).then_some(()));
            self.open();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        })
    }
}

/// The number of connections with a request under way.
fn under_way(bed: &Bed) -> u64 {
    bed.pintle.status()["connection_states"]["active"].as_u64().unwrap_or_default()
}

#[test]
fn many_that_wait_for_a_page_are_one_request() {
    for chunked in [false, true] {
        let gated = Gated::new("", "Cache-Control: max-age=600\r\n", chunked);
        let answers = gated.ask("/page", |bed| under_way(bed) >= WAITERS as u64 || bed.count("/page") > 1);
        assert!(answers.iter().all(|got| got.body == "body" && got.whole), "{answers:?}");
        assert_eq!(gated.bed.count("/page"), 1, "chunked: {chunked}");
        let waited = answers.iter().filter(|got| got.cache().contains("collapsed") || got.is_hit());
        assert_eq!(waited.count(), WAITERS - 1, "{answers:?}");
    }
}

/// The answer is for its own client: all that wait ask for themselves, at the same time.
#[test]
fn a_private_answer_releases_all_that_wait() {
    let gated = Gated::new("", "Cache-Control: private\r\nSet-Cookie: own=1\r\n", false);
    let answers = gated.ask("/private", |bed| bed.count("/private") == 1 && under_way(bed) >= WAITERS as u64);
    assert!(answers.iter().all(|got| got.body == "body" && !got.is_hit()), "{answers:?}");
    assert_eq!(gated.bed.count("/private"), WAITERS);
    assert!(answers.iter().all(|got| !got.cache().contains("collapsed")));
}

/// Each time that the wait is over, one of those who wait asks, too: a slow origin gets one request more, not one from each.
#[test]
fn the_wait_ends_for_one_after_the_other() {
    let fields = "Cache-Control: max-age=600\r\n";
    for (path, body) in [("/late", "body"), ("/body", "first, last")] {
        let gated = Gated::new("collapse_wait = \"1s\"", fields, false);
        let second = Mutex::new(None);
        let answers = gated.ask(path, |bed| {
            let count = bed.count(path);
            if count > 1 {
                second.lock().unwrap().get_or_insert(count);
            }
            count > 2
        });
        assert!(answers.iter().all(|got| got.body == body && got.whole), "{answers:?}");
        // The requests of those who came late are few.
        assert_eq!(*second.lock().unwrap(), Some(2), "{path}");
        assert!(gated.bed.count(path) < WAITERS - 2, "{path}: {}", gated.bed.count(path));
        assert!(gated.bed.get("--http2", path, &[]).is_hit());
    }
}

/// Without a wait, each asks for itself, and the page is stored.
#[test]
fn nobody_waits_if_the_wait_is_zero() {
    let gated = Gated::new("collapse_wait = \"0s\"", "Cache-Control: max-age=600\r\n", false);
    let answers = gated.ask("/page", |bed| bed.count("/page") == WAITERS);
    assert!(answers.iter().all(|got| got.body == "body" && got.cache().contains("stored")), "{answers:?}");
    assert!(gated.bed.get("--http2", "/page", &[]).is_hit());
}

/// An origin that does not answer one request is not asked by all of those who waited for it.
#[test]
fn an_origin_that_fails_is_not_asked_by_all_that_wait() {
    let gated = Gated::new("collapse_wait = \"1m\"", "", false);
    let answers = gated.ask("/closed", |bed| bed.count("/closed") == 1 && under_way(bed) >= WAITERS as u64);
    assert!(answers.iter().all(|got| matches!(got.status, 502 | 503)), "{answers:?}");
    assert!(answers.iter().any(|got| got.status == 502), "{answers:?}");
    let asked = gated.bed.count("/closed");
    assert!((3..WAITERS).contains(&asked), "{asked} requests");
}

/// The client that asked first leaves before an answer: its request goes on for those who wait.
#[test]
fn a_client_that_leaves_early_does_not_end_the_request() {
    for chunked in [false, true] {
        let gated = Gated::new("", "Cache-Control: max-age=600\r\n", chunked);
        let first = gated.bed.curl("--http2", "/page", &[]).stdout(std::process::Stdio::null()).spawn().unwrap();
        eventually("the first request", || (gated.bed.count("/page") == 1).then_some(()));
        let first = Mutex::new(Some(first));
        let answers = gated.ask("/page", |bed| {
            let mut first = first.lock().unwrap();
            if under_way(bed) > WAITERS as u64
                && let Some(mut client) = first.take()
            {
                client.kill().unwrap();
                client.wait().unwrap();
            }
            first.is_none() && under_way(bed) == WAITERS as u64
        });
        assert!(answers.iter().all(|got| got.body == "body" && got.whole), "{answers:?}");
        assert_eq!(gated.bed.count("/page"), 1, "chunked: {chunked}");
        assert!(gated.bed.get("--http2", "/page", &[]).is_hit());
    }
}

#[test]
fn readers_follow_a_body_under_way() {
    let gated = Gated::new("", "Cache-Control: max-age=600\r\n", true);
    let answers = gated.ask("/body", |bed| bed.count("/body") == 1 && under_way(bed) >= WAITERS as u64);
    assert!(answers.iter().all(|got| got.body == "first, last" && got.whole), "{answers:?}");
    assert_eq!(gated.bed.count("/body"), 1);
    assert!(gated.bed.get("--http2", "/body", &[]).is_hit());
}

#[test]
fn a_body_that_breaks_off_is_cut_for_all() {
    let gated = Gated::new("", "Cache-Control: max-age=600\r\n", true);
    let answers = gated.ask("/body-cut", |bed| bed.count("/body-cut") == 1 && under_way(bed) >= WAITERS as u64);
    assert!(answers.iter().all(|got| !got.whole), "{answers:?}");
    let got = gated.bed.get("--http2", "/body-cut", &["-H", "Cache-Control: only-if-cached"]);
    assert_eq!(got.status, 504);
}

/// The client that asked first leaves: the fetch goes on for those that wait, and for the store.
#[test]
fn a_client_that_leaves_does_not_end_the_fetch() {
    let gated = Gated::new("", "Cache-Control: max-age=600\r\n", true);
    let mut first = gated.bed.curl("--http1.1", "/body", &["--no-buffer"]);
    let mut first = first.stdout(std::process::Stdio::piped()).spawn().unwrap();
    eventually("the first request", || (gated.bed.count("/body") == 1).then_some(()));
    let mut head = [0; 64];
    std::io::Read::read_exact(first.stdout.as_mut().unwrap(), &mut head).unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    gated.open();
    eventually("the page is stored", || {
        let got = gated.bed.get("--http2", "/body", &["-H", "Cache-Control: only-if-cached"]);
        (got.status == 200 && got.body == "first, last").then_some(())
    });
    assert_eq!(gated.bed.count("/body"), 1);
}
