//! Certificates that change while pintle serves: what is taken up, what is refused, and what the clients see.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Authority, BLOG, Client, Leaf, Origin, Pintle, eventually, outcome, output};

/// A site whose files lie in a folder of their own, as an operator has them.
pub struct Bed {
    pub authority: Authority,
    pub folder: TempDir,
    pub origin: Origin,
    /// The keys: live, next, spare, and one that no client knows.
    pub live: Leaf,
    pub next: Leaf,
    pub spare: Leaf,
    pub stranger: Leaf,
}

impl Bed {
    pub fn new() -> Self {
        let authority = Authority::new();
        let [live, next, spare, stranger] =
            ["live", "next", "spare", "stranger"].map(|name| authority.leaf(name, &[BLOG, "www.example.com"]));
        let bed =
            Self { origin: Origin::hello(), folder: TempDir::new().unwrap(), authority, live, next, spare, stranger };
        bed.put(&bed.live);
        for leaf in [&bed.next, &bed.spare] {
            bed.authority.csr(leaf);
        }
        bed
    }

    pub fn chain(&self) -> PathBuf {
        self.folder.path().join("blog.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.folder.path().join("blog.key")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Puts a pair in place, as a careful renewal program does: each file whole.
    pub fn put(&self, leaf: &Leaf) {
        for (from, to) in [(&leaf.key, self.key()), (&leaf.chain, self.chain())] {
            let new = to.with_extension("tmp");
            fs::copy(from, &new).unwrap();
            fs::rename(new, to).unwrap();
        }
    }

    /// The configuration; `more` ends the site.
    pub fn config(&self, hpkp: &str, more: &str) -> String {
        self.config_of(&self.chain(), &self.key(), hpkp, more)
    }

    pub fn config_of(&self, chain: &Path, key: &Path, hpkp: &str, more: &str) -> String {
        format!(
            "[state]\ndirectory = {:?}\n[[site]]\nhosts = [\"{BLOG}\", \"www.example.com\"]\nupstream = \"{}\"\n{more}\n\
             [site.certificate]\nchain = {chain:?}\nkey = {key:?}\n{hpkp}\n",
            self.state(),
            self.origin.url(),
        )
    }

    /// `[site.hpkp]` with both backups.
    pub fn pins(&self, max_age: &str) -> String {
        let csr = |leaf: &Leaf| leaf.key.with_extension("csr");
        format!("[site.hpkp]\nmax_age = \"{max_age}\"\nbackups = [{:?}, {:?}]\n", csr(&self.next), csr(&self.spare))
    }

    pub fn start(&self, hpkp: &str) -> Pintle {
        Pintle::start(&self.authority, &self.config(hpkp, ""))
    }

    /// The pin of the key that is served.
    pub fn served(&self, pintle: &Pintle) -> String {
        served(pintle)
    }

    /// The pin header of an answer, if there is one.
    pub fn header(&self, pintle: &Pintle) -> Option<String> {
        let response = Client::new(&self.authority).get(pintle.https(), BLOG, "/");
        response.field("public-key-pins").map(str::to_owned)
    }
}

/// The pin of the served key, computed by openssl.
pub fn served(pintle: &Pintle) -> String {
    let script = format!(
        "openssl s_client -connect {} -servername {BLOG} </dev/null 2>/dev/null | openssl x509 -noout -pubkey | openssl pkey \
         -pubin -outform der | openssl dgst -sha256 -binary | base64",
        pintle.https()
    );
    output(std::process::Command::new("sh").args(["-c", &script])).trim().to_owned()
}

/// The site's refusal in `pintle status`.
pub fn refusal(pintle: &Pintle) -> Value {
    pintle.status()["sites"][0]["refused"].clone()
}

#[test]
fn a_renewed_certificate_is_served_without_a_word() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    assert_eq!(bed.served(&pintle), bed.live.pin);
    // The same key: what a renewal should be.
    let renewed = bed.authority.renew("renewed", &bed.live.key, &[BLOG, "www.example.com"], 91);
    bed.put(&renewed);
    let line = eventually("the renewed certificate is announced", || pintle.log_json("certificate").into_iter().nth(1));
    assert_eq!(line["site"], BLOG);
    assert_eq!(line["pin"], bed.live.pin.as_str());
    assert_eq!(line["issuer"], "pintle test CA");
    assert!(line["serial"].as_str().unwrap().len() > 8 && line["not_after"].as_str().unwrap().len() == 10);
    assert_eq!(refusal(&pintle), Value::Null);
}

#[test]
fn the_next_key_may_be_served_and_asks_for_another() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let before = bed.header(&pintle).unwrap();
    assert!(before.contains(&bed.live.pin) && before.contains(&bed.next.pin) && before.contains(&bed.spare.pin));
    bed.put(&bed.next);
    eventually("the next key is served", || (bed.served(&pintle) == bed.next.pin).then_some(()));
    let after = bed.header(&pintle).unwrap();
    assert!(
        after.contains(&bed.next.pin) && after.contains(&bed.spare.pin) && !after.contains(&bed.live.pin),
        "{after}"
    );
    let todo = pintle.status()["sites"][0]["todo"][0].as_str().unwrap().to_owned();
    assert!(todo.contains(&bed.next.pin) && todo.contains("pintle key new --role next"), "{todo}");
    pintle.logs("a backup key is live now");
    // And the same after a restart, with the configuration as it is.
    drop(pintle);
    let pintle = bed.start(&bed.pins("30d"));
    assert_eq!(bed.served(&pintle), bed.next.pin);
    assert!(pintle.status()["sites"][0]["todo"][0].as_str().unwrap().contains(&bed.next.pin));
}

/// Browsers open connections ahead of time. One that speaks after a rotation gets the new chain: its client may know the
/// new pins.
#[test]
fn a_connection_opened_before_a_rotation_gets_the_new_chain() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let early: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(pintle.https()).unwrap()).collect();
    eventually("they are accepted", || (pintle.status()["connections"].as_u64() >= Some(4)).then_some(()));
    bed.put(&bed.next);
    eventually("the next key is served", || (bed.served(&pintle) == bed.next.pin).then_some(()));
    for socket in early {
        let connection = Client::new(&bed.authority).handshake(socket, BLOG).unwrap();
        let leaf = connection.stream.tls().unwrap().peer_certificates().unwrap()[0].to_vec();

        let leaf = x509_parser::parse_x509_certificate(&leaf).unwrap().1.public_key().raw.to_vec();
        assert_eq!(pintle::keys::pin::Pin::of_spki(&leaf).to_string(), bed.next.pin);
    }
}

#[test]
fn without_a_backup_left_the_pins_are_withheld() {
    let bed = Bed::new();
    let one = format!("[site.hpkp]\nmax_age = \"30d\"\nbackups = [{:?}]\n", bed.next.key.with_extension("csr"));
    let pintle = bed.start(&one);
    assert!(bed.header(&pintle).is_some());
    bed.put(&bed.next);
    eventually("the next key is served", || (bed.served(&pintle) == bed.next.pin).then_some(()));
    assert_eq!(bed.header(&pintle), None);
    assert_eq!(pintle.status()["sites"][0]["hpkp"]["why_not"], "no backup left");
}

#[test]
fn a_key_that_was_never_promised_is_refused() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    bed.put(&bed.stranger);
    let refused = eventually("the stranger is refused", || {
        pintle.log_json("certificate refused; the old one keeps serving").pop()
    });
    let (reason, hint) = (refused["reason"].as_str().unwrap(), refused["hint"].as_str().unwrap());
    assert!(reason.contains("would lock readers out") && reason.contains(BLOG), "{reason}");
    assert!(reason.contains("sent since 20") && reason.contains("held until 20"), "{reason}");
    // Which configured keys would do, and from when on this one would.
    assert!(hint.contains(&bed.next.pin) && hint.contains(&bed.spare.pin) && !hint.contains(&bed.live.pin), "{hint}");
    assert!(hint.contains("usable from 20") && hint.contains("accept_lockout_until = \"20"), "{hint}");
    assert_eq!(bed.served(&pintle), bed.live.pin);
    assert!(bed.header(&pintle).unwrap().contains(&bed.live.pin));
    assert_eq!(refusal(&pintle)["by_guard"], true);
    let metrics = output(
        std::process::Command::new("curl")
            .args(["--silent", "--unix-socket"])
            .arg(bed.state().join("admin.sock"))
            .arg("http://localhost/metrics"),
    );
    assert!(metrics.contains(&format!("pintle_certificate_refused{{site=\"{BLOG}\"}} 1")), "{metrics}");
    assert!(metrics.contains("pintle_rotations_refused_total 1"), "{metrics}");
    // `check` says the same, from the ledger.
    let (code, _, err) = outcome(&mut pintle.command("check"));
    assert!(code == 1 && err.contains("would lock readers out"), "{err}");
    // So does a start that knows of no pair which was served before.
    drop(pintle);
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    let config = bed.folder.path().join("again.toml");
    fs::write(&config, format!("[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n{}", bed.config(&bed.pins("30d"), "")))
        .unwrap();
    let (code, _, err) = outcome(crate::harness::pintle().args(["run", "--strict", "-c"]).arg(&config));
    assert!(code == 1 && err.contains("would lock readers out"), "{err}");
}

/// Clients that know the new root end their path there, and never see the old one above it.
#[test]
fn a_root_above_a_cross_signed_one_keeps_no_promise() {
    let bed = Bed::new();
    let [new, old] = ["new", "old"].map(|name| Authority::named(&format!("pintle test CA, {name}")));
    let pintle = bed.start(&format!("[site.hpkp]\nmax_age = \"30d\"\nbackups = [{:?}]\n", old.ca_path()));
    let hosts = [BLOG, "www.example.com"];
    let crossed = new.leaf("crossed", &hosts);
    let chain = fs::read_to_string(&crossed.chain).unwrap();
    assert!(chain.contains(new.ca_pem()));
    fs::write(&crossed.chain, chain.replace(new.ca_pem(), &(new.crossed(&old) + old.ca_pem()))).unwrap();
    bed.put(&crossed);
    let refused = pintle.logged("certificate refused; the old one keeps serving", 1);
    assert!(refused[0].to_string().contains("would lock readers out"), "{refused:?}");
    assert_eq!(bed.served(&pintle), bed.live.pin);
    // A leaf that the old root has signed keeps the promise on every path.
    let direct = old.leaf("direct", &hosts);
    bed.put(&direct);
    eventually("the leaf of the old root is served", || (bed.served(&pintle) == direct.pin).then_some(()));
}

#[test]
fn a_refusal_is_told_once_and_ends_with_the_files() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let refusals = || pintle.log_json("certificate refused; the old one keeps serving");
    bed.put(&bed.stranger);
    eventually("the stranger is refused", || refusals().pop());
    // The same again, and its files touched.
    bed.put(&bed.stranger);
    bed.put(&bed.next);
    eventually("the next key is served", || (bed.served(&pintle) == bed.next.pin).then_some(()));
    assert_eq!(refusals().len(), 1);
    eventually("the refusal is over", || refusal(&pintle).is_null().then_some(()));
}

#[test]
fn symbolic_links_are_followed() {
    let bed = Bed::new();
    // As Kubernetes mounts secrets: tls.crt -> ..data/tls.crt, ..data -> ..2026_1.
    let mount = bed.folder.path().join("mount");
    let version = |name: &str, leaf: &Leaf| {
        let folder = mount.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(&leaf.chain, folder.join("tls.crt")).unwrap();
        fs::copy(&leaf.key, folder.join("tls.key")).unwrap();
    };
    version("..2026_1", &bed.live);
    symlink("..2026_1", mount.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), mount.join(name)).unwrap();
    }
    let config = bed.config_of(&mount.join("tls.crt"), &mount.join("tls.key"), &bed.pins("30d"), "");
    let pintle = Pintle::start(&bed.authority, &config);
    for (name, leaf) in [("..2026_2", &bed.next), ("..2026_3", &bed.spare)] {
        version(name, leaf);
        symlink(name, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        eventually("the new version is served", || (served(&pintle) == leaf.pin).then_some(()));
    }
}

#[test]
fn half_written_files_are_waited_for() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    // The key first, then the chain in two parts, without any care.
    let chain = fs::read(&bed.next.chain).unwrap();
    fs::copy(&bed.next.key, bed.key()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    fs::write(bed.chain(), &chain[..chain.len() / 3]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let first = String::from_utf8_lossy(&chain).find("-----END CERTIFICATE-----").unwrap() + 26;
    fs::write(bed.chain(), &chain[..first]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    fs::write(bed.chain(), &chain).unwrap();
    eventually("the next key is served", || (bed.served(&pintle) == bed.next.pin).then_some(()));
    assert_eq!(pintle.log_json("certificate refused; the old one keeps serving"), Vec::<Value>::new());
    assert_eq!(pintle.log_json("certificate").len(), 2, "no chain without its intermediate was served");
    // A file that stays broken is logged.
    fs::write(bed.chain(), &chain[..chain.len() / 3]).unwrap();
    let refused = eventually("the broken file is logged", || {
        pintle.log_json("certificate refused; the old one keeps serving").pop()
    });
    assert!(refused["reason"].as_str().unwrap().contains("blog.pem"), "{refused}");
    assert_eq!(bed.served(&pintle), bed.next.pin);
}

/// Smashing Magazine, 21-25 October 2016: max-age of a year, includeSubDomains; the certificate, near its end, was
/// replaced by one with a new key, and the new pin was put into the header at that moment. Returning readers held the
/// old set, and could not come in for days.
#[test]
fn smashing_magazine_october_2016() {
    let bed = Bed::new();
    let year = |backups: &[&Path]| {
        format!("[site.hpkp]\nmax_age = \"1y\"\ninclude_subdomains = true\nbackups = {backups:?}\n")
    };
    let (next, spare) = (bed.next.key.with_extension("csr"), bed.spare.key.with_extension("csr"));
    let pintle = bed.start(&year(&[&next, &spare]));
    let promised = bed.header(&pintle).unwrap();
    assert!(promised.contains("max-age=31536000; includeSubDomains") && promised.contains(&bed.live.pin), "{promised}");
    // The new key, and the new pins, at once: the key last, as pintle watches its files, and not the configuration.
    let text = fs::read_to_string(pintle.config_path()).unwrap();
    let fresh = [bed.authority.public_key("fresh"), bed.authority.public_key("fresher")];
    fs::write(pintle.config_path(), text.replace(&year(&[&next, &spare]), &year(&[&fresh[0], &fresh[1]]))).unwrap();
    bed.put(&bed.stranger);
    let (code, _, err) = outcome(&mut pintle.command("reload"));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("would lock readers out"), "{err}");
    // A year and a day from now, or two: a lease is part of it.
    let day = err.split("accept_lockout_until = \"").nth(1).unwrap().split('"').next().unwrap();
    let today = jiff::Timestamp::now().as_second();
    let safe =
        day.parse::<jiff::civil::Date>().unwrap().to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second();
    assert!((365 * 86400..367 * 86400).contains(&(safe - today)), "{day}");
    // The old chain, and the old pins, are what readers still get.
    assert_eq!(bed.served(&pintle), bed.live.pin);
    assert_eq!(bed.header(&pintle).as_deref(), Some(&*promised));
    // A reader who noted them, as curl does, is let in.
    let pins = [&bed.live.pin, &bed.next.pin, &bed.spare.pin].map(|p| format!("sha256//{p}")).join(";");
    output(pintle.curl().args(["--pinnedpubkey", &pins, &format!("https://{BLOG}/")]));
}

#[test]
fn a_lockout_must_be_accepted_with_its_date() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    bed.put(&bed.stranger);
    let refused = eventually("the stranger is refused", || {
        pintle.log_json("certificate refused; the old one keeps serving").pop()
    });
    let hint = refused["hint"].as_str().unwrap();
    let day = hint.split("accept_lockout_until = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let text = fs::read_to_string(pintle.config_path()).unwrap();
    let with = |day: &str| {
        text.replace("[site.certificate]", &format!("accept_lockout_until = \"{day}\"\n[site.certificate]"))
    };
    fs::write(pintle.config_path(), with("2026-01-01")).unwrap();
    let (code, _, err) = outcome(&mut pintle.command("reload"));
    assert!(code == 1 && err.contains(&format!("should be \"{day}\"")), "{err}");
    assert_eq!(bed.served(&pintle), bed.live.pin);
    fs::write(pintle.config_path(), with(&day)).unwrap();
    output(&mut pintle.command("reload"));
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
    pintle.logs("readers who hold the old pins are locked out");
    assert_eq!(pintle.status()["lockouts_accepted"], 1);
    assert!(fs::read_to_string(bed.state().join("ledger.jsonl")).unwrap().contains("\"type\":\"accepted\""));
    // It is on record: the next start needs no word again, even with the key gone.
    fs::write(pintle.config_path(), &text).unwrap();
    output(&mut pintle.command("check"));
}

#[test]
fn a_promise_of_the_parent_binds_the_names_below() {
    let bed = Bed::new();
    let shop = bed.authority.leaf("shop", &["shop.blog.example.com"]);
    let site = |leaf: &Leaf| {
        format!(
            "[[site]]\nhosts = [\"shop.blog.example.com\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
            bed.origin.url(),
            leaf.chain,
            leaf.key
        )
    };
    let check = |text: &str| {
        let path = bed.folder.path().join("check.toml");
        fs::write(&path, text).unwrap();
        outcome(crate::harness::pintle().args(["check", "-c"]).arg(&path))
    };
    // Already when it would be promised.
    let with = format!("{}include_subdomains = true\n", bed.pins("30d"));
    let (code, _, err) = check(&(bed.config(&with, "") + &site(&shop)));
    assert!(code == 1 && err.contains("would lock readers out of shop.blog.example.com"), "{err}");
    // And after it was, though the parent's pins are gone from the file.
    drop(bed.start(&with));
    let (code, _, err) = check(&(bed.config("", "") + &site(&shop)));
    assert!(code == 1 && err.contains("blog.example.com, www.example.com and all names below"), "{err}");
    assert!(err.contains("[site.hpkp] is gone, but clients hold its pins until 20"), "{err}");
    // A certificate with the parent's key is fine.
    let shared = bed.authority.renew("shared", &bed.live.key, &["shop.blog.example.com"], 90);
    let (code, _, err) = check(&(bed.config(&with, "") + &site(&shared)));
    assert_eq!(code, 0, "{err}");
}

#[test]
fn withdrawal_goes_on_guarding() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let text = fs::read_to_string(pintle.config_path()).unwrap();
    fs::write(pintle.config_path(), text.replace("[site.hpkp]", "[site.hpkp]\nmode = \"withdraw\"")).unwrap();
    output(&mut pintle.command("reload"));
    let header = bed.header(&pintle).unwrap();
    assert!(header.contains("max-age=0") && header.contains(&bed.live.pin), "{header}");
    bed.put(&bed.stranger);
    eventually("the stranger is refused", || pintle.log_json("certificate refused; the old one keeps serving").pop());
    assert_eq!(bed.served(&pintle), bed.live.pin);
}

#[test]
fn report_only_binds_nobody() {
    let bed = Bed::new();
    let pins = format!("{}mode = \"report-only\"\nreport_uri = \"https://reports.example.net/\"\n", bed.pins("30d"));
    let pintle = bed.start(&pins);
    bed.put(&bed.stranger);
    eventually("the stranger is served", || (bed.served(&pintle) == bed.stranger.pin).then_some(()));
    let ledger = fs::read_to_string(bed.state().join("ledger.jsonl")).unwrap();
    assert!(ledger.contains("\"mode\":\"report-only\""), "{ledger}");
}

#[test]
fn promises_run_out() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("2s"));
    // Without pins from now on, what was promised is over a few seconds later; and what was refused is served then.
    let text = fs::read_to_string(pintle.config_path()).unwrap();
    fs::write(pintle.config_path(), text.split("[site.hpkp]").next().unwrap()).unwrap();
    let out = output(&mut pintle.command("reload"));
    assert!(out.contains("pins are not sent any more"), "{out}");
    bed.put(&bed.stranger);
    eventually("the stranger is refused", || pintle.log_json("certificate refused; the old one keeps serving").pop());
    assert_eq!(bed.served(&pintle), bed.live.pin);
    eventually("the promise is over", || (bed.served(&pintle) == bed.stranger.pin).then_some(()));
}

/// The client resumes a session that began under the wildcard's chain, with a name that another site has now.
#[test]
fn a_session_of_another_site_gets_no_pins() {
    let bed = Bed::new();
    let name = "new.example.net";
    let wide = bed.authority.leaf("wide", &["*.example.net"]);
    let own = bed.authority.leaf("own", &[name]);
    let site = |host: &str, leaf: &Leaf, hpkp: &str| {
        format!(
            "[[site]]\nhosts = [{host:?}]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n{hpkp}\n",
            bed.origin.url(),
            leaf.chain,
            leaf.key
        )
    };
    let state = format!("[state]\ndirectory = {:?}\n", bed.state());
    let pintle = Pintle::start(&bed.authority, &(state + &site("*.example.net", &wide, "")));
    let client = Client::new(&bed.authority);
    let visit = |client: &Client| {
        let mut connection = client.connect(pintle.https(), name);
        let response = connection.get(name, "/");
        let kind = connection.stream.tls().unwrap().handshake_kind().unwrap();
        (kind == rustls::HandshakeKind::Resumed, response.field("public-key-pins").map(str::to_owned))
    };
    assert_eq!(visit(&client), (false, None));
    assert_eq!(visit(&client), (true, None));
    pintle.rewrite(|text| format!("{text}{}", site(name, &own, &bed.pins("30d"))));
    output(&mut pintle.command("reload"));
    // Its session began under a chain that has none of these keys: it is over.
    let (resumed, pins) = visit(&client);
    assert!(!resumed && pins.is_some_and(|pins| pins.contains(&own.pin)));
    let (resumed, pins) = visit(&client);
    assert!(resumed && pins.is_some_and(|pins| pins.contains(&own.pin)));
}

/// The commands of `status` work as pasted, after each rotation.
#[test]
fn the_to_do_is_commands_that_work() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("2s"));
    let mut live = bed.next.pin.clone();
    bed.put(&bed.next);
    for round in 0..2 {
        eventually("the next key is served", || (bed.served(&pintle) == live).then_some(()));
        let todo = pintle.status()["sites"][0]["todo"][0].as_str().unwrap_or_default().to_owned();
        let commands: Vec<&str> = todo.split('`').skip(1).step_by(2).collect();
        let [new, reload] = commands.as_slice() else { panic!("round {round}: {todo}") };
        let program = crate::harness::pintle().get_program().to_owned();
        let pasted = |command: &str| {
            let command = command.replacen("pintle", program.to_str().unwrap(), 1);
            output(std::process::Command::new("sh").args(["-c", &command]).current_dir("/"))
        };
        let printed = pasted(new);
        let backups = printed
            .lines()
            .find_map(|line| line.trim().strip_prefix("backups = "))
            .unwrap_or_else(|| panic!("{printed}"));
        assert!(!backups.contains(bed.next.key.with_extension("csr").to_str().unwrap()), "{printed}");
        pintle.rewrite(|text| {
            let old = text.lines().find(|line| line.starts_with("backups = ")).unwrap();
            text.replace(old, &format!("backups = {backups}"))
        });
        pasted(reload);
        assert_eq!(pintle.status()["sites"][0]["todo"].as_array().unwrap().len(), 0, "round {round}");
        // The key that was just made, once everybody knows it.
        let csr = backups.split('"').nth(1).unwrap();
        let key = pintle.config_path().parent().unwrap().join(csr).with_extension("key");
        let leaf = bed.authority.renew(&format!("round-{round}"), &key, &[BLOG, "www.example.com"], 90);
        live = leaf.pin.clone();
        bed.put(&leaf);
    }
    eventually("the last key is served", || (bed.served(&pintle) == live).then_some(()));
}

/// A backup that is promised since a moment ago: all say the same about it.
#[test]
fn everybody_names_the_same_time_for_a_key() {
    let bed = Bed::new();
    let csr = |leaf: &Leaf| leaf.key.with_extension("csr");
    let hpkp = format!("[site.hpkp]\nmax_age = \"30d\"\nbackups = [{:?}]\n", csr(&bed.next));
    let pintle = bed.start(&hpkp);
    pintle.rewrite(|text| text.replace("backups = [", &format!("backups = [{:?}, ", csr(&bed.spare))));
    pintle.reload();
    let status = pintle.status();
    let backups = status["sites"][0]["backups"].as_array().unwrap();
    let spare = backups.iter().find(|key| key["pin"] == bed.spare.pin.as_str()).unwrap();
    let from = spare["usable_from"].as_str().unwrap().to_owned();
    let time: jiff::Timestamp = from.parse().unwrap();
    let minute = jiff::Timestamp::from_second((time.as_second() + 59).div_euclid(60) * 60).unwrap();
    let minute = minute.strftime("%Y-%m-%d %H:%M").to_string();
    // For people: the first minute at which the guard accepts the key.
    let [list, text] = ["key list", "status"].map(|command| output(&mut pintle.command(command)));
    assert!(list.lines().any(|line| line.contains(&bed.spare.pin) && line.contains(&minute)), "{minute}: {list}");
    assert!(text.contains(&format!("usable from {minute} UTC")), "{minute}: {text}");
    let install = ["--site", BLOG, "--dry-run"];
    let (code, _, err) = outcome(pintle.command("install").args(install).arg(&bed.spare.chain).arg(&bed.spare.key));
    assert!(code == 1 && err.contains(&format!("it is usable from {minute} UTC")), "{minute}: {err}");
    // For programs. The set of before is no longer sent, although its lease is not over.
    let key = bed.spare.pin.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let ask = |path: String| -> Value {
        let address = pintle::config::AdminAddress::Unix(bed.state().join("admin.sock"));
        let (status, text) = pintle::control::client::ask(&address, http::Method::GET, &path, String::new()).unwrap();
        assert!(status.is_success(), "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    };
    let rotation = ask(format!("/v1/rotation?host={BLOG}&key={key}"));
    assert_eq!(
        (&rotation["safe_from"], &rotation["is_safe_now"]),
        (&Value::from(from), &Value::Bool(false)),
        "{rotation}"
    );
    let sent = rotation["sets"].as_array().unwrap().iter().filter(|set| set["is_sent"] == true).count();
    assert_eq!(sent, 1, "{rotation}");
    // A check judges the files, and knows which set was sent last.
    bed.put(&bed.stranger);
    let (code, _, err) = outcome(&mut pintle.command("check"));
    assert!(code == 1 && err.matches("sent since").count() == 2, "{err}");
    assert_eq!(err.matches("and still sent").count(), 1, "{err}");
}
