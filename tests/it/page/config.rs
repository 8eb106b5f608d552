//! The page Configuration: check, fix, apply, concurrent edits, history.

use std::fs;
use std::process::Command;

use crate::admin::{Bed, get};
use crate::harness::{Pintle, output};

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

#[test]
fn a_text_is_checked_mended_and_applied() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config("[limits]\nidle = \"70s\"\n"));
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

    // Back to the first version.
    let id = page.split("/config?version=").last().unwrap().split('#').next().unwrap().to_owned();
    let page = get(&bed.socket(), &format!("/config?version={id}"));
    assert!(page.contains("Bring back"), "{page}");
    let base = field(&page, "base");
    let (head, page) = send(&bed, "/config/restore", &[("csrf", ""), ("id", &id), ("base", &base)]);
    assert!(head.starts_with("http/1.1 303"), "{head} {page}");
    assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), before);
}

/// Both edits stay: the file keeps one, the page the other.
#[test]
fn somebody_elses_edit_is_not_overwritten() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config("[limits]\nidle = \"70s\"\n"));
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
    assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), edited);
    // The new page knows the new file: applied on purpose.
    let (head, _) = send(&bed, "/config", &edit(&page, &mine, "apply", &mut fields));
    assert!(head.starts_with("http/1.1 303"), "{head}");
    assert_eq!(fs::read_to_string(pintle.config_path()).unwrap(), mine);
}

#[test]
fn texts_from_outside_are_escaped_and_long_files_are_edited_in_parts() {
    let bed = Bed::new();
    let lines: String = (0..2000).map(|n| format!("# line {n} </textarea><script>alert({n})</script>\n")).collect();
    let pintle = Pintle::start(&bed.authority, &bed.config(&format!("{lines}[limits]\nidle = \"70s\"\n")));
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
