//! `[[hook]]`: events reach a receiver over TLS and a program, signed, retried, and never on a request's path.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use tempfile::TempDir;

use crate::admin::get;
use crate::harness::{
    Authority, BLOG, Client, Leaf, Origin, Pintle, Reply, blog, blog_at, eventually, free_port, outcome, output,
    pintle, read_head, send_signal, server_config,
};
use crate::metrics::value;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A delivery as the receiver saw it.
#[derive(Debug, Clone)]
struct Delivery {
    target: String,
    fields: HashMap<String, String>,
    body: String,
}

impl Delivery {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    fn id(&self) -> &str {
        &self.fields["webhook-id"]
    }

    /// Verified with Python's own HMAC, and with the commands of the guide, as a receiver without a library does. The
    /// example of the standard's libraries is a test beside the code.
    fn is_signed_with(&self, secret: &str) -> bool {
        let is_signed = self.is_signed_for_python(secret);
        assert_eq!(self.is_signed_for_guide(secret), is_signed, "{self:?}");
        is_signed
    }

    fn is_signed_for_guide(&self, secret: &str) -> bool {
        let guide = include_str!("../../docs/guide/events.md");
        let mut blocks = guide.split("```sh\n").filter_map(|text| Some(text.split_once("```")?.0));
        let commands = blocks.find(|block| block.contains("hexkey:")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hook.secret");
        fs::write(&file, format!("{secret}\n")).unwrap();
        let commands = commands.replace("/etc/pintle/hook.secret", &file.display().to_string());
        let mut shell = Command::new("sh");
        shell.args(["-c", &commands]).env("BODY", &self.body);
        shell.env("ID", self.id()).env("TIMESTAMP", &self.fields["webhook-timestamp"]);
        let want = format!("v1,{}", output(&mut shell).trim());
        self.fields["webhook-signature"].split(' ').any(|one| one == want)
    }

    fn is_signed_for_python(&self, secret: &str) -> bool {
        let script = "import base64, hashlib, hmac, sys, time\n\
            id, at, signatures, secret = sys.argv[1:5]\n\
            assert abs(time.time() - int(at)) < 300, at\n\
            key = base64.b64decode(secret.removeprefix('whsec_'))\n\
            signed = f'{id}.{at}.{sys.stdin.read()}'.encode()\n\
            want = 'v1,' + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()\n\
            print(any(hmac.compare_digest(one, want) for one in signatures.split(' ')))\n";
        let fields = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| self.fields[name].as_str());
        let mut command = Command::new("python3");
        command.args(["-c", script]).args(fields).arg(secret);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(self.body.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success(), "{self:?}");
        done.stdout == b"True\n"
    }
}

/// A receiver with TLS, which answers the nth delivery as the test says: status and fields.
struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Delivery>>>,
}

impl Receiver {
    fn start(leaf: &Leaf, answer: impl Fn(usize, &Delivery) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let got: Arc<Mutex<Vec<Delivery>>> = Arc::default();
        let (config, list, answer) = (server_config(leaf, &[]), got.clone(), Arc::new(answer));
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (config, list, answer) = (config.clone(), list.clone(), answer.clone());
                thread::spawn(move || receive(socket, config, &list, &*answer));
            }
        });
        Self { address, got }
    }

    fn url(&self) -> String {
        format!("https://{}/in?token=not-for-logs", self.address)
    }

    fn got(&self) -> Vec<Delivery> {
        self.got.lock().unwrap().clone()
    }

    /// The deliveries of this kind, once there are so many.
    #[track_caller]
    fn of_kind(&self, kind: &str, count: usize) -> Vec<Delivery> {
        eventually(&format!("{count} deliveries of {kind}"), || {
            let found: Vec<_> = self.got().into_iter().filter(|delivery| delivery.kind() == kind).collect();
            (found.len() >= count).then_some(found)
        })
    }
}

fn receive(
    socket: TcpStream,
    config: Arc<ServerConfig>,
    list: &Mutex<Vec<Delivery>>,
    answer: &dyn Fn(usize, &Delivery) -> String,
) -> io::Result<()> {
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, socket);
    let head = read_head(&mut stream)?;
    let mut lines = head.lines();
    let target = lines.next().unwrap_or_default().to_owned();
    let fields: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; fields["content-length"].parse().unwrap()];
    stream.read_exact(&mut body)?;
    let delivery = Delivery { target, fields, body: String::from_utf8(body).unwrap() };
    let nth = {
        let mut list = list.lock().unwrap();
        list.push(delivery.clone());
        list.len() - 1
    };
    let answer = answer(nth, &delivery);
    stream.write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}

struct Bed {
    authority: Authority,
    folder: TempDir,
    leaf: Leaf,
}

impl Bed {
    fn new() -> Self {
        let authority = Authority::new();
        let leaf = authority.leaf("receiver", &["127.0.0.1"]);
        let bed = Self { authority, folder: TempDir::new().unwrap(), leaf };
        bed.write("hook.secret", SECRET, 0o600);
        bed
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn state(&self) -> String {
        format!("[state]\ndirectory = {:?}\n", self.folder.path().join("state"))
    }

    /// A hook for a URL, with more keys.
    fn hook(&self, url: &str, more: &str) -> String {
        let (secret, ca) = (self.folder.path().join("hook.secret"), self.authority.ca_path());
        format!("[[hook]]\nurl = \"{url}\"\nsecret_file = {secret:?}\nca = {ca:?}\n{more}\n")
    }

    fn value(&self, series: &str) -> Option<f64> {
        value(&get(&self.folder.path().join("state/admin.sock"), "/metrics"), series)
    }

    fn reaches(&self, series: &str, value: f64) {
        eventually(&format!("{series} is {value}"), || (self.value(series)? >= value).then_some(()));
    }

    fn start(&self, hooks: &str) -> Pintle {
        let origin = Origin::hello();
        Pintle::start(&self.authority, &format!("{}{hooks}{}", self.state(), blog(&self.authority, &origin)))
    }
}

/// The sandbox allows the receiver's port, and nothing else of this test is lenient.
#[test]
fn events_happen_and_arrive_signed() {
    let bed = Bed::new();
    let receiver = Receiver::start(&bed.leaf, |_, _| "204 No Content".into());
    let port = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let config = format!(
        "[sandbox]\nconnect = \"upstreams\"\n{}{}{}[site.circuit_breaker]\nfailures = 3\nopen = \"1s\"\nopen_max = \"2s\"\n",
        bed.state(),
        bed.hook(&receiver.url(), "events = [\"*\"]"),
        blog_at(&bed.authority, &format!("http://{port}"))
    );
    let mut pintle = Pintle::start(&bed.authority, &config);
    let started = receiver.of_kind("process.started", 1);
    assert_eq!(started[0].target, "POST /in?token=not-for-logs HTTP/1.1");
    assert_eq!(started[0].fields["content-type"], "application/json");
    assert_eq!(started[0].json()["data"]["pid"], pintle.pid());
    // An upstream that is down, and up again.
    let client = Client::new(&bed.authority);
    eventually("the circuit opens", || (client.get(pintle.https(), BLOG, "/").status == 503).then_some(()));
    let down = receiver.of_kind("upstream.down", 1);
    assert_eq!(down[0].json()["data"]["sites"][0], BLOG);
    assert_eq!(down[0].json()["data"]["upstream"], format!("http://{port}"));
    let _origin = Origin::start_at(&port.to_string(), |_| Reply::ok("back"));
    eventually("the circuit closes", || (client.get(pintle.https(), BLOG, "/").status == 200).then_some(()));
    receiver.of_kind("upstream.up", 1);
    // A certificate that is refused, accepted, renewed.
    let chain = bed.authority.folder().join("blog.pem");
    let good = fs::read_to_string(&chain).unwrap();
    fs::write(&chain, "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n").unwrap();
    let refused = receiver.of_kind("certificate.refused", 1);
    assert_eq!(refused[0].json()["data"]["site"], BLOG);
    assert!(!refused[0].json()["data"]["reasons"][0].as_str().unwrap().is_empty());
    fs::write(&chain, good).unwrap();
    receiver.of_kind("certificate.accepted", 1);
    let renewed = bed.authority.renew("blog", &bed.authority.folder().join("blog.key"), &[BLOG], 60);
    let told = receiver.of_kind("certificate.renewed", 1);
    assert_eq!(told[0].json()["data"]["pin"], renewed.pin);
    // A reload that is refused twice, and one that is not.
    let file = fs::read_to_string(pintle.config_path()).unwrap();
    for count in 1..=2 {
        fs::write(pintle.config_path(), format!("{file}\n[[sight]]\n")).unwrap();
        pintle.reload_fails();
        let refused = receiver.of_kind("config.refused", count);
        assert!(refused[0].body.contains("sight"), "{refused:?}");
    }
    fs::write(pintle.config_path(), file).unwrap();
    pintle.reload();
    receiver.of_kind("config.loaded", 1);
    pintle.signal("TERM");
    receiver.of_kind("process.stopping", 1);
    pintle.wait();
    let got = receiver.got();
    let kinds: Vec<String> = got.iter().map(Delivery::kind).collect();
    assert_eq!(
        kinds,
        [
            "process.started",
            "upstream.down",
            "upstream.up",
            "certificate.refused",
            "certificate.accepted",
            "certificate.renewed",
            "config.refused",
            "config.refused",
            "config.loaded",
            "process.stopping"
        ],
        "each once, in order"
    );
    let ids: std::collections::BTreeSet<&str> = got.iter().map(Delivery::id).collect();
    assert_eq!(ids.len(), got.len(), "each event has an id of its own");
    for delivery in &got {
        assert!(delivery.is_signed_with(SECRET), "{delivery:?}");
        assert!(!delivery.is_signed_with("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), "{delivery:?}");
        assert!(delivery.json()["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        assert!(delivery.body.len() < 20_000);
    }
    for hidden in ["whsec_", "not-for-logs"] {
        assert!(!pintle.log().contains(hidden), "{hidden}");
    }
}

#[test]
fn failures_are_retried_with_the_same_id() {
    let bed = Bed::new();
    let other = "whsec_b2xkLXNlY3JldC1vbGQtc2VjcmV0LW9sZA==";
    bed.write("hook.secret", &format!("{SECRET}\n{other}\n"), 0o600);
    let answers = ["500 No", "302 Found\r\nLocation: /elsewhere", "429 Slow\r\nRetry-After: 1", "503 No", "202 Yes"];
    let receiver = Receiver::start(&bed.leaf, move |nth, _| answers[nth.min(4)].into());
    let more = "events = [\"process.started\"]\nretry = [\"100ms\", \"100ms\", \"100ms\", \"100ms\"]\nname = \"pager\"";
    let _pintle = bed.start(&bed.hook(&receiver.url(), more));
    let got = receiver.of_kind("process.started", 5);
    assert!(got.iter().all(|delivery| delivery.id() == got[0].id() && delivery.body == got[0].body));
    // Both secrets sign, while one replaces the other.
    assert!(got.iter().all(|delivery| delivery.is_signed_with(SECRET) && delivery.is_signed_with(other)));
    let at = |nth: usize| got[nth].fields["webhook-timestamp"].parse::<i64>().unwrap();
    assert!(at(3) > at(2), "Retry-After is obeyed");
    bed.reaches("pintle_hook_events_delivered_total{hook=\"pager\"}", 1.0);
    assert_eq!(bed.value("pintle_hook_attempts_failed_total{hook=\"pager\"}"), Some(4.0));
    assert_eq!(bed.value("pintle_hook_events_dropped_total{hook=\"pager\"}"), Some(0.0));
    assert_eq!(receiver.got().len(), 5, "delivered once, and no redirect followed");
}

#[test]
fn status_410_disables_until_the_next_reload() {
    let bed = Bed::new();
    let receiver = Receiver::start(&bed.leaf, |_, _| "410 Gone".into());
    let pintle = bed.start(&bed.hook(&receiver.url(), "events = [\"process.*\", \"config.*\"]\nname = \"pager\""));
    bed.reaches("pintle_hook_disabled{hook=\"pager\"}", 1.0);
    assert!(pintle.status()["attention"].to_string().contains("the hook pager is disabled"));
    let file = fs::read_to_string(pintle.config_path()).unwrap();
    fs::write(pintle.config_path(), format!("{file}\n[[sight]]\n")).unwrap();
    pintle.reload_fails();
    bed.reaches("pintle_hook_events_dropped_total{hook=\"pager\"}", 2.0);
    assert_eq!(receiver.got().len(), 1);
    fs::write(pintle.config_path(), file).unwrap();
    pintle.reload();
    // It is tried again.
    receiver.of_kind("config.loaded", 1);
}

/// A reload that corrects a hook brings the events that could not be delivered.
#[test]
fn a_corrected_hook_gets_the_events_that_wait() {
    let bed = Bed::new();
    let receiver = Receiver::start(&bed.leaf, |_, delivery| {
        let is_right = delivery.target.contains("/right");
        (if is_right { "204 No Content" } else { "404 Not Found" }).to_owned()
    });
    let hook = bed.hook(&format!("https://{}/wrong", receiver.address), "name = \"pager\"\nretry = [\"1h\"]");
    let pintle = bed.start(&hook);
    bed.reaches("pintle_hook_attempts_failed_total{hook=\"pager\"}", 1.0);
    let file = fs::read_to_string(pintle.config_path()).unwrap();
    fs::write(pintle.config_path(), file.replace("/wrong", "/right")).unwrap();
    pintle.reload();
    let got = receiver.of_kind("process.started", 2);
    assert_eq!(got[0].id(), got[1].id());
    // No counter falls with the change.
    bed.reaches("pintle_hook_events_delivered_total{hook=\"pager\"}", 1.0);
    bed.reaches("pintle_hook_attempts_failed_total{hook=\"pager\"}", 1.0);
}

/// A receiver that accepts and never answers delays no request; the queue stays within its bound.
#[test]
fn a_dead_receiver_delays_nothing() {
    let bed = Bed::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", silent.local_addr().unwrap());
    let hook = bed.hook(&url, "events = [\"config.*\"]\nname = \"pager\"");
    let pintle = bed.start(&format!("[limits]\nhook_queue = 2\nhook_timeout = \"1s\"\n{hook}"));
    let file = fs::read_to_string(pintle.config_path()).unwrap();
    let client = Client::new(&bed.authority);
    for _ in 0..5 {
        fs::write(pintle.config_path(), format!("{file}\n[[sight]]\n")).unwrap();
        pintle.reload_fails();
        thread::sleep(std::time::Duration::from_millis(1200));
        assert_eq!(client.get(pintle.https(), BLOG, "/").status, 200);
        assert!(bed.value("pintle_hook_events_waiting{hook=\"pager\"}").unwrap() <= 2.0);
    }
    bed.reaches("pintle_hook_events_dropped_total{hook=\"pager\"}", 1.0);
    bed.reaches("pintle_hook_attempts_failed_total{hook=\"pager\"}", 1.0);
    fs::write(pintle.config_path(), file).unwrap();
    assert!(pintle.status()["attention"].to_string().contains("the hook pager fails"));
    assert_eq!(pintle.log_json("hook failed").iter().filter(|line| line["level"] == "WARN").count(), 1);
    assert_eq!(pintle.stop(), 0);
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn a_program_gets_events_outside_the_sandbox() {
    let bed = Bed::new();
    let seen = bed.folder.path().join("seen");
    let text = format!(
        "#!/bin/sh\nread -r event\nprintf '%s %s %s\\n' \"$PINTLE_EVENT\" \"$PINTLE_EVENT_ID\" \"$event\" >> {seen:?}\n\
         echo \"a word from the program\" >&2\n[ $(wc -l < {seen:?}) -ne 1 ]\n"
    );
    let program = bed.write("on-event", &text, 0o755);
    let slow = bed.write("slow", "#!/bin/sh\nsleep 60 & wait\n", 0o755);
    let hooks = format!(
        "[sandbox]\n[limits]\nhook_timeout = \"1s\"\n[[hook]]\nevents = [\"process.*\"]\ncommand = {program:?}\n\
         retry = [\"100ms\"]\n[[hook]]\nevents = [\"process.started\"]\ncommand = {slow:?}\nretry = []\n"
    );
    let mut pintle = bed.start(&hooks);
    // The first run failed, and its event came again.
    let found = eventually("two runs", || Some(lines(&seen)).filter(|lines| lines.len() >= 2));
    let words: Vec<Vec<&str>> = found.iter().map(|line| line.splitn(3, ' ').collect()).collect();
    assert_eq!((words[0][0], &words[0]), ("process.started", &words[1]));
    let event: Value = serde_json::from_str(words[0][2]).unwrap();
    assert_eq!((&event["type"], &event["data"]["pid"]), (&"process.started".into(), &pintle.pid().into()));
    pintle.logs("a word from the program");
    bed.reaches("pintle_hook_events_dropped_total{hook=\"slow\"}", 1.0);
    pintle.logs("killed after 1 s (limits.hook_timeout)");
    bed.reaches("pintle_hook_events_delivered_total{hook=\"on-event\"}", 1.0);
    // Another program needs an upgrade.
    let third = bed.write("third", "#!/bin/sh\n", 0o755);
    pintle.rewrite(|text| text.replace(&format!("{slow:?}"), &format!("{third:?}")));
    assert!(pintle.reload().contains("hook.command has changed: it takes effect at the next start"));
    let (code, out, err) = outcome(&mut pintle.command("hook test third"));
    assert_eq!(code, 1, "{err}");
    assert!(out.contains("third: failed: pintle started without this program"), "{out}");
    pintle.signal("TERM");
    eventually("the end is an event, too", || {
        lines(&seen).get(2).filter(|l| l.starts_with("process.stopping")).map(|_| ())
    });
    pintle.wait();
}

#[test]
fn hooks_are_tested_by_hand() {
    let bed = Bed::new();
    let receiver = Receiver::start(&bed.leaf, |_, delivery| match delivery.target.contains("/bad") {
        true => "401 Unauthorized".into(),
        false => "200 OK".into(),
    });
    let bad = format!("https://{}/bad", receiver.address);
    let hooks = bed.hook(&receiver.url(), "events = [\"clock.*\"]\nname = \"good\"")
        + &bed.hook(&bad, "events = [\"clock.*\"]\nname = \"bad\"");
    let pintle = bed.start(&hooks);
    assert_eq!(output(&mut pintle.command("hook test good")), "good: delivered\n");
    let (code, out, _) = outcome(&mut pintle.command("hook test"));
    assert_eq!((code, out.as_str()), (1, "good: delivered\nbad: failed: status 401\n"));
    let (code, out, _) = outcome(pintle.command("hook test bad").arg("--json"));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["hooks"][0]["error"]), (1, &"status 401".into()));
    let (code, _, err) = outcome(&mut pintle.command("hook test goot"));
    assert_eq!(code, 1);
    assert!(err.contains("no hook is called \"goot\"") && err.contains("did you mean \"good\"?"), "{err}");
    let tests = receiver.of_kind("hook.test", 4);
    assert!(tests.iter().all(|delivery| delivery.is_signed_with(SECRET)));
    // A test is no delivery, and no failure either.
    assert_eq!(bed.value("pintle_hook_attempts_failed_total{hook=\"bad\"}"), Some(0.0));
    assert!(!pintle.status()["attention"].to_string().contains("hook"));
    let other = Bed::new();
    let plain = other.start("");
    let (code, _, err) = outcome(&mut plain.command("hook test"));
    assert!(code == 1 && err.contains("has no hooks"), "{err}");
}

#[test]
fn a_hook_without_a_name_is_tested_by_its_default_name() {
    let bed = Bed::new();
    let program = bed.write("on event", "#!/bin/sh\n", 0o755);
    let pintle = bed.start(&format!("[[hook]]\nevents = [\"clock.*\"]\ncommand = {program:?}\n"));
    assert_eq!(output(&mut pintle.command("hook test on-event")), "on-event: delivered\n");
}

/// Both processes of an upgrade send events; no id is used twice.
#[test]
fn an_upgrade_sends_its_end_and_its_start() {
    let bed = Bed::new();
    let receiver = Receiver::start(&bed.leaf, |_, _| "200 OK".into());
    let pintle = bed.start(&bed.hook(&receiver.url(), "events = [\"process.*\"]"));
    receiver.of_kind("process.started", 1);
    output(&mut pintle.command("upgrade"));
    receiver.of_kind("process.stopping", 1);
    let started = receiver.of_kind("process.started", 2);
    assert_ne!(started[0].json()["data"]["pid"], started[1].json()["data"]["pid"]);
    let mut ids: Vec<String> = receiver.got().iter().map(|delivery| delivery.id().to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    let pid = started[1].json()["data"]["pid"].to_string();
    assert!(send_signal("TERM", pid));
}

#[test]
fn check_names_what_is_wrong_with_a_hook() {
    let bed = Bed::new();
    let origin = Origin::hello();
    let site = blog(&bed.authority, &origin);
    let check = |hooks: &str, want: &[&str]| {
        let config = bed.write("pintle.toml", &format!("{}{hooks}{site}", bed.state()), 0o644);
        let (code, out, err) = outcome(pintle().args(["check", "-c"]).arg(config));
        let said = format!("{out}{err}");
        assert_eq!(code == 0, want.iter().all(|w| w.starts_with("warning")), "{hooks}\n{said}");
        for want in want {
            assert!(said.contains(want), "{hooks}\nwithout {want:?}\n{said}");
        }
        if want.is_empty() {
            assert!(!said.contains("hook"), "{said}");
        }
    };
    let url = "https://hooks.example.com/x";
    check(&bed.hook(url, ""), &[]);
    check(&bed.hook(url, "events = [\"certificate.*\", \"upstream.down\", \"*\"]\nretry = [\"1m\", 5]"), &[]);
    check(
        &bed.hook(url, "events = [\"certificate.renewd\"]"),
        &["hook.events: unknown event \"certificate.renewd\"", "did you mean \"certificate.renewed\"?"],
    );
    check(&bed.hook(url, "events = [\"certificates.*\"]"), &["did you mean \"certificate.*\"?"]);
    check(&bed.hook(url, "events = [\"hook.test\"]"), &["unknown event \"hook.test\""]);
    check(&bed.hook(url, "events = []"), &["hook.events: must not be empty"]);
    check(&bed.hook(url, "event = []"), &["hook.event: unknown key", "did you mean \"events\"?"]);
    check(&bed.hook(url, "retry = [\"8d\"]"), &["hook.retry: a pause must be at most 7d"]);
    check(&bed.hook(url, "name = \"a b\""), &["hook.name: \"a b\""]);
    let named = bed.hook(url, "name = \"a\"");
    check(&format!("{named}{named}"), &["hook.name: another hook is called \"a\""]);
    check(&format!("{}{}", bed.hook(url, ""), bed.hook(url, "")), &[]);
    check(&bed.hook("http://hooks.example.com/", ""), &["warning: hook.url: everybody on the way"]);
    check(&bed.hook("http://[::1]:9/", ""), &[]);
    for wrong in ["ftp://a.example/", "hooks.example.com", "https://"] {
        check(&bed.hook(wrong, ""), &["hook.url: "]);
    }
    check(&bed.hook("https://user:geheim@a.example/", ""), &["hook.url: a name and a password"]);
    check(&format!("[[hook]]\nurl = \"{url}\"\n"), &["hook.secret_file: is missing", "openssl rand -base64 32"]);
    check("[[hook]]\n", &["hook: url or command is missing"]);
    check("[[hook]]\ncommand = \"none\"\n", &["hook.command: ", "no such file"]);
    bed.write("program", "#!/bin/sh\n", 0o644);
    check("[[hook]]\ncommand = \"program\"\n", &["not executable", "chmod +x"]);
    bed.write("program", "#!/bin/sh\n", 0o755);
    check("[[hook]]\ncommand = \"program\"\n", &[]);
    check(&bed.hook(url, "command = \"program\""), &["hook: url and command"]);
    check("[[hook]]\ncommand = \"program\"\nsecret_file = \"x\"\n", &["hook.secret_file: has no effect with command"]);
    for text in ["", "topsecret", "whsec_dG9wc2VjcmV0", &format!("{SECRET}\n{SECRET}\n{SECRET}\n")] {
        bed.write("hook.secret", text, 0o600);
        check(&bed.hook(url, ""), &["hook.secret_file: ", "openssl rand"]);
        let config = bed.folder.path().join("pintle.toml");
        let (_, out, err) = outcome(pintle().args(["check", "-c"]).arg(config));
        assert!(!format!("{out}{err}").contains("dG9wc2VjcmV0") && !format!("{out}{err}").contains("topsecret"));
    }
    bed.write("hook.secret", SECRET, 0o644);
    check(&bed.hook(url, ""), &["warning: hook.secret_file: ", "warning: "]);
    bed.write("hook.secret", SECRET, 0o640);
    check(&bed.hook(url, ""), &["warning: hook.secret_file: "]);
}
