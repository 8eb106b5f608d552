//! Records of the access log: every field of the schema, by requests and handshakes that cause it; the choice, the sample
//! and the redaction of a configuration; and characters that could control a terminal.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{
    Authority, BLOG, Client, Connection, Origin, Pintle, Reply, SecureServer, blog, eventually, outcome, output, page,
};

const SCHEMA: &str = include_str!("../../docs/reference/access-record.schema.json");

/// The records of failed handshakes, when there are so many.
fn handshakes(pintle: &Pintle, least: usize) -> Vec<Value> {
    eventually("records of handshakes", || {
        let found: Vec<_> = pintle.access().into_iter().filter(|r| r["kind"] == "handshake").collect();
        (found.len() >= least).then_some(found)
    })
}

/// Holds records against the schema, with the reference implementation in Python.
pub fn validate(records: &[Value], folder: &Path) {
    let file = folder.join("records.json");
    fs::write(&file, serde_json::to_string(records).unwrap()).unwrap();
    let script = "import json, sys\n\
        import jsonschema\n\
        schema = json.load(open(sys.argv[1]))\n\
        jsonschema.Draft202012Validator.check_schema(schema)\n\
        validator = jsonschema.Draft202012Validator(schema)\n\
        for record in json.load(open(sys.argv[2])):\n\
        \x20   for error in validator.iter_errors(record):\n\
        \x20       sys.exit(f'{error.message}: {record}')\n";
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/access-record.schema.json");
    output(Command::new("python3").args(["-c", script]).arg(schema).arg(file));
}

fn properties() -> BTreeSet<String> {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}

fn names(records: &[Value]) -> BTreeSet<String> {
    records.iter().flat_map(|r| r.as_object().unwrap().keys().cloned()).collect()
}

fn site(name: &str, leaf: &crate::harness::Leaf, upstream: &str, more: &str) -> String {
    format!(
        "[[site]]\nhosts = [{name:?}]\nupstream = {upstream:?}\n{more}[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        leaf.chain, leaf.key
    )
}

/// Connects with openssl, and returns once it is done.
fn openssl(address: SocketAddr, arguments: &[&str]) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string()]).args(arguments);
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
}

/// Each field of the schema occurs in a record that the schema accepts.
#[test]
fn every_field_of_the_schema() {
    let authority = Authority::new();
    let folder = authority.folder();
    let origin = Origin::start(|asked| match asked.path() {
        "/slow" => Reply::Custom(Box::new(|socket| {
            std::thread::sleep(Duration::from_millis(300));
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        })),
        _ => Reply::ok("hello"),
    });
    let leaf = authority.leaf("all", &["*.example.com"]);
    let server = SecureServer::start(&[&authority.leaf("up", &["up.example"])], |_, _| page("", "hello"));
    let over_tls = format!("[site.upstream_options]\nca = {:?}\nverify_name = \"up.example\"\n", authority.ca_path());
    let config = [
        format!(
            "[state]\ndirectory = {:?}\n[limits]\nupstream_connections = 1\nrequest_line = \"1KiB\"\n[log]\nsample = 0.5\n",
            folder.join("state")
        ),
        site(BLOG, &leaf, &origin.url(), ""),
        site("tls.example.com", &leaf, &format!("https://{}", server.address), "")
            .replace("[site.certificate]", &format!("{over_tls}[site.certificate]")),
        site("down.example.com", &leaf, "http://127.0.0.1:1", "[site.cache]\n"),
    ];
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let mut pintle = Pintle::start_with(&authority, listen, &config.concat());
    let client = Client::new(&authority);

    // A request with everything, until the sample has taken one.
    let everything = eventually("a sampled record", || {
        let mut connection = client.connect(pintle.https(), BLOG);
        let agent = "\\".repeat(3000);
        connection.send(format!(
            "POST /full?q=1 HTTP/1.1\r\nHost: {BLOG}\r\nReferer: https://a.example/\r\nContent-Length: 5\r\n\
             User-Agent: {agent}\r\nConnection: close\r\n\r\nhello"
        ));
        assert_eq!(connection.response("POST").status, 200);
        std::thread::sleep(Duration::from_millis(20));
        pintle.access().into_iter().find(|r| r["target"] == "/full?q=1")
    });
    assert_eq!((&everything["site"], &everything["status"]), (&BLOG.into(), &200.into()));
    assert_eq!((&everything["received_bytes"], &everything["bytes"]), (&5.into(), &5.into()));
    assert_eq!(everything["truncated"], serde_json::json!(["user_agent"]));
    assert_eq!((&everything["ended"], &everything["sample"]), (&"complete".into(), &0.5.into()));
    assert_eq!((&everything["tls_version"], &everything["alpn"]), (&"1.3".into(), &"http/1.1".into()));
    assert!(everything["tls_cipher"].as_str().unwrap().starts_with("TLS_"), "{everything}");
    assert_eq!((&everything["tls_group"], &everything["sni"]), (&"X25519MLKEM768".into(), &BLOG.into()));
    assert_eq!((&everything["scheme_from"], &everything["peer"]), (&"listener".into(), &"127.0.0.1".into()));
    assert_eq!(everything["upstream"], origin.address.to_string());

    pintle.rewrite(|text| text.replace("sample = 0.5", "sample = 1"));
    pintle.reload();
    // An upstream with TLS, over a new connection.
    client.get(pintle.https(), "tls.example.com", "/tls");
    let tls = pintle.access_line("/tls");
    assert!(tls["tls_ms"].as_f64().unwrap() > 0.0 && tls["connect_ms"].is_number(), "{tls}");
    assert_eq!((&tls["upstream_reused"], &tls["retries"]), (&false.into(), &0.into()));
    client.get(pintle.https(), "tls.example.com", "/again");
    // Two requests, and one connection to the upstream.
    let mut both: Vec<Connection> = (0..2).map(|_| client.connect(pintle.https(), BLOG)).collect();
    for connection in &mut both {
        connection.send(format!("GET /slow HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    }
    both.iter_mut().for_each(|connection| assert_eq!(connection.response("GET").status, 200));
    eventually("a request has waited", || {
        pintle.access().into_iter().find(|r| r["wait_ms"].as_f64().is_some_and(|ms| ms > 100.0))
    });
    // An upstream that refuses connections.
    client.get(pintle.https(), "down.example.com", "/down");
    let down = pintle.access_line("/down");
    assert_eq!((&down["ended"], &down["errno"]), (&"upstream".into(), &"ECONNREFUSED".into()), "{down}");
    assert_eq!((&down["cause"], &down["upstream"]), (&"connection refused".into(), &"127.0.0.1:1".into()));
    // A limit, and bytes that are no characters.
    let mut connection = client.connect(pintle.https(), BLOG);
    connection.send(format!("GET /{} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n", "x".repeat(2000)));
    assert_eq!(connection.response("GET").status, 414);
    let limited = eventually("a limit", || pintle.access().into_iter().find(|r| r["limit"] == "request_line"));
    assert_eq!((&limited["ended"], &limited["method"]), (&"limit".into(), &"-".into()), "{limited}");
    assert!(limited.get("host").is_none() && limited.get("target").is_none(), "absent, not empty: {limited}");
    let mut connection = client.connect(pintle.https(), BLOG);
    connection.send(b"GET /invalid HTTP/1.1\r\nHost: other.example\r\nUser-Agent: \xff\r\n\r\n");
    assert_eq!(connection.response("GET").status, 421);
    let invalid = pintle.access_line("/invalid");
    assert_eq!((&invalid["invalid"], &invalid["user_agent"]), (&serde_json::json!(["user_agent"]), &"\u{fffd}".into()));

    // Handshakes: no such site; a client that does not trust the CA; and more than a few.
    openssl(pintle.https(), &["-servername", "other.example", "-alpn", "h2,x", "-groups", "X25519"]);
    let unknown = handshakes(&pintle, 1)[0].clone();
    assert_eq!((&unknown["ended"], &unknown["alert_sent"]), (&"pintle".into(), &"unrecognized_name".into()));
    assert_eq!(unknown["alpn_offered"], serde_json::json!(["h2", "x"]), "{unknown}");
    assert_eq!((&unknown["sni"], &unknown["groups_offered"][0]), (&"other.example".into(), &"X25519".into()));
    assert_eq!(unknown["versions_offered"][0], "1.3");
    openssl(pintle.https(), &["-servername", BLOG, "-verify_return_error", "-tls1_2"]);
    let untrusted = handshakes(&pintle, 2)[1].clone();
    assert_eq!((&untrusted["ended"], &untrusted["alert_received"]), (&"client".into(), &"unknown_ca".into()));
    assert_eq!(untrusted["site"], BLOG, "{untrusted}");
    for _ in 0..5 {
        assert!(client.try_connect(pintle.https(), "another.example").is_err());
    }
    handshakes(&pintle, 3);
    pintle.signal("TERM");
    pintle.wait();
    let summed = eventually("the sum", || pintle.access().into_iter().find(|r| !r["count"].is_null()));
    assert_eq!((&summed["count"], &summed["client"]), (&4.into(), &"127.0.0.1".into()), "{summed}");
    assert_eq!(handshakes(&pintle, 4).len(), 4, "three, and a sum");

    let all = pintle.access();
    validate(&all, folder);
    let without: Vec<String> = properties().difference(&names(&all)).cloned().collect();
    // The tests of compression, mixed content, limits and traces have these.
    let elsewhere = ["coding", "rewritten", "rule", "trace_id", "uncompressed_bytes"];
    assert_eq!(without, elsewhere, "fields without a record");
    let ids: BTreeSet<&str> = all.iter().filter_map(|r| r["id"].as_str()).collect();
    assert_eq!(ids.len(), all.len(), "each id occurs once");
}

/// The page has a row for each field of the schema, with its description.
#[test]
fn the_reference_lists_the_schema() {
    let page = include_str!("../../docs/reference/log.md");
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    let rows = page.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 5);
    let mut listed: Vec<(&str, &str)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            (cells[1].trim_matches('`'), cells[4])
        })
        .collect();
    let mut described: Vec<(&str, &str)> = schema["properties"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, property)| (name.as_str(), property["description"].as_str().unwrap()))
        .collect();
    listed.sort_unstable();
    described.sort_unstable();
    assert_eq!(listed, described);
}

/// A record names the side that broke off the request, over both versions of HTTP.
#[test]
fn a_client_that_leaves_has_a_record() {
    let authority = Authority::new();
    let origin = Origin::start(|asked| match asked.path() {
        "/half" => Reply::Custom(Box::new(|socket| {
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?;
            std::thread::sleep(Duration::from_secs(2));
            Ok(())
        })),
        _ => Reply::Custom(Box::new(|socket| {
            let _ = socket.read(&mut [0]);
            Ok(())
        })),
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let curl = |version: &str, path: &str| {
        let mut curl = pintle.curl();
        let _ = curl.args([version, "--max-time", "0.5", &format!("https://{BLOG}{path}")]).output().unwrap();
        pintle.access_line(path)
    };
    for version in ["--http1.1", "--http2"] {
        let path = format!("/never{}", &version[6..]);
        let gone = curl(version, &path);
        assert_eq!((&gone["status"], &gone["ended"]), (&499.into(), &"client".into()), "{gone}");
        assert_eq!(gone["upstream"], origin.address.to_string(), "{gone}");
    }
    // Half an answer has its status, its bytes, and the time at which it began.
    let half = curl("--http2", "/half");
    assert_eq!((&half["status"], &half["bytes"]), (&200.into(), &4.into()), "{half}");
    assert_eq!((&half["ended"], half["upstream_ms"].is_number()), (&"client".into(), true), "{half}");
    let (first_byte, all) = (half["first_byte_ms"].as_f64().unwrap(), half["duration_ms"].as_f64().unwrap());
    assert!(first_byte < 400.0 && all > 400.0, "{half}");
}

/// A proxy in front states client and scheme; the record says by which field.
#[test]
fn the_source_of_the_scheme() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let more = "trusted_proxies = [\"127.0.0.1\"]";
    let pintle = Pintle::start_listening(&authority, more, &blog(&authority, &origin));
    for (fields, target, scheme, from) in [
        ("X-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.7\r\n", "/stated", "https", "X-Forwarded-Proto"),
        ("X-Forwarded-For: 192.0.2.7\r\n", "/unstated", "http", "listener"),
    ] {
        let mut connection = Connection::plain(pintle.http());
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: {BLOG}\r\n{fields}\r\n"));
        connection.response("GET");
        let record = pintle.access_line(target);
        assert_eq!((&record["scheme"], &record["scheme_from"]), (&scheme.into(), &from.into()), "{record}");
        assert_eq!((&record["client"], &record["peer"]), (&"192.0.2.7".into(), &"127.0.0.1".into()), "{record}");
    }
}

/// `log.fields`, `log.sample`, `log.redact` and `site.log` follow a reload.
#[test]
fn a_reload_changes_what_is_recorded() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = format!(
        "[state]\ndirectory = {:?}\n[log]\nfields = [\"default\"]\n{}",
        authority.folder().join("state"),
        blog(&authority, &origin)
    );
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    let mut connection = client.connect(pintle.https(), BLOG);
    let mut get = |target: &str| {
        connection.send(format!(
            "GET {target} HTTP/1.1\r\nHost: {BLOG}\r\nReferer: https://r.example/?secret=1\r\nUser-Agent: me\r\n\r\n"
        ));
        assert_eq!(connection.response("GET").status, 200);
    };
    let change = |from: &str, to: &str| {
        pintle.rewrite(|text| text.replace(from, to));
        pintle.reload();
    };
    get("/one?secret=1");
    let one = pintle.access_line("/one?secret=1");
    assert_eq!((&one["sni"], &one["user_agent"]), (&BLOG.into(), &"me".into()));
    // The same connection, under other rules.
    change("fields = [\"default\"]", "fields = [\"target\", \"status\", \"sni\"]");
    get("/two");
    let two = pintle.access_line("/two");
    let wanted: BTreeSet<String> = ["time", "schema", "kind", "target", "status", "sni"].map(str::to_owned).into();
    assert_eq!(names(std::slice::from_ref(&two)), wanted, "{two}");
    change(
        "fields = [\"target\", \"status\", \"sni\"]",
        "redact = [\"query\", \"client\"]\nfields = [\"-user_agent\"]",
    );
    get("/three?secret=1");
    let three = pintle.access_line("/three?");
    assert!(!three.to_string().contains("secret") && three["user_agent"].is_null(), "{three}");
    assert_eq!((&three["client"], &three["peer"]), (&"127.0.0.0".into(), &"127.0.0.0".into()));
    assert_eq!(three["referer"], "https://r.example/?");
    validate(&pintle.access(), authority.folder());
    // Successes are left out, failures never.
    change("[log]\n", "[log]\nsample = 0\n");
    get("/four");
    let mut other = client.connect(pintle.https(), BLOG);
    other.send("GET /five HTTP/1.1\r\nHost: other.example\r\n\r\n");
    assert_eq!(other.response("GET").status, 421);
    assert!(pintle.access_line("/five")["sample"].is_null());
    change("sample = 0\n", "");
    change("[[site]]\n", "[[site]]\nlog = false\n");
    get("/six");
    change("log = false\n", "");
    get("/seven");
    pintle.access_line("/seven");
    let targets: BTreeSet<String> = pintle.access().iter().map(|r| r["target"].to_string()).collect();
    assert!(!targets.contains("\"/four\"") && !targets.contains("\"/six\""), "{targets:?}");
}

#[test]
fn wrong_rules_are_refused_with_the_remedy() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let file = authority.folder().join("pintle.toml");
    let check = |log: &str| {
        fs::write(&file, format!("[log]\n{log}\n{}", blog(&authority, &origin))).unwrap();
        let (code, out, err) = outcome(crate::harness::pintle().args(["check", "-c"]).arg(&file));
        (code, out + &err)
    };
    for (log, words) in [
        (
            "fields = [\"user_agnet\"]",
            &["log.fields: unknown field \"user_agnet\"", "did you mean \"user_agent\"?"][..],
        ),
        ("fields = [\"-tls_verson\"]", &["unknown field \"-tls_verson\"", "did you mean \"tls_version\"?"]),
        ("fields = [\"-time\"]", &["log.fields: every record has time"]),
        ("sample = 1.5", &["log.sample: must be between 0 and 1", "sample = 0.1"]),
        ("sample = \"half\"", &["log.sample: expected a number"]),
        ("access = \"syslog\"", &["log.access: \"syslog\" would be a file of that name", "access = \"syslog:\""]),
        ("access = \"stderr\"", &["access = \"stdout\", or \"./stderr\" for the file"]),
        ("access = \"none\"", &["access = \"off\""]),
        ("redact = [\"clients\"]", &["log.redact: unknown value \"clients\"", "did you mean \"client\"?"]),
    ] {
        let (code, said) = check(log);
        assert!(code == 1 && words.iter().all(|word| said.contains(word)), "{log}: {said}");
    }
    for log in ["fields = [\"default\", \"-sni\"]", "sample = 0", "sample = 0.25", "fields = [\"time\"]", "fields = []"]
    {
        let (code, said) = check(log);
        assert_eq!(code, 0, "{log}: {said}");
    }
}

/// A terminal that shows the log obeys nobody.
#[test]
fn no_control_characters_in_any_log() {
    let authority = Authority::new();
    let origin = Origin::start(|_| Reply::Bytes(b"HTTP/1.1 200 \x1b[31m\r\nBad\x07Field: x\r\n\r\n".to_vec()));
    let folder = authority.folder();
    for format in ["json", "combined", "short"] {
        let log = folder.join(format!("{format}.log"));
        let config = format!("[log]\naccess = {log:?}\nformat = {format:?}\n{}", blog(&authority, &origin));
        let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 1\n";
        let pintle = Pintle::start_with(&authority, listen, &config);
        let client = Client::new(&authority);
        let mut connection = client.connect(pintle.https(), BLOG);
        let evil = "\u{9b}31m\u{202e}\u{2066}\t\u{7f}";
        connection
            .send(format!("GET /{evil} HTTP/1.1\r\nHost: {BLOG}\r\nUser-Agent: {evil}\r\nReferer: {evil}\r\n\r\n"));
        connection.response("GET");
        // A server name and protocols that no library sends.
        let mut raw = TcpStream::connect(pintle.https()).unwrap();
        raw.write_all(&hello(b"e\x1b[2Jvil\n\xe2\x80\xae", b"\x1b]0;x\x07")).unwrap();
        let _ = raw.read(&mut [0; 64]);
        let wanted = if format == "combined" { 1 } else { 2 };
        let text = eventually("the records", || {
            let text = fs::read(&log).unwrap_or_default();
            (text.iter().filter(|b| **b == b'\n').count() >= wanted).then_some(text)
        });
        assert!(text.iter().all(|b| matches!(b, b'\n' | b' '..=b'~')), "{format}: {}", String::from_utf8_lossy(&text));
    }
}

/// A ClientHello with this server name and this protocol, whatever they are.
fn hello(name: &[u8], protocol: &[u8]) -> Vec<u8> {
    let sized = |bytes: &[u8], width: usize| [&(bytes.len() as u32).to_be_bytes()[4 - width..], bytes].concat();
    let extension = |kind: u16, body: Vec<u8>| [&kind.to_be_bytes()[..], &sized(&body, 2)].concat();
    let names = sized(&[&[0][..], &sized(name, 2)].concat(), 2);
    let extensions = [
        extension(0, names),
        extension(16, sized(&sized(protocol, 1), 2)),
        extension(43, sized(&[3, 4], 1)),
        extension(10, sized(&[0, 29], 2)),
        extension(13, sized(&[4, 3], 2)),
    ];
    let body =
        [&[3, 3][..], &[7; 32], &[0], &sized(&[0x13, 1], 2), &sized(&[0], 1), &sized(&extensions.concat(), 2)].concat();
    let message = [&[1][..], &sized(&body, 3)].concat();
    [&[22, 3, 1][..], &sized(&message, 2)].concat()
}
