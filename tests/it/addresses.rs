//! Sites that are addresses, and names beyond ASCII.

use std::process::Command;

use crate::harness::{Authority, Client, KeyKind, Leaf, Origin, Pintle, Reply, outcome, output, pintle};

fn site(hosts: &[&str], upstream: &str, leaf: &Leaf) -> String {
    format!(
        "[[site]]\nhosts = {hosts:?}\nupstream = {upstream:?}\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        leaf.chain, leaf.key
    )
}

fn check(authority: &Authority, config: &str) -> (i32, String, String) {
    let file = authority.write("pintle.toml", config);
    outcome(pintle().args(["check", "-c"]).arg(&file))
}

/// Clients send no SNI for an address: the one that they have reached says which site it is.
#[test]
fn the_address_reached_chooses_the_certificate() {
    let authority = Authority::new();
    let (one, two, name) = ("one", "two", "name");
    let origin = |text: &'static str| Origin::start(move |_| Reply::ok(text));
    let (first, second, third) = (origin(one), origin(two), origin(name));
    let config = site(&["127.0.0.1"], &first.url(), &authority.leaf("one", &["127.0.0.1"]))
        + &site(
            &["127.0.0.2", "two.example.com"],
            &second.url(),
            &authority.leaf("two", &["127.0.0.2", "two.example.com"]),
        )
        + &site(&["blog.example.com"], &third.url(), &authority.leaf("blog", &["blog.example.com"]));
    let listen = "[listen]\nhttps = [\"0.0.0.0:0\"]\nhttp = []\nworkers = 2\n";
    let pintle = Pintle::start_with(&authority, listen, &config);
    let port = pintle.https().port();
    for (host, text) in [("127.0.0.1", one), ("127.0.0.2", two)] {
        for version in ["--http1.1", "--http2"] {
            let mut curl = crate::harness::curl(&authority);
            assert_eq!(output(curl.args([version, &format!("https://{host}:{port}/")])), text, "{host} {version}");
        }
        for version in ["-tls1_2", "-tls1_3"] {
            let script = format!(
                "openssl s_client -connect {host}:{port} -noservername {version} -verify_ip {host} -verify_return_error \
                 -CAfile {} </dev/null",
                authority.ca_path().display()
            );
            let (code, out, err) = outcome(Command::new("sh").args(["-c", &script]));
            assert_eq!(code, 0, "{host} {version}: {out}{err}");
        }
    }
    // A name is a name, whatever address it was reached at; an address of no site gets nothing.
    let client = Client::new(&authority);
    assert_eq!(client.get(format!("127.0.0.1:{port}").parse().unwrap(), "two.example.com", "/").text(), two);
    assert_eq!(client.get(format!("127.0.0.2:{port}").parse().unwrap(), "blog.example.com", "/").text(), name);
    let (_, out, err) = outcome(
        Command::new("sh")
            .args(["-c", &format!("openssl s_client -connect 127.0.0.3:{port} -noservername </dev/null")]),
    );
    assert!(format!("{out}{err}").contains("alert number 112"), "{out}{err}");
}

/// By IPv6, in whatever form the configuration has it; on a dual-stack listener.
#[test]
fn an_ipv6_address_is_a_site() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let leaf = authority.leaf("six", &["::1", "127.0.0.1"]);
    let listen = "[listen]\nhttps = [\"[::]:0\"]\nhttp = []\nworkers = 1\n";
    let config = site(&["[0:0:0::1]", "127.0.0.1"], &origin.url(), &leaf);
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("stepping aside: there is no IPv6 here");
        return;
    }
    let pintle = Pintle::start_with(&authority, listen, &config);
    for host in ["[::1]", "127.0.0.1"] {
        let mut curl = crate::harness::curl(&authority);
        let url = format!("https://{host}:{}/", pintle.https().port());
        assert_eq!(output(curl.args(["--globoff", &url])), "hello from the origin", "{host}");
    }
}

/// `check` does not pass what nobody can reach.
#[test]
fn an_address_that_cannot_be_reached_is_told() {
    let authority = Authority::new();
    let leaf = authority.leaf("nat", &["192.0.2.7", "127.0.0.1"]);
    let site = |host: &str| site(&[host], "http://127.0.0.1:1", &leaf);
    let listen = |https: &str| format!("[listen]\nhttps = [{https:?}]\n");
    let (code, _, err) = check(&authority, &(listen("127.0.0.1:8443") + &site("192.0.2.7")));
    assert!(code == 1 && err.contains("no client can reach it") && err.contains("192.0.2.7:8443"), "{err}");
    let (code, _, err) = check(&authority, &(listen("[::]:8443") + &site("192.0.2.7")));
    assert!(code == 0 && err.contains("warning: site.hosts: 192.0.2.7: this host does not have the address"), "{err}");
    // The remedy, as it is written.
    let default = "[tls]\nunknown_name = \"default\"\ndefault_site = \"192.0.2.7\"\n";
    assert!(err.contains("[tls] unknown_name = \"default\" and default_site = \"192.0.2.7\""), "{err}");
    for listener in ["127.0.0.1:8443", "[::]:8443"] {
        let (code, out, err) = check(&authority, &(listen(listener) + default + &site("192.0.2.7")));
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
    }
    let (code, out, err) = check(&authority, &(listen("[::]:8443") + &site("127.0.0.1")));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
}

#[test]
fn a_host_is_a_name_and_nothing_else() {
    let authority = Authority::new();
    let leaf = authority.leaf("a", &["a.example"]);
    for (written, why, meant) in [
        ("a.example:8443", "a host has no port", "a.example"),
        ("*.a.example:443", "a host has no port", "*.a.example"),
        ("https://a.example", "", "a.example"),
        ("https://a.example:8443/path", "", "a.example"),
        ("a.example/", "", "a.example"),
        ("2001:db8::1", "", "[2001:db8::1]"),
        ("[2001:db8::1]:443", "a host has no port", "[2001:db8::1]"),
    ] {
        let (code, _, err) = check(&authority, &site(&[written], "http://127.0.0.1:1", &leaf));
        let line = err.lines().find(|l| l.contains("site.hosts: ")).unwrap_or_else(|| panic!("{written}: {err}"));
        assert!(code == 1 && line.contains(why), "{written}: {err}");
        assert!(err.contains(&format!("hint: did you mean {meant:?}?")), "{written}: {err}");
    }
}

/// Taken as people write them, asked for and certified in ASCII, shown in both forms.
#[test]
fn international_names_are_taken() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let leaf =
        authority.leaf_of("idn", &["xn--bcher-kva.example", "www.xn--bcher-kva.example"], KeyKind::Ecdsa, -1, 90);
    let config = site(&["B\u{fc}cher.example", "www.b\u{fc}cher.example"], &origin.url(), &leaf);
    let shown = "xn--bcher-kva.example (b\u{fc}cher.example), www.xn--bcher-kva.example (www.b\u{fc}cher.example)";
    let (code, out, err) = check(&authority, &config);
    assert!(code == 0 && err.is_empty() && out.contains(shown), "{out}{err}");
    let state = format!("[state]\ndirectory = {:?}\n", authority.folder().join("state"));
    let pintle = Pintle::start(&authority, &(state + &config));
    let client = Client::new(&authority);
    assert_eq!(client.get(pintle.https(), "xn--bcher-kva.example", "/").status, 200);
    assert!(output(&mut pintle.command("status")).contains(shown));
    // A site twice, in two forms, is one too many.
    let twice = config.clone() + &site(&["xn--bcher-kva.example"], &origin.url(), &leaf);
    let (code, _, err) = check(&authority, &twice);
    assert!(code == 1 && err.contains("is taken: another site has it"), "{err}");
    // Commands take what people write, too.
    let file = authority.write("pintle.toml", &config);
    let key = ["key", "list", "--site", "b\u{fc}cher.example", "-c"];
    let (code, out, err) = outcome(crate::harness::pintle().args(key).arg(&file));
    assert!(code == 0 && out.contains(shown), "{out}{err}");
}

/// RFC 6797 section 8.1.1, RFC 7469 section 2.3.1: clients note nothing for an address, so nothing is sent or promised.
#[test]
fn policies_are_for_names() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let (next, state) = (authority.public_key("next"), authority.folder().join("state"));
    let leaf = authority.leaf("both", &["127.0.0.1", "blog.example.com"]);
    let config = |hosts: &[&str]| {
        let policies = format!("[site.hsts]\nmax_age = \"1y\"\n[site.hpkp]\nmax_age = \"30d\"\nbackups = [{next:?}]\n");
        format!("[state]\ndirectory = {state:?}\n{}{policies}", site(hosts, &origin.url(), &leaf))
    };
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let policies = |pintle: &Pintle| {
        let url = format!("https://127.0.0.1:{}/", pintle.https().port());
        let head = output(crate::harness::curl(&authority).args(["--dump-header", "-", "--output", "/dev/null", &url]));
        let head = head.to_ascii_lowercase();
        assert!(head.contains(" 200"), "{head}");
        head.contains("public-key-pins") || head.contains("strict-transport-security")
    };
    let pintle = Pintle::start_with(&authority, listen, &config(&["127.0.0.1"]));
    assert!(!policies(&pintle));
    assert_eq!(pintle::ledger::look(&state).unwrap().0.promises(), []);
    drop(pintle);
    let (code, _, err) = check(&authority, &format!("{listen}{}", config(&["127.0.0.1"])));
    assert_eq!(code, 0, "{err}");
    for message in [
        "site.hpkp: pintle sends no pins: clients note none for an address",
        "site.hsts: browsers keep no policy for an address",
    ] {
        assert!(err.contains(message), "{err}");
    }
    // A name beside it is promised; the address is not.
    let pintle = Pintle::start_with(&authority, listen, &config(&["127.0.0.1", "blog.example.com"]));
    let response = Client::new(&authority).get(pintle.https(), "blog.example.com", "/");
    assert!(response.field("public-key-pins").is_some());
    let (book, _) = pintle::ledger::look(&state).unwrap();
    let hosts: Vec<String> = book.promises()[0].hosts.iter().map(ToString::to_string).collect();
    assert_eq!((book.promises().len(), hosts), (1, vec!["blog.example.com".to_owned()]));
}
