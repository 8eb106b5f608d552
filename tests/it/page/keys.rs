//! The page Keys: the keys with their promises, and new ones.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::config::send;
use crate::admin::{Bed, get, post};
use crate::harness::{BLOG, Pintle, outcome, output, policies};

#[test]
fn keys_are_shown_and_made() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    let page = get(&bed.socket(), "/keys");
    let (_, out, _) = outcome(pintle.command("key list").arg("--json"));
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    let pin = listed[0]["keys"][0]["pin"].as_str().unwrap();
    assert!(page.contains("<h1>Keys</h1>") && page.contains(BLOG), "{page}");
    assert!(page.contains(pin) || page.contains(&pin.replace('+', "&#43;")), "{pin}: {page}");
    assert!(!page.contains("style="), "{page}");

    let make = |site: &str, role: &str| {
        let base = base(&get(&bed.socket(), "/keys"));
        let fields =
            [("csrf", ""), ("site", site), ("role", role), ("algorithm", "ecdsa-p256"), ("base", base.as_str())];
        send(&bed, "/keys", &fields)
    };
    let (head, page) = make(BLOG, "next");
    assert!(head.starts_with("http/1.1 200"), "{head} {page}");
    assert!(page.contains("BEGIN CERTIFICATE REQUEST") && !page.contains("PRIVATE KEY"), "{page}");
    let key = page.split("The private key is in <code class=\"path\">").nth(1).unwrap().split('<').next().unwrap();
    assert!(fs::read_to_string(key).unwrap().contains("PRIVATE KEY"));
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(pintle.logged("key made", 1)[0]["key"] == key);
    // Never over another one: the next has a name of its own.
    let (_, again) = make(BLOG, "next");
    assert!(again.contains("Made: the next key") && !again.contains(&format!(">{key}</code>, for")), "{again}");
    for (site, role, status) in [("other.example.com", "next", 404), (BLOG, "live", 400), (BLOG, "../x", 400)] {
        let (head, page) = make(site, role);
        assert!(head.starts_with(&format!("http/1.1 {status}")) && page.contains("No key was made"), "{head}");
    }
}

/// The tag of the keys that a page shows: of its first site.
fn base(page: &str) -> String {
    page.split("name=\"base\" value=\"").nth(1).unwrap().split('"').next().unwrap().replace("&#34;", "\"")
}

/// A button that is pressed twice, or a page of before that is sent again, makes one key.
#[test]
fn a_button_that_is_pressed_twice_makes_one_key() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    let base = base(&get(&bed.socket(), "/keys"));
    assert_eq!(base.len(), 34, "{base}");
    let press = || {
        let form = [("site", BLOG), ("role", "next"), ("algorithm", "ecdsa-p256"), ("base", base.as_str())];
        send(&bed, "/keys", &form).0
    };
    let mut heads = std::thread::scope(|scope| {
        let both = [scope.spawn(press), scope.spawn(press)];
        both.map(|thread| thread.join().unwrap()[..12].to_owned())
    });
    heads.sort_unstable();
    assert_eq!(heads, ["http/1.1 200", "http/1.1 412"]);
    assert!(press().starts_with("http/1.1 412"));
    assert_eq!(pintle.logged("key made", 1).len(), 1);
    // Who has looked again may make another.
    let again = get(&bed.socket(), "/keys");
    assert!(!again.contains(&base.replace('"', "&#34;")), "{again}");
}

/// A program, too, says which keys it has seen.
#[test]
fn a_key_is_not_made_for_somebody_who_has_not_looked() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    let make = |tag: Option<&str>| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-w", "\n%{http_code}", "--unix-socket"]).arg(bed.socket());
        curl.args(tag.map(|tag| format!("-HIf-Match: {tag}")));
        let wish = format!("{{\"site\": \"{BLOG}\", \"role\": \"spare\"}}");
        let out = output(curl.arg("--data-binary").arg(wish).arg("http://localhost/v1/keys"));
        let (body, code) = out.rsplit_once('\n').unwrap();
        (code.parse::<u16>().unwrap(), serde_json::from_str::<serde_json::Value>(body).unwrap())
    };
    let (code, answer) = make(None);
    let hint = answer["hints"][0].as_str().unwrap();
    assert!(code == 428 && hint.contains("If-Match"), "{code} {answer}");
    let path = hint.split_once("GET ").unwrap().1;
    let listed: serde_json::Value = serde_json::from_str(&get(&bed.socket(), path)).unwrap();
    assert_eq!(make(Some("\"x\"")).0, 412);
    let tag = listed["sites"][0]["tag"].as_str().unwrap();
    assert_eq!((make(Some(tag)).0, make(Some(tag)).0), (200, 412));
    assert_eq!(pintle.logged("key made", 1).len(), 1);
}

/// The head and the body of an answer to GET.
fn fetch(bed: &Bed, path: &str) -> (String, String) {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-i", "--unix-socket"]).arg(bed.socket());
    let out = output(curl.arg(format!("http://localhost{path}")));
    let (head, body) = out.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn a_csr_is_a_file_to_download() {
    let bed = Bed::new();
    let _pintle = Pintle::start(&bed.authority, &bed.config(""));
    let base = base(&get(&bed.socket(), "/keys"));
    let fields = [("site", BLOG), ("role", "next"), ("algorithm", "ecdsa-p256"), ("base", base.as_str())];
    let (_, page) = send(&bed, "/keys", &fields);
    let link = page.split("href=\"/keys/csr").nth(1).unwrap().split('"').next().unwrap().replace("&#38;", "&");
    let (head, csr) = fetch(&bed, &format!("/keys/csr{link}"));
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: application/pkcs10"), "{head}");
    let name = format!("content-disposition: attachment; filename=\"{BLOG}-");
    assert!(head.contains(&name) && head.contains(".csr\"") && head.contains("cache-control: no-store"), "{head}");
    assert!(csr.starts_with("-----BEGIN CERTIFICATE REQUEST-----"), "{csr}");
    let pin = link.split("pin=").nth(1).unwrap();
    for (host, pin, status) in [
        (BLOG, "nothing", 400),
        (BLOG, "A".repeat(43).as_str(), 400),
        (BLOG, &format!("{}%3D", "A".repeat(43)), 404),
        ("nobody.example", pin, 404),
        ("..%2F..", pin, 404),
    ] {
        let (head, body) = fetch(&bed, &format!("/v1/keys/csr?host={host}&pin={pin}"));
        assert!(head.starts_with(&format!("http/1.1 {status}")) && body.contains("\"error\""), "{host}: {head} {body}");
        let (head, _) = fetch(&bed, &format!("/keys/csr?site={host}&pin={pin}"));
        assert!(head.starts_with(&format!("http/1.1 {status}")) && !head.contains("attachment"), "{host}: {head}");
    }
}

#[test]
fn withdrawing_is_a_change_of_the_configuration() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &(bed.config("[admin]\nedit = true\n") + &policies(&bed.authority)));
    let before = fs::read_to_string(pintle.config_path()).unwrap();
    let (head, page) = send(&bed, "/keys/withdraw", &[("site", BLOG)]);
    assert!(head.starts_with("http/1.1 200") && page.contains("<h1>Configuration</h1>"), "{head} {page}");
    assert!(page.contains("Can be applied") && page.contains("mode = &#34;withdraw&#34;"), "{page}");
    assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), before, "nothing is changed yet");
    // The plan of the API is a change like any other.
    let plan = bed.folder.path().join("plan.toml");
    let answer: serde_json::Value =
        serde_json::from_str(&post(&bed.socket(), &format!("/v1/keys/withdraw?host={BLOG}"))).unwrap();
    fs::write(&plan, answer["text"].as_str().unwrap()).unwrap();
    let (code, out, err) = outcome(pintle.command("config apply").arg(&plan));
    assert!(code == 0, "{out}{err}");
    let sent: serde_json::Value = serde_json::from_str(&get(&bed.socket(), &format!("/v1/site?host={BLOG}"))).unwrap();
    assert!(sent["hpkp"]["value"].as_str().unwrap().contains("max-age=0"), "{sent}");
    let page = get(&bed.socket(), "/keys");
    assert!(page.contains("Pins withdrawn") && !page.contains("Withdraw the pins<span"), "{page}");
    for host in [BLOG, "nobody.example"] {
        let (head, page) = send(&bed, "/keys/withdraw", &[("site", host)]);
        assert!(head.starts_with("http/1.1 40") && page.contains("The pins are not withdrawn"), "{head} {page}");
    }
}

/// A backup that is live by now is listed once, as live.
#[test]
fn a_promoted_key_is_listed_once() {
    let bed = Bed::new();
    let config = bed.config("");
    let (live, spare) = (bed.authority.folder().join("blog.key"), bed.authority.public_key("spare"));
    let pins = format!("[site.hpkp]\nmax_age = \"30d\"\nbackups = [{live:?}, {spare:?}]\n");
    let _pintle = Pintle::start(&bed.authority, &(config + &pins));
    let listed: serde_json::Value = serde_json::from_str(&get(&bed.socket(), "/v1/keys")).unwrap();
    let keys = listed["sites"][0]["keys"].as_array().unwrap();
    let roles: Vec<&str> = keys.iter().filter_map(|key| key["role"].as_str()).collect();
    assert_eq!(roles, ["live", "next"], "{listed:#}");
    assert_ne!(keys[0]["pin"], keys[1]["pin"]);
}

/// The CSR of the next key is offered, however many other sites have a name with this one in it.
#[test]
fn a_rotation_offers_the_csr_of_its_own_site() {
    let bed = Bed::new();
    let config = bed.config("");
    // Eight sites whose names contain the name: the list of keys shows eight on a page.
    let leaf = bed.authority.leaf("others", &["*.example.com", "*.blog.example.com"]);
    let other = |at: usize| {
        format!(
            "[[site]]\nhosts = [\"{at}.{BLOG}\"]\nupstream = {:?}\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
            bed.origin.url(),
            leaf.chain,
            leaf.key
        )
    };
    let (head, site) = config.split_once("[[site]]").unwrap();
    let others: String = (0..9).map(other).collect();
    let csr = bed.authority.csr(&bed.authority.leaf("next", &[BLOG]));
    let pins =
        format!("[site.hpkp]\nmax_age = \"30d\"\nbackups = [{csr:?}, {:?}]\n", bed.authority.public_key("spare"));
    let _pintle = Pintle::start(&bed.authority, &format!("{head}{others}[[site]]{site}{pins}"));
    let rotation: serde_json::Value =
        serde_json::from_str(&get(&bed.socket(), &format!("/v1/rotation?host={BLOG}"))).unwrap();
    let keys = rotation["keys"].as_array().unwrap();
    let next = keys.iter().find(|key| key["role"] == "next").unwrap();
    assert_eq!(next["csr"], true, "{rotation:#}");
    assert!(keys.iter().all(|key| key["role"] != "live" || key["csr"] == false), "{rotation:#}");
    let page = get(&bed.socket(), &format!("/keys/rotate?site={BLOG}"));
    assert!(page.contains("Download the CSR") && !page.contains("where you keep it"), "{page}");
}

#[test]
fn a_rotation_is_planned() {
    let bed = Bed::new();
    let _pintle = Pintle::start(&bed.authority, &(bed.config("") + &policies(&bed.authority)));
    let page = get(&bed.socket(), &format!("/keys/rotate?site={BLOG}"));
    for part in
        ["You may rotate to the next key today.", "You bring the certificate", "pintle install --site", "key revoke"]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(get(&bed.socket(), "/keys/rotate?site=nobody.example").contains("No site has the name nobody.example"));
    // Nobody changes over the key of a site that brings its own certificates.
    let (head, page) = send(&bed, "/keys/rotate", &[("site", BLOG)]);
    assert!(head.starts_with("http/1.1 409") && page.contains("obtains no certificate"), "{head} {page}");
}
