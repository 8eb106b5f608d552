//! The page Configuration: check, fix, apply, concurrent edits, history.

use std::fs;
use std::process::Command;

use crate::admin::{Bed, get};
use crate::harness::{BLOG, KeyKind, Leaf, Pintle, outcome, output};

/// The setting without which the page changes nothing.
const EDIT: &str = "[admin]\nedit = true\n";

/// A form, as a browser sends it. Returns the status line with its fields, and the page.
pub(super) fn send(bed: &Bed, path: &str, fields: &[(&str, &str)]) -> (String, String) {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-i", "--unix-socket"]).arg(bed.socket());
    for (name, value) in fields {
        curl.arg("--data-urlencode").arg(format!("{name}={value}"));
    }
    let out = output(curl.arg(format!("http://localhost{path}")));
    let (head, page) = out.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), page.to_owned())
}

/// The value of a hidden field, unescaped.
fn field(page: &str, name: &str) -> String {
    let rest = page.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap_or_else(|| panic!("{name}: {page}"));
    rest.split('"').next().unwrap().replace("&#34;", "\"").replace("&quot;", "\"")
}

/// The text of the editor with another word, and the hidden fields of the form.
fn edit<'f>(
    page: &'f str,
    text: &'f str,
    what: &'f str,
    fields: &'f mut Vec<(String, String)>,
) -> Vec<(&'f str, &'f str)> {
    *fields = ["base", "first", "count", "all"].map(|name| (name.to_owned(), field(page, name))).to_vec();
    let mut form: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    form.extend([("csrf", ""), ("toml", text), ("do", what)]);
    form
}

/// Commands and keys within a hint look like code, here as on all pages.
#[test]
fn hints_have_no_visible_backticks() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(&format!("{EDIT}[log]\nrecent = 10\n")));
    let text = fs::read_to_string(pintle.config_path()).unwrap().replace("recent = 10", "recent = true");
    let page = get(&bed.socket(), "/config");
    let (_, page) = send(&bed, "/config", &edit(&page, &text, "check", &mut Vec::new()));
    assert!(page.contains("<code>pintle man pintle.toml</code> describes log.recent"), "{page}");
    // A refusal of the page Keys, and one of Install.
    let (_, keys) = send(&bed, "/keys", &[("csrf", ""), ("site", "nobody.example"), ("role", "next")]);
    let (_, install) =
        send(&bed, "/install", &[("csrf", ""), ("site", BLOG), ("chain", "-"), ("base", "x"), ("do", "try")]);
    for page in [&page, &keys, &install, &get(&bed.socket(), "/install")] {
        let shown: String = page.split("<textarea").map(|part| part.split("</textarea>").last().unwrap()).collect();
        assert!(!shown.contains('`'), "{shown}");
    }
}

#[test]
fn a_text_is_checked_mended_and_applied() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(&format!("{EDIT}[limits]\nidle = \"70s\"\n")));
    let before = fs::read_to_string(pintle.config_path()).unwrap();
    let page = get(&bed.socket(), "/config");
    assert!(page.contains("<h1>Configuration</h1>") && page.contains("idle = &#34;70s&#34;"), "{page}");
    assert!(page.len() < 60 << 10 && !page.contains("style="), "{}", page.len());
    let mut fields = Vec::new();

    // A browser ends lines with CR LF.
    let wrong = before.replace("idle = ", "idlex = ").replace('\n', "\r\n");
    let (head, page) = send(&bed, "/config", &edit(&page, &wrong, "check", &mut fields));
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(
        page.contains("unknown key") && page.contains("class=\"hit\"") && page.contains("Change to idle"),
        "{page}"
    );
    assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), before);

    // The button of the hint, and a refused attempt.
    let mut form = edit(&page, &wrong, "check", &mut fields);
    let fix = field(&page, "fix");
    form.retain(|(name, _)| *name != "do");
    form.push(("fix", &fix));
    let (_, mended) = send(&bed, "/config", &form);
    assert!(mended.contains("Can be applied") && mended.contains("idle = &#34;70s&#34;"), "{mended}");
    let mut fields = Vec::new();
    let (head, refused) = send(&bed, "/config", &edit(&page, &wrong, "apply", &mut fields));
    assert!(head.starts_with("http/1.1 409") && refused.contains("Not applied"), "{head}");
    assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), before);

    let right = before.replace("70s", "80s").replace('\n', "\r\n");
    let (head, _) = send(&bed, "/config", &edit(&page, &right, "apply", &mut fields));
    assert!(head.starts_with("http/1.1 303") && head.contains("location: /config?applied="), "{head}");
    assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), before.replace("70s", "80s"));
    let page = get(&bed.socket(), "/config");
    assert!(page.contains("apply: limits.idle has changed") && page.contains("Running"), "{page}");

    // A link of somebody else claims nothing.
    let page = get(&bed.socket(), "/config?applied=deadbeef");
    assert!(page.contains("<h1>Configuration</h1>") && !page.contains("pintle serves this text now"), "{page}");
    let page = get(&bed.socket(), "/config?version=deadbeef");
    assert!(page.contains("This version cannot be shown") && page.contains("deadbeef"), "{page}");

    // Back to the first version.
    let id = page.split("/config?version=").last().unwrap().split('#').next().unwrap().to_owned();
    let page = get(&bed.socket(), &format!("/config?version={id}"));
    assert!(page.contains("Bring back"), "{page}");
    let (_, back) = page.split_once("What bringing it back would change").unwrap_or_else(|| panic!("{page}"));
    assert!(back.contains("<del>-idle = &#34;80s&#34;") && back.contains("<ins>+idle = &#34;70s&#34;"), "{back}");
    let base = field(&page, "base");
    let (head, page) = send(&bed, "/config/restore", &[("csrf", ""), ("id", &id), ("base", &base)]);
    assert!(head.starts_with("http/1.1 303"), "{head} {page}");
    assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), before);
}

/// Both edits stay: the file keeps one, the page the other.
#[test]
fn somebody_elses_edit_is_not_overwritten() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(&format!("{EDIT}[limits]\nidle = \"70s\"\n")));
    let before = fs::read_to_string(pintle.config_path()).unwrap();
    let page = get(&bed.socket(), "/config");
    let edited = format!("# by an editor\n{before}");
    fs::write(pintle.config_path(), &edited).unwrap();
    let mine = before.replace("70s", "80s");
    let mut fields = Vec::new();
    let (head, page) = send(&bed, "/config", &edit(&page, &mine, "apply", &mut fields));
    assert!(
        head.starts_with("http/1.1 412") && page.contains("somebody else has changed the file meanwhile"),
        "{head}"
    );
    assert!(page.contains("idle = &#34;80s&#34;"), "{page}");
    // "Apply" would remove the line of the editor: the page shows it.
    let (_, difference) = page.split_once("Difference from the file as it is now").unwrap_or_else(|| panic!("{page}"));
    assert!(difference.contains("<del>-# by an editor") && difference.contains("idle = &#34;80s&#34;"), "{difference}");
    assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), edited);
    // The new page knows the new file: applied on purpose.
    let (head, _) = send(&bed, "/config", &edit(&page, &mine, "apply", &mut fields));
    assert!(head.starts_with("http/1.1 303"), "{head}");
    assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), mine);
}

/// "Check" and "Apply" give the same verdict: a certificate that was refused before delays no other change.
#[test]
fn a_site_without_a_fit_certificate_delays_no_edit() {
    let bed = Bed::new();
    let Leaf { chain, key, .. } = bed.authority.leaf_of("shop", &["shop.example"], KeyKind::Ecdsa, -30, -1);
    let shop = format!("[[site]]\nhosts = [\"shop.example\"]\nupstream = \"{}\"\n", bed.origin.url());
    let shop = format!("{shop}[site.certificate]\nchain = {chain:?}\nkey = {key:?}\n");
    let config = bed.config(&format!("{EDIT}[limits]\nidle = \"70s\"\n"));
    let pintle = Pintle::start(&bed.authority, &format!("{config}\n{shop}"));
    pintle.logs("site without a certificate");
    let before = fs::read_to_string(pintle.config_path()).unwrap();
    let text = before.replace("70s", "80s");
    let mut fields = Vec::new();
    let page = get(&bed.socket(), "/config");
    let (_, checked) = send(&bed, "/config", &edit(&page, &text, "check", &mut fields));
    assert!(checked.contains("Can be applied") && checked.contains("expired on"), "{checked}");
    let mut fields = Vec::new();
    let (head, page) = send(&bed, "/config", &edit(&checked, &text, "apply", &mut fields));
    assert!(head.starts_with("http/1.1 303"), "{head} {page}");
    // A certificate that is unfit only now is refused by both.
    let worse = text.replacen("chain = \"", "chain = \"/nowhere", 1);
    let page = get(&bed.socket(), "/config");
    for what in ["check", "apply"] {
        let mut fields = Vec::new();
        let (_, page) = send(&bed, "/config", &edit(&page, &worse, what, &mut fields));
        assert!(page.contains("cannot be applied"), "{what}: {page}");
    }
}

#[test]
fn texts_from_outside_are_escaped_and_long_files_are_edited_in_parts() {
    let bed = Bed::new();
    let lines: String = (0..2000).map(|n| format!("# line {n} </textarea><script>alert({n})</script>\n")).collect();
    let pintle = Pintle::start(&bed.authority, &bed.config(&format!("{lines}{EDIT}[limits]\nidle = \"70s\"\n")));
    let before = fs::read_to_string(pintle.config_path()).unwrap();
    for path in ["/config", "/config?find=idle", "/config?line=1500", "/config?line=x&find=%3Cscript%3E"] {
        let page = get(&bed.socket(), path);
        assert!(page.len() < 60 << 10, "{path}: {}", page.len());
        assert!(!page.contains("</textarea><script>") && !page.contains("<script>"), "{path}");
        assert!(page.contains("name=\"find\""), "{path}");
    }
    let page = get(&bed.socket(), "/config?find=idle%20%3D");
    let (first, count): (usize, usize) =
        (field(&page, "first").parse().unwrap(), field(&page, "count").parse().unwrap());
    let part: Vec<&str> = before.split('\n').skip(first - 1).take(count).collect();
    let part = part.join("\n");
    assert!(part.contains("idle = \"70s\""), "{first} {count}");
    let mut fields = Vec::new();
    let changed = part.replace("70s", "80s");
    let (head, page) = send(&bed, "/config", &edit(&page, &changed, "apply", &mut fields));
    assert!(head.starts_with("http/1.1 303"), "{head} {page}");
    assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), before.replace("70s", "80s"));
}

/// A text that was shown whole comes back whole, however long it has become: nothing of it is lost, and nothing is mixed with
/// the file.
#[test]
fn an_edit_that_makes_the_text_long_stays_whole() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(&format!("{EDIT}[limits]\nidle = \"70s\"\n")));
    let before = fs::read_to_string(pintle.config_path()).unwrap();
    let more: String = (0..600).map(|n| format!("# comment {n} of somebody who explains a lot\n")).collect();
    let text = format!("{}{more}", before.replace("70s", "80s"));
    let mut page = get(&bed.socket(), "/config");
    for what in ["check", "check", "apply"] {
        let mut fields = Vec::new();
        let (head, next) = send(&bed, "/config", &edit(&page, &text, what, &mut fields));
        if what == "apply" {
            assert!(head.starts_with("http/1.1 303"), "{head} {next}");
            break;
        }
        assert_eq!(next.matches("# comment 599 of").count(), 2, "in the editor, and behind it");
        assert!(next.contains("idle = &#34;80s&#34;"), "{next}");
        page = next;
    }
    assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), text);
}

/// The answer to a check has a bound, too: problems and differences are many, or long.
#[test]
fn verdicts_are_short_pages() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(EDIT));
    let before = fs::read_to_string(pintle.config_path()).unwrap();
    let page = get(&bed.socket(), "/config");
    let wrong = |n: usize| format!("{}{before}", (0..n).map(|n| format!("wrong_{n} = 1\n")).collect::<String>());
    for (text, words) in [
        (wrong(300), "more: <code>pintle check</code> has them all"),
        (format!("# {}\n{before}", "<".repeat(1500)), "Can be applied"),
    ] {
        let mut fields = Vec::new();
        let (_, page) = send(&bed, "/config", &edit(&page, &text, "check", &mut fields));
        assert!(page.contains(words) && page.len() < 60 << 10, "{}: {page}", page.len());
    }
}

/// The names in the folder of the configuration.
fn names(pintle: &Pintle) -> Vec<String> {
    let folder = pintle.config_path().parent().unwrap().to_owned();
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The answer to PUT /v1/config, with the status code at its end.
fn put(bed: &Bed, tag: &str, text: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-X", "PUT", "-w", "\n%{http_code}", "--unix-socket"]).arg(bed.socket());
    curl.arg("-H").arg(format!("If-Match: {tag}")).args(["--data-binary", text, "http://localhost/v1/config"]);
    output(&mut curl)
}

/// `admin.edit` is the permission: in the sandbox, which lets the process make logs in the folder, and without one.
#[test]
fn without_its_permission_the_process_changes_and_leaves_nothing() {
    for sandbox in ["", "landlock = \"off\"\nseccomp = \"off\"\n"] {
        let bed = Bed::new();
        let config = bed.config(&format!("[sandbox]\n{sandbox}[log]\naccess = \"access.log\"\n"));
        let pintle = Pintle::start(&bed.authority, &config);
        let (before, there) = (fs::read_to_string(pintle.config_path()).unwrap(), names(&pintle));
        let mut shown = serde_json::Value::Null;
        for _ in 0..2 {
            shown = serde_json::from_str(&get(&bed.socket(), "/v1/config")).unwrap();
            let hints = shown["not_writable"]["hints"].to_string();
            assert_eq!(shown["writable"], false, "{shown}");
            assert!(hints.contains("edit = true in [admin]") && hints.contains("pintle config apply FILE"), "{shown}");
            let page = get(&bed.socket(), "/config");
            assert!(page.contains("edit = true in [admin]"), "{page}");
            assert_eq!(names(&pintle), there);
        }
        let answer = put(&bed, shown["tag"].as_str().unwrap(), &format!("# more\n{before}"));
        assert!(answer.ends_with("403") && answer.contains("admin.edit is not set"), "{answer}");
        // The command has the permissions of its user.
        let new = bed.folder.path().join("new.toml");
        fs::write(&new, format!("# by the command\n{before}")).unwrap();
        let (code, out, err) = outcome(pintle.command("config apply").arg(&new));
        assert_eq!(code, 0, "{out} {err}");
        assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), fs::read_to_string(&new).unwrap());
        assert_eq!(names(&pintle), there);
    }
}

#[test]
fn with_its_permission_the_sandboxed_process_changes_the_file() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(&format!("{EDIT}[sandbox]\n")));
    let (before, there) = (fs::read_to_string(pintle.config_path()).unwrap(), names(&pintle));
    let shown: serde_json::Value = serde_json::from_str(&get(&bed.socket(), "/v1/config")).unwrap();
    assert_eq!(shown["writable"], true, "{shown}");
    let answer = put(&bed, shown["tag"].as_str().unwrap(), &format!("# more\n{before}"));
    assert!(answer.ends_with("200"), "{answer}");
    assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), format!("# more\n{before}"));
    assert_eq!(names(&pintle), there);
}
