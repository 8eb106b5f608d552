//! Challenges of an ACME client are answered before the redirect.

use std::fs;

use crate::harness::{Authority, BLOG, Connection, Origin, Pintle, blog};

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
