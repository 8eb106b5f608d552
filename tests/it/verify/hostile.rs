//! Old servers, servers that make no sense, and nobody at all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;

use serde_json::Value;

use super::{NOBODY, assert_not_told, assert_told, levels, report, server_leaf, verify, verify_url, verify_with_plain};
use crate::harness::{
    Authority, BLOG, Origin, PATIENCE, Pintle, Program, Reply, SecureServer, blog_at, free_port, outcome, pintle,
    program,
};

/// The versions that this machine's OpenSSL still speaks.
#[test]
fn old_versions() {
    let (authority, leaf) = server_leaf();
    let run = |arguments: &[&str]| {
        let port = free_port();
        let mut server = Command::new(program("openssl"));
        server.args(["s_server", "-www", "-cipher", "ALL:@SECLEVEL=0", "-accept", &port.to_string(), "-cert"]);
        server.arg(&leaf.chain).arg("-key").arg(&leaf.key).args(arguments);
        let name = format!("s_server-{port}");
        let _server = Program::start(&mut server, authority.folder(), &name).listens(port);
        report(&mut verify(&authority, SocketAddr::from(([127, 0, 0, 1], port))))
    };
    let offered = |report: &Value| {
        let versions = report["tls"]["versions"].as_array().unwrap().iter();
        versions.filter(|v| v["offered"] == true).map(|v| v["version"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (code, only) = run(&["-tls1_1"]);
    assert_eq!((code, offered(&only)), (1, vec!["TLS 1.1".to_owned()]), "{only:#}");
    assert_told(&only, "tls-1.1", "error");
    assert_told(&only, "tls-1.2", "error");
    assert_told(&only, "tls-handshake", "error");
    let (code, range) = run(&["-min_protocol", "TLSv1", "-max_protocol", "TLSv1.2"]);
    assert_eq!(
        (code, offered(&range)),
        (1, ["TLS 1.2", "TLS 1.1", "TLS 1.0"].map(str::to_owned).to_vec()),
        "{range:#}"
    );
    assert_told(&range, "tls-1.0", "error");
    assert_told(&range, "tls-1.3", "warning");
    assert_told(&range, "certificate-valid", "ok");
    let (code, new) = run(&["-tls1_3"]);
    assert_eq!((code, offered(&new)), (0, vec!["TLS 1.3".to_owned()]), "{new:#}");
    assert_told(&new, "tls-1.2", "note");
    // Suites that current clients do not have are no lack of TLS 1.2.
    let (code, aged) = run(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"]);
    assert_eq!((code, offered(&aged)), (1, vec!["TLS 1.2".to_owned()]), "{aged:#}");
    assert_told(&aged, "tls-handshake", "error");
}

/// A server that accepts, and then does as the function says.
fn raw_server(act: impl Fn(std::net::TcpStream) -> std::io::Result<()> + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let act = act.clone();
            thread::spawn(move || act(socket));
        }
    });
    address
}

#[test]
fn servers_that_make_no_sense() {
    let (authority, leaf) = server_leaf();
    let quick = tokio::time::Instant::now();
    let run = |address: SocketAddr| report(&mut verify(&authority, address));
    // Plain HTTP where TLS should be, garbage, and a connection that is closed at once.
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[22, 3, 3, 255, 255, 2], b""] {
        let address = raw_server(move |mut socket| {
            let mut buffer = [0; 1024];
            let _ = socket.read(&mut buffer)?;
            socket.write_all(bytes)
        });
        let (code, report) = run(address);
        assert_eq!(code, 1);
        assert_told(&report, "tls-handshake", "error");
        assert_told(&report, "tls-1.2", "error");
    }
    // Behind TLS: no HTTP, a head without end, a page without end, an answer that breaks off, interim ones forever.
    for (bytes, check) in [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(), "http-response"),
        (b"".to_vec(), "http-response"),
        ([b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 200_000]].concat(), "http-response"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(50), "http-response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello".to_vec(), "http-response"),
    ] {
        let server = SecureServer::start(&[&leaf], move |_, _| bytes.clone());
        let (code, report) = run(server.address);
        assert_eq!(code, 1);
        assert_told(&report, check, "error");
    }
    let endless = [b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n".to_vec(), b"<p>".repeat(2_000_000)].concat();
    let server = SecureServer::start(&[&leaf], move |_, _| endless.clone());
    let (code, long) = run(server.address);
    assert_eq!(code, 0);
    assert_told(&long, "page-not-checked", "note");
    // What strangers send is text, and no command to a terminal.
    let plain = Origin::start(|_| Reply::new("301 Moved", "Location: https://x.example/\u{9b}31m\u{202e}\r\n", ""));
    let server = SecureServer::with_lines(&leaf, &["Strict-Transport-Security: max-age=\u{9b}2J".to_owned()]);
    let (_, table, _) = outcome(&mut verify_with_plain(&authority, server.address, plain.address));
    assert!(table.contains("sts-max-age-invalid") && !table.contains(['\u{9b}', '\u{202e}', '\x1b']), "{table}");
    assert!(quick.elapsed() < PATIENCE, "something was waited for");
}

/// The handshake and the probes wait side by side, ten seconds each; not for ever.
#[test]
fn a_silent_server() {
    let authority = Authority::new();
    let address = raw_server(|mut socket| {
        let mut buffer = [0; 1024];
        while socket.read(&mut buffer)? > 0 {}
        Ok(())
    });
    let (code, report) = report(&mut verify(&authority, address));
    assert_eq!(code, 1);
    assert_told(&report, "tls-handshake", "error");
    assert_eq!(levels(&report, "tls-1.0"), ["note"]);
}

#[test]
fn nobody_there_and_wrong_usage() {
    let authority = Authority::new();
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (code, out, err) = outcome(&mut verify(&authority, nobody));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains(&format!("https://{BLOG}/: cannot be reached: {nobody}: connection refused\n  hint: ")),
        "{err}"
    );
    let (code, report) = report(&mut verify(&authority, nobody));
    assert_eq!((code, levels(&report, "unreachable")), (1, vec!["error"]));
    for (arguments, words) in [
        (&["verify"][..], "URL"),
        (&["verify", "http://blog.example.com/"], "write the https URL"),
        (&["verify", "https://blog.example.com/ x"], "%XX"),
        (&["verify", "https://blog.example.com/", "--connect", "a b"], "--connect"),
        (&["verify", "https://blog.example.com/", "--colour"], "--colour"),
    ] {
        let (code, _, err) = outcome(pintle().args(arguments));
        assert!(code == 2 && err.contains(words), "{arguments:?}: {code} {err}");
    }
    for (file, words) in [("absent", "no such file"), ("empty", "no certificate found")] {
        let path = if file == "empty" { authority.write(file, "") } else { authority.folder().join(file) };
        let url = format!("https://{BLOG}/");
        let (code, _, err) = outcome(pintle().args(["verify", &url, "--ca"]).arg(&path));
        assert!(code == 1 && err.contains(&format!("{}: {words}", path.display())), "{code} {err}");
    }
}

/// A site behind pintle that is no site of its, and an upstream that is down.
#[test]
fn what_pintle_refuses_is_told() {
    let authority = Authority::new();
    let server = Pintle::start(&authority, &blog_at(&authority, &format!("http://127.0.0.1:{}", free_port())));
    let (code, down) = report(&mut verify(&authority, server.https()));
    assert_eq!(code, 0, "{down:#}");
    assert_told(&down, "page-status", "warning");
    let url = "https://other.example.com/";
    let (code, unknown) = report(&mut verify_url(&authority, server.https(), NOBODY, url));
    assert_eq!(code, 1);
    assert_told(&unknown, "tls-handshake", "error");
    assert_not_told(&unknown, "certificate-valid");
}
