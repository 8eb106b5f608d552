//! Installations over the API and on the page: the verdict, the swap, the way back, and what becomes of private keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::client::{PageCommand, get as fetch, send};
use crate::harness::{BLOG, Leaf, Pintle, eventually, output};
use crate::rotation::Bed;

const HOSTS: [&str; 2] = [BLOG, "www.example.com"];

/// What writes the configuration of these tests: keys may come in.
const KEYS: &str = "[admin]\nallow_keys = true\n";

fn socket(bed: &Bed) -> PathBuf {
    bed.state().join("admin.sock")
}

const LISTEN: &str = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";

/// A process with `[site.hpkp]`, and more keys of the configuration.
fn start(bed: &Bed, more: &str) -> Pintle {
    Pintle::start(&bed.authority, &(more.to_owned() + &bed.config(&bed.pins("30d"), "")))
}

/// A call of the API. Returns the status code and the answer.
fn call(bed: &Bed, method: &str, path: &str, fields: &[&str], body: &[u8]) -> (u16, Value) {
    let file = bed.folder.path().join("body.json");
    fs::write(&file, body).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-X", method, "-w", "\n%{http_code}", "--unix-socket"]).arg(socket(bed));
    if method == "POST" {
        curl.arg("--data-binary").arg(format!("@{}", file.display()));
    }
    fields.iter().for_each(|field| _ = curl.args(["-H", field]));
    let out = output(curl.arg(format!("http://localhost{path}")));
    let (text, code) = out.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {out}")))
}

/// What is installed.
fn installed(bed: &Bed) -> Value {
    let (code, answer) = call(bed, "GET", &format!("/v1/install?site={BLOG}"), &[], b"");
    assert_eq!(code, 200, "{answer}");
    answer
}

/// A wish about the certificate that is installed now.
fn install(bed: &Bed, wish: Value) -> (u16, Value) {
    let tag = format!("If-Match: {}", installed(bed)["tag"].as_str().unwrap());
    call(bed, "POST", "/v1/install", &[&tag], wish.to_string().as_bytes())
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn chain(leaf: &Leaf) -> Value {
    json!({ "site": BLOG, "chain": text(&leaf.chain) })
}

/// The end of the served certificate, which differs between certificates of the same key.
fn end(pintle: &Pintle) -> Value {
    pintle.status()["sites"][0]["certificates"][0]["not_after"].clone()
}

fn with(mut wish: Value, more: Value) -> Value {
    wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    wish
}

/// The files of the site, without the tests' own.
fn files(bed: &Bed) -> Vec<(PathBuf, Vec<u8>)> {
    [bed.chain(), bed.key()].map(|path| (path.clone(), fs::read(path).unwrap())).into()
}

#[test]
fn a_verdict_changes_nothing() {
    let bed = Bed::new();
    let pintle = start(&bed, "");
    let before = files(&bed);
    let renewed = bed.authority.renew("renewed", &bed.live.key, &HOSTS, 91);
    let (code, answer) = call(
        &bed,
        "POST",
        "/v1/install",
        &[],
        with(chain(&renewed), json!({ "dry_run": true })).to_string().as_bytes(),
    );
    assert_eq!((code, &answer["ok"], &answer["verdict"]), (200, &true.into(), &"fit".into()), "{answer}");
    assert_eq!((&answer["pin"], &answer["key"]), (&bed.live.pin.clone().into(), &"in-use".into()));
    assert!(answer["lockout"].is_null() && answer["writable"] == true && answer["verified"] == false, "{answer}");
    // DER, as base64.
    let der =
        Command::new("openssl").args(["x509", "-outform", "der", "-in"]).arg(&renewed.chain).output().unwrap().stdout;
    let der = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(der)
    };
    let (code, answer) = install(&bed, json!({ "site": "WWW.example.com", "chain": der, "dry_run": true }));
    assert_eq!((code, &answer["pin"]), (200, &bed.live.pin.clone().into()), "{answer}");
    let (code, answer) = install(&bed, with(chain(&bed.stranger), json!({ "dry_run": true })));
    assert_eq!((code, &answer["verdict"]), (409, &"refused".into()), "{answer}");
    assert!(answer["lockout"]["sets"].as_u64() >= Some(1) && answer["lockout"]["day"].is_string(), "{answer}");
    assert!(answer["reasons"][0]["hints"].to_string().contains("usable from"), "{answer}");
    assert_eq!((files(&bed), bed.served(&pintle)), (before, bed.live.pin.clone()));
    assert_eq!(pintle.status()["rotations_refused"], 0);
}

#[test]
fn installed_verified_and_rolled_back() {
    let bed = Bed::new();
    let pintle = bed.start("");
    let answer = installed(&bed);
    assert!(answer["pairs"][0]["previous"].is_null() && answer["managed"] == false, "{answer}");
    assert_eq!(answer["pairs"][0]["certificates"][0]["pin"], bed.live.pin.as_str());
    // Its key is nowhere; beside the key in use, it is found.
    let (code, answer) = install(&bed, chain(&bed.next));
    assert!(code == 422 && answer["error"].as_str().unwrap().contains("its key is neither"), "{answer}");
    fs::copy(&bed.next.key, bed.folder.path().join("next.key")).unwrap();
    let (code, answer) = install(&bed, chain(&bed.next));
    assert_eq!((code, &answer["verified"], &answer["key"]), (200, &true.into(), &"found".into()), "{answer}");
    assert_eq!(bed.served(&pintle), bed.next.pin);
    assert_eq!(text(&bed.key()), text(&bed.next.key));
    let line = &pintle.logged("certificate installed", 1)[0];
    assert_eq!((&line["site"], &line["pin"]), (&BLOG.into(), &bed.next.pin.clone().into()));
    // The way back, with its verdict.
    let previous = installed(&bed)["pairs"][0]["previous"].clone();
    assert_eq!((&previous["ok"], &previous["certificates"][0]["pin"]), (&true.into(), &bed.live.pin.clone().into()));
    assert!(previous["until"].is_string(), "{previous}");
    let (code, answer) = install(&bed, json!({ "site": BLOG, "previous": true }));
    assert_eq!((code, &answer["verified"]), (200, &true.into()), "{answer}");
    assert_eq!((bed.served(&pintle), text(&bed.key())), (bed.live.pin.clone(), text(&bed.live.key)));
    // And back again, by the command.
    let out = output(pintle.command("install --previous").args(["--site", BLOG]));
    assert!(out.contains(&format!("pin {}", bed.next.pin)) && out.contains("verified"), "{out}");
    assert_eq!(bed.served(&pintle), bed.next.pin);
    assert!(!bed.folder.path().join("blog.key.pintle-old").exists());
}

/// Clients that came between hold pins without the old key.
#[test]
fn the_guard_closes_the_way_back() {
    let bed = Bed::new();
    let pintle = start(&bed, "");
    let (code, answer) = install(&bed, chain(&bed.next));
    assert_eq!((code, &answer["key"]), (200, &"found".into()), "{answer}");
    let previous = installed(&bed)["pairs"][0]["previous"].clone();
    assert!(previous["ok"] == false && previous["lockout"]["day"].is_string(), "{previous}");
    assert!(previous["error"].as_str().unwrap().contains("would lock readers out"), "{previous}");
    let (code, answer) = install(&bed, json!({ "site": BLOG, "previous": true }));
    assert_eq!((code, &answer["verdict"]), (409, &"refused".into()), "{answer}");
    let page = Reader::new(&pintle, &[]).page();
    assert!(page.contains("The guard refuses it") && page.contains("See the ways out"), "{page}");
    assert_eq!(bed.served(&pintle), bed.next.pin);
}

#[test]
fn a_lockout_is_accepted_by_its_date() {
    let bed = Bed::new();
    let pintle = start(&bed, "");
    let before = files(&bed);
    let (code, answer) = install(&bed, chain(&bed.stranger));
    assert_eq!(code, 409, "{answer}");
    let day = answer["lockout"]["day"].as_str().unwrap().to_owned();
    for (wrong, code) in [("2026-01-01", 409), ("for ever", 400), ("", 400), ("2026-11-23&site=x", 400)] {
        let (found, answer) = install(&bed, with(chain(&bed.stranger), json!({ "accept_lockout_until": wrong })));
        assert_eq!(found, code, "{wrong}: {answer}");
    }
    assert_eq!((files(&bed), bed.served(&pintle)), (before, bed.live.pin.clone()));
    let (code, answer) = install(&bed, with(chain(&bed.stranger), json!({ "accept_lockout_until": day })));
    assert_eq!((code, &answer["verified"]), (200, &true.into()), "{answer}");
    assert_eq!((bed.served(&pintle), &pintle.status()["lockouts_accepted"]), (bed.stranger.pin.clone(), &1.into()));
}

#[test]
fn concurrent_installations_are_detected() {
    let bed = Bed::new();
    let pintle = start(&bed, "");
    let tag = installed(&bed)["tag"].as_str().unwrap().to_owned();
    let (code, answer) = call(&bed, "POST", "/v1/install", &[], chain(&bed.next).to_string().as_bytes());
    assert!(code == 428 && answer["hints"][0].as_str().unwrap().contains("ETag"), "{answer}");
    // Somebody else was faster, with the command.
    output(pintle.command("install").args(["--site", BLOG]).arg(&bed.spare.chain));
    let stale = format!("If-Match: {tag}");
    let (code, answer) = call(&bed, "POST", "/v1/install", &[&stale], chain(&bed.next).to_string().as_bytes());
    assert!(code == 412 && answer["ok"] == false, "{answer}");
    assert_eq!((bed.served(&pintle), text(&bed.key())), (bed.spare.pin.clone(), text(&bed.spare.key)));
    assert!(!bed.folder.path().join("blog.pem.pintle-old").exists());
    // One that holds the files just now.
    let old = bed.folder.path().join("blog.pem.pintle-old");
    fs::copy(bed.chain(), &old).unwrap();
    let held = fs::File::open(&old).unwrap();
    held.lock().unwrap();
    let (code, answer) = install(&bed, chain(&bed.next));
    assert!(code == 412 && answer["error"].as_str().unwrap().contains("another installation"), "{answer}");
    drop(held);
    assert_eq!(install(&bed, chain(&bed.next)).0, 200);
}

#[test]
fn other_certificates_from_outside_are_undone() {
    let bed = Bed::new();
    // What a connection finds is another server.
    let other = Pintle::start(&bed.authority, &crate::harness::blog(&bed.authority, &bed.origin));
    let address = other.https().to_string();
    let config = bed.config(&bed.pins("30d"), "");
    let pintle = Pintle::start_command(&bed.authority, LISTEN, &config, |command| {
        command.env("PINTLE_TEST_LOOK_AT", address);
    });
    let (before, first) = (files(&bed), end(&pintle));
    let renewed = bed.authority.renew("renewed", &bed.live.key, &HOSTS, 91);
    let (code, answer) = install(&bed, chain(&renewed));
    assert_eq!((code, &answer["rolled_back"], &answer["ok"]), (409, &true.into(), &false.into()), "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("serves another certificate"), "{answer}");
    assert_eq!((files(&bed), end(&pintle)), (before, first));
    assert!(installed(&bed)["pairs"][0]["previous"].is_null());
    pintle.logged("installation undone", 1);
    // Clients may have the pins of the new key by now: the guard does not let it go back.
    let (code, answer) = install(&bed, chain(&bed.next));
    assert_eq!((code, &answer["rolled_back"]), (409, &false.into()), "{answer}");
    assert_eq!((bed.served(&pintle), text(&bed.key())), (bed.next.pin.clone(), text(&bed.next.key)));
}

/// Killed at each step: the next start finishes or undoes it.
#[test]
fn killed_half_way() {
    let bed = Bed::new();
    for step in 0..=4 {
        bed.put(&bed.live);
        let config = bed.config(&bed.pins("30d"), "");
        let pintle = Pintle::start_command(&bed.authority, LISTEN, &config, |command| {
            command.env("PINTLE_TEST_DIE_AT", step.to_string());
        });
        let tag = format!("If-Match: {}", installed(&bed)["tag"].as_str().unwrap());
        let body = bed.folder.path().join("body.json");
        fs::write(&body, chain(&bed.next).to_string()).unwrap();
        let mut curl = Command::new("curl");
        curl.args(["-s", "-H", &tag, "--data-binary"]).arg(format!("@{}", body.display()));
        let cut = curl.arg("--unix-socket").arg(socket(&bed)).arg("http://localhost/v1/install").output().unwrap();
        assert!(!cut.status.success(), "step {step}: {}", String::from_utf8_lossy(&cut.stdout));
        drop(pintle);
        let again = Pintle::start(&bed.authority, &config);
        let leaf = if step < 2 { &bed.live } else { &bed.next };
        assert_eq!(bed.served(&again), leaf.pin, "step {step}");
        assert_eq!((text(&bed.key()), text(&bed.chain())), (text(&leaf.key), text(&leaf.chain)), "step {step}");
        let kept = |end: &str| ["blog.pem", "blog.key"].map(|name| bed.folder.path().join(format!("{name}.{end}")));
        assert!(kept("pintle-old").iter().all(|path| !path.exists()), "step {step}");
        let [chain, key] = kept("pintle-previous");
        if step >= 2 {
            assert_eq!((text(&chain), text(&key)), (text(&bed.live.chain), text(&bed.live.key)), "step {step}");
            fs::remove_file(chain).and_then(|()| fs::remove_file(key)).unwrap();
        }
        // The promises of the next run begin anew.
        drop(again);
        fs::remove_dir_all(bed.state()).unwrap();
    }
}

#[test]
fn keys_come_in_only_if_they_may() {
    let bed = Bed::new();
    let hidden = bed.folder.path().join("hidden");
    fs::create_dir(&hidden).unwrap();
    let secret = hidden.join("next.key");
    fs::rename(&bed.next.key, &secret).unwrap();
    let key = text(&secret);
    let wish = with(chain(&bed.next), json!({ "key": key, "key_name": "next.key" }));
    let (closed, marks) = (start(&bed, ""), secrets(&key));
    let before = files(&bed);
    for wish in [
        wish.clone(),
        json!({ "site": BLOG, "chain": format!("{}{key}", text(&bed.next.chain)) }),
        json!({ "site": BLOG, "chain": key }),
    ] {
        let (code, answer) = install(&bed, wish);
        assert_eq!((code, &answer["kind"]), (403, &"private-key".into()), "{answer}");
        assert!(answer["hints"][0].as_str().unwrap().starts_with("sudo pintle install --site"), "{answer}");
        assert!(marks.iter().all(|mark| !answer.to_string().contains(mark)), "{answer}");
    }
    assert_eq!(files(&bed), before);
    assert!(marks.iter().all(|mark| !closed.log().contains(mark)));
    drop(closed);
    let open = start(&bed, KEYS);
    assert_eq!(installed(&bed)["allow_keys"], true);
    // Another key than the chain's.
    let (code, answer) = install(&bed, with(chain(&bed.next), json!({ "key": text(&bed.spare.key) })));
    assert!(code == 422 && answer["error"].as_str().unwrap().contains("not the key of"), "{answer}");
    let (code, answer) = install(&bed, wish);
    assert_eq!((code, &answer["verified"], &answer["key"]), (200, &true.into(), &"given".into()), "{answer}");
    assert_eq!((bed.served(&open), text(&bed.key())), (bed.next.pin.clone(), key.clone()));
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(bed.key()).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(marks.iter().all(|mark| !answer.to_string().contains(mark) && !open.log().contains(mark)), "{answer}");
    assert_nowhere(&bed.state().join("config.git"), &marks);
}

/// Parts of a key that nothing but the key has.
fn secrets(key: &str) -> Vec<String> {
    let lines: Vec<String> = key.lines().filter(|line| !line.starts_with('-')).map(str::to_owned).collect();
    assert!(!lines.is_empty());
    lines.into_iter().chain([key.to_owned()]).collect()
}

fn assert_nowhere(folder: &Path, marks: &[String]) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            assert_nowhere(&entry.path(), marks);
            continue;
        }
        let contents = fs::read(entry.path()).unwrap();
        let contents = String::from_utf8_lossy(&contents);
        assert!(marks.iter().all(|mark| !contents.contains(mark)), "{}", entry.path().display());
    }
}

#[test]
fn unusable_files_name_their_form_and_the_command() {
    let bed = Bed::new();
    let mut pintle = start(&bed, "");
    let base64 = |bytes: Vec<u8>| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(bytes)
    };
    let pfx = Command::new("openssl")
        .args(["pkcs12", "-export", "-passout", "pass:x", "-inkey"])
        .arg(&bed.next.key)
        .arg("-in")
        .arg(&bed.next.chain)
        .output()
        .unwrap();
    let wish = json!({ "site": BLOG, "chain": base64(pfx.stdout), "chain_name": "blog.pfx" });
    for more in ["", KEYS] {
        drop(pintle);
        pintle = start(&bed, more);
        let (code, answer) = install(&bed, wish.clone());
        assert!(code == 422 && answer["error"].as_str().unwrap().contains("PKCS#12"), "{answer}");
        assert!(answer["hints"][0].as_str().unwrap().starts_with("openssl pkcs12 -in blog.pfx -nokeys"), "{answer}");
    }
    let encrypted = Command::new("openssl")
        .args(["pkcs8", "-topk8", "-passout", "pass:x", "-in"])
        .arg(&bed.next.key)
        .output()
        .unwrap();
    let key = String::from_utf8(encrypted.stdout).unwrap();
    let (code, answer) = install(&bed, with(chain(&bed.next), json!({ "key": key, "key_name": "../a b.key" })));
    assert_eq!(code, 422, "{answer}");
    assert!(answer["hints"][0].as_str().unwrap().starts_with("openssl pkey -in 'a b.key'"), "{answer}");
    for (wish, code) in [
        (json!({ "site": BLOG, "chain": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" }), 422),
        (json!({ "site": BLOG, "chain": "%" }), 422),
        (json!({ "site": BLOG, "previous": true }), 409),
        (json!({ "site": "nowhere.example", "chain": text(&bed.next.chain) }), 404),
        (json!({ "site": BLOG, "chain": text(&bed.next.chain), "algorithm": "rsa" }), 422),
        (json!({ "chain": "x" }), 400),
        (json!([]), 400),
    ] {
        let (found, answer) = install(&bed, wish.clone());
        assert_eq!(found, code, "{wish}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{answer}");
    }
    assert!(!pintle.log().contains("PRIVATE KEY"));
    // Too long, by one byte.
    let bomb = vec![b'a'; pintle::admin::api::INSTALL_MAX + 1];
    assert_eq!(call(&bed, "POST", "/v1/install", &[], &bomb).0, 413);
    let spaces = vec![b' '; pintle::admin::api::INSTALL_MAX];
    assert_eq!(call(&bed, "POST", "/v1/install", &[], &spaces).0, 400);
}

/// A browser with a session.
struct Reader {
    command: PageCommand,
    cookie: String,
}

impl Reader {
    fn new(pintle: &Pintle, more: &[&str]) -> Self {
        let command = PageCommand::start(pintle, more);
        let cookie = format!("Cookie: {}", fetch(command.address, &command.link, &[]).cookie());
        Self { command, cookie }
    }

    fn page(&self) -> String {
        fetch(self.command.address, &format!("/install?site={BLOG}"), &[&self.cookie]).body
    }

    /// Sends the form with these fields and files, and the hidden fields of the page.
    fn send(&self, page: &str, fields: &[(&str, &str)], files: &[(&str, &str, &[u8])]) -> (u16, String) {
        let mut body = Vec::new();
        let hidden = [("csrf", field(page, "csrf")), ("base", field(page, "base")), ("site", BLOG.to_owned())];
        let fields = hidden.iter().map(|(name, value)| (*name, value.as_str())).chain(fields.iter().copied());
        for (name, value) in fields {
            body.extend_from_slice(
                format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").as_bytes(),
            );
        }
        for (name, file, contents) in files {
            let head = format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\n\r\n");
            body.extend_from_slice(&[head.as_bytes(), contents, b"\r\n"].concat());
        }
        body.extend_from_slice(b"--x--\r\n");
        let kind = "Content-Type: multipart/form-data; boundary=x";
        let answer = send(self.command.address, "POST", "/install", &[&self.cookie, kind], &body);
        (answer.code, answer.body)
    }
}

/// The value of a hidden field, unescaped.
fn field(page: &str, name: &str) -> String {
    let rest = page.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap_or_else(|| panic!("{name}: {page}"));
    rest.split('"').next().unwrap().replace("&#34;", "\"").replace("&quot;", "\"").replace("&#43;", "+")
}

#[test]
fn the_page_checks_installs_and_rolls_back() {
    let bed = Bed::new();
    let pintle = start(&bed, "");
    let reader = Reader::new(&pintle, &["--role", "operate"]);
    let page = reader.page();
    assert!(page.contains("<h1>Install a certificate</h1>") && page.contains("admin.allow_keys"), "{page}");
    assert!(page.contains("sudo pintle install --site") && !page.contains("name=\"key\""), "{page}");
    assert!(page.len() < 60 << 10 && !page.contains("style=") && !page.contains("<script>"), "{}", page.len());
    // A refusal, with its ways out.
    let (code, refused) =
        reader.send(&page, &[("do", "check")], &[("file", "stranger.pem", text(&bed.stranger.chain).as_bytes())]);
    assert_eq!(code, 409);
    assert!(
        refused.contains("Refused: stranger.pem would lock readers out") && refused.contains("I have lost the keys"),
        "{refused}"
    );
    // A verdict, and its form.
    let renewed = bed.authority.renew("renewed", &bed.live.key, &HOSTS, 91);
    let first = end(&pintle);
    let (code, fit) = reader.send(&page, &[("do", "check"), ("pem", &text(&renewed.chain))], &[]);
    assert!(code == 200 && fit.contains("is fit to be served") && fit.contains("locks nobody out"), "{fit}");
    assert_eq!(end(&pintle), first);
    let (code, done) = reader.send(&fit, &[("do", "install"), ("chain", &field(&fit, "chain"))], &[]);
    assert!(code == 200 && done.contains("Installed. ") && done.contains("serves it for"), "{done}");
    assert_ne!(end(&pintle), first);
    // The same form once more: it is about the pair before.
    let (code, stale) = reader.send(&fit, &[("do", "install"), ("chain", &field(&fit, "chain"))], &[]);
    assert!(code == 412 && stale.contains("omebody else has installed"), "{code} {stale}");
    let page = reader.page();
    assert!(page.contains("It locks nobody out.") && page.contains(">Roll back<"), "{page}");
    let (code, back) = reader.send(&page, &[("do", "back")], &[]);
    assert!(code == 200 && back.contains("Rolled back. "), "{back}");
    assert_eq!(end(&pintle), first);
    // Nothing, and a form of elsewhere.
    assert_eq!(reader.send(&page, &[("do", "check")], &[]).0, 400);
    let forged = page.replace(&field(&page, "csrf"), "forged");
    assert_eq!(reader.send(&forged, &[("do", "back")], &[]).0, 403);
    assert_eq!(end(&pintle), first);
    let viewer = Reader::new(&pintle, &["--role", "view"]);
    let page = viewer.page();
    assert!(page.contains("takes the role operate") && !page.contains("name=\"file\""), "{page}");
    let answer = send(viewer.command.address, "POST", "/install", &[&viewer.cookie], b"");
    assert_eq!(answer.code, 403);
}

#[test]
fn the_page_takes_a_key_and_never_shows_it() {
    let bed = Bed::new();
    let hidden = bed.folder.path().join("hidden");
    fs::create_dir(&hidden).unwrap();
    fs::rename(&bed.next.key, hidden.join("next.key")).unwrap();
    let key = text(&hidden.join("next.key"));
    let pintle = start(&bed, KEYS);
    let (reader, marks) = (Reader::new(&pintle, &[]), secrets(&key));
    let page = reader.page();
    assert!(page.contains("name=\"key\""), "{page}");
    let (chain, key_file) = (text(&bed.next.chain), ("key", "next.key", key.as_bytes()));
    let (code, fit) = reader.send(&page, &[("do", "check"), ("pem", &chain)], &[key_file]);
    assert!(code == 200 && fit.contains("The key again") && fit.contains("the given key"), "{fit}");
    let (code, without) = reader.send(&fit, &[("do", "install"), ("chain", &field(&fit, "chain"))], &[]);
    assert!(code == 422 && without.contains("its key is neither the one in use"), "{without}");
    let (code, done) = reader.send(&fit, &[("do", "install"), ("chain", &field(&fit, "chain"))], &[key_file]);
    assert!(code == 200 && done.contains("Installed. "), "{done}");
    for page in [page, fit, without, done, pintle.log()] {
        assert!(marks.iter().all(|mark| !page.contains(mark)), "{page}");
    }
    assert_eq!((bed.served(&pintle), text(&bed.key())), (bed.next.pin.clone(), key));
}

#[test]
fn names_of_strangers_are_escaped() {
    let bed = Bed::new();
    let pintle = start(&bed, "");
    let reader = Reader::new(&pintle, &[]);
    let page = reader.page();
    let evil = "<script>alert(1)</script>";
    let request = bed.folder.path().join("evil.pem");
    output(
        Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-nodes",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-keyout",
                "/dev/null",
            ])
            .args(["-days", "3", "-subj", &format!("/CN={}/O=x\"><img src=x>", evil.replace('/', "\\/")), "-out"])
            .arg(&request),
    );
    let pasted = text(&request);
    let (_, shown) = reader.send(&page, &[("do", "check")], &[("file", evil, pasted.as_bytes())]);
    let (_, name) = reader.send(&page, &[("do", "check"), ("pem", evil)], &[]);
    fs::copy(&request, bed.folder.path().join("blog.pem.pintle-previous")).unwrap();
    for page in [shown, name, reader.page()] {
        assert!(!page.contains("<script>") && !page.contains("<img"), "{page}");
    }
}

/// What the process may not write is said before anybody uploads anything.
#[test]
fn a_process_that_may_not_write_names_the_command() {
    let bed = Bed::new();
    let config = format!("[sandbox]\nlandlock = \"auto\"\n{}", bed.config(&bed.pins("30d"), ""));
    let pintle = Pintle::start(&bed.authority, &config);
    if pintle.status()["sandbox"]["landlock"].is_null() {
        return;
    }
    let answer = installed(&bed);
    assert!(answer["writable"] == false, "{answer}");
    let hints = answer["not_writable"]["hints"].to_string();
    let command = format!("sudo pintle install --site {BLOG} CHAIN KEY -c {}", pintle.config_path().display());
    assert!(hints.contains(&command) && hints.contains("edit = true in [admin]"), "{hints}");
    let before = files(&bed);
    let (code, answer) = install(&bed, with(chain(&bed.next), json!({ "dry_run": true })));
    assert_eq!((code, &answer["ok"], &answer["writable"]), (200, &true.into(), &false.into()), "{answer}");
    let (code, answer) = install(&bed, chain(&bed.next));
    assert!(code == 403 && answer["hints"].to_string().contains(&command), "{answer}");
    assert_eq!(files(&bed), before);
    let page = Reader::new(&pintle, &[]).page();
    assert!(page.contains("This page can check, and not install"), "{page}");
    // The same command works.
    output(pintle.command("install").args(["--site", BLOG]).arg(&bed.next.chain));
    eventually("the next key is served", || (bed.served(&pintle) == bed.next.pin).then_some(()));
}

/// With `admin.edit`, the sandbox permits it. A look from outside may need a port that the kernel chose after the rules.
#[test]
fn a_process_that_may_write_installs_in_its_sandbox() {
    let bed = Bed::new();
    let sandbox = "[sandbox]\nlandlock = \"auto\"\n[admin]\nedit = true\n";
    let pintle = Pintle::start(&bed.authority, &format!("{sandbox}{}", bed.config(&bed.pins("30d"), "")));
    fs::copy(&bed.next.key, bed.folder.path().join("next.key")).unwrap();
    let answer = installed(&bed);
    assert!(answer["writable"] == true && answer["not_writable"].is_null(), "{answer}");
    let (code, answer) = install(&bed, chain(&bed.next));
    assert_eq!((code, &answer["ok"], &answer["rolled_back"]), (200, &true.into(), &false.into()), "{answer}");
    assert!(answer["verification"].as_str().is_some_and(|words| !words.is_empty()), "{answer}");
    assert_eq!((bed.served(&pintle), text(&bed.key())), (bed.next.pin.clone(), text(&bed.next.key)));
}
