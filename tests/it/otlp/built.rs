//! The tests that need the feature.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{SPAN, TRACE, ask};
use crate::admin::Bed;
use crate::harness::{
    BLOG, Client, Leaf, Origin, PATIENCE, Pintle, Received, Reply, curl, eventually, outcome, output, pintle,
    read_head, server_config,
};

/// Prints the spans of a request as JSON, one a line, each with the attributes of its resource.
const READER: &str = "
import json, sys
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
request = ExportTraceServiceRequest.FromString(open(sys.argv[1], 'rb').read())
from google.protobuf.unknown_fields import UnknownFieldSet
value = lambda v: getattr(v, v.WhichOneof('value'))
attributes = lambda list: {a.key: value(a.value) for a in list}
for resource in request.resource_spans:
    for scope in resource.scope_spans:
        for span in scope.spans:
            assert not any(len(UnknownFieldSet(m)) for m in [request, resource, scope, span, *span.attributes])
            names = [a.key for a in span.attributes]
            assert len(names) == len(set(names)), names
            print(json.dumps({
                'resource': attributes(resource.resource.attributes), 'scope': scope.scope.name,
                'trace': span.trace_id.hex(), 'id': span.span_id.hex(), 'parent': span.parent_span_id.hex(),
                'state': span.trace_state, 'flags': span.flags, 'name': span.name, 'kind': span.kind,
                'begin': span.start_time_unix_nano, 'end': span.end_time_unix_nano,
                'attributes': attributes(span.attributes), 'status': span.status.code, 'why': span.status.message,
            }))
";
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

/// A collector that gives these answers, and then takes everything.
fn collector(answers: &'static [&'static str]) -> Origin {
    let next = AtomicUsize::new(0);
    Origin::start(move |received| {
        assert_eq!(received.line(), "POST /v1/traces HTTP/1.1");
        match answers.get(next.fetch_add(1, Ordering::SeqCst)) {
            Some(answer) => Reply::Bytes(answer.as_bytes().to_vec()),
            None => Reply::new("200 OK", "Content-Type: application/x-protobuf\r\n", ""),
        }
    })
}

fn start(bed: &Bed, collector: &str, more: &str) -> Pintle {
    let keys = format!("[sandbox]\n[metrics]\notlp = {collector:?}\n{more}\n");
    Pintle::start(&bed.authority, &bed.config(&keys))
}

fn read(received: &Received, folder: &Path) -> Vec<Value> {
    let file = folder.join("spans");
    std::fs::write(&file, &received.body).unwrap();
    let library = Path::new(env!("CARGO_BIN_EXE_pintle")).ancestors().nth(2).unwrap().join("opentelemetry");
    assert!(library.exists(), "tests/opentelemetry installs what this test reads spans with");
    let text = output(Command::new("python3").env("PYTHONPATH", library).args(["-c", READER]).arg(&file));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All spans that the collector has got.
fn spans(bed: &Bed, collector: &Origin) -> Vec<Value> {
    collector.received().iter().flat_map(|received| read(received, bed.folder.path())).collect()
}

/// The span of a kind whose path is this, once it has come.
#[track_caller]
fn span(bed: &Bed, collector: &Origin, kind: u64, path: &str) -> Value {
    eventually(&format!("a span of {path}"), || {
        let is_it = |span: &Value| {
            let attributes = &span["attributes"];
            let url = attributes["url.full"].as_str().or_else(|| attributes["url.path"].as_str());
            span["kind"] == kind && url.is_some_and(|url| url.split('?').next().unwrap().ends_with(path))
        };
        spans(bed, collector).into_iter().find(is_it)
    })
}

/// The parts of a traceparent.
fn parts(received: &Received) -> (String, String, String) {
    let values = received.fields("traceparent");
    let [value] = values[..] else { panic!("{values:?}") };
    let parts: Vec<&str> = value.split('-').collect();
    assert!(parts.len() == 4 && parts[0] == "00" && value.len() == 55, "{value}");
    (parts[1].into(), parts[2].into(), parts[3].into())
}

#[test]
fn a_request_continues_the_clients_trace() {
    let (bed, collector) = (Bed::new(), collector(&[]));
    let pintle = start(&bed, &collector.url(), "");
    let before = jiff::Timestamp::now().as_nanosecond();
    let fields = format!("traceparent: 00-{TRACE}-{SPAN}-01\r\ntracestate: a=1,b=2\r\ntracestate: c@d=3\r\n");
    ask(&bed, &pintle, "/page?q=1", &format!("{fields}User-Agent: test/1\r\n"));
    let (server, client) = (span(&bed, &collector, SERVER, "/page"), span(&bed, &collector, CLIENT, "/page"));
    let received = bed.origin.request("/page?q=1");
    let (trace, parent, flags) = parts(&received);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
    assert_eq!(received.fields("tracestate"), ["a=1,b=2,c@d=3"]);
    // Client of pintle, pintle for it, pintle to the upstream, the upstream.
    assert_eq!((&server["trace"], &server["parent"]), (&TRACE.into(), &SPAN.into()));
    assert_eq!((&client["trace"], &client["parent"]), (&TRACE.into(), &server["id"]));
    assert_eq!(client["id"], parent);
    assert!(server["id"] != SPAN && server["id"] != client["id"]);
    assert_eq!((&server["flags"], &client["flags"]), (&0x301.into(), &0x101.into()));
    assert_eq!(server["state"], "a=1,b=2,c@d=3");
    let record = pintle.access_line("/page?q=1");
    assert_eq!(record["trace_id"], TRACE);
    crate::records::validate(&[record], bed.folder.path());
    // Names and attributes of the semantic conventions.
    assert_eq!((&server["name"], &client["name"]), (&"GET".into(), &"GET".into()));
    assert_eq!((&server["status"], &client["status"]), (&0.into(), &0.into()));
    let wanted = serde_json::json!({
        "http.request.method": "GET", "url.scheme": "https", "url.path": "/page", "url.query": "q=1",
        "server.address": BLOG, "client.address": "127.0.0.1", "network.peer.address": "127.0.0.1",
        "network.protocol.version": "1.1", "user_agent.original": "test/1", "http.request.body.size": 0,
        "http.response.body.size": 21, "http.response.status_code": 200, "pintle.site": BLOG, "pintle.ended": "complete",
    });
    assert_eq!(server["attributes"], wanted);
    let wanted = serde_json::json!({
        "http.request.method": "GET", "server.address": "127.0.0.1", "server.port": bed.origin.address.port(),
        "url.full": format!("{}/page?q=1", bed.origin.url()), "network.peer.address": "127.0.0.1",
        "network.peer.port": bed.origin.address.port(), "http.response.status_code": 200,
    });
    assert_eq!(client["attributes"], wanted);
    let resource = &server["resource"];
    assert_eq!((&resource["service.name"], &server["scope"]), (&"pintle".into(), &"pintle".into()));
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(resource["service.instance.id"].as_str().unwrap().len(), 36);
    // The times lie within each other.
    let time = |span: &Value, which: &str| i128::from(span[which].as_u64().unwrap());
    let now = jiff::Timestamp::now().as_nanosecond();
    assert!(before - 1_000_000 <= time(&server, "begin") && time(&server, "end") <= now, "{server}");
    assert!(time(&server, "begin") <= time(&client, "begin") && time(&client, "end") <= time(&server, "end"));
    assert_eq!(bed.value("pintle_otlp_spans_sent_total").unwrap(), 2.0);
    assert_eq!(collector.received()[0].field("content-type"), Some("application/x-protobuf"));
}

#[test]
fn errors_redirects_and_http2() {
    let (bed, collector) = (Bed::new(), collector(&[]));
    let down = bed.authority.leaf("down", &["down.example.com"]);
    let site = format!(
        "[[site]]\nhosts = [\"down.example.com\"]\nupstream = \"http://127.0.0.1:1\"\n\
         [site.certificate]\nchain = {:?}\nkey = {:?}\n",
        down.chain, down.key
    );
    let keys = format!("[log]\nredact = [\"query\", \"client\"]\n[metrics]\notlp = {:?}\n", collector.url());
    let config = bed.config(&keys) + &site;
    let pintle = Pintle::start(&bed.authority, &config);
    let client = Client::new(&bed.authority);
    assert_eq!(client.get(pintle.https(), "down.example.com", "/down?secret").status, 502);
    let server = span(&bed, &collector, SERVER, "/down");
    assert_eq!((&server["status"], &server["attributes"]["error.type"]), (&2.into(), &"connection refused".into()));
    assert_eq!(server["attributes"]["http.response.status_code"], 502);
    assert!(server["attributes"]["url.query"].is_null() && server["parent"] == "");
    assert_eq!(server["attributes"]["client.address"], "127.0.0.0");
    let refused = span(&bed, &collector, CLIENT, "/down");
    assert_eq!((&refused["status"], &refused["attributes"]["error.type"]), (&2.into(), &"connection refused".into()));
    assert!(refused["attributes"]["http.response.status_code"].is_null(), "{refused}");
    assert_eq!(refused["attributes"]["url.full"], "http://127.0.0.1:1/down");
    assert_eq!((&refused["trace"], &refused["parent"]), (&server["trace"], &server["id"]));
    // A redirect has no upstream, and an unknown method no name.
    let mut plain = crate::harness::Connection::plain(pintle.http());
    plain.send(format!("BREW /tea HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    assert_eq!(plain.response("BREW").status, 301);
    let redirect = span(&bed, &collector, SERVER, "/tea");
    assert_eq!((&redirect["name"], &redirect["attributes"]["http.request.method"]), (&"HTTP".into(), &"_OTHER".into()));
    assert_eq!(redirect["attributes"]["http.request.method_original"], "BREW");
    assert_eq!((&redirect["attributes"]["url.scheme"], &redirect["status"]), (&"http".into(), &0.into()));
    let of_trace = spans(&bed, &collector).into_iter().filter(|span| span["trace"] == redirect["trace"]);
    assert_eq!(of_trace.count(), 1);
    // HTTP/2 on the client's side.
    let mut over_http2 = curl(&bed.authority);
    over_http2.args(["--http2", "--connect-to", &format!("::{}", pintle.https()), "-o", "/dev/null"]);
    over_http2.args(["-H", &format!("traceparent: 00-{TRACE}-{SPAN}-01"), "-H", "tracestate: a=1"]);
    output(over_http2.arg(format!("https://{BLOG}/two")));
    let (trace, parent, _) = parts(&bed.origin.request("/two"));
    assert_eq!((trace.as_str(), bed.origin.request("/two").fields("tracestate")), (TRACE, vec!["a=1"]));
    assert_eq!(span(&bed, &collector, CLIENT, "/two")["id"], parent);
    assert_eq!(span(&bed, &collector, SERVER, "/two")["attributes"]["network.protocol.version"], "2");
}

#[test]
fn an_invalid_context_begins_a_trace() {
    let (bed, collector) = (Bed::new(), collector(&[]));
    let pintle = start(&bed, &collector.url(), "");
    let whole = format!("00-{TRACE}-{SPAN}-01");
    let hostile = [
        String::new(),
        "traceparent: \r\n".to_owned(),
        format!("traceparent: {whole}\r\ntraceparent: {whole}\r\n"),
        format!("traceparent: {whole}, {whole}\r\n"),
        format!("traceparent: ff-{TRACE}-{SPAN}-01\r\n"),
        format!("traceparent: 00-{}-{SPAN}-01\r\n", "0".repeat(32)),
        format!("traceparent: 00-{TRACE}-{}-01\r\n", "0".repeat(16)),
        format!("traceparent: {}\r\n", whole.to_uppercase()),
        format!("traceparent: {whole}-more\r\n"),
        format!("traceparent: {}\r\n", "0".repeat(5000)),
        format!("traceparent: 00-{TRACE}-{SPAN}-0\u{fc}\r\n"),
    ];
    let mut traces = BTreeSet::new();
    for (n, field) in hostile.iter().enumerate() {
        let path = format!("/{n}");
        ask(&bed, &pintle, &path, &format!("{field}tracestate: evil=1\r\n"));
        let received = bed.origin.request(&path);
        let (trace, parent, flags) = parts(&received);
        assert!(trace != TRACE && flags == "01" && traces.insert(trace.clone()), "{field}: {trace} {flags}");
        assert!(trace != "0".repeat(32) && parent != "0".repeat(16));
        assert_eq!(received.field("tracestate"), None, "{field}");
        assert_eq!(pintle.access_line(&path)["trace_id"], trace);
    }
    assert_eq!(span(&bed, &collector, SERVER, "/10")["parent"], "");
    // A valid context with an invalid state, and one of a later version.
    ask(&bed, &pintle, "/state", &format!("traceparent: {whole}\r\ntracestate: a=1,A=2\r\n"));
    let received = bed.origin.request("/state");
    assert_eq!((parts(&received).0.as_str(), received.field("tracestate")), (TRACE, None));
    ask(&bed, &pintle, "/later", &format!("traceparent: cc-{TRACE}-{SPAN}-01-what\r\n"));
    assert_eq!(parts(&bed.origin.request("/later")).0, TRACE);
}

#[test]
fn the_sampled_flag_decides() {
    let (bed, collector) = (Bed::new(), collector(&[]));
    let pintle = start(&bed, &collector.url(), "otlp_sample = 0");
    ask(&bed, &pintle, "/begun", "");
    ask(&bed, &pintle, "/unsampled", &format!("traceparent: 00-{TRACE}-{SPAN}-00\r\n"));
    ask(&bed, &pintle, "/sampled", &format!("traceparent: 00-{TRACE}-{SPAN}-01\r\n"));
    span(&bed, &collector, SERVER, "/sampled");
    assert_eq!(spans(&bed, &collector).len(), 2, "two spans of one request");
    let (begun, unsampled) = (parts(&bed.origin.request("/begun")), parts(&bed.origin.request("/unsampled")));
    assert_eq!((begun.2.as_str(), unsampled.2.as_str()), ("00", "00"));
    assert!(unsampled.0 == TRACE && unsampled.1 != SPAN);
    // The access log knows the trace, sampled or not.
    assert_eq!(pintle.access_line("/begun")["trace_id"], begun.0);
    // Clients are strangers, whose traces do not continue.
    pintle.rewrite(|text| text.replace("otlp_sample = 0", "otlp_parents = \"trusted\""));
    pintle.reload();
    ask(&bed, &pintle, "/stranger", &format!("traceparent: 00-{TRACE}-{SPAN}-00\r\ntracestate: a=1\r\n"));
    let received = bed.origin.request("/stranger");
    assert!(parts(&received).0 != TRACE && parts(&received).2 == "01" && received.field("tracestate").is_none());
    // A site without records has no spans, and its requests pass as they are.
    pintle.rewrite(|text| text.replace("[[site]]", "[[site]]\nlog = false"));
    pintle.reload();
    let parent = format!("00-{TRACE}-{SPAN}-01");
    ask(&bed, &pintle, "/unlogged", &format!("traceparent: {parent}\r\n"));
    assert_eq!(bed.origin.request("/unlogged").fields("traceparent"), [parent.as_str()]);
    let (_, explained, _) = outcome(pintle.command("explain").arg(format!("https://{BLOG}/")));
    assert!(!explained.contains("traceparent"), "{explained}");
}

/// Answers that ask for patience lead to another attempt with the same spans; others cost them.
#[test]
fn a_collector_that_refuses() {
    let answers: &[&str] = &[
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
        // One of the two spans is rejected.
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 4\r\n\r\n\n\x02\x08\x01",
        "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    ];
    let (bed, collector) = (Bed::new(), collector(answers));
    let pintle = start(&bed, &collector.url(), "");
    let began = Instant::now();
    ask(&bed, &pintle, "/patience", "");
    eventually("three attempts", || (collector.received().len() == 3).then_some(()));
    assert!(began.elapsed() >= Duration::from_secs(3), "Retry-After holds: {:?}", began.elapsed());
    let bodies: BTreeSet<Vec<u8>> = collector.received().into_iter().map(|received| received.body).collect();
    assert_eq!(bodies.len(), 1, "the same spans each time");
    eventually("they are counted", || (bed.value("pintle_otlp_spans_sent_total").unwrap() == 1.0).then_some(()));
    assert_eq!(bed.value("pintle_otlp_spans_dropped_total").unwrap(), 1.0);
    assert_eq!(bed.value("pintle_otlp_failures_total").unwrap(), 2.0);
    ask(&bed, &pintle, "/refused", "");
    eventually("they are dropped", || (bed.value("pintle_otlp_spans_dropped_total").unwrap() == 3.0).then_some(()));
    ask(&bed, &pintle, "/taken", "");
    span(&bed, &collector, SERVER, "/taken");
    assert_eq!(pintle.log_json("cannot send spans to the collector").len(), 2, "once for each time of trouble");
    pintle.logs("the collector takes spans again");
}

#[test]
fn a_dead_collector_costs_bounded_memory() {
    let bed = Bed::new();
    // It accepts, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let pintle = start(&bed, &url, "[limits]\notlp_queue = \"64KiB\"");
    let client = Client::new(&bed.authority);
    let mut connection = client.connect(pintle.https(), BLOG);
    let long = "x".repeat(4000);
    let begin = Instant::now();
    for n in 0..400 {
        connection.send(format!("GET /{n}?{long} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        assert_eq!(connection.response("GET").status, 200);
    }
    assert!(begin.elapsed() < Duration::from_secs(30), "no request waits: {:?}", begin.elapsed());
    eventually("spans are dropped", || (bed.value("pintle_otlp_spans_dropped_total").unwrap() > 100.0).then_some(()));
    assert_eq!(bed.value("pintle_otlp_spans_sent_total").unwrap(), 0.0);
}

#[test]
fn the_last_spans_are_sent_at_the_end() {
    let (bed, collector) = (Bed::new(), collector(&[]));
    let mut pintle = start(&bed, &collector.url(), "");
    ask(&bed, &pintle, "/last", "");
    pintle.signal("TERM");
    pintle.wait();
    span(&bed, &collector, SERVER, "/last");
    // Without a collector, the end does not wait long.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut pintle = start(&bed, &format!("http://{closed}"), "");
    ask(&bed, &pintle, "/lost", "");
    pintle.signal("TERM");
    pintle.wait();
}

/// A collector with TLS. Gives the heads of its requests.
fn secure_collector(leaf: &Leaf) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, config) = (listener.local_addr().unwrap(), server_config(leaf, &[]));
    let (heads, received) = mpsc::channel();
    let serve = move |socket: TcpStream| -> std::io::Result<()> {
        let session = rustls::ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
        let mut stream = rustls::StreamOwned::new(session, socket);
        let head = read_head(&mut stream)?.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap();
        stream.read_exact(&mut vec![0; length])?;
        let _ = heads.send(head);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        stream.conn.send_close_notify();
        stream.flush()
    };
    std::thread::spawn(move || listener.incoming().flatten().for_each(|socket| drop(serve(socket))));
    (address, received)
}

/// A collector of a private CA that wants a key, which neither the log nor the history has.
#[test]
fn a_private_collector_that_wants_a_key() {
    let bed = Bed::new();
    let (address, heads) = secure_collector(&bed.authority.leaf("collector", &["localhost"]));
    let url = format!("https://localhost:{}", address.port());
    let pintle = start(&bed, &url, "otlp_headers = { \"X-Api-Key\" = \"very-secret-1\" }");
    ask(&bed, &pintle, "/untrusted", "");
    pintle.logs("cannot send spans to the collector");
    // A reload takes in the roots, and the spans that wait.
    let ca = format!("otlp_ca = {:?}\notlp_headers", bed.authority.ca_path());
    pintle.rewrite(|text| text.replace("otlp_headers", &ca));
    pintle.reload();
    let head = heads.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with("post /v1/traces ") && head.contains("\r\nx-api-key: very-secret-1\r\n"), "{head}");
    pintle.rewrite(|text| text.replace("very-secret-1", "very-secret-2"));
    pintle.reload();
    ask(&bed, &pintle, "/rotated", "");
    let head = heads.recv_timeout(PATIENCE).unwrap();
    assert!(head.contains("\r\nx-api-key: very-secret-2\r\n"), "{head}");
    let shown = output(pintle.command("config show").arg("HEAD"));
    assert!(shown.contains("X-Api-Key") && !shown.contains("very-secret"), "{shown}");
    assert!(!pintle.log().contains("very-secret"), "{}", pintle.log());
}

/// `explain` shows the fields that the upstream gets, with the key behind them.
#[test]
fn explain_names_the_key() {
    let (bed, collector) = (Bed::new(), collector(&[]));
    let text = bed.config(&format!("[metrics]\notlp = {:?}\n", collector.url()));
    let config = bed.authority.write("explained.toml", text);
    let mut command = pintle();
    command.arg("explain").arg(format!("https://{BLOG}/")).arg("-c").arg(&config).arg("--json");
    let (_, out, err) = outcome(&mut command);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    let text = report.to_string();
    assert!(text.contains("\"traceparent\"") && text.contains("continues the client's trace, or begins one"), "{text}");
}
