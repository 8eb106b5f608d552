//! TLS: who gets which certificate, what is negotiated, and which request belongs on which connection.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use rustls::{AlertDescription, ClientConnection, HandshakeKind, NamedGroup, SignatureScheme};

use crate::harness::{Authority, BLOG, Client, KeyKind, Leaf, Origin, PATIENCE, Pintle, Reply, blog};

/// A site with these names, under certificates of its own.
fn site(hosts: &[&str], origin: &Origin, leaves: &[&Leaf]) -> String {
    let mut text = format!("[[site]]\nhosts = {hosts:?}\nupstream = \"{}\"\n", origin.url());
    for leaf in leaves {
        text += &format!("[[site.certificate]]\nchain = {:?}\nkey = {:?}\n", leaf.chain, leaf.key);
    }
    text
}

fn named(name: &'static str) -> Origin {
    Origin::start(move |_| Reply::ok(name))
}

/// `openssl s_client` with these arguments; all it prints.
fn s_client(pintle: &Pintle, arguments: &[&str]) -> String {
    let mut child = Command::new("openssl")
        .arg("s_client")
        .args(["-connect", &pintle.https().to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nConnection: close\r\n\r\n");
    let _ = child.stdin.take().unwrap().write_all(request.as_bytes());
    let done = child.wait_with_output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

pub fn alert_of(error: &std::io::Error) -> AlertDescription {
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        other => panic!("no alert: {error}: {other:?}"),
    }
}

#[test]
fn certificates_by_exact_name_then_wildcard() {
    let authority = Authority::new();
    let (exact, wild, other) = (named("exact"), named("wildcard"), named("other"));
    let config = site(&["*.example.com"], &wild, &[&authority.leaf("wild", &["*.example.com"])])
        + &site(&["www.example.com"], &exact, &[&authority.leaf("exact", &["www.example.com"])])
        + &site(&["other.example.net"], &other, &[&authority.leaf("other", &["other.example.net"])]);
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    for (host, text) in [("www.example.com", "exact"), ("blog.example.com", "wildcard"), ("other.example.net", "other")]
    {
        assert_eq!(client.get(pintle.https(), host, "/").text(), text, "{host}");
    }
    let shown = s_client(&pintle, &["-servername", "WWW.Example.COM", "-showcerts"]);
    // The leaf of the exact name, and the CA behind it.
    assert_eq!(shown.matches("-----BEGIN CERTIFICATE-----").count(), 2, "{shown}");
}

#[test]
fn unknown_names_are_refused_or_get_the_default_site() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let client = Client::new(&authority);
    let refused = client.try_connect(pintle.https(), "unknown.example.com").err().unwrap();
    assert_eq!(alert_of(&refused), AlertDescription::UnrecognisedName);
    assert!(s_client(&pintle, &["-noservername"]).contains("alert number 112"));
    assert!(s_client(&pintle, &["-noservername", "-tls1_2"]).contains("alert number 112"));
    let default = format!("[tls]\nunknown_name = \"default\"\ndefault_site = \"{BLOG}\"\n");
    let pintle = Pintle::start(&authority, &(default + &blog(&authority, &origin)));
    let shown = s_client(&pintle, &["-noservername", "-quiet"]);
    assert!(shown.contains("HTTP/1.1 200 OK"), "{shown}");
    assert!(s_client(&pintle, &["-servername", "unknown.example.com", "-quiet"]).contains("HTTP/1.1 200 OK"));
}

#[test]
fn the_kind_of_key_follows_the_client() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let rsa = authority.leaf_of("rsa", &[BLOG], KeyKind::Rsa, -1, 90);
    let ecdsa = authority.leaf_of("ecdsa", &[BLOG], KeyKind::Ecdsa, -1, 90);
    let pintle = Pintle::start(&authority, &site(&[BLOG], &origin, &[&rsa, &ecdsa]));
    let signed_by = |arguments: &[&str]| {
        let shown = s_client(&pintle, &[&["-servername", BLOG], arguments].concat());
        let line = shown.lines().find(|l| l.starts_with("Peer signature type:"));
        line.unwrap_or_else(|| panic!("{shown}")).split(": ").nth(1).unwrap().to_owned()
    };
    assert_eq!(signed_by(&["-tls1_3"]), "ECDSA");
    assert_eq!(signed_by(&["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"]), "RSA-PSS");
    assert_eq!(signed_by(&["-tls1_3", "-sigalgs", "ECDSA+SHA256:RSA-PSS+SHA256"]), "ECDSA");
    assert_eq!(signed_by(&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"]), "RSA-PSS");
    assert_eq!(signed_by(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]), "ECDSA");
    assert!(s_client(&pintle, &["-servername", BLOG, "-tls1_3", "-sigalgs", "ed25519"]).contains("alert number 40"));
}

#[test]
fn versions() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let protocol = |pintle: &Pintle, version: &str| {
        s_client(pintle, &["-servername", BLOG, version, "-cipher", "ALL:@SECLEVEL=0"])
    };
    assert!(protocol(&pintle, "-tls1_3").contains("New, TLSv1.3"));
    assert!(protocol(&pintle, "-tls1_2").contains("New, TLSv1.2"));
    for old in ["-tls1", "-tls1_1"] {
        let shown = protocol(&pintle, old);
        assert!(shown.contains("alert number 70"), "{old}: {shown}");
    }
    let pintle = Pintle::start(&authority, &("[tls]\nversions = [\"1.3\"]\n".to_owned() + &blog(&authority, &origin)));
    assert!(protocol(&pintle, "-tls1_2").contains("alert number 70"));
    assert!(protocol(&pintle, "-tls1_3").contains("New, TLSv1.3"));
}

#[test]
fn alpn() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let agreed = |offered: &str| {
        let shown = s_client(&pintle, &["-servername", BLOG, "-alpn", offered]);
        shown.lines().find(|l| l.contains("ALPN")).map(str::to_owned)
    };
    assert_eq!(agreed("h2,http/1.1").as_deref(), Some("ALPN protocol: h2"));
    assert_eq!(agreed("http/1.1,h2").as_deref(), Some("ALPN protocol: h2"));
    assert_eq!(agreed("http/1.1").as_deref(), Some("ALPN protocol: http/1.1"));
    let shown = s_client(&pintle, &["-servername", BLOG, "-alpn", "spdy/3"]);
    assert!(shown.contains("alert number 120"), "{shown}");
    // Without the extension it is HTTP/1.1.
    let shown = s_client(&pintle, &["-servername", BLOG, "-quiet"]);
    assert!(shown.contains("HTTP/1.1 200 OK"), "{shown}");
}

#[test]
fn key_exchange_is_post_quantum_where_the_client_can() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let connection = Client::new(&authority).connect(pintle.https(), BLOG);
    let group = connection.stream.tls().unwrap().negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    // openssl 3.0 does not know it yet.
    assert!(s_client(&pintle, &["-servername", BLOG]).contains("Server Temp Key: X25519"));
}

#[test]
fn sessions_resume_on_every_worker() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 4\n";
    let leaf = authority.leaf("blog", &[BLOG, "www.example.com"]);
    let config = site(&[BLOG, "www.example.com"], &origin, &[&leaf]);
    let pintle = Pintle::start_with(&authority, listen, &config);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut roots = rustls::RootCertStore::empty();
        use rustls::pki_types::pem::PemObject;
        roots.add(rustls::pki_types::CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap()).unwrap();
        let config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        let client = Client::with(config);
        let kind = |name: &str| {
            let mut connection = client.connect(pintle.https(), name);
            assert_eq!(connection.get(name, "/").status, 200);
            connection.stream.tls().unwrap().handshake_kind().unwrap()
        };
        assert_ne!(kind(BLOG), HandshakeKind::Resumed);
        // Connections are spread over the workers by the kernel; each must know the ticket.
        let resumed = (0..40).filter(|_| kind(BLOG) == HandshakeKind::Resumed).count();
        assert_eq!(resumed, 40, "{version:?}");
    }
    let shown = s_client(&pintle, &["-servername", BLOG, "-tls1_2"]);
    assert!(shown.contains("TLS session ticket lifetime hint: 43200"), "{shown}");
}

/// A connection whose handshake is over for the client, but for what it has to say to that: it goes out with `more`.
fn finished_with(authority: &Authority, pintle: &Pintle, more: &str) -> (ClientConnection, TcpStream) {
    let mut socket = TcpStream::connect(pintle.https()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut tls = ClientConnection::new(Arc::new(Client::config(authority)), BLOG.try_into().unwrap()).unwrap();
    tls.write_tls(&mut socket).unwrap();
    while tls.is_handshaking() {
        tls.read_tls(&mut socket).unwrap();
        tls.process_new_packets().unwrap();
    }
    tls.writer().write_all(more.as_bytes()).unwrap();
    let mut flight = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut flight).unwrap();
    }
    socket.write_all(&flight).unwrap();
    (tls, socket)
}

#[test]
fn a_ticket_goes_with_the_answer_if_there_is_a_request_and_else_at_once() {
    let authority = Authority::new();
    let (ask, asked) = mpsc::channel();
    let (answer, answered) = mpsc::channel();
    let answered = Mutex::new(answered);
    let origin = Origin::start(move |_| {
        ask.send(()).unwrap();
        answered.lock().unwrap().recv().unwrap();
        Reply::ok("late")
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let (mut tls, mut socket) = finished_with(&authority, &pintle, &format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    asked.recv_timeout(PATIENCE).unwrap();
    socket.set_nonblocking(true).unwrap();
    assert_eq!(socket.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock, "a packet of its own");
    socket.set_nonblocking(false).unwrap();
    answer.send(()).unwrap();
    tls.read_tls(&mut socket).unwrap();
    assert!(tls.process_new_packets().unwrap().plaintext_bytes_to_read() > 0);
    assert_eq!(tls.tls13_tickets_received(), 1);
    let (mut tls, mut socket) = finished_with(&authority, &pintle, "");
    while tls.tls13_tickets_received() == 0 {
        assert_ne!(tls.read_tls(&mut socket).unwrap(), 0);
        tls.process_new_packets().unwrap();
    }
}

#[test]
fn a_ticket_of_one_name_opens_no_other() {
    let authority = Authority::new();
    let (a, b) = (named("a"), named("b"));
    let config = site(&["a.example.com"], &a, &[&authority.leaf("a", &["a.example.com"])])
        + &site(&["b.example.com"], &b, &[&authority.leaf("b", &["b.example.com"])]);
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    for _ in 0..2 {
        let mut connection = client.connect(pintle.https(), "a.example.com");
        assert_eq!(connection.get("a.example.com", "/").text(), "a");
        assert_eq!(connection.get("b.example.com", "/").status, 421);
    }
}

#[test]
fn requests_for_other_hosts_are_misdirected_unless_the_certificate_covers_them() {
    let authority = Authority::new();
    let (a, b, c) = (named("a"), named("b"), named("c"));
    let both = authority.leaf("both", &["a.example.com", "b.example.com", "unserved.example.com"]);
    let config = site(&["a.example.com"], &a, &[&both])
        + &site(&["b.example.com"], &b, &[&authority.leaf("b", &["b.example.com"])])
        + &site(&["c.example.com"], &c, &[&authority.leaf("c", &["c.example.com"])]);
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    let mut connection = client.connect(pintle.https(), "a.example.com");
    for (host, status, text) in [
        ("a.example.com", 200, "a"),
        ("b.example.com", 200, "b"),
        ("c.example.com", 421, ""),
        ("unserved.example.com", 421, ""),
        ("nobody.example.net", 421, ""),
        ("A.EXAMPLE.COM", 200, "a"),
        ("a.example.com:8443", 200, "a"),
    ] {
        let response = connection.get(host, "/");
        assert_eq!(response.status, status, "{host}");
        if status == 200 {
            assert_eq!(response.text(), text);
        }
    }
    // The other way round the certificate is for one name only.
    let mut connection = client.connect(pintle.https(), "b.example.com");
    assert_eq!(connection.get("a.example.com", "/").status, 421);
    assert_eq!(connection.get("b.example.com", "/").text(), "b");
    // By HTTP/2, curl puts the Host into :authority.
    let curl = |host: &str| {
        let url = format!("https://a.example.com:{}/", pintle.https().port());
        let resolve = format!("a.example.com:{}:127.0.0.1", pintle.https().port());
        let mut curl = crate::harness::curl(&authority);
        curl.args([
            "--http2",
            "--write-out",
            "%{http_code}",
            "--output",
            "/dev/null",
            "--resolve",
            &resolve,
            "--header",
            &format!("Host: {host}"),
        ]);
        crate::harness::output(curl.arg(url))
    };
    assert_eq!((curl("a.example.com").as_str(), curl("b.example.com").as_str()), ("200", "200"));
    assert_eq!((curl("c.example.com").as_str(), curl("nobody.example.net").as_str()), ("421", "421"));
}

/// The close is announced, so that a cut connection can be told from an end (RFC 8446 section 6.1).
#[test]
fn connections_end_with_close_notify() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nConnection: close\r\n\r\n"));
    let (all, end) = connection.read_to_end();
    assert!(end.is_ok() && all.starts_with(b"HTTP/1.1 200 OK"), "{end:?}");
}

#[test]
fn garbage_is_answered_by_an_alert_and_counts_against_nobody() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\xff\xff", b"\x16\x03\x01\x00\x05hello", &[0; 600]] {
        let mut connection = crate::harness::Connection::plain(pintle.https());
        connection.send(garbage);
        let _ = connection.stream.socket().shutdown(std::net::Shutdown::Write);
        let (said, _) = connection.read_to_end();
        assert!(said.is_empty() || said[0] == 21, "{said:x?}");
    }
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
}

#[test]
fn all_signature_schemes_of_an_ed25519_key() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let leaf = authority.leaf_of("ed", &[BLOG], KeyKind::Ed25519, -1, 90);
    let pintle = Pintle::start(&authority, &site(&[BLOG], &origin, &[&leaf]));
    let shown = s_client(&pintle, &["-servername", BLOG, "-tls1_3"]);
    assert!(shown.contains("Peer signature type: ed25519"), "{shown}");
    let _ = SignatureScheme::ED25519;
}

/// `true` if pintle accepts a handshake of openssl with these arguments.
fn taken(pintle: &Pintle, arguments: &[&str]) -> bool {
    s_client(pintle, &[&["-servername", BLOG], arguments].concat()).contains("HTTP/1.1 200 OK")
}

const TLS12_SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
];
const TLS13_SUITES: [&str; 3] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
/// The additions of Mozilla's old profile, and suites that no profile has any more.
const OLD_SUITES: [&str; 4] =
    ["ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES256-SHA384", "AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"];
const GROUPS: [&str; 4] = ["X25519", "P-256", "P-384", "P-521"];

fn pair(authority: &Authority, origin: &Origin) -> String {
    let ecdsa = authority.leaf("pair-ecdsa", &[BLOG]);
    let rsa = authority.leaf_of("pair-rsa", &[BLOG], KeyKind::Rsa, -1, 90);
    site(&[BLOG], origin, &[&ecdsa, &rsa])
}

#[test]
fn profiles_are_mozillas() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let site = pair(&authority, &origin);
    for (profile, tls12) in [("modern", false), ("intermediate", true)] {
        let pintle = Pintle::start(&authority, &format!("[tls]\nprofile = \"{profile}\"\n{site}"));
        let with = |arguments: &[&str]| taken(&pintle, &[&["-quiet"], arguments].concat());
        for suite in TLS12_SUITES {
            assert_eq!(with(&["-tls1_2", "-cipher", suite]), tls12, "{profile}: {suite}");
        }
        for suite in TLS13_SUITES {
            assert!(with(&["-tls1_3", "-ciphersuites", suite]), "{profile}: {suite}");
        }
        for suite in OLD_SUITES {
            assert!(!with(&["-tls1_2", "-cipher", &format!("{suite}:@SECLEVEL=0")]), "{profile}: {suite}");
        }
        for group in GROUPS {
            assert_eq!(with(&["-tls1_3", "-groups", group]), group != "P-521", "{profile}: {group}");
        }
        for version in ["-tls1", "-tls1_1"] {
            assert!(!with(&[version, "-cipher", "ALL:@SECLEVEL=0"]), "{profile}: {version}");
        }
        let connection = Client::new(&authority).connect(pintle.https(), BLOG);
        let group = connection.stream.tls().unwrap().negotiated_key_exchange_group().unwrap();
        assert_eq!(group.name(), NamedGroup::X25519MLKEM768, "{profile}");
    }
}

/// By IANA's names and by OpenSSL's; a reload changes them.
#[test]
fn suites_and_groups_by_name() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let tls = "[tls]\ncipher_suites = [\"ECDHE-ECDSA-AES256-GCM-SHA384\", \"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\", \
               \"TLS_AES_256_GCM_SHA384\"]\ngroups = [\"prime256v1\", \"secp384r1\"]\n";
    let state = format!("[state]\ndirectory = {:?}\n", authority.folder().join("state"));
    let pintle = Pintle::start(&authority, &(state + tls + &pair(&authority, &origin)));
    let with = |arguments: &[&str]| taken(&pintle, &[&["-quiet"], arguments].concat());
    for suite in TLS12_SUITES {
        let is_listed = ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"].contains(&suite);
        assert_eq!(with(&["-tls1_2", "-cipher", suite]), is_listed, "{suite}");
    }
    for suite in TLS13_SUITES {
        assert_eq!(with(&["-tls1_3", "-ciphersuites", suite]), suite == "TLS_AES_256_GCM_SHA384", "{suite}");
    }
    for group in GROUPS {
        assert_eq!(with(&["-tls1_3", "-groups", group]), ["P-256", "P-384"].contains(&group), "{group}");
    }
    pintle.rewrite(|text| text.replace("\"prime256v1\", ", ""));
    pintle.reload();
    assert!(!with(&["-tls1_3", "-groups", "P-256"]) && with(&["-tls1_3", "-groups", "P-384"]));
}
