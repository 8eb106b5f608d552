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
    assert_eq!(ask("other.example.com", "/.well-known/acme-challenge/token-1_x").status, 421);
    assert_eq!(ask(BLOG, "/.well-known/acme-challenge").status, 301);
}

#[test]
fn without_a_folder_there_is_no_challenge_and_no_redirect() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut connection = Connection::plain(pintle.http());
    assert_eq!(connection.get(BLOG, "/.well-known/acme-challenge/x").status, 404);
    assert!(origin.received().is_empty());
}
