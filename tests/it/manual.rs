//! The parts of an installation besides the program: version, man pages, completions; and the files of `dist`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::{outcome, output, pintle, program};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_version_names_commit_target_and_libraries() {
    let long = output(pintle().arg("--version"));
    let short = output(pintle().arg("-V"));
    assert_eq!(long.lines().next(), short.lines().next());
    let commit = short.trim().strip_prefix(concat!("pintle ", env!("CARGO_PKG_VERSION"), " (")).unwrap();
    let commit = commit.strip_suffix(')').unwrap().trim_end_matches(", changed");
    let is_commit = commit.len() == 12 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    // An archive of the sources without its commit.
    assert!(is_commit || (commit == "unknown" && !root().join(".git").exists()), "{commit}");
    for line in ["\ntarget     ", "-linux-", "\nfeatures   ", "\nlibraries  rustls ", "aws-lc-sys ", "h2 "] {
        assert!(long.contains(line), "{line:?} is not in {long}");
    }
    let host = fs::read_to_string("/etc/hostname").unwrap_or_default();
    assert!(host.trim().is_empty() || !long.contains(host.trim()), "{long}");
}

fn pages() -> (TempDir, Vec<PathBuf>) {
    let folder = TempDir::new().unwrap();
    let listed = output(pintle().args(["man", "--dir"]).arg(folder.path()));
    let pages: Vec<PathBuf> = listed.lines().map(PathBuf::from).collect();
    assert!(pages.len() > 12 && pages.iter().all(|page| page.is_file()), "{listed}");
    (folder, pages)
}

#[test]
fn man_pages_are_well_formed() {
    let (_folder, pages) = pages();
    let (man, lexgrog) = (program("man"), program("lexgrog"));
    for page in &pages {
        let mut command = Command::new(&man);
        command.args(["--warnings", "--encoding=UTF-8", "--local-file", "--troff-device=utf8", "--ditroff"]).arg(page);
        command.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "80").env("MANROFFSEQ", "");
        let (code, _, warnings) = outcome(&mut command);
        assert_eq!((code, warnings.as_str()), (0, ""), "{}", page.display());
        let indexed = output(Command::new(&lexgrog).arg(page));
        let name = page.file_stem().unwrap().to_str().unwrap();
        assert!(indexed.contains(&format!(": \"{name} - ")), "{indexed}");
    }
    let names: Vec<_> = pages.iter().map(|page| page.file_name().unwrap().to_str().unwrap()).collect();
    for wanted in ["pintle.8", "pintle.toml.5", "pintle-key.8", "pintle-ledger.8", "pintle-check.8"] {
        assert!(names.contains(&wanted), "{names:?}");
    }
}

#[test]
fn a_page_is_printed_by_its_name() {
    for (name, title) in [("pintle", ".TH pintle 8"), ("key", ".TH pintle-key 8"), ("pintle.toml", ".TH pintle.toml 5")]
    {
        let page = output(pintle().args(["man", name])).replace("\\-", "-");
        assert!(page.lines().any(|line| line.starts_with(title)), "{name}: {}", &page[..200]);
    }
    let (code, out, err) = outcome(pintle().args(["man", "nothing"]));
    assert!(code == 1 && out.is_empty() && err.contains("there is no man page") && err.contains("pintle-key"), "{err}");
}

/// Each shell offers the subcommands that begin so.
#[test]
fn shells_complete() {
    let folder = TempDir::new().unwrap();
    let script = |shell: &str, name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, output(pintle().args(["completions", shell]))).unwrap();
        path
    };
    let bash = script("bash", "pintle");
    let words = format!(
        "source {bash:?}; COMP_WORDS=(pintle up); COMP_CWORD=1; COMP_LINE='pintle up'; COMP_POINT=9; \
         _pintle pintle up pintle; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    assert_eq!(output(Command::new(program("bash")).args(["--norc", "-c", &words])).trim(), "upgrade");
    let fish = script("fish", "pintle.fish");
    let words = format!("source {fish:?}; complete --do-complete 'pintle up'");
    let mut command = Command::new(program("fish"));
    command.args(["--no-config", "-c", &words]).env("HOME", folder.path()).stdin(Stdio::null());
    let offered = output(&mut command);
    assert!(offered.starts_with("upgrade\t") && offered.lines().count() == 1, "{offered}");
    // zsh completes at a terminal only, so its test is that the functions load.
    let zsh = script("zsh", "_pintle");
    let words = format!(
        "fpath=({:?} $fpath); autoload -Uz compinit; compinit -u -D; autoload -Uz +X _pintle && echo $_comps[pintle]",
        folder.path()
    );
    let mut command = Command::new(program("zsh"));
    let loaded = output(command.args(["-f", "-c", &words]).env("HOME", folder.path()).stdin(Stdio::null()));
    assert_eq!(loaded.trim(), "_pintle");
    assert!(fs::read_to_string(zsh).unwrap().starts_with("#compdef pintle\n"));
}

/// The example that the package installs has every line commented, so it is no site; without the marks it is one.
#[test]
fn the_packaged_example_becomes_a_site() {
    let text = fs::read_to_string(root().join("dist/deb/pintle.toml.example")).unwrap();
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
    let lines = text.lines().filter_map(|line| line.strip_prefix("#").filter(|rest| !rest.starts_with(' ')));
    let active: String = lines.map(|line| format!("{line}\n")).collect();
    for key in ["[[site]]", "hosts = ", "upstream = ", "[site.certificate]\nacme = true\n", "[acme]\nterms = true\n"] {
        assert!(active.contains(key), "{active}");
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pintle.toml");
    // In /etc/pintle, the state has a place without this.
    fs::write(&path, format!("{active}[state]\ndirectory = \"state\"\n")).unwrap();
    let (_, out, err) = outcome(pintle().args(["check", "-c"]).arg(&path));
    // Files and folders are the only things that are missing.
    let errors: Vec<_> = err.lines().filter(|line| line.contains(": error: ")).collect();
    assert!(!errors.is_empty() && errors.iter().all(|line| line.contains(": no such f")), "{out}{err}");
}

/// The commands of the documents and the image name this version.
#[test]
fn the_version_is_the_same_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, wanted) in [
        (
            "README.md",
            vec![format!("pintle_{version}-1_amd64.deb"), format!("pintle-{version}-x86_64-unknown-linux-musl.tar.gz")],
        ),
        ("docs/guide/install.md", vec![format!("pintle_{version}-1_amd64.deb"), format!("/pintle:{version}")]),
        ("RELEASING.md", vec![format!("v{version}")]),
        ("dist/container/Dockerfile", vec![format!("ARG VERSION={version}\n")]),
    ] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        for wanted in wanted {
            assert!(text.contains(&wanted), "{file} does not contain {wanted:?}");
        }
    }
}

/// An action's tag can be moved to other code, a commit cannot; and a workflow gets no more rights than it names.
#[test]
fn actions_are_pinned() {
    for file in [".github/workflows/ci.yml", ".github/workflows/release.yml"] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let uses: Vec<_> =
            text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("uses: ")).collect();
        for action in &uses {
            let pin = action.split_once('@').unwrap().1.split(' ').next().unwrap();
            let is_commit = pin.len() == 40 && pin.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(is_commit && action.contains(" # "), "{file}: {action}");
        }
        assert!(uses.len() > 3 && text.contains("\npermissions:"), "{file}");
    }
}

/// A build runs the code of every crate. Of the jobs of a release, only the one that runs none of it may publish and
/// attest.
#[test]
fn no_build_may_publish() {
    let text = fs::read_to_string(root().join(".github/workflows/release.yml")).unwrap();
    let (builds, publish) = text.split_once("\n  publish:\n").unwrap();
    assert!(builds.contains("dist/program") && builds.contains("\npermissions: {}\n"), "{builds}");
    for right in [": write", "github.token", "secrets."] {
        assert!(!builds.contains(right), "{right}: {builds}");
    }
    for code in ["actions/checkout", "dist/", "cargo"] {
        assert!(!publish.contains(code), "{code}: {publish}");
    }
    assert!(publish.contains("attestations: write") && publish.contains("SHA256SUMS"), "{publish}");
}
