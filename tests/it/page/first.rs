//! The first start: a process without a site serves its page alone, which leads to the first one.

use std::fs;

use serde_json::Value;

use super::config::send;
use crate::admin::{Bed, get};
use crate::harness::{BLOG, Pintle, outcome, output};

/// The text of a field, unescaped.
fn unescaped(text: &str) -> String {
    text.replace("&#34;", "\"").replace("&#39;", "'").replace("&#60;", "<").replace("&#62;", ">").replace("&#38;", "&")
}

/// The text between two others.
fn between<'t>(page: &'t str, begin: &str, end: &str) -> &'t str {
    page.split(begin).nth(1).unwrap_or_else(|| panic!("{begin}: {page}")).split(end).next().unwrap()
}

#[test]
fn a_page_without_a_site_leads_to_the_first_one() {
    let bed = Bed::new();
    let state = bed.socket().parent().unwrap().to_owned();
    let config = format!("[state]\ndirectory = {state:?}\n[admin]\nedit = true\n");
    let pintle = Pintle::start(&bed.authority, &config);
    let before = fs::read_to_string(pintle.config_path()).unwrap();
    let (code, out, err) = outcome(&mut pintle.command("check"));
    assert!(code == 0 && (out + &err).contains("no site is configured: pintle serves only its page"), "{code}");
    let page = get(&bed.socket(), "/");
    assert!(page.contains("<h1>No site yet</h1>") && page.contains("action=\"/first\""), "{page}");
    for path in
        ["/keys", "/config", "/doctor", "/logs", "/explain", "/fingerprint", "/v1/status", "/v1/sites", "/v1/rates"]
    {
        let page = get(&bed.socket(), path);
        assert!(!page.is_empty() && !page.contains("no such command"), "{path}: {page}");
    }
    // Nobody is served, and nothing hangs.
    let (code, _, _) = outcome(pintle.curl().arg(format!("https://{BLOG}/")));
    assert_ne!(code, 0);

    for (url, hosts, email, why) in [
        ("ftp://x", BLOG, "", "url: "),
        ("http://127.0.0.1:1/", BLOG, "", "cannot be reached"),
        (bed.origin.url().as_str(), "", "", "hosts: "),
        (bed.origin.url().as_str(), BLOG, "nobody", "email: "),
    ] {
        let (head, page) = send(&bed, "/first", &[("url", url), ("hosts", hosts), ("email", email)]);
        assert!(head.starts_with("http/1.1 422") && page.contains(why), "{url}: {head} {page}");
        assert!(page.contains(&format!("value=\"{hosts}\"")), "the answers stay: {page}");
    }
    let (head, page) = send(&bed, "/first", &[("url", &bed.origin.url()), ("hosts", BLOG)]);
    assert!(head.starts_with("http/1.1 200") && page.contains("The file that it would write"), "{head} {page}");
    assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), before, "nothing is written yet");
    // The file begins as it was, and has the lines of the command.
    let text = unescaped(between(&page, "aria-describedby=\"toml-hint\">\n", "</textarea>"));
    let printed = output(crate::harness::pintle().args(["init", &bed.origin.url(), "--host", BLOG, "--dry-run"]));
    assert!(text.starts_with(&before), "{text}");
    let lines = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    let own = lines(text.strip_prefix(&before).unwrap());
    let of_command: Vec<String> = lines(&printed.replace("[state]\ndirectory = \"state\"\n", ""));
    assert_eq!(
        own.iter().filter(|line| !line.is_empty()).collect::<Vec<_>>(),
        of_command
            .iter()
            .filter(|line| !line.is_empty() && !line.contains("directory =") && *line != "[state]")
            .collect::<Vec<_>>()
    );

    // The operator has a certificate, and puts its files into the text.
    let leaf = bed.authority.leaf("first", &[BLOG]);
    let pair = format!("[site.certificate]\nchain = {:?}\nkey = {:?}\n[site.hsts]", leaf.chain, leaf.key);
    let text = text.replacen("[site.hsts]", &pair, 1).replace('\n', "\r\n");
    let base = unescaped(between(&page, "name=\"base\" value=\"", "\""));
    let form =
        |what| [("base", base.as_str()), ("first", "1"), ("next", "first"), ("toml", text.as_str()), ("do", what)];
    let (head, page) = send(&bed, "/config", &form("apply"));
    assert!(head.starts_with("http/1.1 303") && head.contains("location: /\r\n"), "{head} {page}");
    assert_eq!(output(pintle.curl().arg(format!("https://{BLOG}/"))), "hello from the origin");
    assert!(get(&bed.socket(), "/").contains("The site is fine."));

    // From now on, a file without sites is a mistake.
    fs::write(pintle.config_path(), &before).unwrap();
    let (code, out, err) = outcome(&mut pintle.command("reload"));
    assert!(code == 1 && (out + &err).contains("no site is configured, but some are served"), "{code}");
    let ready: Value = serde_json::from_str(&get(&bed.socket(), "/v1/sites")).unwrap();
    assert_eq!(ready["all"], 1);
}

#[test]
fn without_a_page_that_edits_a_site_is_needed() {
    let bed = Bed::new();
    for (admin, is_fit) in [
        ("", false),
        ("[admin]\nedit = false\n", false),
        ("[admin]\nedit = true\n", false),
        ("[state]\ndirectory = \"state\"\n[admin]\nedit = true\n", true),
    ] {
        let file = bed.folder.path().join("pintle.toml");
        fs::write(&file, admin).unwrap();
        let (code, out, err) = outcome(crate::harness::pintle().args(["check", "-c"]).arg(&file));
        assert_eq!(code == 0, is_fit, "{admin}: {out}{err}");
        assert!(format!("{out}{err}").contains("no site is configured"), "{admin}: {out}{err}");
    }
}
