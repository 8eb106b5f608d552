//! A CA with faults of the test's choice: a proxy in front of pebble. It passes all requests on, counts them, and
//! answers some itself, or changes pebble's answer.
//!
//! One fault is pebble's own: it finds no predecessor of an order whose serial number begins with a zero byte in DER, one
//! certificate in 256. pintle then orders again without `replaces`. Such a request is none for the test: no rule is spent
//! on it, and no count has it. With `PINTLE_TEST_ZERO_SERIALS=1`, every serial number is such a one.

#![allow(dead_code, reason = "a rig whole, for tests that come and go")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::pebble::Pebble;
use super::{Authority, Client, read_head, server_config};

/// The field of a request by the rig itself: passed on, neither counted nor answered by a rule.
pub const OF_RIG: &str = "x-rig";

/// A request of the protocol, recognised by pebble's paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Directory,
    Nonce,
    NewAccount,
    /// The account's own URL: contact, deactivation.
    Account,
    KeyChange,
    NewOrder,
    /// A look at an order.
    Order,
    Authorization,
    Challenge,
    Finalize,
    Certificate,
    Revoke,
    RenewalInfo,
    Other,
}

impl Step {
    fn of(path: &str) -> Self {
        let begins = [
            ("/dir", Self::Directory),
            ("/nonce-plz", Self::Nonce),
            ("/sign-me-up", Self::NewAccount),
            ("/my-account/", Self::Account),
            ("/rollover-account-key", Self::KeyChange),
            ("/order-plz", Self::NewOrder),
            ("/my-order/", Self::Order),
            ("/authZ/", Self::Authorization),
            ("/chalZ/", Self::Challenge),
            ("/finalize-order/", Self::Finalize),
            ("/certZ/", Self::Certificate),
            ("/revoke-cert", Self::Revoke),
        ];
        let found = begins.into_iter().find(|(begin, _)| path.starts_with(begin)).map(|(_, step)| step);
        found.unwrap_or_else(|| if path.contains("/renewalInfo/") { Self::RenewalInfo } else { Self::Other })
    }
}

/// The requests of a step that a rule is about.
#[derive(Debug, Clone, Copy)]
pub enum When {
    Always,
    /// The n-th from now on; 1 is the next one.
    Nth(usize),
    /// The next n.
    Next(usize),
}

pub type Edit = dyn Fn(&mut Value) + Send + Sync;
pub type EditText = dyn Fn(&mut String, &mut Vec<String>) + Send + Sync;

/// The answer to such a request.
#[derive(Clone)]
pub enum Act {
    /// The double answers; pebble never sees the request.
    Answer(Answer),
    /// pebble answers, and the function changes the JSON of that.
    Edit(Arc<Edit>),
    /// pebble answers, and the function changes body and header lines (each without its CRLF).
    EditText(Arc<EditText>),
    /// pebble gets the request only after this time.
    Late(Duration),
    /// pebble gets the request; the connection ends without an answer.
    Lose,
    /// The connection ends at once; pebble never sees the request.
    Drop,
    /// No answer for this long, then the connection ends; pebble never sees the request.
    Hang(Duration),
}

/// An answer of the double's own.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    lines: Vec<String>,
    body: String,
}

impl Answer {
    pub fn new(status: u16, content_type: &str, body: impl Into<String>) -> Self {
        Self { status, lines: vec![format!("Content-Type: {content_type}")], body: body.into() }
    }

    /// A problem (RFC 7807) of ACME, by the last part of its type, e.g. `rateLimited`.
    pub fn problem(status: u16, kind: &str, detail: &str) -> Self {
        let problem =
            json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status });
        Self::new(status, "application/problem+json", problem.to_string())
    }

    /// A `compound` problem with a subproblem for each name: name, kind, detail.
    pub fn compound(status: u16, parts: &[(&str, &str, &str)]) -> Self {
        let part = |(name, kind, detail): &(&str, &str, &str)| {
            json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail,
                    "identifier": { "type": "dns", "value": name } })
        };
        let problem = json!({ "type": "urn:ietf:params:acme:error:compound", "detail": "several names failed",
                              "status": status, "subproblems": parts.iter().map(part).collect::<Vec<_>>() });
        Self::new(status, "application/problem+json", problem.to_string())
    }

    /// Adds a header line.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.lines.push(format!("{name}: {value}"));
        self
    }
}

/// Lets an authorization be invalid because of this problem: rules for [`Step::Authorization`].
pub fn invalid(kind: &'static str, detail: &'static str) -> Act {
    Act::Edit(Arc::new(move |authorization| {
        authorization["status"] = "invalid".into();
        for challenge in authorization["challenges"].as_array_mut().into_iter().flatten() {
            challenge["status"] = "invalid".into();
            challenge["error"] =
                json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": 403 });
        }
    }))
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub step: Step,
    pub method: String,
    pub path: String,
    /// The header lines.
    pub head: String,
    /// The payload of the JWS; nothing, if it is empty or there is none.
    pub payload: Value,
    /// The protected header of the JWS.
    pub protected: Value,
    pub at: tokio::time::Instant,
    /// `true` if pebble did not find the certificate that the order replaces.
    found_no_predecessor: bool,
}

struct Rule {
    step: Step,
    when: When,
    seen: usize,
    act: Act,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    asked: Vec<Asked>,
}

/// The place of pebble, as seen by the double.
struct Behind {
    client: Client,
    upstream: SocketAddr,
    finds_no_predecessor: bool,
}

/// `true` if pebble finds no certificate that an order replaces, as for those 1 in 256.
pub fn has_zero_serials() -> bool {
    std::env::var_os("PINTLE_TEST_ZERO_SERIALS").is_some()
}

/// pebble's problem if it does not find the certificate that an order replaces.
pub const NO_PREDECESSOR: &str = "could not find an order for the given certificate";

/// A running double. Its threads end with the test's process.
pub struct Double {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Double {
    /// In front of this pebble, under a certificate of the same authority.
    #[track_caller]
    pub fn before(pebble: &Pebble) -> Self {
        Self::start(&pebble.authority, pebble.address(), has_zero_serials())
    }

    /// In front of the pebble at this address, which finds no predecessor of any order if that is `true`.
    #[track_caller]
    pub fn start(authority: &Authority, upstream: SocketAddr, finds_no_predecessor: bool) -> Self {
        let leaf = authority.leaf("double", &["localhost", "127.0.0.1"]);
        let config = server_config(&leaf, &[]);
        let behind = Arc::new(Behind { client: Client::new(authority), upstream, finds_no_predecessor });
        let state = Arc::<Mutex<State>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = state.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (config, behind, state) = (config.clone(), behind.clone(), shared.clone());
                thread::spawn(move || {
                    let session = ServerConnection::new(config).map_err(io::Error::other)?;
                    serve(StreamOwned::new(session, socket), &behind, &state)
                });
            }
        });
        Self { address, state }
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.address.port())
    }

    /// Adds a rule; of several that fit, the newest one counts.
    pub fn on(&self, step: Step, when: When, act: Act) {
        self.state.lock().unwrap().rules.push(Rule { step, when, seen: 0, act });
    }

    /// The same, with an answer.
    pub fn answer(&self, step: Step, when: When, answer: Answer) {
        self.on(step, when, Act::Answer(answer));
    }

    /// Lets the renewal information of every certificate be this text, whatever it is, also with a pebble that has none.
    pub fn set_renewal_info(&self, status: u16, text: &str, lines: &[(&str, &str)]) {
        let mut answer = Answer::new(status, "application/json", text);
        for (name, value) in lines {
            answer = answer.with(name, value);
        }
        self.answer(Step::RenewalInfo, When::Always, answer);
        let url = format!("https://localhost:{}/ari/renewalInfo", self.address.port());
        self.on(Step::Directory, When::Always, Act::Edit(Arc::new(move |d| d["renewalInfo"] = url.clone().into())));
    }

    /// Removes all rules.
    pub fn behave(&self) {
        self.state.lock().unwrap().rules.clear();
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Asked> {
        let state = self.state.lock().unwrap();
        state.asked.iter().filter(|asked| !asked.found_no_predecessor).cloned().collect()
    }

    /// The number of requests of this step.
    pub fn count(&self, step: Step) -> usize {
        self.requests().iter().filter(|asked| asked.step == step).count()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- requests to the CA");
            for asked in &self.state.lock().unwrap_or_else(PoisonError::into_inner).asked {
                let (ago, method, path) = (asked.at.elapsed(), &asked.method, &asked.path);
                let replaces =
                    asked.payload["replaces"].as_str().map(|id| format!(" replaces {id}")).unwrap_or_default();
                let lost = if asked.found_no_predecessor { " (which pebble does not find)" } else { "" };
                eprintln!("{:6.2} s ago: {method} {path}{replaces}{lost}", ago.as_secs_f64());
            }
        }
    }
}

impl State {
    /// Notes a request, and gives its number and what happens to it.
    fn note(&mut self, asked: Asked) -> (usize, Option<Act>) {
        let step = asked.step;
        self.asked.push(asked);
        let mut chosen = None;
        for rule in self.rules.iter_mut().filter(|rule| rule.step == step) {
            rule.seen += 1;
            let fits = match rule.when {
                When::Always => true,
                When::Nth(n) => rule.seen == n,
                When::Next(n) => rule.seen <= n,
            };
            if fits {
                chosen = Some(rule.act.clone());
            }
        }
        (self.asked.len() - 1, chosen)
    }

    /// Takes back a request for which pebble finds no predecessor.
    fn take_back(&mut self, number: usize) {
        let asked = &mut self.asked[number];
        asked.found_no_predecessor = true;
        for rule in self.rules.iter_mut().filter(|rule| rule.step == asked.step) {
            rule.seen = rule.seen.saturating_sub(1);
        }
    }
}

impl Behind {
    /// Sends a request to pebble, and reads its answer to the end.
    fn pass_on(&self, head: &str, body: &[u8]) -> io::Result<Response> {
        pass_on(&self.client, self.upstream, head, body)
    }

    /// The same for an order that names its predecessor, if pebble does not find any: it gets a request that it refuses.
    fn refuse(&self, head: &str, body: &[u8]) -> io::Result<Response> {
        let (_, lines, _) = self.pass_on(head, &vec![b' '; body.len()])?;
        let problem = Answer::problem(500, "serverInternal", &format!("{NO_PREDECESSOR}: as the test wants"));
        Ok((problem.status, lines, problem.body))
    }
}

/// Serves one request; then the connection ends.
fn serve(
    mut stream: StreamOwned<ServerConnection, TcpStream>,
    behind: &Behind,
    state: &Mutex<State>,
) -> io::Result<()> {
    let (head, body) = receive(&mut stream)?;
    if head.lines().any(|line| line.starts_with(OF_RIG)) {
        return send(&mut stream, &behind.pass_on(&head, &body)?);
    }
    let asked = asked(&head, &body);
    let has_predecessor = asked.step == Step::NewOrder && asked.payload["replaces"].is_string();
    let (number, act) = state.lock().unwrap().note(asked);
    let pass = || -> io::Result<Response> {
        if has_predecessor && behind.finds_no_predecessor {
            return behind.refuse(&head, &body);
        }
        behind.pass_on(&head, &body)
    };
    // pebble's own fault comes first: the test's rules are about orders that pebble can make.
    let reaches_pebble = !matches!(act, Some(Act::Answer(_) | Act::Drop | Act::Hang(_)));
    let mut early = None;
    if has_predecessor && reaches_pebble {
        let response = pass()?;
        if response.0 == 500 && response.2.contains(NO_PREDECESSOR) {
            state.lock().unwrap().take_back(number);
            return send(&mut stream, &response);
        }
        early = Some(response);
    }
    let pass = || early.map_or_else(pass, Ok);
    match act {
        None => send(&mut stream, &pass()?),
        Some(Act::Answer(answer)) => {
            let nonce = behind.pass_on("HEAD /nonce-plz HTTP/1.1\r\nHost: localhost\r\n", b"")?;
            let nonce = nonce.1.iter().find(|line| line.to_ascii_lowercase().starts_with("replay-nonce:")).cloned();
            let lines = answer.lines.iter().cloned().chain(nonce).collect();
            send(&mut stream, &(answer.status, lines, answer.body))
        }
        Some(Act::Edit(change)) => {
            let (status, lines, body) = pass()?;
            let mut value: Value = serde_json::from_str(&body).unwrap_or_default();
            change(&mut value);
            send(&mut stream, &(status, lines, value.to_string()))
        }
        Some(Act::EditText(change)) => {
            let (status, mut lines, mut body) = pass()?;
            change(&mut body, &mut lines);
            send(&mut stream, &(status, lines, body))
        }
        Some(Act::Late(time)) => {
            thread::sleep(time);
            send(&mut stream, &pass()?)
        }
        Some(Act::Lose) => pass().map(drop),
        Some(Act::Drop) => Ok(()),
        Some(Act::Hang(time)) => {
            thread::sleep(time);
            Ok(())
        }
    }
}

/// Reads a request: its head without the last empty line, and its body.
fn receive(stream: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let mut head = read_head(stream)?;
    head.truncate(head.len() - 2);
    let mut body = vec![0; length(&head)];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}

fn length(head: &str) -> usize {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().map_or(0, |(_, value)| value.trim().parse().unwrap())
}

fn asked(head: &str, body: &[u8]) -> Asked {
    let mut words = head.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let jws: Value = serde_json::from_slice(body).unwrap_or_default();
    let part = |name: &str| -> Value {
        let bytes = jws[name].as_str().and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    };
    let (payload, protected) = (part("payload"), part("protected"));
    let step = Step::of(&path);
    let at = tokio::time::Instant::now();
    Asked { step, method, path, head: head.to_owned(), payload, protected, at, found_no_predecessor: false }
}

type Response = (u16, Vec<String>, String);

/// Sends a request to pebble, and reads its answer to the end: HTTP/1.0, so that there are no chunks.
fn pass_on(client: &Client, upstream: SocketAddr, head: &str, body: &[u8]) -> io::Result<Response> {
    let mut connection = client.try_connect(upstream, "localhost")?;
    let kept: Vec<_> = head.lines().skip(1).filter(|l| !l.to_ascii_lowercase().starts_with("connection:")).collect();
    let line = head.lines().next().unwrap_or_default().replace("HTTP/1.1", "HTTP/1.0");
    connection.send([format!("{line}\r\n{}\r\n\r\n", kept.join("\r\n")).as_bytes(), body].concat());
    let answer = String::from_utf8(connection.read_to_end().0).map_err(io::Error::other)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other(answer.clone()))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok()).ok_or_else(|| io::Error::other(""))?;
    Ok((status, lines.map(str::to_owned).collect(), body.to_owned()))
}

fn send(stream: &mut StreamOwned<ServerConnection, TcpStream>, (status, lines, body): &Response) -> io::Result<()> {
    let skipped = ["connection:", "content-length:", "transfer-encoding:"];
    let mut head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for line in lines.iter().filter(|l| !skipped.iter().any(|s| l.to_ascii_lowercase().starts_with(s))) {
        head += line;
        head += "\r\n";
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}
