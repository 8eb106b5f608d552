//! The report says what the server does: generated configurations and requests, asked of `pintle explain` and sent to the
//! same process.
//!
//! `PINTLE_EXPLAIN` is the number of requests; `tests/explain` asks for more of them. A failure prints its seed, and
//! `PINTLE_EXPLAIN_SEED` plays it again.

use std::io::Write as _;
use std::net::{IpAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;

use pintle::tls::{KeyTypes, Possession};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio_rustls::TlsConnector;

use crate::harness::{Authority, Client, Connection, Origin, PATIENCE, Pintle, Reply, Response, free_port, output};
use crate::model::random::Random;

/// Requests to one configuration.
const REQUESTS: usize = 24;

/// Fields that HTTP/2 forbids, or that its clients make themselves.
const OF_HTTP1: [&str; 8] =
    ["host", "connection", "keep-alive", "upgrade", "proxy-connection", "transfer-encoding", "content-length", "x-hop"];

/// Fields of responses that depend on the time and the connection.
const VARYING: [&str; 4] = ["date", "content-length", "connection", "transfer-encoding"];

/// The fields of every response of the origin.
const RESPONSE: [(&str, &str); 6] = [
    ("Content-Type", "text/plain"),
    ("Server", "Apache"),
    ("X-Powered-By", "PHP"),
    ("Strict-Transport-Security", "max-age=5"),
    ("Public-Key-Pins", "pin-sha256=\"x\""),
    ("Set-Cookie", "a=b; Path=/"),
];

/// Each of these once in so many times.
fn some(of: &[&str], times: u64, random: &mut Random) -> Vec<String> {
    of.iter().filter(|_| random.once_in(times)).map(|one| (*one).to_owned()).collect()
}

/// A client that accepts any chain: a listener may show the default site's.
fn accepting(protocol: &str) -> ClientConfig {
    let mut config = Possession::of_any(KeyTypes::Any).client().unwrap();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    config
}

struct Ports {
    https: u16,
    http: u16,
}

fn listen(random: &mut Random, ports: &Ports) -> String {
    let mut text = format!(
        "[listen]\nhttps = [\"127.0.0.1:{}\"]\nhttp = [\"127.0.0.1:{}\"]\nworkers = 1\n",
        ports.https, ports.http
    );
    text += *random.pick(&[
        "",
        "trusted_proxies = [\"127.0.0.0/8\"]\n",
        "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n",
    ]);
    if text.contains("trusted") {
        text += *random.pick(&[
            "",
            "trust = \"forwarded\"\n",
            "proxy_protocol = true\n",
            "trust = \"proxy\"\nproxy_protocol = true\n",
        ]);
        text += *random.pick(&["", "health_path = \"/up\"\n"]);
    }
    text += *random.pick(&["", "", "public_https_port = 443\n", "public_https_port = 4443\n"]);
    text + *random.pick(&["", "error_details = \"everybody\"\n"])
}

fn policies(random: &mut Random, authority: &Authority) -> String {
    let (next, spare) = (authority.public_key("next"), authority.public_key("spare"));
    let mut text = String::new();
    text += *random.pick(&[
        "",
        "[site.hsts]\nmax_age = \"1y\"\n",
        "[site.hsts]\nmax_age = \"1d\"\nupstream = \"keep\"\n",
        "[site.hsts]\nmax_age = 0\n",
    ]);
    let mode = *random.pick(&["", "enforce", "report-only", "withdraw"]);
    if !mode.is_empty() {
        text += &format!(
            "[site.hpkp]\nmode = \"{mode}\"\nmax_age = \"30d\"\nbackups = [{next:?}, {spare:?}]\nreport_uri = \
             \"https://reports.example.net/\"\n"
        );
    }
    text += *random.pick(&[
        "",
        "[site.request_headers]\nset = { \"X-Edge\" = \"pintle\", \"Accept\" = \"*/*\" }\nremove = [\"X-Debug\", \"cookie\"]\n",
        "[site.request_headers]\nadd = { \"X-Debug\" = \"2\" }\n",
    ]);
    text + *random.pick(&[
        "",
        "[site.response_headers]\nset = { \"X-Content-Type-Options\" = \"nosniff\", \"Server\" = \"x\" }\nremove = \
         [\"X-Powered-By\"]\n",
        "[site.response_headers]\nadd = { \"X-Test\" = \"1\" }\nremove = [\"Server\", \"Set-Cookie\"]\n",
    ])
}

fn config(random: &mut Random, authority: &Authority, origin: &Origin, state: &std::path::Path) -> String {
    let site = |name: &str, hosts: &[&str]| {
        let leaf = authority.leaf(name, hosts);
        let certificate = format!("[site.certificate]\nchain = {:?}\nkey = {:?}\n", leaf.chain, leaf.key);
        (format!("[[site]]\nhosts = {hosts:?}\nupstream = {:?}\n", origin.url()), certificate)
    };
    let mut text = format!("[state]\ndirectory = {state:?}\n");
    text += *random.pick(&["", "", "[tls]\nunknown_name = \"default\"\ndefault_site = \"a.example\"\n"]);
    text += *random.pick(&["", "[reports]\nhost = \"a.example\"\npath = \"/pins\"\n"]);
    text += *random.pick(&["", "[limits]\nrequest_line = 256\nheader_count = 12\nrequest_body = 2\n"]);
    let (head, certificate) = site("a", &["a.example", "www.a.example"]);
    text += &head;
    text += *random.pick(&["", "canonical_redirect = true\n"]);
    text += *random.pick(&[
        "",
        "[site.upstream_options]\nhost_header = \"client\"\n",
        "[site.upstream_options]\nhost_header = \"inner.example\"\n",
    ]);
    text += &certificate;
    text += &policies(random, authority);
    let (head, certificate) = site("b", &["*.b.example", "b.example"]);
    text += &(head + &certificate + &policies(random, authority));
    // An address, which no SNI can carry.
    if random.once_in(2) {
        let (head, certificate) = site("address", &["127.0.0.1"]);
        text += &(head + &certificate + &policies(random, authority));
    }
    // TLS ends in front of pintle.
    if random.once_in(2) {
        let (head, certificate) = site("c", &["c.example"]);
        let chain = certificate.lines().take(2).collect::<Vec<_>>().join("\n");
        text += &(head + &chain + "\n" + &policies(random, authority));
    }
    // Its files are missing: pintle serves it without TLS.
    if random.once_in(2) {
        let (head, _) = site("e", &["e.example"]);
        let certificate = "[site.certificate]\nchain = \"/nonexistent/e.pem\"\nkey = \"/nonexistent/e.key\"\n";
        text += &(head + certificate + &policies(random, authority));
    }
    text
}

/// A request, as a client sends it.
#[derive(Debug)]
struct Request {
    tls: bool,
    http2: bool,
    /// The name in SNI.
    sni: String,
    name: String,
    method: &'static str,
    target: String,
    fields: Vec<(String, String)>,
    proxy: Option<String>,
    body: &'static str,
}

fn request(random: &mut Random, number: usize, ports: &Ports) -> Request {
    let tls = random.index(3) > 0;
    let names = [
        "a.example",
        "www.a.example",
        "x.b.example",
        "b.example",
        "x.y.b.example",
        "other.example",
        "127.0.0.1",
        "c.example",
        "e.example",
    ];
    let name = (*random.pick(&names)).to_owned();
    let port = if tls { ports.https } else { ports.http };
    let host = match random.index(12) {
        0 => (*random.pick(&names)).to_owned(),
        1 => format!("{name}:{port}"),
        2 => format!("{name}:77"),
        3 => name.to_uppercase(),
        4 => format!("{name}."),
        5 => "a..b".to_owned(),
        _ => name.clone(),
    };
    let own = format!("/p{number}");
    let long = format!("/p{number}?{}", "x".repeat(300));
    let query = format!("/p{number}?a=%20&b=ü");
    let query = query.replace('ü', "%C3%BC");
    let targets = [&*own, &own, &own, &long, &query, "/up", "/pins", "/.well-known/acme-challenge/abc"];
    let target = (*random.pick(&targets)).to_owned();
    let method = *random.pick(&["GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "TRACE", "PUT", "DELETE"]);
    let pool = [
        "X-Forwarded-Proto: https",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Proto: https, http",
        "X-Forwarded-For: 198.51.100.1, 127.0.0.2",
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-Host: www.a.example",
        "X-Forwarded-Port: 1",
        "Forwarded: for=192.0.2.5;proto=https;host=a.example",
        "Forwarded: for=10.0.0.1;proto=http, for=\"[2001:db8::1]\"",
        "X-Real-IP: 1.2.3.4",
        "X_Forwarded_Proto: https",
        "CF-Connecting-IP: 1.2.3.4",
        "X-Debug: 1",
        "x-debug: 2",
        "X-Edge: mine",
        "Accept: text/html",
        "Cookie: a=b",
        "Cookie: c=d",
        "TE: trailers",
        "Connection: keep-alive, X-Hop",
        "X-Hop: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Authorization: x",
        "Via: 1.1 pintle, 1.0 other",
        "Max-Forwards: 0",
        "Alt-Used: x",
    ];
    let mut lines = some(&pool, 6, random);
    let faults = ["Expect: wonders", "Via: 1 pintle, 1 pintle, 1 pintle, 1 pintle, 1 pintle", "Host: again"];
    lines.extend(some(&faults, 30, random));
    if random.once_in(12) {
        let upgrade =
            ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x"];
        lines.extend(upgrade.map(str::to_owned));
    }
    let mut body = "";
    if matches!(method, "POST" | "PUT") {
        let (line, sent) = [
            ("Content-Length: 3", "abc"),
            ("Content-Length: 0", ""),
            ("Transfer-Encoding: chunked", "1\r\na\r\n0\r\n\r\n"),
            ("Content-Length: x", ""),
        ][random.index(4)];
        lines.push(line.to_owned());
        body = sent;
    }
    lines.insert(0, format!("Host: {host}"));
    let pair = |line: String| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    let proxies = [
        "PROXY TCP4 192.0.2.9 127.0.0.1 5 443",
        "PROXY TCP4 127.0.0.9 127.0.0.1 5 443",
        "PROXY UNKNOWN",
        "PROXY WRONG",
        "",
    ];
    let proxy = Some(*random.pick(&proxies)).filter(|proxy| !proxy.is_empty());
    let mut fields: Vec<(String, String)> = lines.into_iter().map(pair).collect();
    let http2 = tls && random.once_in(3);
    let mut sni = name.clone();
    if http2 {
        fields.retain(|(name, _)| !OF_HTTP1.contains(&name.to_ascii_lowercase().as_str()));
        // Over a connection that was opened for another name.
        if random.once_in(3) {
            let other = *random.pick(&names);
            // SNI carries no address.
            sni = if other.parse::<IpAddr>().is_err() { other.to_owned() } else { sni };
        }
        body = "";
    }
    Request { tls, http2, sni, name, method, target, fields, proxy: proxy.map(str::to_owned), body }
}

impl Request {
    /// The arguments of `pintle explain`.
    fn arguments(&self) -> Vec<String> {
        let scheme = if self.tls { "https" } else { "http" };
        let mut arguments = vec![format!("{scheme}://{}{}", self.name, self.target)];
        let mut add = |list: &[&str]| arguments.extend(list.iter().map(|text| (*text).to_owned()));
        add(&["--from", "127.0.0.1", "--method", self.method, "--json"]);
        for (name, value) in &self.fields {
            add(&["-H", &format!("{name}: {value}")]);
        }
        for (name, value) in RESPONSE {
            add(&["--response-header", &format!("{name}: {value}")]);
        }
        if let Some(proxy) = &self.proxy {
            add(&["--proxy", proxy]);
        }
        if self.http2 {
            add(&["--http2"]);
            if self.sni.parse::<IpAddr>().is_err() {
                add(&["--sni", &self.sni]);
            }
        }
        arguments
    }

    /// Sends it. `None` if the connection ends without a response.
    fn send(&self, client: &Client, pintle: &Pintle, with_proxy: bool) -> Option<Response> {
        let address = if self.tls { pintle.https() } else { pintle.http() };
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        if let Some(proxy) = self.proxy.as_ref().filter(|_| with_proxy) {
            socket.write_all(format!("{proxy}\r\n").as_bytes()).unwrap();
        } else if with_proxy {
            // Something else than a header.
            socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        }
        let mut connection = match self.tls {
            true if self.http2 => return self.send_http2(socket),
            true => client.handshake(socket, &self.name).ok()?,
            false => Connection { stream: Box::new(socket), received: Vec::new() },
        };
        let fields: String = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{} {} HTTP/1.1\r\n{fields}\r\n{}", self.method, self.target, self.body);
        connection.stream.write_all(head.as_bytes()).ok()?;
        crate::harness::read_response(&mut connection, self.method).ok()
    }
}

impl Request {
    /// Sends it over HTTP/2. `None` if there is no response.
    fn send_http2(&self, socket: TcpStream) -> Option<Response> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let name = ServerName::try_from(self.sni.clone()).unwrap();
            socket.set_nonblocking(true).unwrap();
            let socket = tokio::net::TcpStream::from_std(socket).unwrap();
            let tls = TlsConnector::from(Arc::new(accepting("h2"))).connect(name, socket).await.ok()?;
            let (mut sender, connection) = h2::client::handshake(tls).await.ok()?;
            tokio::spawn(connection);
            let uri = format!("https://{}{}", self.name, self.target);
            let mut request = http::Request::builder().method(self.method).uri(uri).version(http::Version::HTTP_2);
            for (name, value) in &self.fields {
                request = request.header(name.as_str(), value.as_str());
            }
            let (response, _) = sender.send_request(request.body(()).unwrap(), true).ok()?;
            let response = tokio::time::timeout(PATIENCE, response).await.unwrap().ok()?;
            let fields = response.headers().iter().map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            });
            let (status, fields) = (response.status().as_u16(), fields.collect());
            Some(Response { status, fields, body: Vec::new(), trailers: Vec::new() })
        })
    }
}

/// Names and values, sorted, without the varying ones.
fn comparable(fields: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let lower = fields.map(|(name, value)| (name.to_ascii_lowercase(), value));
    let mut fixed: Vec<_> = lower.filter(|(name, _)| !VARYING.contains(&name.as_str())).collect();
    fixed.sort();
    fixed
}

/// Compares a report with what happened. `received` is the request at the origin.
#[track_caller]
fn compare(report: &Value, response: Option<&Response>, received: Option<&str>, context: &dyn Fn() -> String) {
    let Some(response) = response else {
        assert_eq!(report["decision"], "closed", "{}", context());
        return;
    };
    assert_ne!(report["decision"], "closed", "{}", context());
    let sent = report["upstream_request"].as_str().filter(|_| report["decision"] == "forward");
    assert_eq!(
        sent.map(|sent| sent.trim_end_matches("\r\n")),
        received.map(|head| head.trim_end_matches("\r\n")),
        "{}",
        context()
    );
    if report["decision"] == "report" {
        assert!([204, 400, 413].contains(&response.status), "{}", context());
        return;
    }
    assert_eq!(report["status"], response.status, "{}", context());
    if report["decision"] == "redirect" {
        assert_eq!(report["location"].as_str(), response.field("location"), "{}", context());
    }
    let stated = report["response"].as_array().unwrap().iter();
    let text = |field: &Value, key: &str| field[key].as_str().unwrap().to_owned();
    let stated = comparable(stated.map(|field| (text(field, "name"), text(field, "value"))));
    assert_eq!(stated, comparable(response.fields.iter().cloned()), "{}", context());
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: not a number")))
}

/// Plays one configuration and its requests. Returns the decisions.
fn play(seed: u64, requests: usize) -> Vec<String> {
    let mut random = Random::new(seed);
    let authority = Authority::new();
    let origin = Origin::start(|request| {
        let fields: String = RESPONSE.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let body = if request.line().starts_with("HEAD") { "" } else { "ok" };
        Reply::new("200 OK", &fields, body)
    });
    let ports = Ports { https: free_port(), http: free_port() };
    let listen = listen(&mut random, &ports);
    let state = authority.folder().join("state");
    let config = config(&mut random, &authority, &origin, &state);
    let pintle = Pintle::start_with(&authority, &listen, &config);
    let client = Client::with(accepting("http/1.1"));
    let with_proxy = listen.contains("proxy_protocol");
    let mut decisions = Vec::new();
    for number in 0..requests {
        let request = request(&mut random, number, &ports);
        let ask = |more: &[&str]| -> Value {
            let mut command: Command = pintle.command("explain");
            serde_json::from_str(&output(command.args(request.arguments()).args(more))).unwrap()
        };
        let reports = [ask(&[]), ask(&["--live"])];
        let before = origin.received().len();
        let response = request.send(&client, &pintle, with_proxy);
        let received = origin.received().get(before).map(|received| received.head.clone());
        for report in &reports {
            compare(report, response.as_ref(), received.as_deref(), &|| {
                format!(
                    "PINTLE_EXPLAIN_SEED={seed}, request {number}: {request:?}\n{listen}{config}\nexplained: {report:#}\n\
                     answered: {response:?}\nthe origin received: {received:?}"
                )
            });
        }
        decisions.push(reports[0]["decision"].as_str().unwrap().to_owned());
    }
    decisions
}

#[test]
fn the_server_does_what_explain_says() {
    let wanted = number("PINTLE_EXPLAIN").map_or(6 * REQUESTS, |n| usize::try_from(n).unwrap());
    let seeds = match number("PINTLE_EXPLAIN_SEED") {
        Some(seed) => vec![seed],
        None => (0..wanted.div_ceil(REQUESTS) as u64).map(|round| 0x5eed + round).collect(),
    };
    let mut decisions: Vec<String> = seeds.iter().flat_map(|seed| play(*seed, REQUESTS)).collect();
    decisions.sort();
    decisions.dedup();
    if seeds.len() > 5 {
        // The random numbers meet every kind of decision that requests without a body of their own can meet.
        for kind in ["closed", "forward", "redirect", "refuse"] {
            assert!(decisions.iter().any(|decision| decision == kind), "no {kind} in {decisions:?}");
        }
    }
}
