//! Reload: the whole configuration, by difference. What has not changed goes on undisturbed, and what is wrong changes
//! nothing.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Mutex, mpsc};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Authority, BLOG, Client, Connection, Origin, Pintle, Reply, blog, eventually, outcome, policies};

const SHOP: &str = "shop.example.com";

/// A site of another name.
fn shop(authority: &Authority, origin: &Origin) -> String {
    let leaf = authority.leaf("shop", &[SHOP]);
    format!(
        "[[site]]\nhosts = [\"{SHOP}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        origin.url(),
        leaf.chain,
        leaf.key
    )
}

/// `[state]` in a folder of its own: without one there is no admin socket.
fn state(folder: &TempDir) -> String {
    format!("[state]\ndirectory = {:?}\n", folder.path().join("state"))
}

fn names(origin: &'static str) -> Origin {
    Origin::start(move |_| Reply::ok(origin))
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let origin = Origin::hello();
    let pintle = Pintle::start(&authority, &(state(&folder) + &blog(&authority, &origin) + &policies(&authority)));
    let client = Client::new(&authority);
    let before = client.get(pintle.https(), BLOG, "/");
    let good = fs::read_to_string(pintle.config_path()).unwrap();
    let another = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listens_there = format!("https = [\"127.0.0.1:0\", \"{}\"]", another.local_addr().unwrap());
    let cases = [
        ("upstream = \"http://", "upstream = \"ftp://", "unknown scheme", "hint: did you mean \"http://"),
        ("hosts = [", "hosts = [[", "pintle.toml:", ""),
        ("max_age = \"30d\"", "max_age = \"30 moons\"", "max_age", ""),
        ("[site.hsts]", "[site.hstss]", "hstss", ""),
        ("[site.certificate]", "[site.certificate]\nkey = \"nowhere.key\"\n[site.x]", "pintle.toml:", ""),
        ("https = [\"127.0.0.1:0\"]", &listens_there, "cannot listen on", "hint: another process listens there"),
    ];
    for (from, to, reason, hint) in cases {
        fs::write(pintle.config_path(), good.replacen(from, to, 1)).unwrap();
        let err = pintle.reload_fails();
        assert!(err.contains(reason) && err.contains(hint), "{to}: {err}");
        assert!(err.contains("not reloaded; pintle keeps serving the previous configuration"), "{err}");
        let after = client.get(pintle.https(), BLOG, "/");
        assert_eq!((after.status, &after.text()), (200, &before.text()), "{to}");
        for field in ["strict-transport-security", "public-key-pins"] {
            assert_eq!(after.one(field), before.one(field), "{to}");
        }
    }
    assert_eq!(pintle.listening("https"), [pintle.https()]);
    let status = pintle.status();
    assert_eq!((&status["reloads"], &status["reloads_refused"]), (&Value::from(0), &Value::from(cases.len())));
    // In the log with the remedy, too: by SIGHUP, that is the only place.
    let reported = pintle.logged("reload refused; pintle keeps serving the previous configuration", cases.len());
    assert!(
        reported.iter().any(|l| l["hint"].as_str().is_some_and(|h| h.contains("did you mean \"http://"))),
        "{reported:?}"
    );
    // As JSON, with the same exit code.
    let (code, out, _) = outcome(pintle.command("reload").arg("--json"));
    let verdict: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 1 && verdict["ok"] == false && !verdict["problems"].as_array().unwrap().is_empty(), "{out}");
    // A file that is gone is no reason to stop, either.
    fs::remove_file(pintle.config_path()).unwrap();
    pintle.signal("HUP");
    eventually("the refusal is logged", || pintle.log().contains("no such file").then_some(()));
    assert_eq!(client.get(pintle.https(), BLOG, "/").status, 200);
    fs::write(pintle.config_path(), good).unwrap();
    assert!(pintle.reload().contains("reloaded"));
}

#[test]
fn sighup_does_the_same() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let (one, two) = (names("one"), names("two"));
    let pintle = Pintle::start(&authority, &(state(&folder) + &blog(&authority, &one) + &policies(&authority)));
    let client = Client::new(&authority);
    assert_eq!(client.get(pintle.https(), BLOG, "/").text(), "one");
    pintle.rewrite(|text| text.replace(&one.url(), &two.url()).replace("max_age = \"1y\"", "max_age = \"2y\""));
    pintle.signal("HUP");
    let line = eventually("it has reloaded", || pintle.log_json("reloaded").pop());
    assert!(line["notes"].as_str().unwrap().contains("the HSTS policy has changed"), "{line}");
    assert!(line["notes"].as_str().unwrap().contains("the upstream has changed"), "{line}");
    eventually("the new upstream is asked", || {
        let response = client.get(pintle.https(), BLOG, "/");
        assert_eq!(response.one("strict-transport-security").contains("63072000"), response.text() == "two");
        (response.text() == "two").then_some(())
    });
    pintle.rewrite(|text| text.replace("http://", "gopher://"));
    pintle.signal("HUP");
    eventually("the refusal is logged", || {
        pintle.log_json("reload refused; pintle keeps serving the previous configuration").pop()
    });
    assert_eq!(client.get(pintle.https(), BLOG, "/").text(), "two");
    // Warnings are logged, too, although no command waits for the answer.
    pintle.rewrite(|text| text.replace("gopher://", "http://").split("[site.hpkp]").next().unwrap().to_owned());
    pintle.signal("HUP");
    eventually("it has reloaded again", || pintle.log_json("reloaded").into_iter().nth(1));
    let warning = "[site.hpkp] is gone, but clients hold its pins until 20";
    let logged = pintle.log();
    let line = logged.lines().find(|l| l.contains(warning)).unwrap_or_else(|| panic!("no warning in {logged}"));
    assert!(line.contains("WARN") && line.contains("withdraw"), "{line}");
}

/// Leaving out a site takes nothing back.
#[test]
fn a_site_that_is_gone_is_still_held_to_its_word() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let origin = Origin::hello();
    let shop = shop(&authority, &origin);
    let pintle =
        Pintle::start(&authority, &(state(&folder) + &shop + &blog(&authority, &origin) + &policies(&authority)));
    let (_, _, err) = outcome(&mut pintle.command("check"));
    assert!(!err.contains("no site serves"), "{err}");
    pintle.rewrite(|text| text.split("[[site]]").take(2).collect::<Vec<_>>().join("[[site]]"));
    for command in ["check", "reload"] {
        let (code, out, err) = outcome(&mut pintle.command(command));
        let warning = "no site serves blog.example.com, but clients hold pins until 20";
        assert!(
            code == 0 && err.contains(warning) && err.contains("keep the promised keys until 20"),
            "{command}: {out}{err}"
        );
    }
    pintle.logs("no site serves blog.example.com");
}

#[test]
fn unchanged_sites_keep_their_connections() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let (origin, other) = (Origin::hello(), names("other"));
    let config = state(&folder) + &blog(&authority, &origin) + &policies(&authority) + &shop(&authority, &other);
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    let mut blog = client.connect(pintle.https(), BLOG);
    let mut shop = client.connect(pintle.https(), SHOP);
    let before = blog.get(BLOG, "/");
    assert_eq!((shop.get(SHOP, "/").text().as_str(), origin.connections(), other.connections()), ("other", 1, 1));
    let lease = fs::metadata(folder.path().join("state/ledger.jsonl")).unwrap().len();
    for n in 0..5 {
        // The other site is another one each time; this one only stands further down in the file.
        let (from, to) = if n == 0 {
            ("[listen]".to_owned(), "# x\n[listen]".to_owned())
        } else {
            ("# x\n".to_owned(), "# x\n# x\n".to_owned())
        };
        pintle.rewrite(|text| {
            let text = text.replacen(&from, &to, 1);
            let (head, _) = text.split_once("[site.response_headers]").unwrap_or((&text, ""));
            format!("{head}[site.response_headers]\nset = {{ \"X-Test\" = \"{n}\" }}\n")
        });
        pintle.reload();
        eventually("the other site has changed", || {
            (shop.get(SHOP, "/").field("x-test") == Some(&n.to_string())).then_some(())
        });
        let after = blog.get(BLOG, "/");
        assert_eq!(after.one("public-key-pins"), before.one("public-key-pins"));
    }
    assert_eq!(blog.get(BLOG, "/").text(), before.text());
    assert_eq!((origin.connections(), other.connections()), (1, 1), "the upstreams' connections go on");
    let now = fs::metadata(folder.path().join("state/ledger.jsonl")).unwrap().len();
    assert_eq!(now, lease, "nothing new was promised, so nothing was written");
}

/// Changed limits also apply to upstreams that stay the same.
#[test]
fn limits_of_connections_that_go_on() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let origin = Origin::start(|_| Reply::new("200 OK", &format!("X-Test: {}\r\n", "x".repeat(3000)), "long"));
    let pintle = Pintle::start(&authority, &(state(&folder) + &blog(&authority, &origin)));
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    assert_eq!(connection.get(BLOG, "/").status, 200);
    pintle.rewrite(|text| format!("[limits]\nresponse_header_size = \"1KiB\"\n{text}"));
    pintle.reload();
    eventually("the new limit holds", || (connection.get(BLOG, "/").status == 502).then_some(()));
}

#[test]
fn sites_come_and_go() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let (one, two) = (names("one"), names("two"));
    let (first, second) = (blog(&authority, &one), shop(&authority, &two));
    let pintle = Pintle::start(&authority, &(state(&folder) + &first));
    let client = Client::new(&authority);
    let mut connection = client.connect(pintle.https(), BLOG);
    assert_eq!(connection.get(BLOG, "/").text(), "one");
    assert!(client.try_connect(pintle.https(), SHOP).is_err());
    pintle.rewrite(|text| text.to_owned() + &second);
    assert!(pintle.reload().contains(&format!("new site {SHOP}")));
    assert_eq!(client.get(pintle.https(), SHOP, "/").text(), "two");
    // In another order, they are the same sites.
    pintle.rewrite(|text| text.replace(&first, "").replace(&second, &(second.clone() + &first)));
    let out = pintle.reload();
    assert_eq!(out.trim(), "reloaded: nothing has changed");
    assert_eq!((connection.get(BLOG, "/").text().as_str(), one.connections()), ("one", 1));
    // Without its site, a connection leads nowhere: not to the first one that there is.
    pintle.rewrite(|text| text.replace(&first, ""));
    assert!(pintle.reload().contains(&format!("site {BLOG} is gone")));
    eventually("the site is gone", || (connection.get(BLOG, "/").status == 421).then_some(()));
    assert!(client.try_connect(pintle.https(), BLOG).is_err());
    assert_eq!(client.get(pintle.https(), SHOP, "/").text(), "two");
}

#[test]
fn listeners_come_and_go() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let origin = Origin::hello();
    let pintle = Pintle::start(&authority, &(state(&folder) + &blog(&authority, &origin)));
    let client = Client::new(&authority);
    let mut old = client.connect(pintle.https(), BLOG);
    let taken = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [a, b, c]: [SocketAddr; 3] = taken.each_ref().map(|taken| taken.local_addr().unwrap());
    drop(taken);
    let listen_on = |https: &[String]| {
        pintle.rewrite(|text| {
            let line = text.lines().find(|l| l.starts_with("https = ")).unwrap();
            text.replacen(line, &format!("https = {https:?}"), 1)
        });
        pintle.reload()
    };
    let is_open =
        |address: SocketAddr| client.try_connect(address, BLOG).is_ok_and(|mut c| c.get(BLOG, "/").status == 200);
    let dynamic = "127.0.0.1:0".to_owned();
    // New ones before and behind the one that there is.
    let out = listen_on(&[a.to_string(), dynamic.clone(), b.to_string()]);
    assert!(out.contains(&format!("listening on {a} (https)")) && out.contains(&b.to_string()), "{out}");
    assert_eq!(pintle.listening("https"), [a, pintle.https(), b]);
    for address in [a, b, pintle.https()] {
        assert!(is_open(address), "{address}");
    }
    // The right ones go, whatever the order they came in.
    let out = listen_on(&[dynamic.clone(), b.to_string(), c.to_string()]);
    assert!(out.contains(&format!("not listening on {a} any more")) && out.contains(&c.to_string()), "{out}");
    assert_eq!(pintle.listening("https"), [pintle.https(), b, c]);
    eventually("nobody listens there", || (!is_open(a)).then_some(()));
    for address in [b, c, pintle.https()] {
        assert!(is_open(address), "{address}");
    }
    // The connection of the first one goes on when its listener goes.
    let mut young = client.connect(pintle.https(), BLOG);
    listen_on(&[c.to_string()]);
    eventually("nobody listens there", || (!is_open(pintle.https())).then_some(()));
    assert_eq!((old.get(BLOG, "/").status, young.get(BLOG, "/").status), (200, 200));
    // Redirects name the port that clients can reach now.
    let mut plain = Connection::plain(pintle.http());
    let response = plain.get(&format!("{BLOG}:{}", pintle.http().port()), "/x");
    assert_eq!(response.one("location"), format!("https://{BLOG}:{}/x", c.port()));
    // Two of the kernel's choice are two.
    listen_on(&[c.to_string(), dynamic.clone(), dynamic]);
    let all = pintle.listening("https");
    assert!(all.len() == 3 && all[0] == c && all[1] != all[2], "{all:?}");
    assert!(all.iter().all(|address| is_open(*address)), "{all:?}");
}

/// Reloads that follow each other faster than a worker looks.
#[test]
fn reloads_in_a_row() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let origin = Origin::hello();
    let pintle = Pintle::start(&authority, &(state(&folder) + &blog(&authority, &origin)));
    let text = fs::read_to_string(pintle.config_path()).unwrap();
    let mut listed = String::from("\"127.0.0.1:0\"");
    for _ in 0..12 {
        listed.push_str(", \"127.0.0.1:0\"");
        fs::write(pintle.config_path(), text.replacen("[\"127.0.0.1:0\"]", &format!("[{listed}]"), 1)).unwrap();
        crate::admin::post(&folder.path().join("state/admin.sock"), "/reload");
    }
    let all = pintle.listening("https");
    assert_eq!((all.len(), all[0]), (13, pintle.https()));
    let client = Client::new(&authority);
    for address in all {
        // Each worker has a listener of its own.
        for _ in 0..6 {
            assert_eq!(client.get(address, BLOG, "/").status, 200, "{address}");
        }
    }
}

/// An operator who reloads reads what was taken up, and nothing else; values may be secret.
#[test]
fn a_reload_names_what_has_changed() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let origin = Origin::hello();
    let leaf = authority.leaf("shop", &["shop.example.com"]);
    let shop = format!(
        "[[site]]\nhosts = [\"shop.example.com\"]\nupstream = {:?}\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        origin.url(),
        leaf.chain,
        leaf.key
    );
    let config = "[limits]\nidle = \"70s\"\n".to_owned() + &state(&folder) + &blog(&authority, &origin) + &shop;
    let pintle = Pintle::start(&authority, &config);
    assert_eq!(pintle.reload().trim(), "reloaded: nothing has changed");
    assert_eq!(pintle.logged("reloaded", 1)[0]["notes"], "nothing has changed");
    // A comment is nothing, either.
    pintle.rewrite(|text| format!("# mine\n{text}"));
    assert_eq!(pintle.reload().trim(), "reloaded: nothing has changed");
    pintle.rewrite(|text| text.replace("idle = \"70s\"", "idle = \"60s\"\nlinger = \"2s\""));
    assert_eq!(pintle.reload(), "limits.idle has changed\nlimits.linger has changed\nreloaded\n");
    pintle.rewrite(|text| format!("{text}[site.request_headers.set]\nX-Key = \"secret\"\n"));
    assert_eq!(pintle.reload(), "shop.example.com: request_headers.set.X-Key has changed\nreloaded\n");
    pintle.rewrite(|text| format!("{text}[site.circuit_breaker]\nfailures = 7\nopen = \"9s\"\n"));
    let json: Value = serde_json::from_str(&crate::harness::output(&mut pintle.command("reload --json"))).unwrap();
    let notes = serde_json::json!(["shop.example.com: circuit_breaker.failures, circuit_breaker.open have changed"]);
    assert_eq!(json["notes"], notes);
    // What waits for a restart says so, and is not said to be in use.
    pintle.rewrite(|text| text.replace("[limits]", "[log]\nformat = \"combined\"\n[limits]"));
    assert_eq!(pintle.reload(), "log.format has changed: it takes effect at the next start\nreloaded\n");
    assert!(!pintle.log().contains("secret"));
}

#[test]
fn logs_are_opened_anew() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let origin = Origin::hello();
    let [log, old, older] = ["access.log", "access.log.1", "access.log.2"].map(|name| folder.path().join(name));
    let config = format!("[log]\naccess = {log:?}\n") + &state(&folder) + &blog(&authority, &origin);
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    let has = |file: &std::path::Path, target: &str| fs::read_to_string(file).unwrap_or_default().contains(target);
    client.get(pintle.https(), BLOG, "/one");
    eventually("a line", || has(&log, "/one").then_some(()));
    // logrotate
    fs::rename(&log, &old).unwrap();
    pintle.signal("HUP");
    eventually("the file is made", || log.exists().then_some(()));
    client.get(pintle.https(), BLOG, "/two");
    eventually("a line in the new file", || has(&log, "/two").then_some(()));
    assert!(!has(&old, "/two"));
    // Though the configuration is being edited: the log must not go on in a file that is about to be compressed.
    pintle.rewrite(|text| format!("{text}nonsense = 1\n"));
    fs::rename(&log, &older).unwrap();
    pintle.signal("HUP");
    eventually("the file is made", || log.exists().then_some(()));
    client.get(pintle.https(), BLOG, "/three");
    eventually("a line in the newest file", || has(&log, "/three").then_some(()));
}

#[test]
fn what_needs_a_restart_is_named() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let origin = Origin::hello();
    let pintle = Pintle::start(&authority, &(state(&folder) + &blog(&authority, &origin)));
    let keys = ["listen.workers", "log.access", "log.format", "resolver.name_servers"];
    pintle.rewrite(|text| {
        text.replace("workers = 2", "workers = 3")
            + "[log]\naccess = \"off\"\nformat = \"combined\"\n[resolver]\nname_servers = [\"127.0.0.1:1\"]\n"
    });
    // As long as it is so, and not only the first time.
    for _ in 0..2 {
        let out = pintle.reload();
        for key in keys {
            assert!(out.contains(&format!("{key} has changed: it takes effect at the next start")), "{key}: {out}");
        }
    }
    // The ledger stays where it is, and so do its promises; the admin socket follows the file.
    let (from, to) = (folder.path().join("state"), folder.path().join("elsewhere"));
    pintle.rewrite(|text| text.replace(from.to_str().unwrap(), to.to_str().unwrap()));
    let out = crate::admin::post(&from.join("admin.sock"), "/reload");
    assert!(out.contains("state.directory has changed: it takes effect at the next start"), "{out}");
    assert!(out.contains("`pintle upgrade`"), "{out}");
    eventually("the socket has moved", || to.join("admin.sock").exists().then_some(()));
    assert_eq!(pintle.status()["ledger"]["directory"], from.to_str().unwrap());
    assert!(pintle.reload().contains("state.directory has changed"));
}

#[test]
fn a_request_under_way_is_finished() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let (word, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(Some(wait));
    let slow = Origin::start(move |_| {
        let wait = wait.lock().unwrap().take();
        Reply::Custom(Box::new(move |socket| {
            use std::io::Write;
            socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
            let _ = wait.map(|wait| wait.recv());
            socket.write_all(b"4\r\nlast\r\n0\r\n\r\n")
        }))
    });
    let other = names("other");
    let pintle = Pintle::start(&authority, &(state(&folder) + &blog(&authority, &slow)));
    let client = Client::new(&authority);
    let mut connection = client.connect(pintle.https(), BLOG);
    connection.send(format!("GET /slow HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    slow.request("/slow");
    // Another upstream, and then another site altogether.
    pintle.rewrite(|text| text.replace(&slow.url(), &other.url()));
    pintle.reload();
    assert_eq!(client.get(pintle.https(), BLOG, "/").text(), "other");
    let leaf = authority.leaf("new", &["new.example.com"]);
    pintle.rewrite(|text| {
        let (head, _) = text.split_once("[[site]]").unwrap();
        format!(
            "{head}[[site]]\nhosts = [\"new.example.com\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
            other.url(),
            leaf.chain,
            leaf.key
        )
    });
    pintle.reload();
    eventually("the site is gone", || client.try_connect(pintle.https(), BLOG).is_err().then_some(()));
    word.send(()).unwrap();
    assert_eq!(connection.response("GET").text(), "firstlast");
}
