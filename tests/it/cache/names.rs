//! Sites with several names: a change under one of them is a change under all, and no stranger's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use super::{Got, VERSIONS};
use crate::harness::{Authority, BLOG, Origin, Pintle, Received, Reply};

const WWW: &str = "www.example.net";
/// Names below a wildcard: they may belong to different people.
const ANNA: &str = "anna.people.example";
const BEN: &str = "ben.people.example";
const ALL: [&str; 4] = [BLOG, WWW, ANNA, BEN];
const IF_CACHED: [&str; 2] = ["-H", "Cache-Control: only-if-cached"];

/// A pintle with one site that has all these names.
fn start(listen: &str, answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> (Authority, Pintle) {
    let (authority, origin) = (Authority::new(), Origin::start(answer));
    let leaf = authority.leaf("names", &[BLOG, WWW, "*.people.example"]);
    let config = format!(
        "[[site]]\nhosts = [\"{BLOG}\", \"{WWW}\", \"*.people.example\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\n\
         key = {:?}\n[site.cache]\n",
        origin.url(),
        leaf.chain,
        leaf.key
    );
    let pintle = Pintle::start_listening(&authority, listen, &config);
    (authority, pintle)
}

/// A page for each GET. A POST says how it is answered.
fn page(received: &Received) -> Reply {
    if !received.line().starts_with("POST") {
        return Reply::new("200 OK", "Cache-Control: max-age=600\r\n", "page");
    }
    let location = received.field("x-location").map(|url| format!("Location: {url}\r\n"));
    Reply::new(received.field("x-status").unwrap_or("201 Created"), &location.unwrap_or_default(), "")
}

#[track_caller]
fn ask(pintle: &Pintle, version: &str, host: &str, path: &str, more: &[&str]) -> Got {
    let mut curl = pintle.curl();
    super::read(curl.args([version, "--include"]).args(more).arg(format!("https://{host}{path}")))
}

#[test]
fn a_change_under_one_name_is_a_change_under_all() {
    let (_authority, pintle) = start("", page);
    for version in VERSIONS {
        let path = format!("/{version}");
        let check = |host: &str, target: &str, field: &str, want: [bool; 4]| {
            ALL.iter().for_each(|host| _ = ask(&pintle, version, host, &path, &[]));
            ask(&pintle, version, host, target, &["--data", "x", "-H", field]);
            let hits = ALL.map(|host| ask(&pintle, version, host, &path, &IF_CACHED).status == 200);
            assert_eq!(hits, want, "{version}: POST to {host}{target}, {field}");
        };
        let to = |host: &str| format!("X-Location: https://{host}{path}#comment-1");
        let none = "X-Nothing: 1";
        check(BLOG, &path, none, [false, false, true, true]);
        check(WWW, &path, none, [false, false, true, true]);
        check(ANNA, &path, none, [true, true, false, true]);
        check(BLOG, &path, "X-Status: 500 Oops", [true; 4]);
        check(BLOG, "/form", none, [true; 4]);
        // URLs that the answer names.
        check(BLOG, "/form", &to(WWW), [false, false, true, true]);
        check(WWW, "/form", &to(BLOG), [false, false, true, true]);
        check(ANNA, "/form", &to(ANNA), [true, true, false, true]);
        for (host, named) in [(BLOG, ANNA), (BLOG, "www.example.org"), (ANNA, BLOG), (ANNA, BEN)] {
            check(host, "/form", &to(named), [true; 4]);
        }
    }
}

/// A response that was asked for before the change is not stored under the other name either.
#[test]
fn a_page_under_way_under_another_name_is_not_stored() {
    let (arrived, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (at_origin, continues, is_first) = (arrived.clone(), go_on.clone(), AtomicBool::new(true));
    let (_authority, pintle) = start("", move |received| {
        if received.line().starts_with("GET") && is_first.swap(false, Ordering::SeqCst) {
            at_origin.wait();
            continues.wait();
        }
        page(received)
    });
    thread::scope(|scope| {
        let slow = scope.spawn(|| ask(&pintle, "--http2", WWW, "/slow", &[]));
        arrived.wait();
        ask(&pintle, "--http2", BLOG, "/slow", &["--data", "x"]);
        go_on.wait();
        assert_eq!(slow.join().unwrap().status, 200);
    });
    assert!(!ask(&pintle, "--http2", WWW, "/slow", &[]).is_hit());
    assert!(ask(&pintle, "--http2", WWW, "/slow", &[]).is_hit());
}

/// Behind trusted proxies, the public name is the one that they state. A page has several keys then.
#[test]
fn names_that_proxies_state() {
    let (_authority, pintle) = start("trusted_proxies = [\"127.0.0.1\"]", page);
    let stated = |name: &str, more: &[&str]| {
        let field = format!("X-Forwarded-Host: {name}");
        ask(&pintle, "--http1.1", BLOG, "/p", &[&["-H", field.as_str()][..], more].concat())
    };
    let direct = |more: &[&str]| ask(&pintle, "--http1.1", WWW, "/p", more);
    let fill = || {
        assert_eq!((stated(WWW, &[]).status, direct(&[]).status), (200, 200));
        assert!(stated(WWW, &IF_CACHED).is_hit() && direct(&IF_CACHED).is_hit());
    };
    fill();
    direct(&["--data", "x"]);
    assert_eq!((stated(WWW, &IF_CACHED).status, direct(&IF_CACHED).status), (504, 504));
    for name in [WWW, BLOG] {
        fill();
        stated(name, &["--data", "x"]);
        assert_eq!((stated(WWW, &IF_CACHED).status, direct(&IF_CACHED).status), (504, 504), "{name}");
    }
    // A name below a wildcard is nobody else's.
    fill();
    stated(ANNA, &["--data", "x"]);
    assert!(stated(WWW, &IF_CACHED).is_hit() && direct(&IF_CACHED).is_hit());
}
