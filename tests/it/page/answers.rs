//! The pages without a script: verdicts, ledgers, exports, fingerprints, and texts of strangers.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::admin::{Bed, get};
use crate::harness::{Authority, BLOG, Client, KeyKind, Pintle, blog_at, eventually, free_port, outcome, output};

/// A subject, a host and a log line of somebody who wishes to run a script.
const XSS: &str = "<script>hurt()</script><img src=x onerror=hurt()>";
/// The longest page, in bytes.
const PAGE_MAX: usize = 60 << 10;

fn json(socket: &Path, path: &str) -> Value {
    let text = get(socket, path);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

/// The answer to a file in the body.
fn post(socket: &Path, path: &str, file: &Path) -> Value {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--unix-socket"]).arg(socket).arg("--data-binary").arg(format!("@{}", file.display()));
    let text = output(curl.arg(format!("http://localhost{path}")));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

/// Every byte of a text as a percent-escape.
fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// A site with pins: its configuration, and the files of the next key.
fn pinned(bed: &Bed) -> String {
    bed.config("") + &crate::harness::policies(&bed.authority)
}

#[test]
fn a_site_answers_with_the_verdict_of_the_guard() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &pinned(&bed));
    let socket = bed.socket();
    let site = json(&socket, &format!("/v1/site?host={BLOG}"));
    let next = site["backups"][0]["pin"].as_str().unwrap().to_owned();
    let today = json(&socket, &format!("/v1/rotation?host={BLOG}"));
    assert_eq!((today["key"].as_str(), today["locks_out"].as_bool()), (Some(next.as_str()), Some(false)), "{today}");
    assert!(today["sets"].as_array().is_some_and(|sets| sets.len() == 1 && sets[0]["is_sent"] == true), "{today}");
    let page = get(&socket, &format!("/site/{BLOG}"));
    assert!(page.contains("You may rotate to the next key today."), "{page}");
    assert!(page.contains(&next.replace('+', "&#43;")) || page.contains(&next), "{page}");
    assert!(page.contains("role=\"img\"") && page.len() < PAGE_MAX, "{}", page.len());
    // A key that no set has breaks the set that is sent, on any day.
    let stranger = bed.authority.leaf("stranger", &["x.example"]);
    let pin = crate::headers::openssl_pin(&["x509", "-pubkey", "-noout"], &stranger.chain);
    let encoded = percent_encoded(&pin);
    for day in [String::new(), format!("&day={}", in_days(400))] {
        let asked = json(&socket, &format!("/v1/rotation?host={BLOG}&key={encoded}{day}"));
        assert_eq!((&asked["locks_out"], &asked["safe_from"]), (&Value::Bool(true), &Value::Null), "{asked}");
        let page = get(&socket, &format!("/site/{BLOG}?key={encoded}{day}"));
        assert!(page.contains("Locks out set 1 (readers)"), "{page}");
    }
    // Questions that are none leave the page in place.
    for wrong in ["key=nothing", "day=2020-01-01", "day=tomorrow"] {
        let page = get(&socket, &format!("/site/{BLOG}?{wrong}"));
        assert!(page.contains("role=\"alert\"") && page.contains("You may rotate to the next key today."), "{wrong}");
    }
    // The exports are those of the command.
    for form in ["okhttp", "curl", "header", "tlsa", "android", "json"] {
        let shown = json(&socket, &format!("/v1/pins?host={BLOG}&form={form}"));
        let printed = output(pintle.command("export").args(["--site", BLOG, "--as", form]));
        assert_eq!(lines(shown["text"].as_str().unwrap()), lines(&printed), "{form}");
    }
    assert!(get(&socket, "/site/nobody.example").contains("No site has the name nobody.example"));
}

/// The lines of an export without its times of day.
fn lines(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.contains("T") || !line.contains('Z')).map(str::to_owned).collect()
}

fn in_days(days: i64) -> String {
    let now = jiff::Timestamp::now().as_second() + days * 86_400;
    jiff::Timestamp::from_second(now).unwrap().to_string()[..10].to_owned()
}

#[test]
fn fingerprints_of_public_halves_only() {
    let bed = Bed::new();
    let _pintle = Pintle::start(&bed.authority, &pinned(&bed));
    let socket = bed.socket();
    let leaf = bed.authority.leaf("other", &["other.example"]);
    let csr = bed.authority.csr(&leaf);
    let pin = crate::headers::openssl_pin(&["x509", "-pubkey", "-noout"], &leaf.chain);
    for file in [&leaf.chain, &csr] {
        let found = post(&socket, "/v1/fingerprint", file);
        assert_eq!((found["pin"].as_str(), found["known"].as_array().map(Vec::len)), (Some(pin.as_str()), Some(0)));
    }
    let live = json(&socket, &format!("/v1/site?host={BLOG}"))["certificates"][0]["pin"].clone();
    let live = live.as_str().unwrap();
    let encoded = percent_encoded(live);
    let known = json(&socket, &format!("/v1/fingerprint?pin={encoded}"));
    assert_eq!((&known["known"][0]["role"], &known["known"][0]["site"]), (&"live".into(), &BLOG.into()), "{known}");
    assert!(get(&socket, &format!("/fingerprint?pin={encoded}")).contains("the live key of"));
    // Private keys, whole, damaged and in DER.
    let key = bed.authority.key("secret", KeyKind::Ecdsa);
    let pem = fs::read_to_string(&key).unwrap();
    let der = bed.authority.folder().join("secret.der");
    output(Command::new("openssl").args(["pkey", "-outform", "DER", "-in"]).arg(&key).arg("-out").arg(&der));
    let damaged = bed.authority.write("damaged.key", pem.replacen('A', "!", 1));
    for file in [&key, &der, &damaged] {
        let refused = post(&socket, "/v1/fingerprint", file);
        assert_eq!(refused["kind"], "private-key", "{}: {refused}", file.display());
        let secret = pem.lines().nth(1).unwrap();
        assert!(!refused.to_string().contains(&secret[..20]));
    }
    let nothing = bed.authority.write("nothing", "hello");
    assert_eq!(post(&socket, "/v1/fingerprint", &nothing)["kind"], "unknown");
}

#[test]
fn texts_of_strangers_stay_texts() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &pinned(&bed));
    let socket = bed.socket();
    let encoded = percent_encoded(XSS);
    let mut visit = pintle.curl();
    visit.args(["-sS", "-o", "/dev/null", "-A", XSS]).arg(format!("https://{BLOG}/{encoded}?{encoded}"));
    output(&mut visit);
    for path in [
        format!("/site/{encoded}"),
        format!("/site/{BLOG}?key={encoded}"),
        format!("/site/{BLOG}?day={encoded}&form={encoded}"),
        format!("/?q={encoded}"),
        format!("/?state={encoded}"),
        format!("/explain?url={encoded}&from={encoded}&fields={encoded}&method={encoded}"),
        format!("/explain?url=https%3A%2F%2F{BLOG}%2F{encoded}&fields=X%3A%20{encoded}"),
        format!("/fingerprint?pin={encoded}"),
        format!("/logs?site={encoded}&q={encoded}&status={encoded}"),
        "/logs".to_owned(),
        "/doctor".to_owned(),
    ] {
        let page = get(&socket, &path);
        assert!(page.starts_with("<!doctype html>"), "{path}: {page}");
        assert!(!page.contains("<script>") && !page.contains("<img"), "{path}: {page}");
        assert!(page.len() < PAGE_MAX, "{path}: {} bytes", page.len());
    }
}

#[test]
fn a_subject_with_markup_is_shown_as_text() {
    let bed = Bed::new();
    let authority = Authority::named("<b onclick=hurt()>Root</b>");
    let leaf = authority.leaf("blog", &[BLOG]);
    let config = format!(
        "[state]\ndirectory = {:?}\n[[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        bed.folder.path().join("state"),
        bed.origin.url(),
        leaf.chain,
        leaf.key
    );
    let _pintle = Pintle::start(&bed.authority, &config);
    let page = get(&bed.socket(), &format!("/site/{BLOG}"));
    assert!(page.contains("onclick=hurt()") && !page.contains("<b onclick"), "{page}");
}

#[test]
fn many_sites_are_paged_and_searched() {
    let bed = Bed::new();
    let leaf = bed.authority.leaf("many", &["*.many.example"]);
    let sites = (0..150).map(|at| {
        let (chain, key) = (&leaf.chain, &leaf.key);
        format!(
            "[[site]]\nhosts = [\"s{at}.many.example\"]\nupstream = \"http://127.0.0.1:1\"\n[site.certificate]\nchain = {chain:?}\nkey = {key:?}\n[site.hsts]\nmax_age = \"1y\"\n"
        )
    });
    let config = bed.config("") + &sites.collect::<String>();
    let _pintle = Pintle::start(&bed.authority, &config);
    let socket = bed.socket();
    let first = get(&socket, "/");
    assert!(first.len() < PAGE_MAX && first.contains("Page 1 of 4, 151 sites"), "{} bytes", first.len());
    let last = get(&socket, "/?page=4");
    assert!(last.contains("s149.many.example") && !last.contains("s10.many.example"), "{last}");
    let found = json(&socket, "/v1/sites?q=S14&page=9");
    assert_eq!((&found["found"], &found["page"]), (&11.into(), &1.into()), "{found}");
    assert!(get(&socket, "/?q=nowhere").contains("No site fits"));
}

#[test]
fn the_doctor_leaves_its_findings() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    let socket = bed.socket();
    assert!(get(&socket, "/doctor").contains("No findings yet"));
    let (_, out, _) = outcome(pintle.command("doctor").arg("--json"));
    let printed: Value = serde_json::from_str(&out).unwrap();
    let left = eventually("the findings are there", || {
        let left = json(&socket, "/v1/doctor");
        left["report"].is_object().then_some(left)
    });
    assert_eq!(left["report"]["checks"], printed["checks"]);
    assert!(!get(&socket, "/doctor").contains("No findings yet"));
}

#[test]
fn explain_is_a_form() {
    let bed = Bed::new();
    let _pintle = Pintle::start(&bed.authority, &pinned(&bed));
    let page = get(&bed.socket(), &format!("/explain?url=https%3A%2F%2F{BLOG}%2Fpage&fields=X-A%3A+b"));
    assert!(page.contains("Decisions") && page.contains("Fields to the upstream"), "{page}");
    assert!(get(&bed.socket(), "/explain?url=nothing").contains("role=\"alert\""));
    assert!(get(&bed.socket(), &format!("/explain?url=https%3A%2F%2F{BLOG}&from=me")).contains("is not an IP address"));
}

/// An exact name is found before a wildcard, and a wildcard by its own name and by those that it covers.
#[test]
fn sites_are_found_by_each_of_their_names() {
    let bed = Bed::new();
    let hosts = ["*.example.com", "*.deep.example.com"];
    let wild = bed.authority.leaf("wild", &hosts);
    let (chain, key, upstream) = (&wild.chain, &wild.key, bed.origin.url());
    let site = format!("[[site]]\nhosts = {hosts:?}\nupstream = {upstream:?}\n[site.certificate]\n");
    let config = bed.config("") + &format!("{site}chain = {chain:?}\nkey = {key:?}\n");
    let _pintle = Pintle::start(&bed.authority, &config);
    for (asked, site) in [
        (BLOG, BLOG),
        ("other.example.com", hosts[0]),
        (hosts[0], hosts[0]),
        ("a.deep.example.com", hosts[0]),
        (hosts[1], hosts[0]),
    ] {
        for path in ["/v1/site?host=", "/v1/rotation?host=", "/v1/install?site="] {
            assert_eq!(json(&bed.socket(), &format!("{path}{asked}"))["site"], site, "{path}{asked}");
        }
    }
    assert_eq!(json(&bed.socket(), &format!("/v1/install?site={BLOG}"))["sites"], 2);
    for nobody in ["a.b.example.com", "example.com", "*.b.example.com"] {
        assert_eq!(json(&bed.socket(), &format!("/v1/site?host={nobody}"))["kind"], "no-site", "{nobody}");
    }
}

/// A page looks at the sites with a problem only, and misses none.
#[test]
fn a_failing_upstream_is_said_wherever_its_site_is_shown() {
    let bed = Bed::new();
    let nobody = blog_at(&bed.authority, &format!("http://127.0.0.1:{}", free_port()));
    let (fine, upstream) = (bed.authority.leaf("fine", &["fine.example.com"]), bed.origin.url());
    let config = format!(
        "[state]\ndirectory = {:?}\n[[site]]\nhosts = [\"fine.example.com\"]\nupstream = {upstream:?}\n\
         [site.certificate]\nchain = {:?}\nkey = {:?}\n{nobody}",
        bed.socket().parent().unwrap(),
        fine.chain,
        fine.key
    );
    let pintle = Pintle::start(&bed.authority, &config);
    let (socket, client) = (bed.socket(), Client::new(&bed.authority));
    for _ in 0..3 {
        client.get(pintle.https(), BLOG, "/");
    }
    let page = get(&socket, "/");
    let words = ["One site needs you soon, blog.example.com first.", "in a row", "start it, or correct upstream"];
    assert!(words.iter().all(|words| page.contains(words)), "{page}");
    eventually("its upstream fails", || {
        client.get(pintle.https(), BLOG, "/");
        get(&socket, "/v1/overview").contains("its upstream fails").then_some(())
    });
    let problems = |path: &str| -> Vec<Value> {
        let answer = json(&socket, path);
        let items = answer["attention"].as_array().unwrap().clone();
        items.into_iter().map(|item| serde_json::json!([item["site"], item["what"], item["hints"]])).collect()
    };
    assert_eq!(problems("/v1/overview"), problems("/v1/status"));
    let page = get(&socket, "/");
    let words = ["One site needs you now, blog.example.com first.", "Upstream fails"];
    assert!(words.iter().all(|words| page.contains(words)), "{page}");
    let page = get(&socket, &format!("/site/{BLOG}"));
    let words = ["The upstream fails: requests get 503", "waits for the next try"];
    assert!(words.iter().all(|words| page.contains(words)) && !page.contains(">used<"), "{page}");
}

/// The file is not what pintle serves: a restart would meet the refusal.
#[test]
fn a_refused_reload_needs_attention_until_the_next_one() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    let before = fs::read_to_string(pintle.config_path()).unwrap();
    fs::write(pintle.config_path(), format!("{before}[limit]\n")).unwrap();
    pintle.reload_fails();
    let page = get(&bed.socket(), "/");
    for words in ["pintle itself needs you.", "the last reload was refused", "limit: unknown key", "pintle check"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(pintle.status()["attention"].to_string().contains("the last reload was refused"));
    fs::write(pintle.config_path(), before).unwrap();
    pintle.reload();
    let status = pintle.status();
    assert!(status["attention"].as_array().unwrap().is_empty(), "{status}");
    assert!(get(&bed.socket(), "/").contains("The site is fine."));
}
