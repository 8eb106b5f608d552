//! `pintle explain`: the report, by a configuration and by a running process.

mod agreement;
mod request;

use std::fs;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::admin::Bed;
use crate::harness::{
    Authority, BLOG, Pintle, blog, blog_at, eventually, free_port, outcome, output, pintle, policies,
};

/// A configuration on disk that nobody serves.
struct Draft {
    authority: Authority,
    folder: TempDir,
}

impl Draft {
    fn new(listen: &str, site: &str) -> Self {
        let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
        let config = format!(
            "[listen]\nhttps = [\"127.0.0.1:8443\"]\nhttp = [\"127.0.0.1:8080\"]\n{listen}\n\
             [state]\ndirectory = \"state\"\n{}{site}",
            blog_at(&authority, "https://upstream.example")
        );
        fs::write(folder.path().join("pintle.toml"), config).unwrap();
        Self { authority, folder }
    }

    fn append(&self, text: &str) {
        let path = self.folder.path().join("pintle.toml");
        fs::write(&path, fs::read_to_string(&path).unwrap() + text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = pintle();
        command.current_dir(self.folder.path()).arg("explain").args(arguments).args(["-c", "pintle.toml"]);
        command
    }

    #[track_caller]
    fn ask(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&output(self.command(arguments).arg("--json"))).unwrap()
    }

    /// The line of the configuration with this text.
    #[track_caller]
    fn line(&self, text: &str) -> String {
        let config = fs::read_to_string(self.folder.path().join("pintle.toml")).unwrap();
        let at = config.lines().position(|line| line.contains(text)).unwrap();
        format!("pintle.toml:{}", at + 1)
    }
}

#[track_caller]
fn step<'r>(report: &'r Value, name: &str) -> &'r Value {
    let steps = report["steps"].as_array().unwrap();
    steps.iter().find(|step| step["step"] == name).unwrap_or_else(|| panic!("no step {name} in {report:#}"))
}

#[track_caller]
fn field<'r>(report: &'r Value, list: &str, name: &str) -> &'r Value {
    let fields = report[list].as_array().unwrap();
    fields.iter().find(|field| field["name"] == name).unwrap_or_else(|| panic!("no field {name} in {report:#}"))
}

#[test]
fn every_decision_has_its_line() {
    let draft = Draft::new(
        "trusted_proxies = [\"10.0.0.0/8\"]",
        "[site.request_headers]\nset = { \"X-Edge\" = \"pintle\" }\nremove = [\"X-Debug\"]\n\
         [site.response_headers]\nremove = [\n  \"Server\",\n  \"X-Powered-By\",\n]\nset = { \"X-Test\" = \"1\" }\n",
    );
    draft.append(&policies(&draft.authority));
    let report = draft.ask(&[
        &format!("https://{BLOG}/page?x"),
        "--from",
        "192.0.2.7",
        "-H",
        "X-Debug: 1",
        "-H",
        "X-Forwarded-Proto: http",
        "-H",
        "Connection: close, X-Hop",
        "-H",
        "X-Hop: 1",
        "-H",
        "Accept: text/html",
        "--response-header",
        "Server: Apache",
        "--response-header",
        "Location: https://upstream.example/next",
    ]);
    assert_eq!((&report["decision"], &report["status"]), (&"forward".into(), &200.into()), "{report:#}");
    assert_eq!(report["site"], BLOG);
    assert_eq!(step(&report, "listener")["at"], draft.line("https ="));
    assert_eq!(step(&report, "peer")["what"], "192.0.2.7, not trusted");
    assert_eq!(step(&report, "peer")["why"], "its X-Forwarded-Proto is ignored");
    assert_eq!(step(&report, "peer")["at"], draft.line("trusted_proxies"));
    assert_eq!(step(&report, "site")["at"], draft.line("hosts ="));
    assert_eq!(step(&report, "certificate")["at"], draft.line("chain ="));
    assert_eq!(step(&report, "SNI")["what"], "upstream.example");
    for (list, name, change, at) in [
        ("request_fields", "Host", "changed", None),
        ("request_fields", "X-Edge", "added", Some("set = { \"X-Edge\"")),
        ("request_fields", "X-Debug", "removed", Some("remove = [\"X-Debug\"]")),
        ("request_fields", "X-Hop", "removed", None),
        ("request_fields", "X-Forwarded-Proto", "changed", None),
        ("request_fields", "Accept", "kept", None),
        ("response_fields", "Server", "removed", Some("  \"Server\",")),
        ("response_fields", "X-Powered-By", "would_remove", Some("  \"X-Powered-By\",")),
        ("response_fields", "X-Test", "added", Some("set = { \"X-Test\"")),
        ("response_fields", "Location", "changed", Some("upstream =")),
        ("response_fields", "Strict-Transport-Security", "added", Some("[site.hsts]")),
        ("response_fields", "Public-Key-Pins", "added", Some("[site.hpkp]")),
    ] {
        let field = field(&report, list, name);
        assert_eq!(field["change"], change, "{field:#}");
        assert_eq!(field["at"], at.map_or(Value::Null, |text| draft.line(text).into()), "{field:#}");
    }
    assert_eq!(field(&report, "response_fields", "Location")["after"][0], format!("https://{BLOG}/next"));
    assert_eq!(field(&report, "request_fields", "X-Hop")["why"], "Connection names it");
    let limit = report["limits"].as_array().unwrap().iter().find(|l| l["name"] == "limits.idle").unwrap();
    assert_eq!((&limit["value"], &limit["at"]), (&"1m15s".into(), &Value::Null), "{limit}");
}

#[test]
fn verdicts() {
    let draft = Draft::new("", "");
    let verdict = |arguments: &[&str]| draft.ask(arguments)["verdict"].as_str().unwrap().to_owned();
    let to = |text: &str| format!("https://{BLOG}/{text}");
    assert_eq!(verdict(&[&format!("http://{BLOG}/a?b")]), format!("301 to {}", to("a?b")));
    assert_eq!(verdict(&[&to("")]), "forwarded to https://upstream.example");
    assert_eq!(verdict(&[&to(""), "--method", "TRACE"]), "405: method not allowed");
    assert_eq!(verdict(&["https://other.example/"]), "TLS is refused with alert 112 (unrecognized_name)");
    assert!(verdict(&["http://other.example/"]).starts_with("421: "));
    assert!(verdict(&[&to(""), "-H", "Host: other.example"]).starts_with("421: "));
    assert!(verdict(&[&to(""), "-H", "Host: a", "-H", "Host: b"]).starts_with("400: "));
    assert!(verdict(&[&to(&"x".repeat(9000))]).starts_with("414: "));
    assert!(
        verdict(&[&to(""), "-H", "Via: 1.1 pintle, 1.1 pintle, 1.1 pintle, 1.1 pintle, 1.1 pintle"]).starts_with("508")
    );
    // The nearest wildcard is named.
    let leaf = draft.authority.leaf("wild", &["*.example.org", "*.b.example.org"]);
    draft.append(&format!(
        "[[site]]\nhosts = [\"*.example.org\", \"*.b.example.org\"]\nupstream = \"http://10.0.0.1\"\n\
         certificate = {{ chain = {:?}, key = {:?} }}\n",
        leaf.chain, leaf.key
    ));
    let report = draft.ask(&["https://a.b.example.org/"]);
    assert_eq!(step(&report, "site")["why"], "by wildcard *.b.example.org");
    assert_eq!(step(&report, "certificate")["at"], draft.line("certificate = {"));
    let trusting = Draft::new("trusted_proxies = [\"10.0.0.0/8\"]\nproxy_protocol = true\nhealth_path = \"/up\"", "");
    let ask = |more: &[&str]| trusting.ask(&[&[to("up").as_str(), "--from", "10.0.0.1"][..], more].concat());
    assert_eq!(ask(&[])["verdict"], "the connection is closed: no valid PROXY header");
    let report = ask(&["--proxy", "PROXY TCP4 192.0.2.1 10.0.0.1 1 443"]);
    assert_eq!((&report["client"], &report["decision"]), (&"192.0.2.1".into(), &"forward".into()));
    assert_eq!(ask(&["--proxy", "PROXY TCP4 10.0.0.9 10.0.0.1 1 443"])["decision"], "health");
    // Version 2, with a TLS TLV. Its source is trusted, too, and sends no X-Forwarded-Proto.
    let tls = "hex:0d0a0d0a000d0a515549540a211100140a0000090a000001000101bb2000050100000000";
    let report = trusting.ask(&[&to("page"), "--from", "10.0.0.1", "--proxy", tls]);
    assert_eq!(step(&report, "scheme")["why"], "stated by the PROXY header's TLS TLV", "{report:#}");
}

#[test]
fn why_policies_are_not_sent() {
    let draft = Draft::new("trusted_proxies = [\"10.0.0.0/8\"]", "");
    let why = |arguments: &[&str], policy: &str| {
        draft.ask(arguments)["policies"][policy]["why_not"].as_str().unwrap_or_default().to_owned()
    };
    let url = format!("https://{BLOG}/");
    assert_eq!(why(&[&url], "hsts"), "the site has no [site.hsts]");
    assert_eq!(why(&[&url], "pins"), "the site has no [site.hpkp]");
    draft.append("[site.hsts]\nmax_age = \"1y\"\nramp = [\"5m\", \"1d\", \"1y\"]\nramp_every = \"7d\"\n");
    draft.append(&policies(&draft.authority).replace("[site.hsts]\nmax_age = \"1y\"\n", ""));
    assert_eq!(why(&[&url], "hsts"), "");
    assert_eq!(why(&[&url], "pins"), "");
    let report = draft.ask(&[&url]);
    assert_eq!(report["policies"]["hsts"]["value"], "max-age=300");
    assert_eq!(report["policies"]["hsts"]["notes"][0], "ramp: step 1 of 3, max-age 300");
    let plain = format!("http://{BLOG}/");
    assert_eq!(why(&[&plain], "pins"), "the scheme is http, and policies go over https only");
    let offloaded = [&url, "--http", "--from", "10.0.0.1", "-H", "X-Forwarded-Proto: https"];
    assert_eq!(why(&offloaded, "pins"), "");
    let misdirected = why(&[&url, "-H", "Host: other.example"], "hsts");
    assert_eq!(misdirected, "no site has this host");
    let report = draft.ask(&[&url, "-H", "Host: other.example"]);
    assert!(report["policies"]["hsts"]["at"].is_null(), "no line of another site: {report:#}");
    let long = format!("{url}{}", "a".repeat(9_000));
    assert_eq!(why(&[&long], "hsts"), "the request is refused before its host counts");
}

#[test]
fn a_table_for_eighty_columns() {
    let draft = Draft::new("", "");
    draft.append(&policies(&draft.authority));
    let evil = "X-Evil: \u{9b}31m \u{202e}日本語";
    let table = output(&mut draft.command(&[&format!("https://{BLOG}/{}", "x".repeat(300)), "-H", evil]));
    for line in table.lines() {
        assert!(line.len() <= 80 && line.bytes().all(|b| b.is_ascii_graphic() || b == b' '), "{line:?}");
    }
    for part in ["verdict        forwarded to", "pins           Public-Key-Pins:", "\nLimits\n", "[built in]"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let (code, _, err) = outcome(&mut draft.command(&["https://a b/"]));
    assert_eq!(code, 2, "{err}");
    let (code, _, err) = outcome(&mut draft.command(&[&format!("https://{BLOG}/"), "-H", "a\r\nb: c"]));
    assert!(code == 1 && err.contains("not a field name"), "{err}");
    draft.append("nonsense");
    let (code, _, err) = outcome(&mut draft.command(&[&format!("https://{BLOG}/")]));
    assert!(code == 1 && err.contains("pintle.toml:"), "{err}");
}

#[test]
fn the_running_process_knows_its_upstreams() {
    let bed = Bed::new();
    let dead = format!("http://127.0.0.1:{}", free_port());
    let site = blog_at(&bed.authority, &dead) + "[site.circuit_breaker]\nfailures = 1\n" + &policies(&bed.authority);
    let config = bed.config("").replace(&blog(&bed.authority, &bed.origin), &site);
    let pintle = Pintle::start(&bed.authority, &config);
    let ask = |more: &[&str]| -> Value {
        let mut command = pintle.command("explain");
        serde_json::from_str(&output(command.arg(format!("https://{BLOG}/")).arg("--json").args(more))).unwrap()
    };
    let report = ask(&["--live"]);
    assert_eq!((&report["decision"], &report["live"]), (&"forward".into(), &true.into()), "{report:#}");
    assert_eq!(report["upstream"]["health"]["circuit"], "closed");
    assert!(report["policies"]["pins"]["value"].is_string(), "{report:#}");
    let report = eventually("the circuit opens", || {
        let _ = output(pintle.curl().arg(format!("https://{BLOG}/")));
        Some(ask(&["--live"])).filter(|report| report["decision"] != "forward")
    });
    assert_eq!((&report["decision"], &report["status"]), (&"refuse".into(), &503.into()), "{report:#}");
    assert_eq!(report["refusal"]["kind"], "destination_unavailable", "{report:#}");
    assert_eq!(ask(&[])["decision"], "forward");
    // The questions are no requests.
    let requests = pintle.status()["counters"]["requests"].clone();
    ask(&["--live"]);
    assert_eq!(pintle.status()["counters"]["requests"], requests);
}

#[test]
fn questions_are_bounded() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    let say = |body: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "--data-binary", "@-"]);
        curl.arg("--unix-socket").arg(bed.socket()).arg("http://localhost/explain");
        let file = bed.folder.path().join("body");
        fs::write(&file, body).unwrap();
        curl.stdin(fs::File::open(file).unwrap());
        output(&mut curl)
    };
    let with = |fields: &str| format!("{{\"url\": \"https://{BLOG}/\", \"fields\": [{fields}]}}");
    assert_eq!(say(&with("")), "200");
    for wrong in [
        "",
        "[]",
        "{}",
        "{\"url\": 1}",
        "{\"url\": \"ftp://x/\"}",
        "{\"url\": \"https://\"}",
        "{\"url\": \"https://a/\", \"method\": \"A B\"}",
        "{\"url\": \"https://a/\", \"from\": \"x\"}",
        "{\"url\": \"https://a/\", \"unknown\": 1}",
    ] {
        assert_eq!(say(wrong), "400", "{wrong}");
    }
    assert_eq!(say(&with("[\"a\", \"x\\r\\nb: c\"]")), "400");
    assert_eq!(say(&with(&format!("[\"a\", \"{}\"]", "x".repeat(300 * 1024)))), "413");
    let many = vec!["[\"a\", \"b\"]"; 10_000].join(",");
    assert_eq!(say(&with(&many)), "200");
    assert_eq!(pintle.status()["pid"], pintle.pid());
}

/// A PROXY header that the listener does not expect: no silent answer as if it were not there.
#[test]
fn a_proxy_header_that_nobody_reads() {
    let header = ["https://blog.example.com/", "--proxy", "PROXY TCP4 192.0.2.1 10.0.0.1 5000 443"];
    for (listen, why) in [
        ("", "listen.proxy_protocol is not set"),
        ("trusted_proxies = [\"10.0.0.0/8\"]\nproxy_protocol = true", "only trusted peers send one"),
    ] {
        let draft = Draft::new(listen, "");
        let report = draft.ask(&header);
        assert!(step(&report, "PROXY header")["why"].as_str().unwrap().contains(why), "{report:#}");
    }
    let draft = Draft::new("", "");
    let (code, _, err) = outcome(&mut draft.command(&["https://blog.example.com/", "--method", "G ET"]));
    assert!(code == 2 && err.contains("a method has letters"), "{err}");
}

#[test]
fn missing_files_are_named() {
    let draft = Draft::new("", "");
    draft.append(
        "[[site]]\nhosts = [\"e.example\"]\nupstream = \"http://10.0.0.1\"\n[site.certificate]\nchain = \
         \"/nonexistent/e.pem\"\nkey = \"/nonexistent/e.key\"\n",
    );
    let (code, out, err) = outcome(&mut draft.command(&["https://e.example/"]));
    let words = out.split_whitespace().collect::<Vec<_>>().join(" ");
    let at = draft.line("nonexistent/e.pem");
    assert!(code == 0 && words.contains(&format!("its site has no usable certificate [{at}]")), "{out}{err}");
    assert!(err.contains("e.example: no usable certificate") && err.contains("--live"), "{err}");
    assert!(draft.ask(&["http://e.example/"])["verdict"].as_str().unwrap().starts_with("503: "));
}

#[test]
fn a_stopped_process_is_named() {
    let draft = Draft::new("", "");
    let (code, _, err) = outcome(&mut draft.command(&[&format!("https://{BLOG}/"), "--live"]));
    assert!(code == 1 && err.contains("no pintle listens at"), "{err}");
}

/// A connection of HTTP/2 is used for other names, too; and some fields end its streams.
#[test]
fn http2() {
    let draft = Draft::new("", "");
    let other = draft.authority.leaf("b", &["b.example"]);
    draft.append(&format!(
        "[[site]]\nhosts = [\"b.example\"]\nupstream = \"https://b.internal\"\n[site.certificate]\nchain = {:?}\nkey = \
         {:?}\n",
        other.chain, other.key
    ));
    let url = format!("https://{BLOG}/page");
    let report = draft.ask(&[&url, "--http2", "-H", "Accept: text/html"]);
    assert_eq!(
        (&report["decision"], &report["request"]["http_version"]),
        (&"forward".into(), &"2".into()),
        "{report:#}"
    );
    assert_eq!(field(&report, "request_fields", "Via")["after"], serde_json::json!(["2 pintle"]), "{report:#}");
    assert_eq!(step(&report, "certificate")["why"], format!("SNI {BLOG}: by its exact name"));
    // Coalescing: RFC 9113 section 9.1.1, and 421.
    let report = draft.ask(&["https://b.example/", "--http2", "--sni", BLOG]);
    assert_eq!((&report["decision"], &report["status"]), (&"refuse".into(), &421.into()), "{report:#}");
    assert_eq!(step(&report, "certificate")["why"], format!("SNI {BLOG}: by its exact name"));
    assert_eq!(draft.ask(&["https://b.example/", "--http2"])["decision"], "forward");
    // As with curl, Host becomes the authority.
    assert_eq!(draft.ask(&[&url, "--http2", "-H", "Host: b.example"])["status"], 421);
    for field in ["Connection: close", "Transfer-Encoding: chunked", "Upgrade: websocket", "Keep-Alive: x", "TE: gzip"]
    {
        let report = draft.ask(&[&url, "--http2", "-H", field]);
        assert_eq!(report["decision"], "closed", "{field}: {report:#}");
        assert!(report["verdict"].as_str().unwrap().contains("resets the stream with PROTOCOL_ERROR"), "{report:#}");
    }
    let huge = format!("X-Huge: {}", "x".repeat(120_000));
    assert_eq!(draft.ask(&[&url, "--http2", "-H", &huge])["status"], 431);
    let long = format!("X-Long: {}", "x".repeat(40_000));
    let report = draft.ask(&[&url, "--http2", "-H", &long]);
    assert_eq!((&report["decision"], &report["status"]), (&"refuse".into(), &431.into()));
    let (code, _, err) = outcome(&mut draft.command(&[&format!("http://{BLOG}/"), "--http2"]));
    assert!(code == 1 && err.contains("a plain listener speaks HTTP/1.1 only"), "{err}");
    let table = output(&mut draft.command(&[&url, "--http2"]));
    assert!(table.contains(" over HTTP/2") && table.contains("limits.http2_streams"), "{table}");
}
