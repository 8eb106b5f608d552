//! Orders, from outside: first certificates by each challenge, renewals on the live key, restarts, a second CA, external
//! accounts, profiles.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::double::{Act, Answer, Double, Step, When};
use crate::harness::pebble::{NINETY_DAYS, Pebble, SIX_DAYS, Settings, is_current};
use crate::harness::{Authority, BLOG, Connection, Origin, Pintle, eventually, outcome, output, pintle};

/// A site with certificates from a CA, and everything around it.
pub struct Bed {
    pub pebble: Pebble,
    pub origin: Origin,
    pub authority: Authority,
}

impl Bed {
    #[track_caller]
    pub fn new(settings: Settings) -> Self {
        Self { pebble: Pebble::start(settings), origin: Origin::hello(), authority: Authority::new() }
    }

    pub fn state(&self) -> PathBuf {
        self.authority.folder().join("state")
    }

    pub fn folder(&self, algorithm: &str) -> PathBuf {
        self.state().join("acme").join(BLOG).join(algorithm)
    }

    pub fn acme(&self, directory: &str, more: &str) -> String {
        format!(
            "[acme]\ndirectory = {directory:?}\nterms = true\nca = {:?}\n{more}\n[state]\ndirectory = {:?}\n",
            self.pebble.authority.ca_path(),
            self.state()
        )
    }

    pub fn site(&self, hosts: &[&str], certificate: &str, more: &str) -> String {
        format!(
            "[[site]]\nhosts = {hosts:?}\nupstream = {:?}\n[site.certificate]\nacme = true\n{certificate}\n{more}\n",
            self.origin.url()
        )
    }

    pub fn start(&self, acme: &str, sites: &str) -> Pintle {
        Pintle::start_with(&self.authority, &self.pebble.listen(), &format!("{acme}{sites}"))
    }

    /// The usual one: a site, and pebble.
    pub fn run(&self) -> Pintle {
        self.start(&self.acme(&self.pebble.directory(), ""), &self.site(&[BLOG], "", ""))
    }

    pub fn get(&self, pintle: &Pintle, host: &str) -> (i32, String, String) {
        let url = format!("https://{host}/");
        let root = self.pebble.root_file();
        outcome(pintle.curl().arg("--cacert").arg(root).args(["--include", &url]))
    }

    /// The page over https, with the certificate of the CA.
    #[track_caller]
    pub fn page(&self, pintle: &Pintle, host: &str) -> String {
        let (code, text, error) = self.get(pintle, host);
        assert_eq!(code, 0, "{error}\n{}", pintle.log());
        text
    }

    #[track_caller]
    pub fn spki(&self, algorithm: &str) -> String {
        pin_of(&self.folder(algorithm).join("chain.pem"))
    }

    /// The pin of a key of the site.
    #[track_caller]
    pub fn pin(&self, name: &str) -> String {
        pin_of(&self.folder("ecdsa-p256").join(name))
    }

    /// Lets the next order prove all its names, unless pebble should use authorizations again.
    pub fn forget_authorizations(&self) {
        if self.pebble.settings.authz_reuse == 0 {
            self.pebble.forget_authorizations(&self.state().join("acme"));
        }
    }

    /// The record of the certificate.
    pub fn record(&self) -> Value {
        serde_json::from_slice(&fs::read(self.folder("ecdsa-p256").join("order.json")).unwrap()).unwrap()
    }

    /// The pin header of the site.
    #[track_caller]
    pub fn pins(&self, pintle: &Pintle) -> String {
        pins_in(&self.page(pintle, BLOG))
    }
}

/// `pintle pin`
#[track_caller]
pub fn pin_of(file: &Path) -> String {
    output(pintle().arg("pin").arg(file)).split_whitespace().next().unwrap().to_owned()
}

/// The pin header in a response.
#[track_caller]
pub fn pins_in(page: &str) -> String {
    page.lines().find(|line| line.to_lowercase().starts_with("public-key-pins:")).unwrap().to_owned()
}

/// Renewal information with a window, in seconds from now.
pub fn window(start: i64, end: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    let at = |offset: i64| jiff::Timestamp::from_second(now + offset).unwrap().to_string();
    json!({ "suggestedWindow": { "start": at(start), "end": at(end) } }).to_string()
}

/// Waits for this number of certificates.
#[track_caller]
pub fn obtained(pintle: &Pintle, count: usize) -> Vec<Value> {
    pintle.logged("certificate obtained", count)
}

pub fn ask(bed: &Bed, method: &str, path: &str) -> Value {
    serde_json::from_str(&send(bed, method, path)).unwrap()
}

/// An answer of the admin socket that is no JSON.
pub fn ask_text(bed: &Bed, path: &str) -> String {
    send(bed, "GET", path)
}

fn send(bed: &Bed, method: &str, path: &str) -> String {
    let socket = bed.state().join("admin.sock");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--request", method, "--unix-socket"]).arg(socket);
    output(curl.arg(format!("http://localhost{path}")))
}

/// `pintle acme renew`
#[track_caller]
pub fn renew(bed: &Bed) {
    bed.forget_authorizations();
    assert_eq!(ask(bed, "POST", &format!("/acme/renew?host={BLOG}"))["ok"], true);
}

/// The number of orders that the CA has made.
pub fn orders(bed: &Bed) -> usize {
    bed.pebble.orders()
}

/// The number of requests for an order. Use it where the CA must not be asked: pebble refuses some requests, see
/// [`crate::harness::double`].
pub fn order_requests(bed: &Bed) -> usize {
    bed.pebble.requests("POST /order-plz")
}

#[test]
fn the_first_certificate_by_http_01() {
    let bed = Bed::new(Settings::default());
    let policies = "[site.hsts]\nmax_age = \"1y\"\n[site.hpkp]\nmax_age = \"30d\"\n";
    let acme = bed.acme(&bed.pebble.directory(), "email = \"you@example.com\"\nchallenges = [\"http-01\"]");
    let pintle = bed.start(&acme, &bed.site(&[BLOG], "", policies));
    obtained(&pintle, 1);
    let page = bed.page(&pintle, BLOG);
    assert!(page.contains("hello from the origin"), "{page}");
    assert!(page.to_lowercase().contains("strict-transport-security: max-age=31536000"), "{page}");
    let pins = pins_in(&page);
    assert!(pins.contains(&bed.spki("ecdsa-p256")) && pins.contains(&bed.pin("next.pem")), "{pins}");
    assert_eq!(orders(&bed), 1);
    // Answers do not stay.
    let record = bed.record();
    assert_eq!((record["answers"].as_array().unwrap().len(), &record["order"]), (0, &Value::Null));
}

#[test]
fn the_first_certificate_by_tls_alpn_01() {
    let bed = Bed::new(Settings::default());
    let acme = bed.acme(&bed.pebble.directory(), "challenges = [\"tls-alpn-01\"]");
    let pintle = bed.start(&acme, &bed.site(&[BLOG, "www.example.com"], "", ""));
    obtained(&pintle, 1);
    assert!(bed.page(&pintle, "www.example.com").contains("hello from the origin"));
    // Nobody validates any more: no certificate of a site for that protocol.
    let address = pintle.https().to_string();
    let openssl = |alpn: &str| {
        outcome(Command::new("openssl").args(["s_client", "-connect", &address, "-servername", BLOG, "-alpn", alpn]))
    };
    let (_, out, error) = openssl("acme-tls/1");
    assert!(format!("{out}{error}").contains("alert number 120"), "{out}{error}");
    let (_, out, _) = openssl("acme-tls/1,h2");
    assert!(out.contains("ALPN protocol: h2"), "{out}");
}

#[test]
fn renewals_keep_the_key_and_a_reload_orders_nothing() {
    let bed = Bed::new(Settings::default());
    let pintle = bed.run();
    let first = obtained(&pintle, 1);
    let pin = bed.spki("ecdsa-p256");
    for _ in 0..100 {
        pintle.reload();
    }
    for count in 2..4 {
        renew(&bed);
        obtained(&pintle, count);
        assert_eq!(bed.spki("ecdsa-p256"), pin);
    }
    assert_eq!(orders(&bed), 3);
    let last = obtained(&pintle, 3);
    assert_ne!(first[0]["serial"], last[2]["serial"]);
    assert!(bed.page(&pintle, BLOG).contains("hello from the origin"));
}

#[test]
fn nonces_that_are_rejected() {
    let bed = Bed::new(Settings { nonce_reject: 90, ..Settings::default() });
    let pintle = bed.run();
    obtained(&pintle, 1);
    bed.page(&pintle, BLOG);
}

#[test]
fn authorizations_that_are_valid_already() {
    let bed = Bed::new(Settings { authz_reuse: 100, ..Settings::default() });
    let pintle = bed.run();
    obtained(&pintle, 1);
    renew(&bed);
    obtained(&pintle, 2);
}

#[test]
fn rsa_and_ecdsa_are_two_orders() {
    let bed = Bed::new(Settings::default());
    let acme = bed.acme(&bed.pebble.directory(), "");
    let pintle = bed.start(&acme, &bed.site(&[BLOG], "algorithms = [\"ecdsa-p256\", \"rsa-2048\"]", ""));
    obtained(&pintle, 2);
    bed.page(&pintle, BLOG);
    let root = bed.pebble.root_file();
    let old =
        ["--tlsv1.2", "--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES128-GCM-SHA256", "https://blog.example.com/"];
    output(pintle.curl().arg("--cacert").arg(root).args(old));
    assert_eq!(orders(&bed), 2);
    // Each has a next key of its own.
    let keys = output(&mut pintle.command("key list"));
    let roles: Vec<_> = keys.lines().filter_map(|line| line.trim().split(' ').next()).collect();
    assert_eq!(roles.iter().filter(|role| matches!(**role, "next" | "spare")).count(), 2, "{keys}");
    assert!(!roles.contains(&"spare"), "{keys}");
}

/// tls-alpn-01 has one answer for each name, so the orders of its keys come one after the other. The chain is the first
/// one that the authority offers, however long it is.
#[test]
fn two_orders_of_a_name_by_tls_alpn_01() {
    let bed = Bed::new(Settings { chain_length: 3, alternate_roots: 2, ..Settings::default() });
    let acme = bed.acme(&bed.pebble.directory(), "challenges = [\"tls-alpn-01\"]");
    let pintle = bed.start(&acme, &bed.site(&[BLOG], "algorithms = [\"ecdsa-p256\", \"rsa-2048\"]", ""));
    obtained(&pintle, 2);
    assert!(orders(&bed) == 2 && !pintle.log().contains("no certificate obtained"), "{}", pintle.log());
    let chain = fs::read_to_string(bed.folder("rsa-2048").join("chain.pem")).unwrap();
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 4, "{chain}");
    bed.page(&pintle, BLOG);
}

#[test]
fn a_restart_at_each_step_continues_the_order() {
    for step in [Step::Order, Step::Authorization, Step::Challenge, Step::Finalize, Step::Certificate] {
        let bed = Bed::new(Settings::default());
        let double = Double::before(&bed.pebble);
        double.on(step, When::Always, Act::Hang(Duration::from_secs(60)));
        let (acme, site) = (bed.acme(&double.directory(), ""), bed.site(&[BLOG], "", ""));
        let pintle = bed.start(&acme, &site);
        eventually("the step is reached", || (double.count(step) > 0).then_some(()));
        drop(pintle);
        double.behave();
        let pintle = bed.start(&acme, &site);
        obtained(&pintle, 1);
        assert_eq!(double.count(Step::NewOrder), 1, "{step:?}");
        bed.page(&pintle, BLOG);
    }
}

#[test]
fn the_second_authority_if_the_first_fails() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    double.answer(Step::NewOrder, When::Always, Answer::problem(500, "serverInternal", "out of order"));
    let acme = bed.acme(&double.directory(), &format!("fallback = {:?}", bed.pebble.directory()));
    let pintle = bed.start(&acme, &bed.site(&[BLOG], "", ""));
    let found = obtained(&pintle, 1);
    assert_eq!(found[0]["authority"], bed.pebble.directory());
    let failed = pintle.log_json("no certificate obtained");
    assert!(failed[0]["problem"].as_str().unwrap().contains("out of order"), "{failed:?}");
    // A site of a reload has the same authorities.
    let more = bed.site(&["more.example.com"], "", "");
    pintle.rewrite(|before| format!("{before}{more}"));
    pintle.reload();
    obtained(&pintle, 2);
}

#[test]
fn external_accounts() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let bed = Bed::new(Settings { eab: vec![("kid-1", key)], ..Settings::default() });
    let file = bed.authority.write("eab.key", format!("{key}\n"));
    let wrong = bed.authority.write("wrong.key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let eab = |id: &str, file: &PathBuf| format!("eab = {{ key_id = {id:?}, hmac_key_file = {file:?} }}");
    for (eab, want) in [
        (String::new(), "needs an external account binding: eab = {"),
        (eab("kid-2", &file), "key_id \"kid-2\" is refused"),
        (eab("kid-1", &wrong), "key_id \"kid-1\" is refused"),
    ] {
        let acme = bed.acme(&bed.pebble.directory(), &eab);
        let pintle = bed.start(&acme, &bed.site(&[BLOG], "", ""));
        let failed = pintle.logged("no certificate obtained", 1);
        let problem = failed[0]["problem"].as_str().unwrap().to_lowercase();
        assert!(problem.contains(&want.to_lowercase()), "{problem}");
        assert!(failed[0]["hint"].is_string(), "{failed:?}");
        drop(pintle);
        fs::remove_dir_all(bed.state()).unwrap();
    }
    let acme = bed.acme(&bed.pebble.directory(), &eab("kid-1", &file));
    // All sites share one account: at some CAs, a binding serves only once.
    let sites = [BLOG, "a.example", "b.example"].map(|host| bed.site(&[host], "", ""));
    let pintle = bed.start(&acme, &sites.concat());
    obtained(&pintle, 3);
    assert_eq!(pintle.log_json("account registered").len(), 1);
}

#[test]
fn profiles() {
    if !is_current() {
        return;
    }
    let bed = Bed::new(Settings { profiles: vec![NINETY_DAYS, SIX_DAYS], ..Settings::default() });
    let acme = |profile: &str| bed.acme(&bed.pebble.directory(), &format!("profile = {profile:?}"));
    let pintle = bed.start(&acme("longlived"), &bed.site(&[BLOG], "", ""));
    let failed = pintle.logged("no certificate obtained", 1);
    assert!(failed[0]["problem"].as_str().unwrap().contains("it offers default, shortlived"), "{failed:?}");
    assert_eq!(order_requests(&bed), 0);
    pintle.rewrite(|before| before.replace("longlived", "shortlived"));
    pintle.reload();
    let found = obtained(&pintle, 1);
    let end: jiff::Timestamp = found[0]["not_after"].as_str().unwrap().parse().unwrap();
    assert!(end.duration_since(jiff::Timestamp::now()).as_hours() <= 6 * 24, "{found:?}");
}

#[test]
fn a_hundred_names_then_one_more_and_one_less() {
    let bed = Bed::new(Settings::default());
    let names: Vec<String> = (0..100).map(|n| format!("n{n}.example.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let pintle = bed.start(&bed.acme(&bed.pebble.directory(), ""), &bed.site(&names, "", ""));
    obtained(&pintle, 1);
    bed.page(&pintle, "n99.example.com");
    pintle.rewrite(|before| before.replace("\"n99.example.com\"", "\"more.example.com\""));
    pintle.reload();
    obtained(&pintle, 2);
    bed.page(&pintle, "more.example.com");
    // A name less needs no other certificate.
    pintle.rewrite(|before| before.replace(", \"more.example.com\"", ""));
    pintle.reload();
    assert_eq!(ask(&bed, "GET", "/acme")[0]["standing"], "current");
    assert_eq!(orders(&bed), 2);
}

#[test]
fn a_name_that_the_authority_refuses() {
    let bed = Bed::new(Settings::default());
    let sites = bed.site(&[BLOG], "", "") + &bed.site(&["blocked.example"], "", "");
    let pintle = bed.start(&bed.acme(&bed.pebble.directory(), ""), &sites);
    obtained(&pintle, 1);
    let failed = pintle.logged("no certificate obtained", 1);
    assert_eq!(failed[0]["site"], "blocked.example");
    assert!(failed[0]["hint"].as_str().unwrap().contains("remove the name from hosts"), "{failed:?}");
    bed.page(&pintle, BLOG);
}

/// A server that lags behind the one that made the order.
#[test]
fn an_order_that_one_server_does_not_know() {
    for step in [Step::Order, Step::Authorization, Step::Certificate] {
        let bed = Bed::new(Settings::default());
        let double = Double::before(&bed.pebble);
        double.answer(step, When::Nth(1), Answer::problem(404, "malformed", "No such order"));
        let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
        let again = eventually("it is tried again, or was obtained", || {
            let obtained = pintle.log_json("certificate obtained").pop();
            obtained.or_else(|| pintle.log_json("no certificate obtained").pop())
        });
        assert!(
            again.get("again").is_none_or(|at| at.as_str().is_some_and(|at| at.starts_with("20"))),
            "{step:?}: {again}"
        );
    }
}

#[test]
fn an_authority_that_has_forgotten_the_account() {
    let mut bed = Bed::new(Settings::default());
    let pintle = bed.run();
    obtained(&pintle, 1);
    bed.pebble.restart();
    renew(&bed);
    obtained(&pintle, 2);
    bed.page(&pintle, BLOG);
}

/// No name is at fault, and the printed remedy works.
#[test]
fn an_account_that_the_authority_has_closed() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
    obtained(&pintle, 1);
    let closed = Answer::problem(403, "unauthorized", "the account is deactivated");
    double.answer(Step::NewOrder, When::Always, closed);
    renew(&bed);
    let failed = pintle.logged("no certificate obtained", 1);
    let hint = failed[0]["hint"].as_str().unwrap();
    let command = hint.split("for another one: ").nth(1).unwrap().split("; then").next().unwrap();
    assert!(Command::new("sh").args(["-ec", command]).status().unwrap().success(), "{hint}");
    double.behave();
    renew(&bed);
    obtained(&pintle, 2);
    assert_eq!(pintle.log_json("account registered").len(), 2);
}

#[test]
fn answers_come_before_every_rule_and_over_https() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
    obtained(&pintle, 1);
    double.on(Step::Challenge, When::Always, Act::Hang(Duration::from_secs(60)));
    renew(&bed);
    eventually("the challenge is posted", || (double.count(Step::Challenge) > 1).then_some(()));
    let record = bed.record();
    let answer = &record["answers"][0];
    let path = format!("/.well-known/acme-challenge/{}", answer["token"].as_str().unwrap());
    let want = answer["authorization"].as_str().unwrap();
    for _ in 0..8 {
        let response = Connection::plain(pintle.http()).get(BLOG, &path);
        assert_eq!((response.status, response.text().as_str()), (200, want));
    }
    assert_eq!(Connection::plain(pintle.http()).get("other.example.com", &path).status, 421);
    let root = bed.pebble.root_file();
    let url = format!("https://{BLOG}{path}");
    for version in ["--http1.1", "--http2"] {
        assert_eq!(output(pintle.curl().arg("--cacert").arg(&root).args([version, &url])), want);
        let head = output(pintle.curl().arg("--cacert").arg(&root).args([version, "--head", &url]));
        assert!(head.contains("200") && !head.to_lowercase().contains("strict-transport"), "{head}");
    }
}
