//! WordPress behind a cache: its author, its readers, and the day on which its database stops.

use std::fs;

use super::wordpress::{PASSWORD, USER, WordPress, install};
use crate::harness::{Authority, BLOG, Pintle, blog_at, eventually, output};

/// A reader, with the head of the answer before the page.
fn read(pintle: &Pintle, path: &str) -> String {
    output(pintle.curl().args(["--include", "--compressed", "--max-time", "60"]).arg(format!("https://{BLOG}{path}")))
}

fn is_hit(page: &str) -> bool {
    page.to_lowercase().contains("cache-status: pintle; hit")
}

#[test]
fn a_blog_with_its_author_its_readers_and_no_database() {
    let authority = Authority::new();
    let mut wordpress = WordPress::start(authority.folder());
    let config = format!(
        "[state]\ndirectory = {:?}\n{}[site.cache]\nprofile = \"wordpress\"\nstale_if_error = \"7d\"\n",
        authority.folder().join("state"),
        blog_at(&authority, &format!("http://127.0.0.1:{}", wordpress.port))
    );
    let pintle = Pintle::start(&authority, &config);
    let curl = |arguments: &[&str], path: &str| {
        output(pintle.curl().args(["--max-time", "60"]).args(arguments).arg(format!("https://{BLOG}{path}")))
    };
    install(&curl);

    // Readers share pages, though WordPress says nothing about caches.
    for path in ["/", "/?p=1", "/?feed=rss2"] {
        let (first, second) = (read(&pintle, path), read(&pintle, path));
        assert!(!is_hit(&first) && is_hit(&second), "{path}: {first}");
        assert!(second.contains("Hello world!") && !second.to_lowercase().contains("cache-control:"), "{second}");
    }

    // The author has pages of their own, and readers none of them.
    let jar = authority.folder().join("cookies");
    let jar = jar.to_str().unwrap();
    let (log, password) = (format!("log={USER}"), format!("pwd={PASSWORD}"));
    let credentials = ["--data-urlencode", &log, "--data-urlencode", &password, "--data", "testcookie=1"];
    let cookies = ["--cookie-jar", jar, "--cookie", "wordpress_test_cookie=WP%20Cookie%20check"];
    curl(&[&cookies[..], &credentials[..]].concat(), "/wp-login.php");
    assert!(fs::read_to_string(jar).unwrap().contains("wordpress_logged_in_"));
    for _ in 0..2 {
        let own = curl(&["--include", "--cookie", jar], "/");
        assert!(own.contains("wpadminbar") && !is_hit(&own), "{own}");
        let page = read(&pintle, "/");
        assert!(!page.contains("wpadminbar") && page.contains("Hello world!"), "{page}");
    }

    // A post is published: readers see it at once.
    let nonce = curl(&["--cookie", jar], "/wp-admin/admin-ajax.php?action=rest-nonce");
    let nonce = format!("X-WP-Nonce: {nonce}");
    let rest = |path: &str, body: &str| {
        let json = ["--cookie", jar, "-H", &nonce, "-H", "Content-Type: application/json", "--data", body];
        curl(&json, &format!("/?rest_route=/wp/v2/{path}"))
    };
    assert!(is_hit(&read(&pintle, "/")));
    let posted = rest("posts", r#"{"title":"A new post","content":"Fresh words","status":"publish"}"#);
    assert!(posted.contains("\"status\":\"publish\""), "{posted}");
    let page = read(&pintle, "/");
    assert!(page.contains("A new post") && !is_hit(&page), "{page}");
    assert!(is_hit(&read(&pintle, "/")));

    // A comment waits for the author. Once it is approved, readers see it.
    let comment = |text: &str| {
        let text = format!("comment={text}");
        let fields = ["--data", "comment_post_ID=1&author=Reader&email=reader@example.com", "--data-urlencode", &text];
        curl(&[&["--include"][..], &fields[..]].concat(), "/wp-comments-post.php")
    };
    assert!(is_hit(&read(&pintle, "/?p=1")) || is_hit(&read(&pintle, "/?p=1")));
    let held = comment("held for the author");
    assert!(held.contains(" 302"), "{held}");
    assert!(!read(&pintle, "/?p=1").contains("held for the author"));
    let approved = rest("comments/2", r#"{"status":"approved"}"#);
    assert!(approved.contains("\"status\":\"approved\""), "{approved}");
    // Changes in quick succession are one purge.
    eventually("the comment", || read(&pintle, "/?p=1").contains("held for the author").then_some(()));
    // One that needs no approval is there for the next reader.
    wordpress.sql("UPDATE wordpress.wp_options SET option_value = 0 WHERE option_name = 'comment_previously_approved'");
    wordpress.sql("UPDATE wordpress.wp_comments SET comment_date_gmt = '2020-01-01 00:00:00'");
    assert!(is_hit(&read(&pintle, "/?p=1")));
    let at_once = comment("shown at once");
    assert!(at_once.contains(" 302"), "{at_once}");
    assert!(read(&pintle, "/?p=1").contains("shown at once"));

    // The database stops. Whatever readers have seen is still there, also after a restart.
    let seen = ["/", "/?p=1", "/?feed=rss2"];
    seen.iter().for_each(|path| _ = read(&pintle, path));
    wordpress.stop_database();
    output(&mut pintle.command(&format!("purge --soft --site {BLOG}")));
    let all_are_there = |pintle: &Pintle| {
        for path in seen {
            let page = read(pintle, path);
            assert!(page.starts_with("HTTP/2 200") && page.contains("Hello world!"), "{path}: {page}");
            assert!(page.contains("detail=stale-if-error"), "{path}: {page}");
        }
    };
    all_are_there(&pintle);
    let own = curl(&["--include", "--cookie", jar], "/");
    assert!(own.starts_with("HTTP/2 500") && !own.contains("Hello world!"), "{own}");
    assert_eq!(pintle.stop(), 0);
    let pintle = Pintle::start(&authority, &config);
    all_are_there(&pintle);

    // It starts again: readers get new pages.
    wordpress.start_database();
    eventually("the front page is fresh", || {
        let page = read(&pintle, "/");
        (page.contains("A new post") && !page.contains("stale-if-error")).then_some(())
    });
}
