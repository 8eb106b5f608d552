//! Reports of pins that did not match (RFC 7469 section 3): taken in, counted, logged, shown, and never too many.

use std::process::Command;

use tempfile::TempDir;

use crate::harness::{Authority, BLOG, Origin, Pintle, blog, eventually, outcome, output};

const COLLECTOR: &str = "reports.example.com";

/// A report as a browser sent it.
pub fn report(hostname: &str, noted: &str) -> String {
    format!(
        "{{\"date-time\": \"2026-11-23T09:00:00Z\", \"hostname\": \"{hostname}\", \"port\": 443, \
         \"effective-expiration-date\": \"2026-12-23T09:00:00Z\", \"include-subdomains\": false, \
         \"noted-hostname\": \"{noted}\", \"served-certificate-chain\": [\"-----BEGIN CERTIFICATE-----\\nx\"], \
         \"validated-certificate-chain\": [\"x\", \"y\"], \
         \"known-pins\": [\"pin-sha256=\\\"d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=\\\"\"]}}"
    )
}

/// Sends it; the status code is what is printed.
pub fn post(pintle: &Pintle, url: &str, body: &str) -> Command {
    let mut curl = pintle.curl();
    curl.args([
        "-o",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        "-H",
        "Content-Type: application/json",
        "--data-binary",
    ]);
    curl.arg(body).arg(url);
    curl
}

struct Bed {
    authority: Authority,
    folder: TempDir,
    _origin: Origin,
    config: String,
}

impl Bed {
    /// The blog, and a name for reports alone, which has no upstream.
    fn new(limits: &str) -> Self {
        let (authority, folder, origin) = (Authority::new(), TempDir::new().unwrap(), Origin::hello());
        let leaf = authority.leaf("reports", &[COLLECTOR]);
        let config = format!(
            "{limits}\n[state]\ndirectory = {:?}\n[reports]\nhost = \"{COLLECTOR}\"\npath = \"/pins\"\n{}\
             [[site]]\nhosts = [\"{COLLECTOR}\"]\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
            folder.path().join("state"),
            blog(&authority, &origin),
            leaf.chain,
            leaf.key
        );
        Self { authority, folder, _origin: origin, config }
    }

    fn start(&self) -> Pintle {
        Pintle::start(&self.authority, &self.config)
    }

    fn metrics(&self) -> String {
        crate::admin::get(&self.folder.path().join("state/admin.sock"), "/metrics")
    }
}

#[track_caller]
fn sends(pintle: &Pintle, url: &str, body: &str) -> String {
    output(&mut post(pintle, url, body))
}

#[test]
fn taken_in_counted_and_shown() {
    let bed = Bed::new("");
    let pintle = bed.start();
    let url = format!("https://{COLLECTOR}/pins");
    assert_eq!(sends(&pintle, &url, &report(BLOG, BLOG)), "204");
    // By HTTP/1.1, and by plain HTTP: it may be just TLS that fails.
    assert_eq!(output(post(&pintle, &url, &report("BLOG.example.com", BLOG)).arg("--http1.1")), "204");
    assert_eq!(sends(&pintle, &format!("http://{COLLECTOR}/pins"), &report(BLOG, BLOG)), "204");
    assert_eq!(sends(&pintle, &url, &report("else.example", "else.example")), "204");
    // The pins were noted for the blog, and bind what is below it.
    assert_eq!(sends(&pintle, &url, &report("below.blog.example.com", BLOG)), "204");
    // Even if that is another site.
    assert_eq!(sends(&pintle, &url, &report(COLLECTOR, BLOG)), "204");
    // The least that a client may say.
    assert_eq!(sends(&pintle, &url, &format!("{{\"hostname\":\"{BLOG}\",\"known-pins\":[]}}")), "204");
    let status = pintle.status();
    assert_eq!(status["sites"][0]["reports"], 6, "{status:#}");
    assert_eq!(status["reports"]["counts"]["(no site)"], 1);
    let recent = status["reports"]["recent"].as_array().unwrap();
    assert_eq!(recent.len(), 7);
    assert_eq!((&recent[0]["hostname"], &recent[0]["known_pins"]), (&BLOG.into(), &1.into()));
    assert_eq!(
        (&recent[4]["hostname"], &recent[4]["noted_hostname"]),
        (&"below.blog.example.com".into(), &BLOG.into())
    );
    let logged = pintle.logged("a client reports that no pin matched", 7);
    assert!(logged.len() == 7 && logged[0]["site"] == BLOG && logged[0]["level"] == "WARN", "{logged:?}");
    assert!(bed.metrics().contains(&format!("pintle_pin_reports_total{{site=\"{BLOG}\"}} 6")), "{}", bed.metrics());
    let human = output(&mut pintle.command("status"));
    assert!(human.contains("reports      6 of pins that did not match"), "{human}");
    assert!(human.contains("below.blog.example.com"), "the last ones are named: {human}");
}

#[test]
fn what_is_no_report_is_refused() {
    let bed = Bed::new("");
    let pintle = bed.start();
    let url = format!("https://{COLLECTOR}/pins");
    let long = format!("{{\"hostname\":\"{BLOG}\",\"known-pins\":[],\"x\":\"{}\"}}", "x".repeat(70_000));
    let name = "x".repeat(300);
    let bodies = [
        ("", "400"),
        ("hello", "400"),
        ("{}", "400"),
        ("[1, 2]", "400"),
        ("{\"hostname\":\"a\\nb\",\"known-pins\":[]}", "400"),
        (&format!("{{\"hostname\":\"{name}\",\"known-pins\":[]}}"), "400"),
        (&"[".repeat(60_000), "400"),
        (&long, "413"),
    ];
    for (body, code) in bodies {
        assert_eq!(sends(&pintle, &url, body), code, "{}", &body[..body.len().min(80)]);
    }
    let mut get = pintle.curl();
    assert_eq!(output(get.args(["-o", "/dev/null", "--write-out", "%{http_code}"]).arg(&url)), "405");
    assert_eq!(sends(&pintle, &format!("https://{COLLECTOR}/else"), &report(BLOG, BLOG)), "404");
    // Elsewhere, the path is as good as any other, and the site's.
    assert_eq!(sends(&pintle, &format!("https://{BLOG}/pins"), &report(BLOG, BLOG)), "200");
    let status = pintle.status();
    assert_eq!(status["reports"]["refused"], bodies.len());
    assert_eq!(status["sites"][0]["reports"], 0);
    assert!(bed.metrics().contains(&format!("pintle_pin_reports_refused_total {}", bodies.len())), "{}", bed.metrics());
    assert_eq!(pintle.log_json("a client reports that no pin matched").len(), 0);
}

#[test]
fn no_more_than_so_many() {
    let bed = Bed::new("[limits]\nreports_per_minute = 3");
    let pintle = bed.start();
    let url = format!("https://{COLLECTOR}/pins");
    let answers: Vec<String> = (0..6).map(|_| sends(&pintle, &url, &report(BLOG, BLOG))).collect();
    assert_eq!(answers, ["204", "204", "204", "429", "429", "429"]);
    assert_eq!(
        (&pintle.status()["sites"][0]["reports"], &pintle.status()["reports"]["refused"]),
        (&3.into(), &3.into())
    );
    let mut curl = pintle.curl();
    let answer = output(curl.args(["-D", "-", "--data", "{}"]).arg(&url));
    assert!(answer.to_ascii_lowercase().contains("retry-after: "), "{answer}");
}

/// One network of clients gets its share, and takes nothing from others.
#[test]
fn no_more_than_so_many_of_one_network() {
    let bed = Bed::new("[limits]\nreports_per_minute = 4\nreports_per_client = 2");
    let pintle = bed.start();
    let url = format!("https://{COLLECTOR}/pins");
    let sends_from = |source: &str| output(post(&pintle, &url, &report(BLOG, BLOG)).args(["--interface", source]));
    let one: Vec<String> = (0..20).map(|_| sends_from("127.0.0.1")).collect();
    assert_eq!(one[..4], ["204", "204", "429", "429"]);
    assert_eq!(one.iter().filter(|code| *code == "429").count(), 18);
    assert_eq!([sends_from("127.0.0.2"), sends_from("127.0.0.3")], ["204", "204"]);
    assert_eq!(sends_from("127.0.0.4"), "429", "that is all in this minute");
    assert_eq!(pintle.status()["sites"][0]["reports"], 4);
    assert_eq!(pintle.status()["sites"][0]["report_networks"], 3);
}

/// Counts begin with the process. A reload keeps them, even if the path changes.
#[test]
fn counts_start_with_the_process() {
    let bed = Bed::new("");
    let pintle = bed.start();
    sends(&pintle, &format!("https://{COLLECTOR}/pins"), &report(BLOG, BLOG));
    eventually("it is counted", || (pintle.status()["sites"][0]["reports"] == 1).then_some(()));
    // A reload keeps the counts, though the path is another one.
    pintle.rewrite(|text| text.replace("path = \"/pins\"", "path = \"/others\""));
    pintle.reload();
    eventually("the path has changed", || {
        let (_, code, _) = outcome(&mut post(&pintle, &format!("https://{COLLECTOR}/others"), &report(BLOG, BLOG)));
        (code == "204").then_some(())
    });
    assert_eq!(sends(&pintle, &format!("https://{COLLECTOR}/pins"), &report(BLOG, BLOG)), "404");
    assert_eq!(pintle.status()["sites"][0]["reports"], 2);
}
