//! The pages over TLS, for readers on other hosts: log-ins, client certificates, names, rotation, upgrades, strangers.

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use rcgen::{DnType, ExtendedKeyUsagePurpose};

use super::client::fed;
use super::entrance::{PASSWORD, hash};
use crate::admin::Bed;
use crate::harness::{Authority, BLOG, KeyKind, Leaf, PATIENCE, Pintle, eventually, outcome, pintle};
use crate::upgrade::Line;

const NAME: &str = "admin.example";

/// The settings of the pages, on a port of the kernel's choice.
fn https(leaf: &Leaf, more: &str) -> String {
    let Leaf { chain, key, .. } = leaf;
    format!("[admin.https]\nlisten = [\"127.0.0.1:0\"]\nchain = {chain:?}\nkey = {key:?}\n{more}\n")
}

/// A reader's browser, which trusts an authority.
struct Reader<'a> {
    at: SocketAddr,
    authority: &'a Authority,
    certificate: Option<Leaf>,
}

/// An answer: its head in lower case, and its body.
type HttpsAnswer = (String, String);

impl<'a> Reader<'a> {
    fn of(pintle: &Pintle, authority: &'a Authority) -> Self {
        let at = pintle.logged("pages over TLS listening", 1)[0]["address"].as_str().unwrap().parse().unwrap();
        Self { at, authority, certificate: None }
    }

    fn with(&self, certificate: Leaf) -> Self {
        Self { at: self.at, authority: self.authority, certificate: Some(certificate) }
    }

    fn curl(&self, name: &str, path: &str) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-i", "--max-time", "60", "--noproxy", "*", "--cacert"]).arg(self.authority.ca_path());
        if let Some(Leaf { chain, key, .. }) = &self.certificate {
            curl.arg("--cert").arg(chain).arg("--key").arg(key);
        }
        let port = self.at.port();
        curl.args(["--resolve", &format!("{name}:{port}:127.0.0.1"), &format!("https://{name}:{port}{path}")]);
        curl
    }

    /// The answer, if there is one.
    fn try_get(&self, name: &str, path: &str, more: &[&str]) -> Result<HttpsAnswer, String> {
        let (code, out, err) = outcome(self.curl(name, path).args(more));
        let (head, body) = out.split_once("\r\n\r\n").ok_or_else(|| format!("{code}: {err}"))?;
        Ok((head.to_ascii_lowercase(), body.to_owned()))
    }

    #[track_caller]
    fn get(&self, path: &str, more: &[&str]) -> HttpsAnswer {
        self.try_get(NAME, path, more).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

/// A client's certificate.
fn client(authority: &Authority, name: &str, usage: ExtendedKeyUsagePurpose, to_days: i64) -> Leaf {
    let key = authority.key(&name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"), KeyKind::Ecdsa);
    let file = key.file_stem().unwrap().to_str().unwrap().to_owned();
    authority.issue_as(&file, key, &[], |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(30);
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(to_days);
    })
}

#[test]
fn a_reader_signs_in_by_password() {
    let bed = Bed::new();
    let leaf = bed.authority.leaf("admin", &[NAME, "127.0.0.1"]);
    let pintle =
        Pintle::start(&bed.authority, &bed.config(&format!("[admin]\n{}\n{}", hash(PASSWORD), https(&leaf, ""))));
    let reader = Reader::of(&pintle, &bed.authority);
    for version in ["--tls-max 1.2", "--tlsv1.3"] {
        let (head, _) = reader.get("/", &version.split(' ').collect::<Vec<_>>());
        assert!(status(&head) == "303" && head.contains("location: /login"), "{version}: {head}");
        for field in ["strict-transport-security", "public-key-pins", "server:"] {
            assert!(!head.contains(field), "{field}: {head}");
        }
        assert!(head.contains("frame-ancestors 'none'") && head.contains("cache-control: no-store"), "{head}");
    }
    let old = reader.try_get(NAME, "/", &["--tls-max", "1.1"]);
    assert!(old.is_err(), "{old:?}");
    let form = format!("name=admin&password={}", PASSWORD.replace(' ', "+"));
    let (head, _) = reader.get("/login", &["--data", &form]);
    let set = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap().to_owned();
    assert!(set.starts_with("__host-pintle=") && set.ends_with("path=/; httponly; samesite=strict; secure"), "{set}");
    let (_, out, _) = outcome(reader.curl(NAME, "/login").args(["--data", &form]));
    let cookie = out.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap().split(';').next().unwrap();
    let cookie = format!("Cookie: {cookie}");
    let (head, page) = reader.get("/", &["-H", &cookie]);
    assert!(status(&head) == "200" && page.contains("may configure"), "{head}");
    // The cookie without TLS is another one.
    let plain = cookie.replace("__Host-pintle", "pintle");
    assert_eq!(status(&reader.get("/", &["-H", &plain]).0), "303");
    // By the address, which the certificate has; not by other names, whatever the cookie.
    assert_eq!(status(&reader.try_get("127.0.0.1", "/login", &[]).unwrap().0), "200");
    for host in ["evil.example", "localhost", "192.0.2.1", "admin.example.evil.example", BLOG] {
        let (head, page) = reader.get("/", &["-H", &cookie, "-H", &format!("Host: {host}")]);
        assert!(status(&head) == "403" && !page.contains("Overview"), "{host}: {head}");
    }
    // The token of the host is for the host.
    for field in ["Authorization: Bearer x", "Pintle-Admin: 1"] {
        assert_eq!(status(&reader.get("/v1/status", &["-H", field]).0), "401", "{field}");
        assert_eq!(status(&reader.get("/v1/reload", &["-X", "POST", "-H", field]).0), "401", "{field}");
    }
    // Plain HTTP gets no page.
    let (code, out, _) =
        outcome(Command::new("curl").args(["-s", "--max-time", "20", &format!("http://{}/login", reader.at)]));
    assert!(code != 0 && out.is_empty(), "{out}");
    let shown = pintle.status();
    assert_eq!(shown["admin_https"]["listening"][0], reader.at.to_string(), "{shown}");
    assert_eq!(shown["admin_https"]["certificates"][0]["names"][0], NAME);
    let (_, out, _) = outcome(&mut pintle.command("status"));
    assert!(out.contains(&format!("  pages          {} (https, until ", reader.at)), "{out}");
    pintle.logs("\"from\":\"127.0.0.1\"");
}

#[test]
fn client_certificates_let_their_holders_in() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let (bed, clients, strangers) = (Bed::new(), Authority::named("clients"), Authority::named("clients"));
    let leaf = bed.authority.leaf("admin", &[NAME]);
    let role = format!("client_ca = {:?}\nclient_role = \"operate\"", clients.ca_path());
    let pintle = Pintle::start(&bed.authority, &bed.config(&https(&leaf, &role)));
    let nobody = Reader::of(&pintle, &bed.authority);
    let anna = nobody.with(client(&clients, "Anna <b>\u{202e}", ClientAuth, 30));
    let (head, page) = anna.get("/", &[]);
    assert!(status(&head) == "200" && !head.contains("set-cookie"), "{head}");
    assert!(page.contains("CN=Anna %3Cb%3E%E2%80%AE") && page.contains("may operate"), "{page}");
    let signed_in = &pintle.logged("signed in by certificate", 1)[0];
    assert_eq!((&signed_in["who"], &signed_in["role"]), (&"CN=Anna %3Cb%3E%E2%80%AE".into(), &"operate".into()));
    // Programs send the header that pages of other origins cannot send; browsers the token of a page.
    let before = pintle.status()["reloads"].as_u64().unwrap();
    let token = page.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    for (fields, want) in [
        (vec![], "403"),
        (vec!["Pintle-Admin: 1".to_owned()], "200"),
        (vec![format!("Pintle-Csrf: {token}")], "200"),
        (vec!["Pintle-Admin: 1".to_owned(), "Origin: https://evil.example".to_owned()], "403"),
        (vec!["Pintle-Admin: 1".to_owned(), "Sec-Fetch-Site: same-site".to_owned()], "403"),
    ] {
        let more: Vec<&str> = fields.iter().flat_map(|field| ["-H", field.as_str()]).collect();
        let (head, body) = anna.get("/v1/reload", &[&["-X", "POST"], &more[..]].concat());
        assert_eq!(status(&head), want, "{fields:?}: {body}");
    }
    assert_eq!(pintle.status()["reloads"], before + 2);
    let who = &pintle.logged("command of the operator", 2)[0]["who"];
    assert_eq!(who, "CN=Anna %3Cb%3E%E2%80%AE");
    for path in ["/v1/upgrade", "/v1/page/link"] {
        let (head, _) = anna.get(path, &["-X", "POST", "-H", "Pintle-Admin: 1"]);
        assert_eq!(status(&head), "403", "{path}");
    }
    // Nobody else, and each hears why.
    let wrong = [
        (None, "Your browser has shown no client certificate."),
        (Some(client(&strangers, "stranger", ClientAuth, 30)), "no authority of admin.https.client_ca has issued it"),
        (Some(client(&clients, "late", ClientAuth, -1)), "it expired on "),
        (Some(client(&clients, "server", ServerAuth, 30)), "it is not for clients"),
        (Some(bed.authority.leaf("site", &[NAME])), "it is not for clients"),
    ];
    for (certificate, why) in wrong {
        let other = Reader { certificate, ..nobody.with(leaf.clone()) };
        assert!(other.get("/", &[]).0.contains("location: /login"), "{why}");
        let (head, page) = other.get("/login", &[]);
        assert!(status(&head) == "200" && page.contains(why) && !page.contains("<form"), "{why}: {page}");
        let (head, body) = other.get("/v1/status", &[]);
        assert!(status(&head) == "401" && body.contains(why) && !body.contains(BLOG), "{why}: {body}");
    }
    // With a password, they can sign in by that.
    pintle.rewrite(|text| text.replace("[admin.https]", &format!("[admin]\n{}\n[admin.https]", hash(PASSWORD))));
    pintle.reload();
    let page =
        eventually("the form is there", || Some(nobody.get("/login", &[]).1).filter(|page| page.contains("<form")));
    assert!(page.contains("Your browser has shown no client certificate."), "{page}");
    // Another role, and then no certificates at all.
    pintle.rewrite(|text| text.replace("\"operate\"", "\"view\""));
    pintle.reload();
    eventually("the role is view", || anna.get("/", &[]).1.contains("may view").then_some(()));
    pintle.rewrite(|text| text.replace(&role.replace("operate", "view"), ""));
    pintle.reload();
    eventually("the certificate is worth nothing", || (status(&anna.get("/", &[]).0) == "303").then_some(()));
}

#[test]
fn a_new_certificate_is_served_and_a_broken_one_is_not() {
    let (bed, second) = (Bed::new(), Authority::named("second"));
    let leaf = bed.authority.leaf("admin", &[NAME]);
    let pintle = Pintle::start(&bed.authority, &bed.config(&https(&leaf, "")));
    let (reader, newer) = (Reader::of(&pintle, &bed.authority), Reader::of(&pintle, &second));
    assert!(reader.try_get(NAME, "/login", &[]).is_ok() && newer.try_get(NAME, "/login", &[]).is_err());
    let good = fs::read_to_string(&leaf.chain).unwrap();
    fs::write(&leaf.chain, "broken").unwrap();
    let faulty = || pintle.status()["attention"].to_string().contains("admin.pem");
    eventually("the fault is reported", || faulty().then_some(()));
    assert!(reader.try_get(NAME, "/login", &[]).is_ok());
    pintle.logs("pages over TLS: a fault; the sites are not concerned");
    // A reload of something else goes through meanwhile.
    pintle.rewrite(|text| format!("{text}\n# more\n"));
    pintle.reload();
    assert!(reader.try_get(NAME, "/login", &[]).is_ok());
    let renewed = second.issue("admin", leaf.key.clone(), &[NAME], -1, 90);
    fs::write(&leaf.chain, fs::read_to_string(&renewed.chain).unwrap()).unwrap();
    eventually("the new one is served", || newer.try_get(NAME, "/login", &[]).ok());
    assert!(!faulty());
    // A start, too, goes without: the sites do not wait for the pages.
    fs::write(&leaf.chain, "broken").unwrap();
    let (code, _, err) = outcome(&mut pintle.command("check"));
    assert!(code == 1 && err.contains("admin.pem"), "{err}");
    fs::write(&leaf.chain, good).unwrap();
    assert_eq!(outcome(&mut pintle.command("check")).0, 0);
}

#[test]
fn the_certificate_of_a_site_follows_its_rotation() {
    let (bed, second) = (Bed::new(), Authority::named("second"));
    let site = format!("[admin.https]\nlisten = [\"127.0.0.1:0\"]\nsite = \"{BLOG}\"\n");
    let config = bed.config(&site) + "[site.hsts]\nmax_age = \"1d\"\n";
    let pintle = Pintle::start(&bed.authority, &config);
    let (reader, newer) = (Reader::of(&pintle, &bed.authority), Reader::of(&pintle, &second));
    let (head, _) = reader.try_get(BLOG, "/login", &[]).unwrap();
    assert!(head.contains("strict-transport-security: max-age=86400"), "{head}");
    assert!(newer.try_get(BLOG, "/login", &[]).is_err());
    let renewed = second.leaf("blog", &[BLOG]);
    let (chain, key) = (bed.authority.folder().join("blog.pem"), bed.authority.folder().join("blog.key"));
    fs::copy(&renewed.key, key).unwrap();
    fs::copy(&renewed.chain, chain).unwrap();
    eventually("the new one is served", || newer.try_get(BLOG, "/login", &[]).ok());
}

#[test]
fn an_upgrade_hands_the_listener_over() {
    let (bed, folder) = (Bed::new(), tempfile::TempDir::new().unwrap());
    let leaf = bed.authority.leaf("admin", &[NAME]);
    let state = format!("[state]\ndirectory = {:?}\n", folder.path().join("state"));
    let config = format!("{state}[admin]\n{}\n{}", hash(PASSWORD), https(&leaf, ""));
    let site = crate::harness::blog(&bed.authority, &bed.origin);
    let line =
        Line::start(&bed.authority, "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 2\n", &(config + &site));
    let reader = Reader::of(&line.pintle, &bed.authority);
    assert_eq!(status(&reader.get("/login", &[]).0), "200");
    line.upgrade();
    // Nobody is turned away, and the port is the same.
    for _ in 0..20 {
        assert_eq!(status(&reader.get("/login", &[]).0), "200");
    }
    let listening = line.pintle.status()["admin_https"]["listening"].clone();
    assert_eq!(listening[0], reader.at.to_string(), "{listening}");
}

#[test]
fn faulty_settings_are_refused_with_a_remedy() {
    let bed = Bed::new();
    let leaf = bed.authority.leaf("admin", &[NAME]);
    let (chain, key) = (format!("chain = {:?}\n", leaf.chain), format!("key = {:?}\n", leaf.key));
    let other = bed.authority.leaf("other", &[NAME]);
    let (local, open) = ("listen = [\"127.0.0.1:9443\"]\n", "listen = [\"0.0.0.0:9443\"]\n");
    let ca = format!("client_ca = {:?}\n", bed.authority.ca_path());
    let cases = [
        (format!("{local}{chain}{key}"), ""),
        (format!("{open}{chain}{key}{ca}"), ""),
        (format!("{open}{chain}{key}"), "other hosts reach 0.0.0.0:9443, and nobody there can sign in"),
        (format!("{chain}{key}"), "admin.https: listen is missing"),
        (format!("listen = [\"0.0.0.0\"]\n{chain}{key}{ca}"), "the port is missing"),
        (local.to_owned(), "admin.https: the certificate is missing"),
        (format!("{local}{chain}"), "admin.https: key is missing"),
        (format!("{local}{key}"), "admin.https: chain is missing"),
        (format!("{local}{chain}{key}site = \"{BLOG}\"\n"), "keep either site, or chain and key"),
        (format!("{local}site = \"nobody.example\"\n"), "no site has the host \"nobody.example\""),
        (format!("{local}{chain}key = {:?}\n", other.key), "does not match"),
        (format!("{local}{chain}key = \"missing.key\"\n"), "admin.https.key: "),
        (format!("{local}chain = \"missing.pem\"\n{key}"), "admin.https.chain: "),
        (format!("{local}{chain}{key}client_ca = {:?}\n", leaf.key), "admin.https.client_ca: "),
        (format!("{local}{chain}{key}{ca}client_role = \"root\"\n"), "admin.https.client_role: "),
        (format!("{local}{chain}{key}client_role = \"view\"\n"), "has no effect without client_ca"),
        (format!("{local}{chain}{key}sites = \"x\"\n"), "unknown key"),
        (format!("listen = [\"127.0.0.1:0\"]\n{chain}{key}\n[listen]\nhttps = [\"127.0.0.1:9443\"]\n"), ""),
        (format!("{local}{chain}{key}\n[listen]\nhttps = [\"127.0.0.1:9443\"]\n"), "is a listener of the sites, too"),
    ];
    let config = bed.folder.path().join("checked.toml");
    for (https, want) in cases {
        fs::write(&config, bed.config(&format!("[admin.https]\n{https}"))).unwrap();
        let (code, _, err) = outcome(pintle().args(["check", "-c"]).arg(&config));
        assert!(err.contains(want), "{https}: {err}");
        let is_fine = want.is_empty() || want == "has no effect without client_ca";
        assert_eq!(code == 0, is_fine, "{https}: {err}");
        let has_remedy = err.contains("hint") || want.starts_with("no site has the host");
        assert!(want.is_empty() || has_remedy || err.contains("note:") || err.contains("expected"), "{err}");
    }
    // The remedies work as pasted.
    let (_, line, _) = fed(pintle().args(["admin", "password"]), &format!("{PASSWORD}\n"));
    fs::write(&config, bed.config(&format!("[admin]\n{line}\n[admin.https]\n{open}{chain}{key}"))).unwrap();
    let (code, _, err) = outcome(pintle().args(["check", "-c"]).arg(&config));
    assert_eq!(code, 0, "{err}");
}

/// Opens connections that say nothing, and returns those that pintle has kept.
fn idle(at: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(at).unwrap()).collect()
}

fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    matches!(stream.read(&mut [0]), Ok(0) | Err(_))
}

#[test]
fn strangers_keep_nobody_else_waiting() {
    let bed = Bed::new();
    let leaf = bed.authority.leaf("admin", &[NAME]);
    let limits = "[limits]\nadmin_connections_per_client = 4\nhandshake = \"2s\"\n";
    let config = format!("{limits}[admin]\n{}\n{}", hash(PASSWORD), https(&leaf, ""));
    let pintle = Pintle::start(&bed.authority, &bed.config(&config));
    let reader = Reader::of(&pintle, &bed.authority);
    let held = idle(reader.at, 200);
    // Commands have places of their own, and the sites are not concerned.
    assert_eq!(pintle.status()["pid"], pintle.pid());
    let (code, _, err) = outcome(pintle.curl().args([&format!("https://{BLOG}/")]));
    assert_eq!(code, 0, "{err}");
    // Whoever says nothing is closed, and makes room.
    assert!(held.iter().all(is_closed));
    eventually("a reader gets in", || reader.try_get(NAME, "/login", &[]).ok());
    assert!(Path::new(&leaf.chain).exists());
}

/// What somebody may not send is not kept in memory: pintle does not even ask for it.
#[test]
fn long_bodies_of_strangers_are_left_unread() {
    let bed = Bed::new();
    let leaf = bed.authority.leaf("admin", &[NAME]);
    let vera = format!("[admin]\n[[admin.user]]\nname = \"vera\"\n{}\n{}", hash(PASSWORD), https(&leaf, ""));
    let pintle = Pintle::start(&bed.authority, &bed.config(&vera));
    let reader = Reader::of(&pintle, &bed.authority);
    let long = bed.authority.ca_path().with_file_name("long");
    fs::File::create(&long).unwrap().set_len(8 << 20).unwrap();
    let sent = |path: &str, fields: &[&str]| {
        let mut curl = reader.curl(NAME, path);
        curl.args(["-X", "POST", "-H", "Expect: 100-continue", "--expect100-timeout", "50", "-T"]).arg(&long);
        fields.iter().for_each(|field| _ = curl.args(["-H", field]));
        let (_, out, err) = outcome(curl.args(["-w", "\n%{http_code} %{size_upload}"]));
        out.lines().last().unwrap_or_else(|| panic!("{err}")).to_owned()
    };
    for path in ["/v1/ledger", "/v1/config/check", "/v1/certificates/judge", "/v1/none"] {
        assert_eq!(sent(path, &[]), "401 0", "{path}");
    }
    assert_eq!(sent("/config", &[]), "303 0");
    assert_eq!(sent("/login", &[]), "413 0");
    // A reader who may see everything sends no more than they may, either.
    let form = format!("name=vera&password={}", PASSWORD.replace(' ', "+"));
    let (_, out, _) = outcome(reader.curl(NAME, "/login").args(["--data", &form]));
    let cookie = out.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap().split(';').next().unwrap();
    let cookie = format!("Cookie: {cookie}");
    let (_, page) = reader.get("/", &["-H", &cookie]);
    let token = page.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let token = format!("Pintle-Csrf: {token}");
    for (path, want) in [("/v1/ledger", "403 0"), ("/v1/config/check", "403 0"), ("/v1/certificates/judge", "413 0")] {
        assert_eq!(sent(path, &[&cookie, &token]), want, "{path}");
    }
    // A short body of a stranger is read, and dropped: the refusal arrives.
    let (head, body) = reader.get("/v1/ledger", &["--data", &"x".repeat(100_000)]);
    assert!(status(&head) == "401" && body.contains("sign in first"), "{head}");
}
