//! Questions on a terminal.

use std::io::Write as _;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::server::Blog;
use super::{active, fixture, init};
use crate::harness::{Authority, BLOG, pintle};

/// Runs a command in a terminal of `script` with these lines typed. Gives the exit code and the
/// screen.
fn typed(command: &Command, folder: &TempDir, lines: &str) -> (i32, String) {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted: Vec<String> = words.map(|w| format!("'{}'", w.to_str().unwrap())).collect();
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &quoted.join(" "), "/dev/null"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    (done.status.code().unwrap(), String::from_utf8_lossy(&done.stdout).into_owned())
}

/// `pintle init` without `--host`.
fn bare(authority: &Authority, blog: &Blog, url: &str) -> Command {
    let with = init(authority, blog, url);
    let mut command = pintle();
    let mut arguments = with.get_args().peekable();
    while let Some(argument) = arguments.next() {
        if argument == "--host" {
            arguments.next();
        } else {
            command.arg(argument);
        }
    }
    command.args(["-o", "pintle.toml"]);
    command
}

#[test]
fn names_address_and_agreement_are_asked_for() {
    let authority = Authority::new();
    let fixture = fixture("wordpress-com-mapped");
    let blog = Blog::serve(&authority, &fixture);
    let run = |lines: &str| {
        let folder = TempDir::new().unwrap();
        let (code, screen) = typed(&bare(&authority, &blog, fixture.value("url").unwrap()), &folder, lines);
        (code, screen, std::fs::read_to_string(folder.path().join("pintle.toml")).unwrap_or_default())
    };
    // The blog's own redirect is the suggestion.
    let (code, screen, text) = run("\nyou@example.com\ny\n");
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains(&format!("[{BLOG}]")) && screen.contains("[y/N]"), "{screen}");
    assert!(active(&text).contains(&"hosts = [\"blog.example.com\"]"), "{text}");
    assert!(text.contains("email = \"you@example.com\"") && text.contains("terms = true"), "{text}");
    // Wrong answers are asked for again; no address means no agreement.
    let (code, screen, text) = run("https://x\nblog.example.org www.example.org\nnobody\n\n");
    assert!(code == 0 && screen.contains("not an address") && !screen.contains("[y/N]"), "{screen}");
    assert!(active(&text).contains(&"hosts = [\"blog.example.org\", \"www.example.org\"]"), "{text}");
    assert!(!text.contains("email"), "{text}");
    // No agreement, no line.
    let (code, screen, text) = run("\nyou@example.com\n\n");
    assert!(code == 0 && text.contains("# terms = true"), "{screen}{text}");
    // The end of the input writes nothing.
    let (code, screen, text) = run("x x/\n\u{4}");
    assert!(code == 1 && text.is_empty() && screen.contains("nothing was written"), "{code} {screen}");
}
