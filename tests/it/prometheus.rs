//! A real Prometheus reads real pintles: its alerts fire and are resolved, and every panel of the dashboard has its
//! metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::admin;
use crate::harness::double::{Answer, Double, Step, When};
use crate::harness::pebble::{Settings, is_current};
use crate::harness::{
    Authority, BLOG, Client, Origin, Pintle, Program, Reply, blog_at, eventually, free_port, output, policies, program,
};
use crate::ledger::{Tmpfs, set_max_age};
use crate::metrics::{families, rules};
use crate::pebble::clock::Clock;
use crate::pebble::orders::{self, obtained, window};
use crate::rotation;

/// A Prometheus with the rules of dist/prometheus, without their waiting times, and with short ranges.
struct Prometheus {
    port: u16,
    _folder: TempDir,
    _program: Program,
}

impl Prometheus {
    /// Scrapes these admin ports, each with the token of its state.
    fn start(targets: &[(u16, PathBuf)]) -> Self {
        Self::start_with(targets, &[])
    }

    fn start_with(targets: &[(u16, PathBuf)], options: &[&str]) -> Self {
        let (folder, port) = (TempDir::new().unwrap(), free_port());
        let at = folder.path();
        let text = fs::read_to_string(rules().join("pintle.rules.yml")).unwrap();
        let at_once = text.lines().filter(|line| !line.trim_start().starts_with("for: "));
        let mut at_once = at_once.collect::<Vec<_>>().join("\n");
        for range in ["[1m]", "[2m]", "[5m]", "[10m]", "[15m]", "[1h]"] {
            at_once = at_once.replace(range, "[5s]");
        }
        fs::write(at.join("rules.yml"), at_once).unwrap();
        let jobs: String = targets
            .iter()
            .enumerate()
            .map(|(n, (admin, state))| {
                format!(
                    "- job_name: pintle{n}\n  authorization: {{ credentials_file: {:?} }}\n\
                     \x20 relabel_configs: [{{ target_label: job, replacement: pintle }}]\n\
                     \x20 static_configs: [{{ targets: [\"127.0.0.1:{admin}\"] }}]\n",
                    state.join("admin.token")
                )
            })
            .collect();
        let global = "global: { scrape_interval: 1s, evaluation_interval: 1s }\nrule_files: [rules.yml]\n";
        fs::write(at.join("prometheus.yml"), format!("{global}scrape_configs:\n{jobs}")).unwrap();
        let mut command = Command::new(program("prometheus"));
        command.args(options);
        command.arg(format!("--config.file={}", at.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", at.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let program = Program::start(&mut command, at, "prometheus").listens(port);
        let started = Self { port, _folder: folder, _program: program };
        eventually("three scrapes of each", || {
            let counts = started.query("count_over_time(pintle_build_info[1m])").ok()?;
            let counts: Vec<u32> =
                counts.iter().map(|count| count["value"][1].as_str().unwrap().parse().unwrap()).collect();
            (counts.len() == targets.len() && counts.iter().all(|count| *count > 3)).then_some(())
        });
        started
    }

    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--get"]).arg(format!("http://127.0.0.1:{}/api/v1/{path}", self.port));
        for (name, value) in parameters {
            curl.arg("--data-urlencode").arg(format!("{name}={value}"));
        }
        serde_json::from_str(&output(&mut curl)).unwrap_or_default()
    }

    /// The result of a query, or its error.
    fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let answer = self.ask("query", &[("query", expression)]);
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default()),
            _ => Err(answer.to_string()),
        }
    }

    /// The alerts that fire.
    fn firing(&self) -> BTreeSet<String> {
        let alerts = self.ask("alerts", &[])["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    fn fires(&self, alert: &str) {
        eventually(&format!("{alert} fires"), || self.firing().contains(alert).then_some(()));
    }

    fn is_quiet(&self) {
        eventually("all alerts are resolved", || self.firing().is_empty().then_some(()));
    }

    /// How often each alert began to fire, over all its series.
    fn beginnings(&self) -> BTreeMap<String, usize> {
        let series = self.query("ALERTS_FOR_STATE[1h]").unwrap();
        let mut beginnings = BTreeMap::new();
        for one in series {
            let values = one["values"].as_array().unwrap().iter().map(|value| value[1].as_str().unwrap().to_owned());
            let times: BTreeSet<String> = values.collect();
            *beginnings.entry(one["metric"]["alertname"].as_str().unwrap().to_owned()).or_default() += times.len();
        }
        beginnings
    }
}

#[test]
fn a_refused_configuration_alerts_and_is_resolved() {
    let bed = admin::Bed::new();
    let port = free_port();
    let config = bed.config(&format!("[admin]\nlisten = \"127.0.0.1:{port}\"\n"));
    let pintle = Pintle::start(&bed.authority, &config);
    let prometheus = Prometheus::start(&[(port, bed.folder.path().join("state"))]);
    assert_eq!(prometheus.firing(), BTreeSet::new(), "a healthy host");
    let good = fs::read_to_string(pintle.config_path()).unwrap();
    fs::write(pintle.config_path(), "[[sight]]\n").unwrap();
    pintle.signal("HUP");
    eventually("the refused configuration alerts", || {
        (prometheus.firing() == ["PintleConfigRefused".to_owned()].into()).then_some(())
    });
    fs::write(pintle.config_path(), good).unwrap();
    output(&mut pintle.command("reload"));
    prometheus.is_quiet();
}

/// A Prometheus with native histograms reads the messages: quantiles by finer buckets than the classic ones, and the same
/// series otherwise.
#[test]
fn native_histograms() {
    let bed = admin::Bed::new();
    let port = free_port();
    let config = bed.config(&format!("[admin]\nlisten = \"127.0.0.1:{port}\"\n"));
    let pintle = Pintle::start(&bed.authority, &config);
    let client = Client::new(&bed.authority);
    let begin = tokio::time::Instant::now();
    for _ in 0..20 {
        client.get(pintle.https(), BLOG, "/");
    }
    let most = begin.elapsed().as_secs_f64();
    let targets = [(port, bed.folder.path().join("state"))];
    let prometheus = Prometheus::start_with(&targets, &["--enable-feature=native-histograms"]);
    let number = |expression: &str| -> f64 {
        let result = prometheus.query(expression).unwrap();
        let [one] = &result[..] else { panic!("{expression}: {result:?}") };
        one["value"][1].as_str().unwrap().parse().unwrap()
    };
    assert_eq!(number("histogram_count(pintle_request_duration_seconds)"), 20.0);
    let sum = number("histogram_sum(pintle_request_duration_seconds)");
    assert!(sum > 0.0 && sum <= most, "{sum} of {most}");
    let quantile = |q: f64| number(&format!("histogram_quantile({q}, pintle_request_duration_seconds)"));
    let (least, median, last) = (quantile(0.0), quantile(0.5), quantile(1.0));
    assert!(0.0 < least && least <= median && median <= last && last <= most * 1.1, "{least} {median} {last}");
    assert!(20.0 * least <= sum * 1.1 && sum <= 20.0 * last, "the sum lies between: {least} {last} {sum}");
    assert_eq!(number("histogram_fraction(0, +Inf, pintle_request_duration_seconds)"), 1.0);
    // A histogram with a label.
    assert!(number("histogram_count(pintle_worker_loop_delay_seconds{worker=\"0\"})") > 1.0);
    // All other series, by their names and labels.
    let token = fs::read_to_string(targets[0].1.join("admin.token")).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-H", &format!("Authorization: Bearer {}", token.trim())]);
    let text = output(curl.arg(format!("http://127.0.0.1:{port}/metrics")));
    let of_histogram = |name: &str| ["_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end));
    let names = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap().0);
    let wanted: BTreeSet<String> = names
        .map(|series| series.split_once('{').unwrap_or((series, "")).0.to_owned())
        .filter(|name| !of_histogram(name))
        .collect();
    let found = prometheus.query("count by (__name__) ({__name__=~\"(pintle|process)_.*\"})").unwrap();
    let found: BTreeSet<String> =
        found.iter().map(|one| one["metric"]["__name__"].as_str().unwrap().to_owned()).collect();
    let histograms: BTreeSet<String> = found.difference(&wanted).cloned().collect();
    let native = [
        "pintle_request_duration_seconds",
        "pintle_request_first_byte_seconds",
        "pintle_upstream_response_seconds",
        "pintle_worker_loop_delay_seconds",
    ];
    assert_eq!(histograms, native.map(str::to_owned).into(), "no classic series");
    assert_eq!(wanted.difference(&found).collect::<Vec<_>>(), Vec::<&String>::new());
    let requests = format!("pintle_site_requests_total{{site=\"{BLOG}\",method=\"read\",status=\"2xx\"}}");
    assert_eq!(number(&requests), 20.0);
}

/// Every panel's query is valid, and has data where this host has something to show.
#[test]
fn the_dashboard_shows_a_real_pintle() {
    let authority = Authority::new();
    let (origin, port, state) = (Origin::hello(), free_port(), authority.folder().join("state"));
    let config = format!(
        "[state]\ndirectory = {state:?}\n[admin]\nlisten = \"127.0.0.1:{port}\"\n\
         [[hook]]\ncommand = \"/bin/true\"\nname = \"quiet\"\n{}{}",
        blog_at(&authority, &origin.url()),
        policies(&authority).replace("max_age = \"1y\"", "ramp = [\"5m\", \"1h\"]")
    );
    let pintle = Pintle::start(&authority, &config);
    let prometheus = Prometheus::start(&[(port, state.clone())]);
    for _ in 0..5 {
        Client::new(&authority).get(pintle.https(), BLOG, "/");
        thread::sleep(Duration::from_millis(500));
    }
    let token = fs::read_to_string(state.join("admin.token")).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-H", &format!("Authorization: Bearer {}", token.trim())]);
    let known = families(&output(curl.arg(format!("http://127.0.0.1:{port}/metrics"))));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/grafana/pintle.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    is_well_formed(&dashboard);
    // Without ACME, without a promise that ends, and without failures, these have nothing to show.
    let may_be_empty = ["pintle_renewal_", "ALERTS", "changes("];
    let mut shown = BTreeSet::new();
    let annotations = dashboard["annotations"]["list"].as_array().unwrap().iter().map(|a| &a["expr"]);
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    for expression in targets.map(|target| &target["expr"]).chain(annotations) {
        let expression = expression.as_str().unwrap();
        let filled =
            [("$job", "pintle"), ("$instance", ".*"), ("$site", ".*"), ("$__rate_interval", "10s"), ("$__range", "1m")]
                .iter()
                .fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value));
        assert!(!filled.contains('$'), "an unknown variable: {filled}");
        let result = prometheus.query(&filled).unwrap_or_else(|error| panic!("{filled}: {error}"));
        let is_excused = may_be_empty.iter().any(|part| expression.contains(part));
        assert!(is_excused || !result.is_empty(), "nothing to show: {filled}");
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("pintle_") || word.starts_with("process_")) {
            // The buckets of a histogram have a suffix.
            let name = name.trim_end_matches("_bucket");
            assert!(known.contains(name), "{name} is no metric: {expression}");
            shown.insert(name.to_owned());
        }
    }
    assert!(shown.len() > 40, "{shown:?}");
    for variable in dashboard["templating"]["list"].as_array().unwrap().iter().skip(1) {
        let query = variable["query"]["query"].as_str().unwrap();
        let (series, label) =
            query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
        let found = prometheus.query(&series.replace("$job", "pintle")).unwrap();
        assert!(found.iter().all(|one| one["metric"][label].is_string()) && !found.is_empty(), "{query}");
    }
}

/// Holds the dashboard against the types of dashboards that Grafana publishes, made into a JSON schema: the dashboard, each
/// panel, and the options of its kind.
#[test]
fn the_dashboard_follows_the_schema_of_grafana() {
    let script = "import json, sys\n\
        import jsonschema\n\
        schema, board = (json.load(open(path)) for path in sys.argv[1:])\n\
        faults = []\n\
        def check(kind, value, title):\n\
        \x20   of = {**schema['properties'][kind], 'definitions': schema['definitions']}\n\
        \x20   for error in jsonschema.Draft7Validator(of).iter_errors(value):\n\
        \x20       faults.append(f'{title}: {kind}: {list(error.absolute_path)}: {error.message}')\n\
        panels = board.pop('panels')\n\
        check('dashboard', board, 'dashboard')\n\
        kinds = {'timeseries': ('timeOptions', 'timeField'), 'stat': ('statOptions', None), 'table': ('tableOptions', 'tableField')}\n\
        for panel in panels:\n\
        \x20   title = panel['title']\n\
        \x20   if panel['type'] == 'row':\n\
        \x20       check('row', panel, title)\n\
        \x20       continue\n\
        \x20   check('panel', panel, title)\n\
        \x20   options, custom = kinds[panel['type']]\n\
        \x20   check(options, panel['options'], title)\n\
        \x20   if custom:\n\
        \x20       check(custom, panel['fieldConfig']['defaults']['custom'], title)\n\
        print(len(faults), *faults, sep='\\n')\n";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = root.join("tests/it/grafana.schema.json");
    let faults = |board: &Path| output(Command::new("python3").args(["-c", script]).arg(&schema).arg(board));
    let dashboard = root.join("dist/grafana/pintle.json");
    let found = faults(&dashboard);
    assert_eq!(found.trim(), "0", "{found}");
    // The schema finds faults: another type, an unknown option, and a word that is none of a list.
    let folder = TempDir::new().unwrap();
    let text = fs::read_to_string(&dashboard).unwrap();
    for (from, to) in [
        ("\"editable\": true", "\"editable\": \"yes\""),
        ("\"wideLayout\"", "\"wideLayuot\""),
        ("\"placement\": \"bottom\"", "\"placement\": \"below\""),
    ] {
        let damaged = folder.path().join("damaged.json");
        fs::write(&damaged, text.replacen(from, to, 1)).unwrap();
        assert_ne!(faults(&damaged).lines().next(), Some("0"), "{to}");
    }
}

/// The rules that no schema has: places, ids and data sources.
fn is_well_formed(dashboard: &Value) {
    assert_eq!((&dashboard["schemaVersion"], &dashboard["uid"]), (&39.into(), &"pintle".into()));
    assert!(dashboard["title"].is_string() && dashboard["tags"].is_array() && dashboard["time"]["from"].is_string());
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 30);
    assert_eq!(panels[0]["title"], "Attention", "what needs attention comes first");
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        let (x, y, w, h) = (place("x"), place("y"), place("w"), place("h"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies on another panel");
        }
        let kind = panel["type"].as_str().unwrap();
        if kind == "row" {
            continue;
        }
        assert!(["stat", "timeseries", "table"].contains(&kind), "{title}: {kind}");
        assert!(
            panel["fieldConfig"]["defaults"].is_object() && panel["fieldConfig"]["overrides"].is_array(),
            "{title}"
        );
        assert!(panel["options"].is_object(), "{title}");
        let targets = panel["targets"].as_array().unwrap();
        let letters: BTreeSet<&str> = targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert!(!targets.is_empty() && letters.len() == targets.len(), "{title}");
        for source in targets.iter().map(|target| &target["datasource"]).chain([&panel["datasource"]]) {
            assert_eq!((&source["type"], &source["uid"]), (&"prometheus".into(), &"${datasource}".into()), "{title}");
        }
    }
}

/// A day of trouble in half a minute: a renewal fails, an upstream dies, a disk fills, a key becomes unreadable, and all of
/// it is mended. Each alert fires once and is resolved, and no other one fires.
#[test]
fn a_day_of_trouble_alerts_once_and_is_resolved() {
    if !is_current() || !crate::harness::is_root("mount a small disk") {
        return;
    }
    // The first edge: a certificate from a CA, and an upstream that can die.
    let first = orders::Bed::new(Settings::default());
    let (clock, ca) = (Clock::new(), Double::before(&first.pebble));
    let (port_of_first, port_of_second) = (free_port(), free_port());
    let upstream = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let admin = |port: u16| format!("[admin]\nlisten = \"127.0.0.1:{port}\"\n");
    let acme = first.acme(&ca.directory(), "") + &admin(port_of_first);
    let breaker = "[site.circuit_breaker]\nfailures = 3\nopen = \"1s\"\nopen_max = \"2s\"\n";
    let site = first.site(&[BLOG], "", breaker).replace(&first.origin.url(), &format!("http://{upstream}"));
    // The origin ends with its thread's process: a stopped one is a port that nothing listens on.
    let is_up = AtomicBool::new(true);
    let is_up: &'static AtomicBool = Box::leak(Box::new(is_up));
    let _origin = Origin::start_at(&upstream.to_string(), move |_| match is_up.load(Ordering::Relaxed) {
        true => Reply::ok("up"),
        false => Reply::Close(Vec::new()),
    });
    let edge = clock.start(&first, &acme, &site);
    obtained(&edge, 1);
    eventually("the window is known", || ask_acme(&edge)[0]["window"].is_object().then_some(()));
    // The second edge: pins, on a small disk.
    let second = rotation::Bed::new();
    let state = second.state();
    let _disk = Tmpfs::mount(&state);
    let pins = second.pins("1000");
    let other = Pintle::start(&second.authority, &(second.config(&pins, "") + &admin(port_of_second)));
    let prometheus = Prometheus::start(&[(port_of_first, first.state()), (port_of_second, state.clone())]);
    assert_eq!(prometheus.firing(), BTreeSet::new(), "before the day");

    // The renewal fails.
    ca.answer(Step::NewOrder, When::Always, Answer::problem(500, "serverInternal", "out of order"));
    ca.set_renewal_info(200, &window(-7200, -3600), &[]);
    clock.set(7 * 3600);
    ask_acme(&edge);
    prometheus.fires("PintleRenewalOverdue");
    // The upstream dies; readers keep coming.
    is_up.store(false, Ordering::Relaxed);
    let visit =
        || output(edge.curl().args(["-k", "-o", "/dev/null", "-w", "%{http_code}"]).arg(format!("https://{BLOG}/")));
    eventually("the upstream alerts", || {
        visit();
        prometheus
            .firing()
            .is_superset(&["PintleUpstreamDown".into(), "PintleServerErrors".into()].into())
            .then_some(())
    });
    // The disk fills.
    let mut filler = OpenOptions::new().create(true).append(true).open(state.join("filler")).unwrap();
    while filler.write_all(&[0; 512]).is_ok() {}
    for age in 1001..1040 {
        set_max_age(&other, age);
        output(&mut other.command("reload"));
        if other.log().contains("the ledger cannot be written: pins are withheld") {
            break;
        }
    }
    prometheus.fires("PintleLedgerNotWritable");
    prometheus.fires("PintlePinsWithheld");
    // A key becomes unreadable.
    let key = fs::read(second.key()).unwrap();
    fs::write(second.key(), "no key at all\n").unwrap();
    prometheus.fires("PintleCertificateRefused");

    // All is mended.
    fs::write(second.key(), key).unwrap();
    filler.set_len(0).unwrap();
    is_up.store(true, Ordering::Relaxed);
    eventually("the upstream is back", || (visit() == "200").then_some(()));
    ca.behave();
    clock.set(7 * 3600 + 120);
    ask_acme(&edge);
    obtained(&edge, 2);
    eventually("no trouble is left", || {
        visit();
        prometheus.firing().is_empty().then_some(())
    });
    let want = [
        "PintleCertificateRefused",
        "PintleLedgerNotWritable",
        "PintlePinsWithheld",
        "PintleRenewalOverdue",
        "PintleServerErrors",
        "PintleUpstreamDown",
    ];
    let want: BTreeMap<String, usize> = want.iter().map(|alert| ((*alert).to_owned(), 1)).collect();
    // Before the first scrape, no pintle is known.
    let mut beginnings = prometheus.beginnings();
    beginnings.remove("PintleAbsent");
    assert_eq!(beginnings, want, "each once, and no other");
}

/// `pintle acme plan`, which also makes the driver look.
fn ask_acme(pintle: &Pintle) -> Value {
    let (_, out, err) = crate::harness::outcome(pintle.command("acme plan").arg("--json"));
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"))
}
