//! Challenges of an ACME client are answered before the redirect.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::harness::{Authority, BLOG, Connection, Origin, PATIENCE, Pintle, blog, output};
use crate::last_good::copied;
use crate::rotation::Bed;

#[test]
fn challenges_come_before_the_redirect() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let webroot = authority.folder().join("webroot");
    fs::create_dir_all(webroot.join(".well-known/acme-challenge")).unwrap();
    fs::write(webroot.join(".well-known/acme-challenge/token-1_x"), "token-1_x.thumbprint").unwrap();
    fs::write(webroot.join("secret"), "no").unwrap();
    let pintle = Pintle::start(&authority, &(format!("[acme]\nwebroot = {webroot:?}\n") + &blog(&authority, &origin)));
    let ask = |host: &str, path: &str| {
        let mut connection = Connection::plain(pintle.http());
        connection.get(host, path)
    };
    let response = ask(BLOG, "/.well-known/acme-challenge/token-1_x");
    assert_eq!((response.status, response.text().as_str()), (200, "token-1_x.thumbprint"));
    assert_eq!(response.one("content-type"), "application/octet-stream");
    for path in ["", "other", "../../secret", "..%2f..%2fsecret", "token-1_x/", "."] {
        let response = ask(BLOG, &format!("/.well-known/acme-challenge/{path}"));
        assert_eq!((response.status, response.field("location")), (404, None), "{path}");
    }
    assert_eq!(ask("other.example.com", "/").status, 421);
    assert_eq!(ask(BLOG, "/.well-known/acme-challenge").status, 301);
}

/// A certificate is made for a name before that can be in `hosts`: a site is not served under one that does not cover all
/// of its names.
#[test]
fn a_challenge_for_a_name_that_no_certificate_covers_yet_is_answered() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let webroot = authority.folder().join("webroot");
    fs::create_dir_all(webroot.join(".well-known/acme-challenge")).unwrap();
    fs::write(webroot.join(".well-known/acme-challenge/token-2"), "token-2.thumbprint").unwrap();
    let pintle = Pintle::start(&authority, &(format!("[acme]\nwebroot = {webroot:?}\n") + &blog(&authority, &origin)));
    let ask = |method: &str, host: &str, token: &str| {
        let mut connection = Connection::plain(pintle.http());
        connection.send(format!("{method} /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        connection.response(method)
    };
    let response = ask("GET", "www.example.com", "token-2");
    assert_eq!((response.status, response.text().as_str()), (200, "token-2.thumbprint"));
    assert_eq!(ask("HEAD", "new.example.net", "token-2").status, 200);
    // Anything else for a name of no site is misdirected, as ever.
    assert_eq!(ask("GET", "www.example.com", "token-3").status, 421);
    assert_eq!(ask("GET", "www.example.com", "../../../etc/passwd").status, 421);
    assert_eq!(ask("POST", "www.example.com", "token-2").status, 421);
    let tls = crate::harness::Client::new(&authority);
    assert_eq!(tls.get(pintle.https(), BLOG, "/.well-known/acme-challenge/token-2").text(), "hello from the origin");
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn without_a_folder_there_is_no_challenge_and_no_redirect() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut connection = Connection::plain(pintle.http());
    assert_eq!(connection.get(BLOG, "/.well-known/acme-challenge/x").status, 404);
    assert!(origin.received().is_empty());
}

/// Whoever may write to the folder may not have other files read out, by whatever kind of entry.
#[test]
fn nothing_is_served_but_key_authorizations() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let webroot = authority.folder().join("webroot");
    let folder = webroot.join(".well-known/acme-challenge");
    fs::create_dir_all(&folder).unwrap();
    let (site, key) = (blog(&authority, &origin), authority.folder().join("blog.key"));
    let put = |name: &str, contents: &str| fs::write(folder.join(name), contents).unwrap();
    put("good", "good.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI");
    put("newline", "newline.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI\n");
    symlink(&key, folder.join("link")).unwrap();
    symlink("good", folder.join("inside")).unwrap();
    symlink("../../../blog.key", folder.join("relative")).unwrap();
    symlink("/dev/zero", folder.join("device-link")).unwrap();
    fs::hard_link(&key, folder.join("hard")).unwrap();
    fs::copy(&key, folder.join("copy")).unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.join("fifo")).status().unwrap().success());
    put("other-token", "good.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI");
    put("html", "html.<script>");
    put("more", "more.x\nmore");
    put("empty", "");
    put("dot", "dot.");
    put("long", &format!("long.{}", "x".repeat(5000)));
    let pintle = Pintle::start(&authority, &(format!("[acme]\nwebroot = {webroot:?}\n") + &site));
    let ask = |name: &str| Connection::plain(pintle.http()).get(BLOG, &format!("/.well-known/acme-challenge/{name}"));
    for name in ["good", "newline"] {
        let response = ask(name);
        let text = format!("{name}.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI");
        assert_eq!((response.status, response.text()), (200, text), "{name}");
    }
    let refused = [
        "link",
        "inside",
        "relative",
        "device-link",
        "hard",
        "copy",
        "folder",
        "fifo",
        "other-token",
        "html",
        "more",
        "empty",
        "dot",
        "long",
    ];
    for name in refused {
        let response = ask(name);
        assert_eq!((response.status, response.field("location")), (404, None), "{name}");
        assert!(!response.text().contains("PRIVATE KEY"), "{name}");
    }
    // Nor by a link on the way.
    for name in [".well-known", "acme-challenge"] {
        let at = if name == ".well-known" { webroot.join(name) } else { webroot.join(".well-known").join(name) };
        let moved = authority.folder().join("moved");
        fs::rename(&at, &moved).unwrap();
        symlink(&moved, &at).unwrap();
        assert_eq!(ask("good").status, 404, "{name}");
        fs::remove_file(&at).unwrap();
        fs::rename(&moved, &at).unwrap();
        assert_eq!(ask("good").status, 200, "{name}");
    }
}

#[test]
fn a_flood_of_challenges_is_shed() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let webroot = authority.folder().join("webroot");
    fs::create_dir_all(webroot.join(".well-known/acme-challenge")).unwrap();
    fs::write(webroot.join(".well-known/acme-challenge/token"), "token.x").unwrap();
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 1\n";
    let config = format!("[limits]\nchallenges = 1\n[acme]\nwebroot = {webroot:?}\n{}", blog(&authority, &origin));
    let pintle = Pintle::start_with(&authority, listen, &config);
    let request =
        format!("GET /.well-known/acme-challenge/token HTTP/1.1\r\nHost: {BLOG}\r\nConnection: close\r\n\r\n");
    // How many are there at the same moment is for the machine to say: again, until they were.
    let shed = (0..50).any(|_| {
        let connect = || TcpStream::connect(pintle.http()).unwrap();
        let mut connections: Vec<TcpStream> = std::iter::repeat_with(connect).take(100).collect();
        for connection in &mut connections {
            connection.set_read_timeout(Some(PATIENCE)).unwrap();
            connection.write_all(request.as_bytes()).unwrap();
        }
        let answers = connections.iter_mut().map(|connection| {
            let mut answer = String::new();
            connection.read_to_string(&mut answer).unwrap();
            answer
        });
        let (done, shed): (Vec<_>, Vec<_>) = answers.partition(|answer| answer.starts_with("HTTP/1.1 200 "));
        assert!(done.iter().all(|answer| answer.ends_with("token.x")) && !done.is_empty());
        for answer in &shed {
            assert!(
                answer.starts_with("HTTP/1.1 503 ") && answer.to_lowercase().contains("retry-after: 1\r\n"),
                "{answer}"
            );
        }
        !shed.is_empty()
    });
    assert!(shed, "nobody was turned away");
    let response = Connection::plain(pintle.http()).get(BLOG, "/.well-known/acme-challenge/token");
    assert_eq!((response.status, response.text().as_str()), (200, "token.x"));
}

/// A site goes from files to `acme = true`, and pintle is started again: the copy of the former pair serves, and the key
/// that pintle orders with is promised. Without that promise, each certificate for it would be refused.
#[test]
fn the_key_of_the_first_order_is_promised_while_the_former_pair_serves() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    copied(&bed, &bed.live);
    // No CA answers there.
    let acme = "[acme]\nterms = true\ndirectory = \"https://127.0.0.1:1/directory\"\n";
    let former = format!("chain = {:?}\nkey = {:?}\n", bed.chain(), bed.key());
    let text = bed.config(&bed.pins("30d"), "").replace(&former, "acme = true\n");
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &(acme.to_owned() + &text));
    let own = bed.state().join("acme").join(BLOG).join("ecdsa-p256");
    let [live, next] = ["key.pem", "next.pem"].map(|name| pin_of(&own.join(name)));
    assert_eq!(bed.served(&pintle), bed.live.pin);
    let header = bed.header(&pintle).unwrap();
    for pin in [&bed.live.pin, &live, &next, &bed.spare.pin] {
        assert!(header.contains(pin.as_str()), "{pin}: {header}");
    }
}

/// The pin of a private key, computed by openssl.
fn pin_of(key: &Path) -> String {
    let script = format!("openssl pkey -in {key:?} -pubout -outform der | openssl dgst -sha256 -binary | base64");
    output(Command::new("sh").args(["-c", &script])).trim().to_owned()
}
