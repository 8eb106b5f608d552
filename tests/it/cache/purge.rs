//! Purges by the operator, and what `pintle cache` shows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::Bed;
use crate::harness::{BLOG, Origin, Reply, eventually, outcome};

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
