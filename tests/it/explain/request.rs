//! `pintle explain --request`: why a request of the access log ended as it did; and the recent records behind it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::step;
use crate::admin::{Bed, get};
use crate::harness::{Authority, BLOG, Client, Origin, Pintle, Reply, eventually, outcome, output};

/// A process with a blog, and sites whose upstreams fail.
struct Sites {
    authority: Authority,
    _origin: Origin,
    client: Client,
    pintle: Pintle,
}

impl Sites {
    fn start(log: &str) -> Self {
        let authority = Authority::new();
        let origin = Origin::start(|asked| match asked.path() {
            "/never" => Reply::Custom(Box::new(|socket| {
                let _ = socket.read(&mut [0]);
                Ok(())
            })),
            "/half" => Reply::Custom(Box::new(|socket| {
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?;
                std::thread::sleep(Duration::from_secs(2));
                Ok(())
            })),
            _ => Reply::ok("hello"),
        });
        let leaf = authority.leaf("all", &["*.example.com"]);
        let site = |name: &str, upstream: &str, more: &str| {
            format!(
                "[[site]]\nhosts = [{name:?}]\nupstream = {upstream:?}\n{more}[site.certificate]\nchain = {:?}\nkey = \
                 {:?}\n",
                leaf.chain, leaf.key
            )
        };
        let config = [
            format!(
                "[state]\ndirectory = {:?}\n[limits]\nrequest_line = \"1KiB\"\n{log}",
                authority.folder().join("state")
            ),
            site(BLOG, &origin.url(), ""),
            site("down.example.com", "http://127.0.0.1:1", ""),
            site("slow.example.com", &origin.url(), "[site.upstream_options]\nresponse_timeout = \"1s\"\n"),
        ];
        let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 1\n";
        let pintle = Pintle::start_with(&authority, listen, &config.concat());
        Self { client: Client::new(&authority), authority, _origin: origin, pintle }
    }

    fn explain(&self, id: &Value) -> Command {
        let mut command = self.pintle.command("explain");
        command.args(["--request", id.as_str().unwrap()]);
        command
    }

    #[track_caller]
    fn ask(&self, record: &Value) -> Value {
        let explained: Value = serde_json::from_str(&output(self.explain(&record["id"]).arg("--json"))).unwrap();
        assert_eq!(&explained["record"], record, "the ring has what the log has");
        explained
    }

    fn line(&self, text: &str) -> String {
        let path = self.pintle.config_path();
        let at = fs::read_to_string(&path).unwrap().lines().position(|line| line.contains(text)).unwrap();
        format!("{}:{}", path.display(), at + 1)
    }

    fn records(&self, query: &str) -> Value {
        serde_json::from_str(&get(&self.authority.folder().join("state/admin.sock"), query)).unwrap()
    }
}

#[track_caller]
fn says(step: &Value, part: &str, words: &[&str]) {
    let text = step[part].as_str().unwrap();
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} in {step:#}");
}

#[test]
fn each_end_has_its_words() {
    let sites = Sites::start("");
    let Sites { client, pintle, .. } = &sites;

    client.get(pintle.https(), BLOG, "/whole?q=1");
    let explained = sites.ask(&pintle.access_line("/whole?q=1"));
    says(step(&explained, "end"), "what", &["the whole response went out"]);
    says(step(&explained, "attempts"), "what", &["1 attempt"]);
    says(step(&explained, "upstream"), "why", &["a new connection"]);
    for name in ["connect", "response", "first byte", "total"] {
        says(step(&explained, name), "what", &["ms"]);
    }
    says(step(&explained, "TLS"), "what", &["TLS 1.3", "SNI blog.example.com"]);
    let explanation = &explained["explanation"];
    assert_eq!((&explanation["decision"], &explanation["live"]), (&"forward".into(), &true.into()), "{explained:#}");
    assert_eq!(explanation["request"]["url"], format!("https://{BLOG}/whole?q=1"));
    assert_eq!((&explanation["request"]["from"], &explained["config_changed"]), (&"127.0.0.1".into(), &Value::Null));

    client.get(pintle.https(), "down.example.com", "/down");
    let explained = sites.ask(&pintle.access_line("/down"));
    says(step(&explained, "end"), "what", &["the upstream failed"]);
    says(step(&explained, "end"), "why", &["cause: connection refused", "ECONNREFUSED"]);
    assert_eq!(step(&explained, "upstream")["what"], "127.0.0.1:1");
    assert_eq!(step(&explained, "status")["what"], "502");
    says(&explained, "verdict", &["502", "connection refused"]);

    client.get(pintle.https(), "slow.example.com", "/never");
    let explained = sites.ask(&pintle.access_line("/never"));
    says(step(&explained, "end"), "what", &["limit reached, site.upstream_options.response_timeout = 1s"]);
    assert_eq!(step(&explained, "end")["at"], sites.line("response_timeout"));

    let mut connection = client.connect(pintle.https(), BLOG);
    connection.send(format!("GET /{} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n", "x".repeat(2000)));
    assert_eq!(connection.response("GET").status, 414);
    let limited = eventually("a limit", || pintle.access().into_iter().find(|r| r["limit"] == "request_line"));
    let explained = sites.ask(&limited);
    says(step(&explained, "end"), "what", &["limits.request_line = 1 KiB"]);
    assert_eq!(step(&explained, "end")["at"], sites.line("request_line"));
    says(&explained, "why_no_explanation", &["could not be read"]);

    let mut connection = client.connect(pintle.https(), BLOG);
    connection.send(format!("GET /half HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    connection.stream.read_exact(&mut [0; 20]).unwrap();
    drop(connection);
    let explained = sites.ask(&pintle.access_line("/half"));
    assert!(
        ["the client left", "the upstream failed"].contains(&step(&explained, "end")["what"].as_str().unwrap()),
        "{explained:#}"
    );

    // Over plain HTTP, and over a connection of another name.
    output(pintle.curl().args(["-o", "/dev/null"]).arg(format!("http://{BLOG}/plain")));
    let explained = sites.ask(&pintle.access_line("/plain"));
    assert_eq!(explained["explanation"]["decision"], "redirect", "{explained:#}");
    let mut connection = client.connect(pintle.https(), BLOG);
    connection.send("GET /other HTTP/1.1\r\nHost: slow.example.com\r\n\r\n");
    connection.response("GET");
    let explained = sites.ask(&pintle.access_line("/other"));
    assert_eq!(
        (&explained["record"]["sni"], &explained["explanation"]["site"]),
        (&BLOG.into(), &"slow.example.com".into())
    );
    says(step(&explained["explanation"], "certificate"), "why", &["SNI blog.example.com"]);
    assert_eq!(explained["record"]["status"], explained["explanation"]["status"], "{explained:#}");

    let address = pintle.https().to_string();
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &address, "-servername", "unknown.example", "-alpn", "h2"]);
    let _ = openssl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    let failed = eventually("a handshake", || pintle.access().into_iter().find(|r| r["kind"] == "handshake"));
    let explained = sites.ask(&failed);
    says(step(&explained, "end"), "what", &["pintle broke the handshake off"]);
    says(step(&explained, "end"), "why", &["unrecognized_name"]);
    says(step(&explained, "ClientHello"), "why", &["ALPN h2"]);
    assert_eq!(explained["explanation"]["decision"], "closed");
}

/// The table that refused a request, and no other one.
#[test]
fn a_record_names_its_table_of_limits() {
    let rates = "[[rate]]\nname = \"login\"\npaths = [\"/login\"]\nrequests = \"1/d\"\n[[rate]]\npaths = \
                 [\"/admin\"]\ndeny = [\"127.0.0.0/8\"]\n";
    let sites = Sites::start(rates);
    let Sites { client, pintle, .. } = &sites;
    let statuses = ["/login", "/login?again", "/admin"].map(|target| client.get(pintle.https(), BLOG, target).status);
    assert_eq!(statuses, [200, 429, 403]);

    let record = pintle.access_line("/login?again");
    assert_eq!(record["rule"], "login");
    let explained = sites.ask(&record);
    says(step(&explained, "end"), "what", &["limit reached, rate[0].requests = 1/d, 1 at once, for each client"]);
    assert_eq!(step(&explained, "end")["at"], sites.line("requests = "));

    let record = pintle.access_line("/admin");
    assert_eq!(record["rule"], "rate1");
    assert_eq!(step(&sites.ask(&record), "end")["at"], sites.line("deny = "));

    // The table is gone: no other one stands in for it.
    pintle.rewrite(|text| text.replace("name = \"login\"", "name = \"log-in\""));
    pintle.reload();
    let explained = sites.ask(&pintle.access_line("/login?again"));
    says(step(&explained, "end"), "what", &["requests of a table of limits (login)"]);
    assert_eq!(step(&explained, "end")["at"], Value::Null);
}

#[test]
fn another_attempt_is_reported() {
    let authority = Authority::new();
    // Each connection takes one request, and is closed while the next one is on its way.
    let origin = Origin::start(|_| {
        Reply::Custom(Box::new(|socket| socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")))
    });
    let bed = Bed { authority, origin, folder: tempfile::TempDir::new().unwrap() };
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    let client = Client::new(&bed.authority);
    let record = eventually("a retry", || {
        for _ in 0..20 {
            client.get(pintle.https(), BLOG, "/again");
        }
        pintle.access().into_iter().find(|record| record["retries"].as_u64() > Some(0))
    });
    let mut command = pintle.command("explain");
    command.args(["--json", "--request", record["id"].as_str().unwrap()]);
    let explained: Value = serde_json::from_str(&output(&mut command)).unwrap();
    says(step(&explained, "attempts"), "what", &["2 attempts", "1 retry"]);
}

#[test]
fn a_table_of_80_columns_and_a_changed_configuration() {
    let sites = Sites::start("");
    let Sites { client, pintle, .. } = &sites;
    let long = format!("/{}", "x".repeat(300));
    client.get(pintle.https(), "slow.example.com", &long);
    client.get(pintle.https(), "slow.example.com", "/never");
    for target in [&*long, "/never"] {
        let record = pintle.access_line(target);
        let table = output(&mut sites.explain(&record["id"]));
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        assert!(
            table.contains("The decisions about such a request") && table.contains("Fields to the upstream"),
            "{table}"
        );
        assert!(!table.contains("has changed since"), "{table}");
    }
    // A reload of the same file changes nothing.
    pintle.reload();
    let record = pintle.access_line("/never");
    assert_eq!(sites.ask(&record)["config_changed"], Value::Null);
    std::thread::sleep(Duration::from_millis(1100));
    pintle.rewrite(|text| text.replace("response_timeout = \"1s\"", "response_timeout = \"7s\""));
    pintle.reload();
    let explained = sites.ask(&record);
    assert!(explained["config_changed"].is_string(), "{explained:#}");
    says(step(&explained, "end"), "what", &["response_timeout = 7s"]);
    let table = output(&mut sites.explain(&record["id"]));
    assert!(table.contains("The configuration has changed since, at 20"), "{table}");
}

#[test]
fn an_unknown_id_names_the_reach() {
    let sites = Sites::start("[log]\nrecent = 3\n");
    let Sites { client, pintle, .. } = &sites;
    let ask = |id: &str| outcome(&mut sites.explain(&json!(id)));
    let (code, out, err) = ask("00000000-0-1");
    assert!(code == 1 && out.is_empty() && err.contains("no record 00000000-0-1"), "{err}");
    for number in 0..5 {
        client.get(pintle.https(), BLOG, &format!("/{number}"));
        pintle.access_line(&format!("/{number}"));
    }
    let all = pintle.access();
    let (first, oldest) = (all[0]["id"].as_str().unwrap(), all[all.len() - 3]["time"].as_str().unwrap());
    let (code, _, err) = ask(first);
    assert!(code == 1 && err.contains(&format!("the oldest is of {oldest}")), "{err}");
    assert!(err.contains("3 most recent") && err.contains("log.recent is 3"), "{err}");
    let (code, out, _) = outcome(sites.explain(&json!(first)).arg("--json"));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 1 && answer["error"].as_str().unwrap().contains(oldest), "{answer}");
    for wrong in ["", "a b", "a&n=1", "'"] {
        let (code, _, err) = ask(wrong);
        assert!(code == 1 && err.contains("not the id of a record"), "{wrong}: {err}");
    }
    let (code, _, err) = outcome(sites.explain(&json!(first)).arg("--live"));
    assert!(code == 2 && err.contains("cannot be used with"), "{err}");
    // Without ids, no record can be asked for.
    pintle.rewrite(|text| text.replace("[log]\n", "[log]\nfields = [\"-id\"]\n"));
    pintle.reload();
    let (_, _, err) = ask(first);
    assert!(err.contains("log.fields leaves out id"), "{err}");
}

#[test]
fn recent_records_by_site_and_status() {
    let sites = Sites::start("[log]\nrecent = 4\n");
    let Sites { client, pintle, .. } = &sites;
    for (site, target) in [(BLOG, "/1"), (BLOG, "/2"), ("down.example.com", "/3"), (BLOG, "/4"), (BLOG, "/5")] {
        client.get(pintle.https(), site, target);
        pintle.access_line(target);
    }
    let targets = |query: &str| -> Vec<String> {
        let answer = sites.records(query);
        let records = answer["records"].as_array().unwrap_or_else(|| panic!("{answer:#}"));
        records.iter().map(|record| record["target"].as_str().unwrap().to_owned()).collect()
    };
    for path in ["/records", "/v1/records"] {
        let asked = |query: &str| targets(&format!("{path}{query}"));
        assert_eq!(asked(""), ["/5", "/4", "/3", "/2"]);
        assert_eq!(asked("?n=1"), ["/5"]);
        assert_eq!(asked(&format!("?site={BLOG}&n=2")), ["/5", "/4"]);
        assert_eq!(asked("?status=502"), ["/3"]);
        assert_eq!(asked("?status=5xx&site=down.example.com"), ["/3"]);
        assert_eq!(asked("?status=404"), [""; 0]);
    }
    let answer = sites.records("/v1/records?n=0");
    assert_eq!((&answer["kept"], &answer["max"], &answer["records"]), (&4.into(), &4.into(), &json!([])));
    assert_eq!(answer["oldest"], pintle.access_line("/2")["time"]);
    for wrong in ["?n=x", "?n=-1", "?status=6xx", "?status=x"] {
        assert!(sites.records(&format!("/v1/records{wrong}"))["error"].is_string(), "{wrong}");
    }
    let id = pintle.access_line("/3")["id"].as_str().unwrap().to_owned();
    assert_eq!(sites.records(&format!("/v1/records?id={id}"))["record"]["target"], "/3");
}

/// Records can be asked for whatever the log's format is, and without a log; and they lack what the log lacks.
#[test]
fn records_of_every_format() {
    for (log, kept) in [
        ("format = \"combined\"\n", true),
        ("format = \"short\"\n", true),
        ("access = \"off\"\nrecent = 10\n", true),
        ("access = \"/dev/null\"\n", true),
        ("access = \"off\"\n", false),
        ("recent = 0\n", false),
    ] {
        let sites = Sites::start(&format!("[log]\nredact = [\"query\", \"client\"]\n{log}"));
        sites.client.get(sites.pintle.https(), BLOG, "/a?secret=1");
        if !kept {
            let answer = sites.records("/records");
            assert!(answer["error"].as_str().unwrap().contains("log.recent is 0"), "{log}: {answer:#}");
            let (code, _, err) = outcome(&mut sites.explain(&json!("1-0-1")));
            assert!(code == 1 && err.contains("recent = 1000"), "{log}: {err}");
            continue;
        }
        let record = eventually("the record", || sites.records("/records")["records"].get(0).cloned());
        assert_eq!((&record["target"], &record["client"]), (&"/a?".into(), &"127.0.0.0".into()), "{log}");
        let explained: Value = serde_json::from_str(&output(sites.explain(&record["id"]).arg("--json"))).unwrap();
        assert!(!explained.to_string().contains("secret"), "{explained:#}");
        assert!(explained["notes"].to_string().contains("log.redact leaves queries out"), "{explained:#}");
        assert_eq!(explained["explanation"]["decision"], "forward", "{log}: {explained:#}");
    }
}

/// The decisions are repeated with the statements of a trusted proxy.
#[test]
fn a_request_through_a_trusted_proxy() {
    let bed = Bed::new();
    for (listen, field) in [
        ("", "X-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.9"),
        ("trust = \"forwarded\"\n", "Forwarded: for=192.0.2.9;proto=https"),
    ] {
        let listen = format!(
            "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\ntrusted_proxies = [\"127.0.0.0/8\"]\n{listen}"
        );
        let pintle = Pintle::start_with(&bed.authority, &listen, &bed.config(""));
        let mut socket = std::net::TcpStream::connect(pintle.http()).unwrap();
        write!(socket, "GET /proxied HTTP/1.1\r\nHost: {BLOG}\r\n{field}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let record = pintle.access_line("/proxied");
        let mut command = pintle.command("explain");
        command.args(["--json", "--request", record["id"].as_str().unwrap()]);
        let explained: Value = serde_json::from_str(&output(&mut command)).unwrap();
        let explanation = &explained["explanation"];
        assert_eq!(
            (&explanation["client"], &explanation["scheme"]),
            (&"192.0.2.9".into(), &"https".into()),
            "{explained:#}"
        );
        assert_eq!(
            (&explanation["decision"], &explanation["request"]["listener"]),
            (&"forward".into(), &"http".into())
        );
        says(step(&explained, "client"), "why", &["through 127.0.0.1"]);
    }
}
