//! Tests of the rewriting on saved pages (tests/pages), and its properties.

use proptest::prelude::*;

use super::media::RewriteKind;
use super::names::tests::blog;
use super::rewriter::Rewriter;
use super::work;

const PAGES: [(&str, &str, RewriteKind); 9] = [
    ("wordpress.html", include_str!("../../tests/pages/wordpress.html"), RewriteKind::Html),
    ("ghost.html", include_str!("../../tests/pages/ghost.html"), RewriteKind::Html),
    ("blogger.html", include_str!("../../tests/pages/blogger.html"), RewriteKind::Html),
    ("feed.xml", include_str!("../../tests/pages/feed.xml"), RewriteKind::Feed),
    ("atom.xml", include_str!("../../tests/pages/atom.xml"), RewriteKind::Feed),
    ("export.xml", include_str!("../../tests/pages/export.xml"), RewriteKind::Feed),
    ("feed.json", include_str!("../../tests/pages/feed.json"), RewriteKind::Json),
    ("style.css", include_str!("../../tests/pages/style.css"), RewriteKind::Css),
    ("empty.html", "", RewriteKind::Html),
];
const KINDS: [RewriteKind; 5] =
    [RewriteKind::Html, RewriteKind::Xhtml, RewriteKind::Css, RewriteKind::Feed, RewriteKind::Json];

/// Returns a page before and after.
fn both(marked: &str) -> (String, String) {
    let (mut before, mut after) = (String::new(), String::new());
    for (n, part) in marked.split("[[").enumerate() {
        let (change, rest) = part.split_once("]]").filter(|(c, _)| n > 0 && c.starts_with(['+', '-'])).unzip();
        match (change, n) {
            (Some(change), _) if change.starts_with('+') => after.push_str(&change[1..]),
            (Some(change), _) => before.push_str(&change[1..]),
            (None, 0) => {}
            (None, _) => panic!("[[{part}"),
        }
        let rest = rest.unwrap_or(part);
        before.push_str(rest);
        after.push_str(rest);
    }
    (before, after)
}

fn rewritten(kind: RewriteKind, pieces: &[&[u8]]) -> (Vec<u8>, u64) {
    let (mut rewriter, mut out) = (Rewriter::new(kind, blog(), false), Vec::new());
    pieces.iter().for_each(|piece| rewriter.push(piece, &mut out));
    rewriter.finish(&mut out);
    (out, rewriter.references())
}

#[track_caller]
fn compare(found: &[u8], want: &str, what: &str) {
    let found = String::from_utf8_lossy(found);
    for (n, (found, want)) in found.lines().zip(want.lines()).enumerate() {
        assert_eq!(found, want, "{what}, line {}", n + 1);
    }
    assert_eq!(found, want, "{what}");
}

#[test]
fn saved_pages() {
    for (name, marked, kind) in PAGES {
        let (before, after) = both(marked);
        let (found, references) = rewritten(kind, &[before.as_bytes()]);
        compare(&found, &after, name);
        assert_eq!(
            references,
            marked.matches("[[+s]]").count() as u64 + marked.matches("https://[[-").count() as u64,
            "{name}"
        );
        compare(&rewritten(kind, &[after.as_bytes()]).0, &after, &format!("{name} once more"));
    }
}

#[test]
fn pieces_make_no_difference() {
    for (name, marked, kind) in PAGES {
        let (before, after) = both(marked);
        let bytes = before.as_bytes();
        for cut in 0..=bytes.len() {
            let found = rewritten(kind, &[&bytes[..cut], &bytes[cut..]]).0;
            assert!(
                found == after.as_bytes(),
                "{name} cut at {cut}: {}",
                String::from_utf8_lossy(&bytes[cut.saturating_sub(60)..cut])
            );
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        compare(&rewritten(kind, &single).0, &after, &format!("{name} by single bytes"));
    }
}

/// A pause of the upstream holds back no more than the tag, the URL or the name that is under way.
#[test]
fn what_is_complete_leaves() {
    let (mut rewriter, mut out) = (Rewriter::new(RewriteKind::Html, blog(), false), Vec::new());
    rewriter.push(b"<html><head><link href=http://blog.example/><title>a title</title></head> text <im", &mut out);
    assert_eq!(out, b"<html><head><link href=https://blog.example/><title>a title</title></head> text ");
}

#[test]
fn other_charsets_and_damage() {
    // Windows-1251, Shift_JIS with a backslash as a second byte, invalid UTF-8, a byte order mark.
    for bytes in [
        &b"<p>\xcf\xf0\xe8\xe2\xe5\xf2 <img alt='\xcf' src='http://blog.example/\xcf'>"[..],
        b"<p>\x83\x5c <img alt=\"\x83\x5c\" src='http://blog.example/'>",
        b"\xef\xbb\xbf<p>\xff\xfe\xc3 <img src='http://blog.example/\xc3'>",
    ] {
        let (found, references) = rewritten(RewriteKind::Html, &[bytes]);
        assert_eq!(references, 1);
        let at = found.windows(5).position(|w| w == b"https").unwrap() + 4;
        assert_eq!([&found[..at], &found[at + 1..]].concat(), bytes);
    }
    let utf16 = b"\xff\xfe<\0i\0m\0g\0 src='http://blog.example/'>";
    assert_eq!(rewritten(RewriteKind::Html, &[utf16]), (utf16.to_vec(), 0));
    assert_eq!(rewritten(RewriteKind::Html, &[&utf16[..1], &utf16[1..]]), (utf16.to_vec(), 0));
}

/// ISO-2022-JP that only `meta` names: from the first double-byte character on, or the first katakana, nothing changes.
#[test]
fn escape_sequences_end_the_rewriting() {
    for escape in [&b"\x1b$B"[..], b"\x1b(I"] {
        let before = b"<meta charset=iso-2022-jp>\x1b[1m<img src=http://blog.example/a><p>";
        let rest = [escape, b"<a href=\"http://blog.example/\">\x1b(B<img src=http://blog.example/b>"].concat();
        let page = [&before[..], &rest].concat();
        let want = [&b"<meta charset=iso-2022-jp>\x1b[1m<img src=https://blog.example/a><p>"[..], &rest].concat();
        for cut in 0..=page.len() {
            let found = rewritten(RewriteKind::Html, &[&page[..cut], b"", &page[cut..]]);
            assert!(found == (want.clone(), 1), "cut at {cut}: {}", String::from_utf8_lossy(&found.0));
        }
    }
}

/// Each byte is read a bounded number of times, whatever the text repeats.
#[test]
fn the_cost_is_linear() {
    let (many, long) = (8000, "x".repeat(50_000));
    for (name, kind, text) in [
        ("JSON", RewriteKind::Json, format!("{{\"a\":\"{}", "='http:".repeat(many))),
        ("a feed", RewriteKind::Feed, format!("<rss><description>{}", "=&quot;http:".repeat(many))),
        ("a script", RewriteKind::Html, format!("<script>{}", r#"\"http:\/\/"#.repeat(many))),
        ("long names", RewriteKind::Json, format!("{{\"a\":\"{}", format!("='http://{long:.300}").repeat(200))),
        ("comments", RewriteKind::Html, "<!---->".repeat(many)),
        ("other comments", RewriteKind::Html, "<!----!>".repeat(many)),
        ("a meta", RewriteKind::Html, format!("<meta property={long} {}>", "content='http:xy' ".repeat(250))),
        ("a link", RewriteKind::Html, format!("<link rel={long} {}>", "href='http:xy' ".repeat(250))),
    ] {
        let (_, work) = work::count(|| rewritten(kind, &[text.as_bytes()]));
        assert!(work > 0 && work <= 16 * text.len(), "{name}: {work} for {} bytes", text.len());
    }
}

#[test]
fn inline_contents_stay_if_a_policy_has_their_hashes() {
    let page = "<style>a{b:url(http://blog.example/)}</style><script>\"http:\\/\\/blog.example\"</script><p style='a:url(http://blog.example/)'><img src=http://blog.example/>";
    let (mut rewriter, mut out) = (Rewriter::new(RewriteKind::Html, blog(), true), Vec::new());
    rewriter.push(page.as_bytes(), &mut out);
    rewriter.finish(&mut out);
    compare(&out, &page.replace("<img src=http:", "<img src=https:"), "page");
}

#[test]
fn long_tags_and_values() {
    let long = "x".repeat(200_000);
    let check = |page: String, want: &str| {
        let pieces: Vec<&[u8]> = page.as_bytes().chunks(4096).collect();
        let (whole, in_pieces) =
            (rewritten(RewriteKind::Html, &[page.as_bytes()]).0, rewritten(RewriteKind::Html, &pieces).0);
        assert!(whole == in_pieces, "pieces");
        assert_eq!(String::from_utf8(whole).unwrap().replace(&long, "LONG"), want);
    };
    check(
        format!(
            "<img src=http://blog.example/a alt='{long}' data-src=http://blog.example/b><img src=http://blog.example/c>"
        ),
        "<img src=https://blog.example/a alt='LONG' data-src=http://blog.example/b><img src=https://blog.example/c>",
    );
    check(format!("<style>{long}url(http://blog.example/)"), "<style>LONGurl(http://blog.example/)");
    check(
        format!("<img src='http://{long}'><img src=http://blog.example/>"),
        "<img src='http://LONG'><img src=https://blog.example/>",
    );
    check(
        format!("<script type=importmap {long}>\"http://blog.example\"</script>"),
        "<script type=importmap LONG>\"http://blog.example\"</script>",
    );
}

/// Pieces of text that mean something to one of the scanners.
const WORDS: [&str; 43] = [
    "http://blog.example/",
    "http:\\/\\/blog.example\\/",
    "http://evil.example/",
    "http://",
    "='http:",
    r#"\"http:\/\/"#,
    "\u{1b}$B",
    "blog.example",
    "<",
    ">",
    "\"",
    "'",
    "=",
    " ",
    "/",
    "&quot;",
    "&#47;",
    "\\",
    "<!--",
    "-->",
    "<script>",
    "</script>",
    "<style>",
    "</style>",
    "<img src=",
    "<a href='",
    "<svg>",
    "</svg>",
    "<![CDATA[",
    "]]>",
    "url(",
    ")",
    "@import ",
    "/*",
    "*/",
    ";",
    "<rss><link>",
    "</link>",
    "srcset=\"",
    "1x, ",
    "<meta http-equiv=refresh content='0;url=",
    "{\"a\":\"",
    "\u{e9}\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_text(
        words in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        kind in prop::sample::select(&KINDS[..]),
    ) {
        let text = words.concat().into_bytes();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).chain([0, text.len()]).collect();
        ends.sort_unstable();
        let pieces: Vec<&[u8]> = ends.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        let (whole, references) = rewritten(kind, &[&text]);
        let (in_pieces, _) = rewritten(kind, &pieces);
        prop_assert_eq!(String::from_utf8_lossy(&whole), String::from_utf8_lossy(&in_pieces), "pieces {:?}", ends);
        // Only own references change, each by one letter.
        prop_assert_eq!(whole.len(), text.len() + usize::try_from(references).unwrap());
        let plain = |text: &[u8]| String::from_utf8_lossy(text).replace("https:", "http:");
        prop_assert_eq!(plain(&whole), plain(&text));
        prop_assert_eq!(&rewritten(kind, &[&whole]).0, &whole, "once more");
        let strange = String::from_utf8(text).unwrap().replace("blog", "evil").into_bytes();
        prop_assert_eq!(&rewritten(kind, &[&strange]).0, &strange);
    }
}
