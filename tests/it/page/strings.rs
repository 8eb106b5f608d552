//! Strings of strangers on every page: subjects, reports, requests, answers of upstreams, versions by git, questions. A page
//! that a link leads to is looked at, too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use rcgen::DnType;

use crate::admin::{Bed, get};
use crate::harness::{Authority, BLOG, KeyKind, Origin, Pintle, Reply, eventually, output};

/// Markup, ends of attributes in both quotes, and characters that reorder a line or control a terminal.
const EVIL: &str =
    "<script>hurt()</script>\"><img src=x onerror=hurt()>' onfocus='hurt()' &quot;\u{202e}\u{2066}\u{200f}";
/// The same for texts that may have control characters.
const EVIL_CONTROL: &str = "<script>hurt()</script>\"><svg onload=hurt()>\u{1b}[31m\u{7}\u{202e}";
/// The parameters of all pages.
const PARAMETERS: [&str; 19] = [
    "q", "find", "line", "version", "before", "host", "site", "key", "day", "form", "url", "from", "fields", "method",
    "pin", "status", "state", "applied", "role",
];
/// The most pages to look at.
const PAGES_MAX: usize = 80;

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// A tag of a page: its name and its attributes' names, as a browser reads them.
struct Tag {
    name: String,
    attributes: Vec<String>,
}

/// The tags of a page, and its texts outside of editors.
fn parse(html: &str) -> (Vec<Tag>, String) {
    let (mut tags, mut texts, mut rest, mut in_editor) = (Vec::new(), String::new(), html, false);
    while let Some((text, behind)) = rest.split_once('<') {
        if !in_editor {
            texts += text;
        }
        let (mut inside, mut quote, mut end) = (String::new(), None, behind.len());
        for (at, c) in behind.char_indices() {
            match (quote, c) {
                (None, '>') => {
                    end = at + 1;
                    break;
                }
                (None, '"' | '\'') => quote = Some(c),
                (Some(open), c) if c == open => quote = None,
                // Values do not matter here.
                (Some(_), _) => {}
                (None, c) => inside.push(c),
            }
        }
        rest = &behind[end..];
        let mut words = inside.split_whitespace();
        let name = words.next().unwrap_or_default().to_ascii_lowercase();
        in_editor = name == "textarea" || in_editor && name != "/textarea";
        let attributes = words.map(|word| word.split('=').next().unwrap_or_default().to_ascii_lowercase());
        tags.push(Tag { name, attributes: attributes.collect() });
    }
    (tags, texts + rest)
}

/// Holds a page against the rules: no tag and no attribute of a stranger, nothing inline, no character that reorders.
#[track_caller]
fn hold(path: &str, html: &str) {
    assert!(html.starts_with("<!doctype html>"), "{path}: {html}");
    let (tags, texts) = parse(html);
    for Tag { name, attributes } in &tags {
        assert!(!["img", "iframe", "object", "embed", "style", "base"].contains(&name.as_str()), "{path}: <{name}>");
        let is_ours = name != "script" || attributes.contains(&"src".to_owned());
        assert!(is_ours, "{path}: an inline script: {html}");
        let bad = attributes.iter().find(|name| name.starts_with("on") || *name == "style" || name.contains('<'));
        assert_eq!(bad, None, "{path}: <{name}>: {html}");
    }
    let spoils = |c: char| c.is_control() && !"\n\r\t".contains(c) || "\u{202e}\u{2066}\u{200f}".contains(c);
    let found = texts.chars().find(|c| spoils(*c));
    assert_eq!(found, None, "{path}: {texts}");
}

/// The paths that a page leads to, on this host.
fn links(html: &str) -> BTreeSet<String> {
    let links = html.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let own = links.filter(|link| link.starts_with('/') && !link.starts_with("/assets/"));
    own.map(|link| link.split('#').next().unwrap_or_default().replace("&amp;", "&").replace("&#38;", "&")).collect()
}

/// Looks at all pages that links lead to, and returns their texts.
fn visit_all(socket: &Path) -> Vec<(String, String)> {
    let (mut seen, mut waiting, mut pages) = (BTreeSet::new(), vec!["/".to_owned()], Vec::new());
    while let Some(path) = waiting.pop() {
        if pages.len() >= PAGES_MAX || !seen.insert(path.clone()) {
            continue;
        }
        let html = get(socket, &path);
        // Exports and files are no pages.
        if !html.starts_with("<!doctype html>") {
            continue;
        }
        hold(&path, &html);
        waiting.extend(links(&html));
        pages.push((path, html));
    }
    pages
}

/// A process with strings of strangers wherever they can come from.
fn planted(bed: &Bed) -> Pintle {
    let authority = Authority::named(EVIL);
    let key = authority.key("blog", KeyKind::Ecdsa);
    let leaf = authority.issue_as("blog", key, &[BLOG], |params| {
        params.distinguished_name.push(DnType::CommonName, EVIL);
        params.distinguished_name.push(DnType::OrganizationName, EVIL_CONTROL);
    });
    let origin = Origin::start(|_| Reply::new("200 OK", &format!("Server: {EVIL}\r\nX-Evil: {EVIL}\r\n"), EVIL));
    let config = format!(
        "# {EVIL}\n[state]\ndirectory = {:?}\n[admin]\nedit = true\n[reports]\nhost = \"{BLOG}\"\npath = \"/pins\"\n\
         [[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n[site.request_headers]\nset = {{ \"X-Evil\" = '''{}''' }}\n\
         [site.certificate]\nchain = {:?}\nkey = {:?}\n{}",
        bed.folder.path().join("state"),
        origin.url(),
        "<script>hurt()</script>\"><img src=x onerror=hurt()>",
        leaf.chain,
        leaf.key,
        crate::harness::policies(&bed.authority),
    );
    let pintle = Pintle::start(&bed.authority, &config);
    let mut visit = pintle.curl();
    visit.args(["-k", "-o", "/dev/null", "-A", EVIL, "-e", EVIL]);
    output(visit.arg(format!("https://{BLOG}/{}?{}", encoded(EVIL_CONTROL), encoded(EVIL))));
    let quoted = serde_json::to_string(EVIL_CONTROL).unwrap();
    for (host, noted) in [(quoted.trim_matches('"'), BLOG), (BLOG, quoted.trim_matches('"'))] {
        output(
            crate::reports::post(&pintle, &format!("https://{BLOG}/pins"), &crate::reports::report(host, noted))
                .arg("-k"),
        );
    }
    // A version of somebody else, by git.
    let clone = bed.folder.path().join("clone");
    let repository = bed.folder.path().join("state/config.git");
    let mut file = std::path::PathBuf::new();
    eventually("a version is kept", || {
        let _ = fs::remove_dir_all(&clone);
        let mut git = git(bed.folder.path());
        git.args(["clone", "-q"]).arg(&repository).arg(&clone);
        let cloned = git.output().unwrap().status.success();
        file = clone.join("pintle.toml");
        (cloned && file.exists()).then_some(())
    });
    fs::write(&file, fs::read_to_string(&file).unwrap() + &format!("# {EVIL}\n")).unwrap();
    let author = format!("user.name={}", EVIL.replace(['<', '>'], "("));
    output(git(&clone).args(["-c", &author, "-c", "user.email=x@y", "commit", "-q", "-a", "-m", EVIL]));
    output(git(&clone).args(["push", "-q"]));
    pintle
}

fn git(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(["-c", "safe.directory=*", "-c", "protocol.file.allow=always"]);
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", folder);
    git
}

#[test]
fn strings_of_strangers_stay_texts_on_every_page() {
    let bed = Bed::new();
    let pintle = planted(&bed);
    let socket = bed.socket();
    eventually("the request is in the log", || get(&socket, "/logs").contains(&encoded("<script>")).then_some(()));
    let pages = visit_all(&socket);
    // The strings are there, as texts.
    for (page, what) in [
        (format!("/site/{BLOG}"), "&#60;img src=x"),
        ("/logs".to_owned(), "%3c%73%63%72%69%70%74"),
        ("/config".to_owned(), "&#60;script&#62;hurt()"),
    ] {
        let (_, html) =
            pages.iter().find(|(path, _)| *path == page).unwrap_or_else(|| panic!("no link leads to {page}"));
        assert!(html.replace("&lt;", "&#60;").replace("&gt;", "&#62;").contains(what), "{page}: {html}");
    }
    assert!(pages.iter().any(|(path, html)| path.starts_with("/config?version=") && html.contains("hurt()")));
    // Each page with all questions at once, and one at a time.
    let paths: BTreeSet<&str> = pages.iter().filter_map(|(path, _)| path.split('?').next()).collect();
    assert!(paths.len() >= 8, "{paths:?}");
    for path in paths {
        for evil in [EVIL, EVIL_CONTROL] {
            let evil = encoded(evil);
            let all: Vec<String> = PARAMETERS.iter().map(|name| format!("{name}={evil}")).collect();
            let alone = if path.starts_with("/site/") || path == "/logs" { all.clone() } else { Vec::new() };
            for query in alone.into_iter().chain([all.join("&")]) {
                let asked = format!("{path}?{query}");
                hold(&asked, &get(&socket, &asked));
            }
            let below = format!("{}/{evil}", path.trim_end_matches('/'));
            hold(&below, &get(&socket, &below));
        }
    }
    // Forms.
    for (path, fields) in [
        ("/login", vec![("name", EVIL), ("password", EVIL)]),
        (
            "/config",
            vec![("toml", EVIL), ("do", "check"), ("base", EVIL), ("first", "1"), ("count", "9999"), ("all", EVIL)],
        ),
        ("/config", vec![("toml", EVIL_CONTROL), ("do", "apply"), ("base", EVIL), ("first", EVIL), ("fix", EVIL)]),
        ("/config/restore", vec![("id", EVIL), ("base", EVIL)]),
        ("/fingerprint", vec![("text", EVIL)]),
        ("/keys", vec![("site", EVIL), ("role", EVIL), ("algorithm", EVIL)]),
    ] {
        let (_, html) = super::config::send(&bed, path, &[&[("csrf", "")], &fields[..]].concat());
        hold(path, &html);
    }
    assert_eq!(pintle.status()["pid"], pintle.pid());
}
