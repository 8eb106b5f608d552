//! Hostile use of the pages: other origins, other names, guesses, floods.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::client::{PageCommand, fed, get, post, send};
use crate::admin::Bed;
use crate::harness::{BLOG, PATIENCE, Pintle, eventually, free_port, is_root, outcome, pintle};

/// A running process, a browser with a session, and the session's token.
struct Attacked {
    pintle: Pintle,
    command: PageCommand,
    cookie: String,
    token: String,
    _bed: Bed,
}

impl Attacked {
    fn new() -> Self {
        let bed = Bed::new();
        let pintle = Pintle::start(&bed.authority, &bed.config(""));
        let command = PageCommand::start(&pintle, &[]);
        let cookie = format!("Cookie: {}", get(command.address, &command.link, &[]).cookie());
        let token = get(command.address, "/", &[&cookie]).token();
        Self { pintle, command, cookie, token, _bed: bed }
    }

    fn at(&self) -> SocketAddr {
        self.command.address
    }

    fn reloads(&self) -> u64 {
        self.pintle.status()["reloads"].as_u64().unwrap()
    }
}

#[test]
fn other_origins_change_nothing() {
    let attacked = Attacked::new();
    let (at, cookie, before) = (attacked.at(), attacked.cookie.as_str(), attacked.reloads());
    let own = format!("Origin: http://{at}");
    let token = format!("Pintle-Csrf: {}", attacked.token);
    let other_port = format!("Origin: http://127.0.0.1:{}", free_port());
    let forged: [&[&str]; 10] = [
        &[],
        &["Pintle-Csrf: "],
        &["Pintle-Csrf: x"],
        &["Pintle-Admin: 1"],
        &["Sec-Fetch-Site: cross-site", &token],
        &["Sec-Fetch-Site: same-site", &token],
        &["Origin: http://evil.example", &token],
        &["Origin: null", &token],
        &[&other_port, &token],
        &["Host: evil.example", "Origin: http://evil.example", "Sec-Fetch-Site: same-origin", &token],
    ];
    for fields in forged {
        let answer = post(at, "/v1/reload", &[&[cookie], fields].concat(), "");
        assert_eq!(answer.code, 403, "{fields:?}: {answer:?}");
    }
    // The same as forms, which a page can send to everywhere.
    for (fields, form) in [
        (&["Sec-Fetch-Site: cross-site"][..], format!("csrf={}", attacked.token)),
        (&["Origin: http://evil.example"], format!("csrf={}", attacked.token)),
        (&[], "csrf=".to_owned()),
        (&[], String::new()),
    ] {
        let answer = post(at, "/logout", &[&[cookie], fields].concat(), &form);
        assert_eq!(answer.code, 403, "{fields:?}: {answer:?}");
    }
    assert_eq!(attacked.reloads(), before);
    assert_eq!(get(at, "/", &[cookie]).code, 200, "nobody has signed out");
    let ours = post(at, "/v1/reload", &[cookie, &own, "Sec-Fetch-Site: same-origin", &token], "");
    assert_eq!(ours.code, 200, "{ours:?}");
    assert_eq!(attacked.reloads(), before + 1);
}

#[test]
fn other_names_read_nothing() {
    let attacked = Attacked::new();
    for host in ["evil.example", "127.0.0.1.evil.example", "192.0.2.1", "localhost.evil.example", ""] {
        let field = format!("Host: {host}");
        for path in ["/", "/login", "/v1/status", "/link/x"] {
            let answer = get(attacked.at(), path, &[&field, &attacked.cookie]);
            assert_eq!(answer.code, 403, "{host} {path}: {answer:?}");
            assert!(!answer.body.contains(BLOG), "{host} {path}: {answer:?}");
        }
    }
    // Parts of our pages in pages of others.
    for dest in ["iframe", "embed", "object", "image", "script", "empty"] {
        let dest = format!("Sec-Fetch-Dest: {dest}");
        let fields = [attacked.cookie.as_str(), "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", &dest];
        assert_eq!(get(attacked.at(), "/v1/status", &fields).code, 403, "{dest}");
        let framed = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", &dest, &attacked.cookie];
        assert_eq!(get(attacked.at(), "/", &framed).code, 403, "{dest}");
    }
    let linked = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"];
    assert_eq!(get(attacked.at(), "/login", &linked).code, 200, "a link to us is a link");
}

#[test]
fn a_planted_session_stays_worthless() {
    let attacked = Attacked::new();
    let planted = "Cookie: pintle=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let second = PageCommand::start(&attacked.pintle, &[]);
    let opened = get(second.address, &second.link, &[planted]);
    let id = opened.cookie();
    assert!(opened.code == 303 && !planted.contains(&id), "{id}");
    assert_eq!(get(second.address, "/", &[planted]).field("location"), Some("/login"));
    // A log-in ends the session that the browser had.
    let third = PageCommand::start(&attacked.pintle, &[]);
    let renewed = get(third.address, &third.link, &[&format!("Cookie: {id}")]).cookie();
    assert_ne!(renewed, id);
    assert_eq!(get(third.address, "/", &[&format!("Cookie: {id}")]).field("location"), Some("/login"));
    assert_eq!(get(third.address, "/", &[&format!("Cookie: {renewed}")]).code, 200);
    // With several cookies of the name, a wrong one does not hide the right one.
    assert_eq!(get(third.address, "/", &[&format!("{planted}; {renewed}")]).code, 200);
}

#[test]
fn a_thousand_wrong_passwords() {
    let bed = Bed::new();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (_, hash, _) = fed(pintle().args(["admin", "password"]), "correct horse battery staple\n");
    let pintle = Pintle::start(&bed.authority, &bed.config(&format!("[admin]\nlisten = \"{address}\"\n{hash}")));
    let begun = Instant::now();
    let (mut wrong, mut paused) = (0, 0);
    for n in 0..1000 {
        let answer = post(address, "/login", &[], &format!("name=admin&password=guess{n}"));
        match answer.code {
            401 => wrong += 1,
            429 => {
                paused += 1;
                assert!(
                    answer.field("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()),
                    "{answer:?}"
                );
            }
            _ => panic!("{answer:?}"),
        }
        assert!(answer.field("set-cookie").is_none(), "{answer:?}");
    }
    assert_eq!((wrong, paused), (5, 995), "five guesses are checked");
    assert!(begun.elapsed() < Duration::from_secs(60));
    // The right one has to wait, too. The command on the host does not, and pintle serves.
    let right = post(address, "/login", &[], "name=admin&password=correct+horse+battery+staple");
    assert_eq!(right.code, 429);
    let (code, out, _) = outcome(pintle.command("page").arg("--json"));
    assert_eq!(code, 0, "{out}");
    assert_eq!(pintle.status()["pid"], pintle.pid());
    let refusals = || pintle.log().matches("log-in refused").count();
    eventually("the refusals are logged", || (refusals() >= 5).then_some(()));
    assert_eq!(refusals(), 5, "the log is not flooded");
}

#[test]
fn bombs_and_odd_paths() {
    let attacked = Attacked::new();
    let (at, cookie) = (attacked.at(), attacked.cookie.as_str());
    let long = ["Content-Length: 99999999999", cookie, "Content-Type: application/x-www-form-urlencoded"];
    assert_eq!(send(at, "POST", "/logout", &long, b"").code, 400, "two lengths");
    // The refusal is a page, and arrives also at somebody who still sends.
    for length in [(1 << 20) + 1, 5 << 20] {
        let answer = send(at, "POST", "/logout", &[cookie], &vec![b'a'; length]);
        assert_eq!(answer.code, 413, "{answer:?}");
        assert!(answer.body.contains("<h1>Too long: a form has 1 MiB at most</h1>"), "{answer:?}");
    }
    let fields = "a=b&".repeat(10_000);
    assert_eq!(post(at, "/logout", &[cookie], &fields).code, 403, "no field of it counts");
    let parts = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n".repeat(5_000) + "--x--\r\n";
    let kind = "Content-Type: multipart/form-data; boundary=x";
    assert_eq!(send(at, "POST", "/logout", &[cookie, kind], parts.as_bytes()).code, 403);
    for path in [
        "/assets/../../../../etc/passwd",
        "/assets/..%2f..%2fetc%2fpasswd",
        "/assets/",
        "/../etc/passwd",
        "//etc/passwd",
        "/%00",
        "/link/",
        "/v1/../../status",
        "/v1/status/..",
        "/v1",
    ] {
        let answer = get(at, path, &[cookie]);
        assert!([400, 404].contains(&answer.code) && !answer.body.contains("root:"), "{path}: {answer:?}");
    }
    for odd in ["/<script>alert(1)</script>", "/?q=<script>alert(1)</script>", "/nothing?\"><script>alert(1)</script>"]
    {
        let answer = get(at, odd, &[cookie]);
        assert!(!answer.body.contains("<script>alert"), "{odd}: {answer:?}");
    }
    assert_eq!(get(at, "/", &[cookie]).code, 200);
}

/// A user of the host who may not use the page.
const NOBODY: &str = "65534";

#[test]
fn another_user_of_the_host_cannot_use_the_port_of_the_command() {
    if !is_root("become another user") {
        return;
    }
    let attacked = Attacked::new();
    let fresh = PageCommand::start(&attacked.pintle, &[]);
    let ask = |path: &str, cookie: &str| {
        let mut curl = Command::new("setpriv");
        curl.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "curl", "-sS", "-i", "--noproxy", "*"]);
        curl.args(["--max-time", "60", "-H", cookie]).arg(format!("http://{}{path}", fresh.address));
        outcome(curl.current_dir("/"))
    };
    // Neither a link nor a session that was stolen helps, and the link stays whole.
    for (path, cookie) in
        [(fresh.link.as_str(), ""), ("/login", ""), ("/", attacked.cookie.as_str()), ("/v1/status", "")]
    {
        let (code, out, err) = ask(path, cookie);
        // 52: an empty answer; 56: a reset.
        assert!([52, 56].contains(&code) && out.is_empty(), "{path}: {code} {out} {err}");
    }
    assert_eq!(get(fresh.address, &fresh.link, &[]).code, 303);
}

/// The listener of a process, and what it has to do at the same time.
fn listener(bed: &Bed) -> (Pintle, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (_, hash, _) = fed(pintle().args(["admin", "password"]), "correct horse battery staple\n");
    (Pintle::start(&bed.authority, &bed.config(&format!("[admin]\nlisten = \"{address}\"\n{hash}"))), address)
}

#[track_caller]
fn serves(pintle: &Pintle) {
    let (code, out, err) =
        outcome(pintle.curl().args(["-o", "/dev/null", "-w", "%{http_code}"]).arg(format!("https://{BLOG}/")));
    assert_eq!((code, out.as_str()), (0, "200"), "{err}");
}

#[test]
fn connections_that_say_nothing_or_little_are_closed() {
    let bed = Bed::new();
    let (pintle, address) = listener(&bed);
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let silent: Vec<TcpStream> = (0..100).map(|_| connect()).collect();
    serves(&pintle);
    for mut stream in silent {
        assert!(matches!(stream.read(&mut [0; 512]), Ok(0) | Err(_)), "a silent connection got an answer");
    }
    // One that goes on writing its head, byte by byte, and one that goes on writing its body.
    for begin in [
        "GET /login HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\nname=",
    ] {
        let mut slow = connect();
        slow.write_all(begin.as_bytes()).unwrap();
        eventually("pintle closes it", || {
            thread::sleep(Duration::from_millis(100));
            slow.write_all(b"x").is_err().then_some(())
        });
    }
    serves(&pintle);
    let (code, _, err) = outcome(pintle.command("page").arg("--json"));
    assert_eq!(code, 0, "{err}");
}

#[test]
fn the_sites_are_served_while_the_page_is_flooded() {
    let bed = Bed::new();
    let (pintle, address) = listener(&bed);
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for worker in 0..4 {
            let (stop, answered) = (&stop, &answered);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Some read the answer, some only ask.
                    let Ok(mut stream) = TcpStream::connect(address) else { continue };
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let _ = stream.write_all(b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    if worker % 2 == 0 && stream.read(&mut [0; 512]).is_ok_and(|read| read > 0) {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        eventually("the flood is there", || (answered.load(Ordering::Relaxed) > 20).then_some(()));
        (0..20).for_each(|_| serves(&pintle));
        stop.store(true, Ordering::Relaxed);
    });
    eventually("a command gets in", || (outcome(&mut pintle.command("status")).0 == 0).then_some(()));
}
