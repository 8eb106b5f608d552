//! Purges by the operator, and what `pintle cache` shows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::Bed;
use crate::harness::{Authority, BLOG, Origin, Pintle, Reply, eventually, outcome};

#[test]
fn purges_by_url_prefix_tag_and_site() {
    let bed = Bed::new("stale_if_error = \"1d\"");
    let paths = ["/a", "/a/b", "/ab", "/a?q"];
    for path in paths {
        bed.page(
            path,
            "200 OK",
            "Cache-Control: max-age=600\r\nVary: Accept-Encoding\r\nCache-Tag: t, x\r\nSurrogate-Key: s\r\n",
            path,
        );
    }
    let fill = || {
        for path in paths {
            bed.get("--http2", path, &[]);
            let coded = bed.get("--http2", path, &["-H", "Accept-Encoding: gzip"]);
            assert!(coded.field("cache-tag").is_none() && coded.field("surrogate-key").is_none(), "{coded:?}");
        }
    };
    let hits = || paths.map(|path| bed.get("--http2", path, &["-H", "Cache-Control: only-if-cached"]).status == 200);
    for (words, purged, left) in [
        (format!("purge https://{BLOG}/a"), "2 responses purged\n", [false, true, true, true]),
        (format!("purge https://{BLOG}/a https://{BLOG}/ab"), "4 responses purged\n", [false, true, false, true]),
        (format!("purge --prefix https://{BLOG}/a"), "6 responses purged\n", [false, false, true, false]),
        ("purge --tag t".to_owned(), "8 responses purged\n", [false; 4]),
        (format!("purge --tag s --site {BLOG}"), "8 responses purged\n", [false; 4]),
        ("purge --tag none".to_owned(), "0 responses purged\n", [true; 4]),
        (format!("purge --site {BLOG}"), "8 responses purged\n", [false; 4]),
        (format!("purge https://{BLOG}/nothing"), "0 responses purged\n", [true; 4]),
    ] {
        fill();
        assert_eq!(bed.command(&words), purged, "{words}");
        assert_eq!(hits(), left, "{words}");
    }
    fill();
    let soft = bed.command(&format!("purge --soft https://{BLOG}/a"));
    assert_eq!(soft, "2 responses will be validated before the next use\n");
    bed.page("/a", "503 Busy", "", "busy");
    bed.page("/ab", "503 Busy", "", "busy");
    let got = bed.get("--http2", "/a", &[]);
    assert!(got.body == "/a" && got.cache().contains("stale-if-error"), "{got:?}");
    bed.command(&format!("purge https://{BLOG}/ab"));
    assert_eq!(bed.get("--http2", "/ab", &[]).status, 503);
    bed.pintle.logs("cache purged");
    for (words, want) in [
        ("purge https://other.example/", "no site has the host"),
        ("purge blog.example.com/a", "not an http or https URL"),
        ("cache https://other.example/", "no site has the host"),
    ] {
        let (code, _, err) = outcome(&mut bed.pintle.command(words));
        assert!(code == 1 && err.contains(want), "{words}: {err}");
    }
}

#[test]
fn the_cache_is_shown() {
    let bed = Bed::new("");
    bed.page("/a", "200 OK", "Cache-Control: max-age=600\r\nVary: Accept-Language\r\n", "12345");
    bed.page("/b", "200 OK", "Cache-Control: private\r\n", "b");
    for _ in 0..3 {
        bed.get("--http2", "/a", &["-H", "Accept-Language: de"]);
    }
    bed.get("--http2", "/b", &[]);
    let shown = bed.command(&format!("cache https://{BLOG}/a"));
    assert!(
        shown.contains("200 5 bytes, fresh for ") && shown.contains("(max-age), for {\"accept-language\":\"de\"}"),
        "{shown}"
    );
    assert!(bed.command(&format!("cache https://{BLOG}/b")).contains("not stored: private"));
    assert!(bed.command(&format!("cache https://{BLOG}/c")).contains("not stored, and no reason is known"));
    let all = eventually("the counts", || {
        let all = bed.command("cache");
        all.contains("50.0 %").then_some(all)
    });
    assert!(all.starts_with(&format!("{BLOG}: 1 URL, ")), "{all}");
    let status = bed.pintle.status();
    assert_eq!(status["caches"][0]["requests"]["hit"], 2, "{status}");
    // The reasons for all others are counted, also those that lie in a request.
    for _ in 0..3 {
        bed.get("--http2", "/a", &["-H", "Cookie: own=1"]);
    }
    bed.fresh("/n", "max-age=600", "n");
    bed.get("--http2", "/n", &["-H", "Cache-Control: no-store"]);
    eventually("the reasons", || {
        let all = bed.command("cache");
        all.contains("from the upstream: 3 cookie, 1 private, 1 request-no-store, 1 uri-miss").then_some(())
    });
}

/// A response that was asked for before a purge is not stored after it.
#[test]
fn a_purge_wins_over_a_response_under_way() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (opened, asked) = (gate.clone(), Arc::new(AtomicBool::new(false)));
    let was_asked = asked.clone();
    let origin = Origin::start(move |received| {
        if received.path() == "/slow" && !was_asked.swap(true, Ordering::SeqCst) {
            let (open, changed) = &*opened;
            let _open = changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap();
            return Reply::new("200 OK", "Cache-Control: max-age=600\r\n", "old");
        }
        Reply::new("200 OK", "Cache-Control: max-age=600\r\n", "new")
    });
    let bed = Bed::before(origin, super::Pages::default(), "", "");
    thread::scope(|scope| {
        let early = scope.spawn(|| bed.get("--http2", "/slow", &[]));
        eventually("the first request", || asked.load(Ordering::SeqCst).then_some(()));
        bed.command(&format!("purge https://{BLOG}/slow"));
        // This one does not wait for the response of before.
        assert_eq!(bed.get("--http2", "/slow", &[]).body, "new");
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        assert_eq!(early.join().unwrap().body, "old");
    });
    assert_eq!(bed.get("--http2", "/slow", &[]).body, "new");
    assert_eq!(bed.count("/slow"), 2);
}

/// Another name of the site.
const PUBLIC: &str = "public.example.com";
/// Pages are on disk, too.
const DISK: &str = "stale_if_error = \"1d\"\ndisk = \"64MiB\"";

/// A bed whose site has two names.
fn two_names(listen: &str, cache: &str) -> Bed {
    let pages = super::Pages::default();
    let served = pages.clone();
    let origin = Origin::start(move |received| super::answer(&served, received));
    let authority = Authority::new();
    let (state, leaf) = (authority.folder().join("state"), authority.leaf("blog", &[BLOG, PUBLIC]));
    let config = format!(
        "[state]\ndirectory = {state:?}\n[[site]]\nhosts = [\"{BLOG}\", \"{PUBLIC}\"]\nupstream = \"{}\"\n\
         [site.certificate]\nchain = {:?}\nkey = {:?}\n[site.cache]\n{cache}\n",
        origin.url(),
        leaf.chain,
        leaf.key
    );
    let pintle = Pintle::start_listening(&authority, listen, &config);
    Bed { authority, origin, pages, pintle }
}

/// A page that came through a proxy has the name that the proxy states, and that of the request.
#[test]
fn purges_by_the_name_that_a_proxy_states() {
    for cache in ["", DISK] {
        let bed = two_names("trusted_proxies = [\"127.0.0.1\"]", cache);
        bed.fresh("/d/p", "max-age=600", "12345");
        let ports = [(PUBLIC, "", ""), (PUBLIC, ":443", ""), (PUBLIC, ":8443", ":8443"), (BLOG, "", "")];
        for (name, stated_port, port) in ports {
            let (stated, authority) = (format!("X-Forwarded-Host: {name}{stated_port}"), format!("{name}{port}"));
            let proxied = ["-H", "X-Forwarded-Proto: https", "-H", stated.as_str()];
            for words in [
                format!("purge https://{authority}/d/p"),
                format!("purge --prefix https://{authority}/d"),
                format!("purge https://{BLOG}/d/p"),
                format!("purge --prefix https://{BLOG}/d"),
            ] {
                assert!(!bed.get("--http2", "/d/p", &proxied).is_hit(), "{stated} {words}");
                assert!(bed.get("--http2", "/d/p", &proxied).is_hit(), "{stated} {words}");
                let shown = bed.command(&format!("cache https://{authority}/d/p"));
                assert!(shown.contains("200 5 bytes, fresh for "), "{stated}: {shown}");
                assert_eq!(bed.command(&format!("purge https://{PUBLIC}:9/d/p")), "0 responses purged\n");
                assert_eq!(bed.command(&words), "1 response purged\n", "{stated} {words}");
            }
        }
    }
}

/// A group belongs to one origin (RFC 9875 section 2): pages of another name of the site stay.
#[test]
fn groups_belong_to_one_name() {
    for cache in ["", DISK] {
        let bed = two_names("", cache);
        bed.page("/p", "200 OK", "Cache-Control: max-age=600\r\nCache-Groups: \"g\", \"h\"\r\n", "page");
        bed.page("/form", "200 OK", "Cache-Group-Invalidation: \"g\"\r\n", "changed");
        let get = |host: &str| super::read(bed.pintle.curl().arg("--include").arg(format!("https://{host}/p")));
        for host in [BLOG, PUBLIC] {
            assert!(!get(host).is_hit() && get(host).is_hit(), "{host}");
        }
        bed.get("--http2", "/form", &["--data", "x"]);
        assert!(!get(BLOG).is_hit() && get(PUBLIC).is_hit());
        // The operator's tag is for the whole site.
        assert_eq!(bed.command("purge --tag h"), "2 responses purged\n");
    }
}
