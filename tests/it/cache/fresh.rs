//! What is stored, under which key, for how long, and how it is sent.

use super::{Bed, VERSIONS};
use crate::harness::{BLOG, Client, Origin, Pintle, blog, output, policies};

/// A table of status and fields: is the second request answered from the store?
#[test]
fn responses_that_are_stored() {
    let bed = Bed::new("");
    let cases: &[(&str, &'static str, &str, bool)] = &[
        ("/a1", "200 OK", "Cache-Control: max-age=60\r\n", true),
        ("/a2", "200 OK", "Cache-Control: s-maxage=60, max-age=0\r\n", true),
        ("/a3", "200 OK", "Cache-Control: MAX-AGE=\"60\"\r\n", true),
        ("/a4", "200 OK", "", false),
        ("/a5", "200 OK", "Cache-Control: public\r\n", false),
        ("/a6", "200 OK", "Cache-Control: max-age=60, no-store\r\n", false),
        ("/a7", "200 OK", "Cache-Control: max-age=60, private\r\n", false),
        ("/a8", "200 OK", "Cache-Control: max-age=60, no-cache\r\n", false),
        ("/a9", "200 OK", "Cache-Control: max-age=abc\r\n", false),
        ("/b1", "200 OK", "Cache-Control: max-age=60\r\nSet-Cookie: a=1\r\n", false),
        ("/b2", "200 OK", "Cache-Control: max-age=60\r\nVary: *\r\n", false),
        ("/b3", "200 OK", "Cache-Control: max-age=60\r\nExpires: 0\r\n", true),
        ("/b4", "200 OK", "Expires: Thu, 01 Jan 2099 00:00:00 GMT\r\n", true),
        ("/b5", "200 OK", "Expires: 0\r\n", false),
        ("/b6", "200 OK", "CDN-Cache-Control: max-age=60\r\nCache-Control: no-store\r\n", true),
        ("/b7", "200 OK", "Pintle-Cache-Control: private\r\nCache-Control: max-age=60\r\n", false),
        ("/b8", "200 OK", "CDN-Cache-Control: MAX-AGE=60\r\nCache-Control: no-store\r\n", false),
        ("/b9", "200 OK", "Pragma: no-cache\r\nCache-Control: max-age=60\r\n", true),
        ("/c1", "301 Moved Permanently", "Cache-Control: max-age=60\r\nLocation: /a\r\n", true),
        ("/c2", "404 Not Found", "Cache-Control: max-age=60\r\n", true),
        ("/c3", "404 Not Found", "", false),
        ("/c4", "429 Too Many Requests", "Cache-Control: max-age=60, public\r\n", false),
        ("/c5", "500 Oops", "Cache-Control: max-age=60, public\r\n", false),
        ("/c6", "403 Forbidden", "Cache-Control: max-age=60, public\r\n", false),
        ("/c7", "200 OK", "Cache-Control: max-age=60\r\nAge: 60\r\n", false),
        ("/c8", "200 OK", "Cache-Control: max-age=60\r\nContent-Security-Policy: script-src 'nonce-x'\r\n", false),
        ("/c9", "200 OK", "Cache-Control: max-age=60\r\nContent-Type: text/event-stream\r\n", false),
        ("/d1", "200 OK", "Cache-Control: must-understand, no-store, max-age=60\r\n", true),
        ("/d2", "299 Odd", "Cache-Control: must-understand, no-store, max-age=60\r\n", false),
        ("/d3", "200 OK", "Cache-Control: x=\"a,max-age=0\", max-age=60\r\n", true),
        ("/d4", "200 OK", "Cache-Control: max-age=60\r\nCache-Control: max-age=0\r\n", false),
        ("/d5", "200 OK", "Cache-Control: max-age=99999999999999999999\r\n", true),
        ("/d6", "200 OK", "Cache-Control: max-age=-1\r\n", false),
        ("/d7", "200 OK", "Cache-Control: max-age=1.5\r\n", false),
    ];
    for (path, status, fields, _) in cases {
        bed.page(path, status, fields, &format!("body of {path}"));
    }
    for (path, status, fields, is_stored) in cases {
        let [first, second] = VERSIONS.map(|version| bed.get(version, path, &[]));
        let what = format!("{path} {status} {fields} {second:?}");
        assert_eq!((first.body.as_str(), first.status), (second.body.as_str(), second.status), "{what}");
        assert!(status.starts_with(&first.status.to_string()) && second.body == format!("body of {path}"), "{what}");
        assert_eq!(bed.count(path), if *is_stored { 1 } else { 2 }, "{what}");
        assert_eq!(second.is_hit(), *is_stored, "{what}");
        assert!(!first.is_hit(), "{what}");
        // An upstream's own Age passes.
        assert_eq!(second.all("age").len(), usize::from(*is_stored || fields.contains("Age")), "{what}");
        assert!(second.field("pintle-cache-control").is_none(), "{what}");
        assert_eq!(second.all("date").len(), 1, "{what}");
    }
    for (path, part) in [("/a1", "miss"), ("/a1", "hit"), ("/a4", "miss")] {
        bed.recorded(path, part);
    }
}

#[test]
fn a_site_without_a_cache_says_nothing_of_one() {
    let bed = Bed::new("");
    bed.pintle.rewrite(|before| before.replace("[site.cache]", ""));
    bed.pintle.reload();
    bed.fresh("/a", "max-age=60", "a");
    for version in VERSIONS {
        let got = bed.get(version, "/a", &[]);
        assert!(got.all("cache-status").is_empty() && got.field("age").is_none(), "{got:?}");
    }
    assert_eq!(bed.count("/a"), 2);
    assert!(bed.pintle.access_line("/a").get("cache").is_none());
}

#[test]
fn keys_have_the_whole_target_and_the_rules_for_queries() {
    let bed = Bed::new("query_drop = [\"utm_*\", \"fbclid\"]");
    for path in ["/k?a=1", "/k?a=2", "/k", "/K", "/k?a=1;utm_x=2"] {
        bed.fresh(path, "max-age=60", path);
    }
    for (asked, want) in [
        ("/k?a=1", "/k?a=1"),
        ("/k?a=2", "/k?a=2"),
        ("/k", "/k"),
        ("/K", "/K"),
        ("/k?a=1&utm_source=x", "/k?a=1"),
        ("/k?fbclid=7&a=1", "/k?a=1"),
        ("/k?utm_source=x", "/k"),
        ("/k?a=1;utm_x=2", "/k?a=1;utm_x=2"),
    ] {
        for version in VERSIONS {
            assert_eq!(bed.get(version, asked, &[]).body, want, "{asked}");
        }
    }
    for path in ["/k?a=1", "/k?a=2", "/k", "/K", "/k?a=1;utm_x=2"] {
        assert_eq!(bed.count(path), 1, "{path}");
    }
    assert!(!bed.origin.received().iter().any(|received| received.path().contains("utm_source")));
}

#[test]
fn hosts_do_not_share_pages() {
    let bed = Bed::new("");
    bed.fresh("/", "max-age=60", "x");
    let client = Client::new(&bed.authority);
    let ask = |host: &str| {
        let mut connection = client.connect(bed.pintle.https(), BLOG);
        connection.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        let (answer, _) = connection.read_to_end();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let is_hit = |answer: &str| answer.to_lowercase().contains("pintle; hit");
    assert!(!is_hit(&ask(BLOG)));
    assert!(is_hit(&ask(&format!("{}:443", BLOG.to_uppercase()))));
    assert!(is_hit(&ask(&format!("{BLOG}."))) || bed.count("/") == 1, "one trailing dot");
    // Another port is another authority.
    let before = bed.count("/");
    assert!(!is_hit(&ask(&format!("{BLOG}:1337"))));
    assert_eq!(bed.count("/"), before + 1);
}

#[test]
fn variants_by_vary_and_by_coding() {
    let bed = Bed::new("");
    bed.page("/v", "200 OK", "Cache-Control: max-age=60\r\nVary: Accept-Language\r\n", "v");
    bed.page("/e", "200 OK", "Cache-Control: max-age=60\r\nVary: Accept-Encoding\r\n", "e");
    for (language, count) in [("de", 1), ("en", 2), ("de", 2), ("en", 2), ("DE", 3)] {
        bed.get("--http2", "/v", &["-H", &format!("Accept-Language: {language}")]);
        assert_eq!(bed.count("/v"), count, "{language}");
    }
    let codings = ["gzip;q=0.5, br", "br,gzip", "br , gzip, deflate", "*", "gzip, br, zstd", "deflate", "xxxx", "gzip"];
    for coding in codings {
        bed.get("--http1.1", "/e", &["-H", &format!("Accept-Encoding: {coding}")]);
    }
    assert_eq!(bed.count("/e"), 4);
    assert_eq!(bed.last("/e").field("accept-encoding"), Some("gzip"));
    // A field that the upstream did not get at first.
    bed.page("/x", "200 OK", "Cache-Control: max-age=60\r\nVary: X-Device\r\n", "x");
    bed.get("--http2", "/x", &[]);
    let got = bed.get("--http2", "/x", &["-H", "X-Device: phone"]);
    assert!(got.cache().contains("vary-miss"), "{got:?}");
    assert_eq!(bed.last("/x").field("x-device"), Some("phone"));
    assert!(bed.get("--http2", "/x", &["-H", "X-Device: phone"]).is_hit() && bed.get("--http2", "/x", &[]).is_hit());
    assert_eq!(bed.count("/x"), 2);
    bed.page("/y", "200 OK", "Cache-Control: max-age=60\r\nVary: X-Device\r\n", "y");
    let got = bed.get("--http2", "/y", &["-H", "X-Device: tablet"]);
    assert_eq!((bed.last("/y").field("x-device"), got.is_hit()), (Some("tablet"), false), "{got:?}");
}

#[test]
fn conditions_ranges_and_heads_are_answered_from_the_store() {
    let bed = Bed::new("");
    let fields = "Cache-Control: max-age=60\r\nETag: \"one\"\r\nLast-Modified: Mon, 02 Jan 2023 00:00:00 GMT\r\n\
                  Content-Type: text/plain\r\n";
    bed.page("/c", "200 OK", fields, "0123456789");
    bed.get("--http1.1", "/c", &[]);
    for version in VERSIONS {
        let got = |more: &[&str]| bed.get(version, "/c", more);
        for condition in ["If-None-Match: \"one\"", "If-None-Match: W/\"one\", \"two\"", "If-None-Match: *"] {
            let got = got(&["-H", condition]);
            assert_eq!((got.status, got.body.as_str()), (304, ""), "{condition}");
            assert_eq!(got.field("etag"), Some("\"one\""));
            assert!(got.field("cache-control").is_some() && got.field("content-type").is_none(), "{got:?}");
        }
        assert_eq!(got(&["-H", "If-Modified-Since: Mon, 02 Jan 2023 00:00:00 GMT"]).status, 304);
        assert_eq!(got(&["-H", "If-None-Match: \"two\""]).status, 200);
        for (range, status, want, content_range) in [
            ("bytes=0-3", 206, "0123", "bytes 0-3/10"),
            ("bytes=-2", 206, "89", "bytes 8-9/10"),
            ("bytes=7-", 206, "789", "bytes 7-9/10"),
            ("bytes=10-", 416, "", "bytes */10"),
            ("bytes=5-2", 200, "0123456789", ""),
            ("lines=1-2", 200, "0123456789", ""),
        ] {
            let got = got(&["-H", &format!("Range: {range}")]);
            assert_eq!((got.status, got.body.as_str()), (status, want), "{range} {got:?}");
            assert_eq!(got.field("content-range").unwrap_or_default(), content_range, "{range}");
            assert!(got.is_hit());
        }
        let several = got(&["-H", "Range: bytes=0-0,9-9"]);
        assert!(several.status == 206 && several.body.contains("Content-Range: bytes 9-9/10\r\n\r\n9"), "{several:?}");
        assert_eq!(got(&["-H", "Range: bytes=0-3", "-H", "If-Range: \"one\""]).status, 206);
        assert_eq!(got(&["-H", "Range: bytes=0-3", "-H", "If-Range: \"two\""]).status, 200);
        let head = got(&["--head"]);
        assert_eq!((head.status, head.field("content-length")), (200, Some("10")), "{head:?}");
        assert!(head.is_hit() && head.field("age").is_some());
    }
    assert_eq!(bed.count("/c"), 1);
    // A range of a page that is not stored is the origin's, and is not stored.
    bed.page("/r", "206 Partial Content", "Cache-Control: max-age=60\r\nContent-Range: bytes 0-0/9\r\n", "r");
    for n in 1..3 {
        assert_eq!(bed.get("--http2", "/r", &["-H", "Range: bytes=0-0"]).status, 206);
        assert_eq!(bed.count("/r"), n);
    }
    // So is a HEAD.
    bed.fresh("/h", "max-age=60", "h");
    bed.get("--http2", "/h", &["--head"]);
    assert_eq!(bed.get("--http2", "/h", &[]).body, "h");
    assert_eq!(bed.count("/h"), 2);
    let own = bed.get("--http1.1", "/c", &["-H", "If-Match: \"one\""]);
    assert!(own.cache().contains("fwd=bypass") && bed.last("/c").field("if-match").is_some(), "{own:?}");
}

#[test]
fn directives_of_clients() {
    let bed = Bed::new("honour_client = \"yes\"");
    bed.fresh("/d", "max-age=60", "d");
    let ask = |control: &str| bed.get("--http2", "/d", &["-H", &format!("Cache-Control: {control}")]);
    assert_eq!(ask("only-if-cached").status, 504);
    assert_eq!(bed.count("/d"), 0);
    bed.get("--http2", "/d", &[]);
    assert!(ask("only-if-cached").is_hit() && ask("max-age=50").is_hit());
    for (n, control) in ["no-cache", "max-age=0", "min-fresh=100"].into_iter().enumerate() {
        let got = ask(control);
        assert!(got.cache().contains("fwd=request"), "{control} {got:?}");
        assert_eq!(bed.count("/d"), n + 2, "{control}");
    }
    assert_eq!(ask("no-store").status, 200);
    let cheap = Bed::new("");
    cheap.fresh("/d", "max-age=60", "d");
    cheap.get("--http2", "/d", &[]);
    let asked = (0..20).filter(|_| !cheap.get("--http2", "/d", &["-H", "Cache-Control: no-cache"]).is_hit());
    let asked = asked.count();
    assert!((1..20).contains(&asked) || cheap.count("/d") == 21, "{asked}");
}

/// Policies are added to each answer anew, and the upstream's own never pass, from the store or not.
#[test]
fn policies_are_not_stored() {
    let authority = crate::harness::Authority::new();
    let origin = Origin::start(|_| {
        let fields =
            "Cache-Control: max-age=60\r\nStrict-Transport-Security: max-age=1\r\nPublic-Key-Pins: x\r\nAlt-Svc: y\r\n";
        crate::harness::Reply::new("200 OK", fields, "p")
    });
    let state = format!("[state]\ndirectory = {:?}\n", authority.folder().join("state"));
    let site = format!("{state}{}[site.cache]\n{}", blog(&authority, &origin), policies(&authority));
    let pintle = Pintle::start(&authority, &site);
    let got = || super::read(pintle.curl().args(["--include", &format!("https://{BLOG}/p")]));
    let (first, second) = (got(), got());
    assert!(!first.is_hit() && second.is_hit());
    for got in [&first, &second] {
        assert_eq!(got.all("strict-transport-security"), ["max-age=31536000"], "{got:?}");
        assert_eq!(got.all("public-key-pins").len(), 1);
        assert!(got.field("alt-svc").is_none());
    }
    pintle.rewrite(|before| before.replace("max_age = \"1y\"", "max_age = \"2y\""));
    pintle.reload();
    let third = got();
    assert!(third.is_hit(), "the store survives a reload: {third:?}");
    assert_eq!(third.all("strict-transport-security"), ["max-age=63072000"]);
}

#[test]
fn bodies_that_are_too_large_pass_and_leave_nothing() {
    let bed = Bed::new("memory = \"1MiB\"\nmax_object = \"64KiB\"");
    let (small, large) = ("s".repeat(64 << 10), "l".repeat((64 << 10) + 1));
    bed.fresh("/small", "max-age=60", &small);
    bed.fresh("/large", "max-age=60", &large);
    for version in VERSIONS {
        assert!(bed.get(version, "/small", &[]).body == small && bed.get(version, "/large", &[]).body == large);
    }
    assert_eq!((bed.count("/small"), bed.count("/large")), (1, 2));
    let shown = bed.command(&format!("cache https://{BLOG}/large"));
    assert!(shown.contains("not stored: too-large"), "{shown}");
}

#[test]
fn the_table_is_checked() {
    let bed = Bed::new("");
    let check = |cache: &str| {
        bed.pintle.rewrite(|before| before.replace("[site.cache]\n", &format!("[site.cache]\n{cache}\n")));
        let (code, out, err) = crate::harness::outcome(&mut bed.pintle.command("check"));
        bed.pintle.rewrite(|before| before.replace(&format!("[site.cache]\n{cache}\n"), "[site.cache]\n"));
        (code, format!("{out}{err}"))
    };
    for (cache, want) in [
        ("memori = \"1MiB\"", "did you mean \"memory\"?"),
        ("profile = \"word-press\"", "did you mean \"wordpress\"?"),
        ("memory = \"1KiB\"", "site.cache.memory: must be between 1 MiB and 1 TiB"),
        (
            "memory = \"4MiB\"\nmax_object = \"2MiB\"",
            "site.cache.max_object: must be between 1 KiB and 1 MiB, a quarter of memory",
        ),
        ("query = \"none\"", "site.cache.query"),
        ("query = [\"a=b\"]", "is not the name of a parameter"),
        ("query = 7", "expected a string"),
        ("honour_client = \"cheep\"", "did you mean \"cheap\"?"),
        ("collapse_wait = \"2m\"", "site.cache.collapse_wait: must be at most 1m"),
        ("stale_if_error = \"a week\"", "site.cache.stale_if_error"),
    ] {
        let (code, text) = check(cache);
        assert!(code == 1 && text.contains(want), "{cache}: {text}");
    }
    let all = "profile = \"ghost\"\nmemory = \"8MiB\"\nmax_object = \"2MiB\"\ndefault_ttl = \"1m\"\nnegative = \"5s\"\n\
               heuristic = \"1h\"\nstale_if_error = \"7d\"\nstale_while_revalidate = \"1m\"\nquery = \"all\"\n\
               query_drop = [\"utm_*\"]\nquery_sort = true\nhonour_client = \"no\"\ncollapse_wait = \"0s\"";
    assert_eq!(check(all).0, 0, "{}", check(all).1);
}

#[test]
fn requests_are_explained() {
    let bed = Bed::new("profile = \"wordpress\"");
    bed.fresh("/a", "max-age=600", "a");
    let explained = |path: &str| bed.command(&format!("explain --live https://{BLOG}{path}"));
    assert!(explained("/a").contains("nothing is stored under this URL"), "{}", explained("/a"));
    bed.get("--http2", "/a", &[]);
    assert!(explained("/a").contains("a fresh response is stored"), "{}", explained("/a"));
    assert!(explained("/a").contains("answered from the cache"), "{}", explained("/a"));
    let asked = |path: &str, control: &str| {
        let mut command = bed.pintle.command("explain --live");
        output(command.arg(format!("https://{BLOG}{path}")).args(["-H", &format!("Cache-Control: {control}")]))
    };
    for (path, control, want) in [
        ("/a", "no-cache", "validate; the client asks for it"),
        ("/a", "no-cache", "forwarded to "),
        ("/a", "only-if-cached", "answered from the cache"),
        ("/b", "only-if-cached", "504: only-if-cached"),
    ] {
        assert!(asked(path, control).contains(want), "{path} {control}: {}", asked(path, control));
    }
    assert!(explained("/wp-admin/").contains("the profile never stores this path"));
    assert_eq!(bed.count("/a"), 1);
}

/// Parts with the same strong ETag become a whole page; others never meet.
#[test]
fn parts_are_put_together() {
    use crate::harness::{Origin, Reply};
    let whole: String = ('a'..='z').collect();
    let body = whole.clone();
    let origin = Origin::start(move |received| {
        let tag = match received.path() {
            "/weak" => "ETag: W/\"a\"\r\n".to_owned(),
            "/none" => String::new(),
            // Another page with each request.
            "/new" => format!("ETag: \"{}\"\r\n", received.field("range").unwrap_or_default()),
            _ => "ETag: \"a\"\r\n".to_owned(),
        };
        let fields = format!("Cache-Control: max-age=600\r\n{tag}");
        let range = received.field("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let Some((first, last)) = range.filter(|_| received.path() != "/whole") else {
            return Reply::new("200 OK", &fields, &body);
        };
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap_or(25));
        let fields = format!("{fields}Content-Range: bytes {first}-{last}/26\r\n");
        Reply::new("206 Partial Content", &fields, &body[first..=last])
    });
    let bed = Bed::before(origin, super::Pages::default(), "", "");
    let part = |version: &str, path: &str, range: &str| {
        let got = bed.get(version, path, &["--range", range]);
        let (first, last) = range.split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap_or(25));
        assert_eq!((got.status, got.body.as_str()), (206, &whole[first..=last]), "{path} {range}");
        assert_eq!(got.all("content-range"), [format!("bytes {first}-{last}/26")], "{path} {range}");
        assert_eq!(got.field("etag").is_some(), path != "/none");
        got
    };
    for version in VERSIONS {
        let path = format!("/{version}");
        let first = part(version, &path, "0-9");
        assert!(first.cache().contains("fwd=uri-miss") && first.cache().contains("stored"), "{first:?}");
        assert!(part(version, &path, "2-5").is_hit());
        let next = part(version, &path, "5-14");
        assert!(next.cache().contains("fwd=partial"), "{next:?}");
        assert!(part(version, &path, "0-14").is_hit() && part(version, &path, "9-10").is_hit());
        // A gap: what is missing is asked for, and the whole is not claimed.
        part(version, &path, "20-25");
        assert!(!part(version, &path, "14-20").is_hit());
        assert_eq!(bed.count(&path), 4);
        // A request for the whole is never answered with parts.
        let path = format!("/{version}/two");
        part(version, &path, "0-20");
        let got = bed.get(version, &path, &["-H", "Cache-Control: only-if-cached"]);
        assert_eq!(got.status, 504);
        part(version, &path, "21-");
        let got = bed.get(version, &path, &[]);
        assert!(got.is_hit() && got.body == whole && got.status == 200, "{got:?}");
        assert_eq!(bed.count(&path), 2);
        // Of several parts at once, and of parts with a condition, nothing is stored.
        let path = format!("/{version}/condition");
        bed.get(version, &path, &["--range", "0-9", "-H", "If-Range: \"a\""]);
        assert!(!part(version, &path, "0-9").is_hit());
    }
    for path in ["/weak", "/none"] {
        part("--http2", path, "0-9");
        assert!(!part("--http2", path, "0-9").is_hit(), "{path}");
    }
    part("--http2", "/new", "0-9");
    part("--http2", "/new", "10-");
    assert!(!part("--http2", "/new", "5-9").is_hit(), "the parts of another page are gone");
    // An origin that knows no ranges.
    let got = bed.get("--http2", "/whole", &["--range", "0-9"]);
    assert_eq!((got.status, got.body.as_str()), (200, whole.as_str()));
    let got = bed.get("--http2", "/whole", &["--range", "0-9"]);
    assert!(got.is_hit() && got.status == 206, "{got:?}");
    // A purge is for parts, too.
    part("--http2", "/purged", "0-9");
    assert_eq!(bed.command(&format!("purge https://{BLOG}/purged")), "1 response purged\n");
    assert!(!part("--http2", "/purged", "0-9").is_hit());
}
