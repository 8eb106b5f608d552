//! `/metrics`, and the alerts on it: the formats by the parsers of others, the guide's list, a real Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::admin::Bed;
use crate::harness::{Authority, BLOG, Client, Origin, Pintle, Reply, eventually, outcome, output, program};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Bed {
    fn start_with(&self, before: &str, site: &str) -> Pintle {
        Pintle::start(&self.authority, &(self.config(before) + site))
    }

    fn metrics(&self) -> String {
        crate::admin::get(&self.socket(), "/metrics")
    }

    /// The value of one series.
    pub fn value(&self, series: &str) -> Option<f64> {
        value(&self.metrics(), series)
    }

    fn negotiated(&self, accept: &str) -> (String, String) {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-H", &format!("Accept: {accept}"), "-w", "\n%{content_type}", "--unix-socket"]);
        let answer = output(curl.arg(self.socket()).arg("http://localhost/metrics"));
        let (text, kind) = answer.rsplit_once('\n').unwrap();
        (kind.to_owned(), text.to_owned())
    }
}

/// The value of one series.
pub fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// The names of all metrics.
pub fn families(metrics: &str) -> BTreeSet<String> {
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    types.map(str::to_owned).collect()
}

/// The series without their values.
fn series(metrics: &str) -> BTreeSet<String> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// The states add up to the connections, also right after the last one has ended.
#[test]
fn the_states_of_connections_add_up() {
    let bed = Bed::new();
    let pintle = bed.start_with("", "");
    let sum = |status: &serde_json::Value| -> u64 {
        status["connection_states"].as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum()
    };
    for _ in 0..5 {
        let open: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(pintle.http()).unwrap()).collect();
        eventually("three connections with a state", || {
            let status = pintle.status();
            (status["connections"] == 3 && sum(&status) == 3).then_some(())
        });
        drop(open);
        let status = eventually("no connection", || Some(pintle.status()).filter(|status| status["connections"] == 0));
        assert_eq!(sum(&status), 0, "{status:#}");
    }
}

#[test]
fn both_formats_are_read_by_the_reference_parsers() {
    let bed = Bed::new();
    let pintle = bed.start_with("", "[site.hsts]\nramp = [\"5m\", \"1h\"]\n");
    Client::new(&bed.authority).get(pintle.https(), BLOG, "/");
    let (kind, text) = bed.negotiated("text/plain");
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let (open_kind, open) = bed.negotiated("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5");
    assert_eq!(open_kind, OPEN_METRICS);
    assert!(open.ends_with("# EOF\n") && !text.contains("# EOF"), "{open}");
    let (old, new) = (bed.folder.path().join("text"), bed.folder.path().join("open"));
    fs::write(&old, &text).unwrap();
    fs::write(&new, &open).unwrap();
    let script = "import sys\n\
        from prometheus_client.parser import text_string_to_metric_families as old\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as new\n\
        samples = lambda families: {(s.name, tuple(sorted(s.labels.items()))) for f in families for s in f.samples}\n\
        one, other = samples(old(open(sys.argv[1]).read())), samples(new(open(sys.argv[2]).read()))\n\
        assert one == other, one ^ other\n\
        print(len(one))\n";
    let count: usize =
        output(Command::new("/usr/bin/python3").args(["-c", script]).arg(&old).arg(&new)).trim().parse().unwrap();
    assert_eq!(count, series(&text).len());
    // Prometheus' own linter has nothing to say.
    let lint = format!("{} check metrics < {}", program("promtool").display(), old.display());
    let (code, out, err) = outcome(Command::new("sh").args(["-c", &lint]));
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
}

#[test]
fn the_guide_lists_every_metric() {
    let bed = Bed::new();
    let _pintle = bed.start_with("", "");
    let guide = include_str!("../../docs/guide/monitoring.md");
    let listed = guide.lines().filter_map(|line| {
        let name = line.strip_prefix("| `")?.split(['`', '{']).next()?;
        (name.starts_with("pintle_") || name.starts_with("process_")).then(|| name.to_owned())
    });
    assert_eq!(listed.collect::<BTreeSet<_>>(), families(&bed.metrics()));
}

/// Labels come from the configuration, never from clients.
#[test]
fn clients_create_no_series() {
    let bed = Bed::new();
    let pintle = bed.start_with("", "");
    let before = series(&bed.metrics());
    let client = Client::new(&bed.authority);
    for n in 0..50 {
        let mut connection = client.connect(pintle.https(), BLOG);
        let host = if n % 2 == 0 { BLOG.to_owned() } else { format!("host{n}.example") };
        connection.send(format!("METHOD{n} /{n} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {n}\r\n\r\n"));
        connection.response("GET");
    }
    assert_eq!(series(&bed.metrics()), before);
    assert!(bed.value("pintle_requests_total").unwrap() >= 50.0);
}

/// A connection is counted in one state, and the next one follows what its client does.
#[test]
fn connections_by_state_latencies_and_memory() {
    let authority = Authority::new();
    let origin = Origin::start(|asked| match asked.path() {
        "/slow" => Reply::Custom(Box::new(|socket| {
            let _ = socket.read(&mut [0]);
            Ok(())
        })),
        "/socket" => Reply::Custom(Box::new(|socket| {
            socket.write_all(
                b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: \
                  s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            )?;
            let _ = socket.read(&mut [0]);
            Ok(())
        })),
        _ => Reply::ok("hello"),
    });
    let bed = Bed { authority, origin, folder: tempfile::TempDir::new().unwrap() };
    let pintle = bed.start_with("", "");
    let client = Client::new(&bed.authority);
    let states = |silent: f64, idle: f64, active: f64, tunnel: f64| {
        eventually(&format!("{silent} silent, {idle} idle, {active} active, {tunnel} tunnels"), || {
            let metrics = bed.metrics();
            let state =
                |name: &str| value(&metrics, &format!("pintle_connections_by_state{{state=\"{name}\"}}")).unwrap();
            let found = ["silent", "idle", "active", "tunnel"].map(state);
            (found == [silent, idle, active, tunnel] && state("handshaking") + state("draining") == 0.0).then_some(())
        });
    };
    states(0.0, 0.0, 0.0, 0.0);
    let silent = TcpStream::connect(pintle.https()).unwrap();
    states(1.0, 0.0, 0.0, 0.0);
    let mut idle = client.connect(pintle.https(), BLOG);
    idle.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    assert_eq!(idle.response("GET").status, 200);
    states(1.0, 1.0, 0.0, 0.0);
    let mut active = client.connect(pintle.https(), BLOG);
    active.send(format!("GET /slow HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    states(1.0, 1.0, 1.0, 0.0);
    let mut tunnel = client.connect(pintle.https(), BLOG);
    tunnel.send(format!(
        "GET /socket HTTP/1.1\r\nHost: {BLOG}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: \
         13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    assert_eq!(tunnel.response("GET").status, 101);
    states(1.0, 1.0, 1.0, 1.0);
    let status = pintle.status();
    assert_eq!(status["connection_states"]["tunnel"], 1, "{}", status["connection_states"]);
    let table = output(&mut pintle.command("status"));
    assert!(table.contains("1 active") && table.contains("first byte") && table.contains("allocator: "), "{table}");
    drop((silent, idle, active, tunnel));
    states(0.0, 0.0, 0.0, 0.0);
    // The upstream has answered two requests.
    assert!(bed.value("pintle_upstream_response_seconds_count").unwrap() >= 1.0);
    let memory = |name: &str| bed.value(&format!("pintle_allocator_{name}_bytes")).unwrap();
    assert!(
        memory("allocated") > 1e5 && memory("active") > 1e5 && memory("resident") > 1e5 && memory("retained") >= 0.0
    );
    assert!(status["memory"]["allocator"]["allocated"].as_u64() <= status["memory"]["allocator"]["resident"].as_u64());
}

/// Latencies need no access log.
#[test]
fn latencies_without_an_access_log() {
    let bed = Bed::new();
    let pintle = bed.start_with("[log]\naccess = \"off\"\n", "");
    Client::new(&bed.authority).get(pintle.https(), BLOG, "/");
    for part in ["request_first_byte", "request_duration", "upstream_response"] {
        let series = format!("pintle_{part}_seconds_count");
        eventually(&series, || (bed.value(&series) == Some(1.0)).then_some(()));
    }
}

/// Requests by site and class, latencies, handshakes and limits, by what clients did; and a reload keeps them.
#[test]
fn traffic_by_site_and_reason() {
    let bed = Bed::new();
    let another = |name: &str| {
        let host = format!("{name}.example.com");
        let leaf = bed.authority.leaf(name, &[&host]);
        format!(
            "[[site]]\nhosts = [{host:?}]\nupstream = \"http://127.0.0.1:1\"\n\
             [site.certificate]\nchain = {:?}\nkey = {:?}\n",
            leaf.chain, leaf.key
        )
    };
    let pintle = bed.start_with("[limits]\nrequest_line = \"1KiB\"\n", &another("down"));
    let requests = |site: &str, method: &str, status: &str| {
        bed.value(&format!("pintle_site_requests_total{{site=\"{site}\",method=\"{method}\",status=\"{status}\"}}"))
    };
    for site in [BLOG, "(no site)"] {
        for method in ["read", "write", "other"] {
            for status in ["1xx", "2xx", "3xx", "4xx", "5xx"] {
                assert_eq!(requests(site, method, status), Some(0.0), "{site} {method} {status}");
            }
        }
    }
    let client = Client::new(&bed.authority);
    let mut connection = client.connect(pintle.https(), BLOG);
    connection.send(format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 5\r\n\r\nhello"));
    assert_eq!(connection.response("POST").status, 200);
    connection.send("GET / HTTP/1.1\r\nHost: unknown.example\r\n\r\n");
    assert_eq!(connection.response("GET").status, 421);
    client.get(pintle.https(), BLOG, "/");
    client.get(pintle.https(), "down.example.com", "/");
    let mut long = client.connect(pintle.https(), BLOG);
    long.send(format!("GET /{} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n", "x".repeat(2000)));
    assert_eq!(long.response("GET").status, 414);
    assert!(client.try_connect(pintle.https(), "unknown.example").is_err());
    eventually("the refused handshake", || {
        bed.value("pintle_handshake_results_total{result=\"failed\",reason=\"unknown_name\"}").filter(|n| *n == 1.0)
    });
    let counted = || {
        let of = |series: &str| bed.value(series).unwrap_or(-1.0);
        [
            requests(BLOG, "write", "2xx").unwrap(),
            requests(BLOG, "read", "2xx").unwrap(),
            requests("down.example.com", "read", "5xx").unwrap(),
            of(&format!("pintle_site_received_bytes_total{{site=\"{BLOG}\"}}")),
            of("pintle_limits_reached_total{limit=\"request_line\"}"),
            of("pintle_upstream_failures_total{cause=\"connection refused\"}"),
            of("pintle_upstream_requests_total"),
            of("pintle_request_duration_seconds_count"),
            of("pintle_request_duration_seconds_bucket{le=\"+Inf\"}"),
            of("pintle_request_first_byte_seconds_count"),
            of("pintle_handshakes_total"),
        ]
    };
    let wanted = [1.0, 1.0, 1.0, 5.0, 1.0, 1.0, 3.0, 5.0, 5.0, 5.0, 4.0];
    eventually("all requests", || (counted() == wanted).then_some(()));
    assert_eq!(requests("(no site)", "read", "4xx"), Some(2.0), "the unknown host, and a head that was not read");
    assert!(bed.value("pintle_request_duration_seconds_sum").unwrap() > 0.0);
    assert!(bed.value("pintle_worker_loop_delay_seconds_count{worker=\"0\"}").is_some());
    // Another order of the sites, and a new one.
    let third = another("third");
    pintle.rewrite(|text| text.replacen("[[site]]", &format!("{third}[[site]]"), 1));
    output(&mut pintle.command("reload"));
    assert_eq!(counted(), wanted);
    assert_eq!(requests("third.example.com", "read", "2xx"), Some(0.0));
}

#[test]
fn certificates_promises_and_the_process() {
    let bed = Bed::new();
    let spare = bed.authority.leaf("spare", &[BLOG]);
    let more = bed.authority.leaf("more", &[BLOG]);
    let pins = format!("[site.hpkp]\nmax_age = \"30d\"\nbackups = [{:?}, {:?}]\n", spare.chain, more.chain);
    let pintle = bed.start_with("", &pins);
    let now = jiff::Timestamp::now().as_second() as f64;
    Client::new(&bed.authority).get(pintle.https(), BLOG, "/");
    let site = format!("{{site=\"{BLOG}\"}}");
    let of_certificate =
        |name: &str| bed.value(&format!("pintle_certificate_{name}{{site=\"{BLOG}\",algorithm=\"ecdsa-p256\"}}"));
    let status = pintle.status();
    let certificate = &status["sites"][0]["certificates"][0];
    let seconds = |field: &str| {
        let time: jiff::Timestamp = certificate[field].as_str().unwrap().parse().unwrap();
        Some(time.as_second() as f64)
    };
    assert_eq!(of_certificate("not_after_timestamp_seconds"), seconds("not_after"));
    assert_eq!(of_certificate("not_before_timestamp_seconds"), seconds("not_before"));
    let left = of_certificate("lifetime_left_ratio").unwrap();
    assert!(left > 0.5 && left <= 1.0, "{left}");
    assert!(bed.metrics().contains(&format!("pin=\"{}\"", certificate["pin"].as_str().unwrap())));
    assert_eq!(bed.value(&format!("pintle_pin_backups{site}")), Some(2.0));
    assert_eq!(bed.value(&format!("pintle_promises_alive{site}")), Some(1.0));
    let safe = bed.value(&format!("pintle_rotation_safe_timestamp_seconds{site}")).unwrap();
    assert_eq!(bed.value(&format!("pintle_promises_until_timestamp_seconds{site}")), Some(safe));
    assert!((safe - now - 30.0 * 86_400.0).abs() < 7200.0, "{safe} {now}");
    let started = bed.value("process_start_time_seconds").unwrap();
    assert!((started - now).abs() < 60.0, "{started} {now}");
    // In the sandbox, too.
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_max_fds"] {
        assert!(bed.value(name).is_some_and(|value| value > 5.0), "{name}\n{}", bed.metrics());
    }
    assert!(bed.value("process_cpu_seconds_total").is_some());
    // A refused reload, and a good one.
    assert_eq!(bed.value("pintle_config_refused"), Some(0.0));
    let good = fs::read_to_string(pintle.config_path()).unwrap();
    fs::write(pintle.config_path(), "[[sight]]\n").unwrap();
    let _ = crate::admin::post(&bed.socket(), "/reload");
    assert_eq!(bed.value("pintle_config_refused"), Some(1.0));
    fs::write(pintle.config_path(), good).unwrap();
    output(&mut pintle.command("reload"));
    assert_eq!(bed.value("pintle_config_refused"), Some(0.0));
}

pub fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/prometheus")
}

#[test]
fn alerts_fire_and_are_resolved() {
    let (rules, tests) = (rules().join("pintle.rules.yml"), rules().join("pintle.test.yml"));
    let text = fs::read_to_string(&rules).unwrap();
    let tested = fs::read_to_string(&tests).unwrap();
    let guide = include_str!("../../docs/guide/monitoring.md");
    let alerts: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 20);
    for alert in alerts {
        assert!(tested.contains(&format!("  - name: {alert}\n")), "{alert} has no test");
        assert!(guide.contains(&format!("\n### {alert}\n")), "{alert} is not in the guide");
    }
    output(Command::new(program("promtool")).args(["check", "rules"]).arg(&rules));
    output(Command::new(program("promtool")).args(["test", "rules"]).arg(&tests));
}
