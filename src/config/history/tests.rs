//! The history as the operator's own git sees it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::*;

const BOUNDS: Bounds = Bounds { version: 1 << 20, history: 64 << 20 };

fn adoption(how: How, notes: &[&str]) -> Adoption {
    Adoption {
        how,
        who: "root".into(),
        at: Timestamp::from_second(1_800_000_000).unwrap(),
        warnings: 0,
        notes: notes.iter().map(|note| (*note).to_owned()).collect(),
        restores: None,
    }
}

fn history(state: &Path) -> ConfigHistory {
    ConfigHistory::of(state, Path::new("/etc/pintle/blog.toml"))
}

fn record(history: &ConfigHistory, text: &str, adoption: &Adoption, bounds: Bounds) -> Result<Recorded, Fault> {
    history.record(secrets::masked(text).as_deref(), adoption, bounds)
}

/// Runs git without the configuration of whoever runs the tests.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(folder).args(["-c", "safe.directory=*", "-c", "user.name=Ann", "-c", "user.email=a@example"]);
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    let output = command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", folder).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "git {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn git_clones_checks_and_logs_it() {
    let state = tempfile::tempdir().unwrap();
    let history = history(state.path());
    assert_eq!(history.versions(None, 10).unwrap(), []);
    let first = record(&history, "a = 1\n", &adoption(How::Start, &[]), BOUNDS).unwrap();
    assert_eq!(
        record(&history, "a = 1\n", &adoption(How::Start, &[]), BOUNDS).unwrap(),
        Recorded::Same(first.id().into())
    );
    let notes = ["new site shop.example.com", "limits.idle has changed"];
    let second = Adoption { who: "ann <evil>\n".into(), warnings: 2, ..adoption(How::Apply, &notes) };
    let second = record(&history, "a = 2\n", &second, BOUNDS).unwrap();
    let restored = Adoption { restores: Some(first.id().into()), ..adoption(How::Restore, &[]) };
    record(&history, "a = 1\n", &restored, BOUNDS).unwrap();

    let bare = state.path().join(FOLDER);
    git(&bare, &["fsck", "--strict", "--full"]);
    let log = git(&bare, &["log", "-p", "--format=%an|%cn|%s|%at"]);
    assert!(log.contains("ann evil|pintle|apply: new site shop.example.com, and 1 change more|1800000000"), "{log}");
    assert!(log.contains("-a = 1\n+a = 2\n"), "{log}");
    let clone = state.path().join("clone");
    git(state.path(), &["clone", "-q", bare.to_str().unwrap(), "clone"]);
    assert_eq!(fs::read_to_string(clone.join("blog.toml")).unwrap(), "a = 1\n");
    for folder in ["config.git", "config.git/objects", "config.git/refs/heads"] {
        let mode = fs::metadata(state.path().join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }

    let versions = history.versions(None, 10).unwrap();
    assert_eq!(versions.len(), 3);
    assert_eq!(versions[1].id, second.id());
    assert_eq!(
        (versions[1].who.as_str(), versions[1].verdict.as_deref()),
        ("ann <evil>", Some("accepted, 2 warnings"))
    );
    assert_eq!(versions[1].notes, notes);
    assert_eq!(versions[0].text, versions[2].text);
    assert_eq!(history.versions(Some(second.id()), 10).unwrap(), versions[2..]);
    assert_eq!(history.versions(None, 1).unwrap(), versions[..1]);
    for asked in [second.id(), &second.id()[..7], "HEAD~1", "HEAD^", "@~"] {
        assert_eq!(history.version(asked).unwrap().1, "a = 2\n", "{asked}");
    }
    for asked in ["", "abc", "HEAD~3", "main", "../../etc/passwd", "ffffffffff", "HEAD~99999999999999999999"] {
        assert!(matches!(history.version(asked), Err(Fault::NoSuch { .. })), "{asked}");
    }
}

/// A version that the operator pushes is one of the history, and becomes pintle's once it is applied.
#[test]
fn pushed_commits_are_versions() {
    let state = tempfile::tempdir().unwrap();
    let history = history(state.path());
    record(&history, "a = 1\n", &adoption(How::Start, &[]), BOUNDS).unwrap();
    git(state.path(), &["clone", "-q", "config.git", "clone"]);
    let clone = state.path().join("clone");
    fs::write(clone.join("blog.toml"), "a = 2\n").unwrap();
    fs::write(clone.join("README"), "mine\n").unwrap();
    git(&clone, &["add", "."]);
    git(&clone, &["commit", "-q", "-m", "a is 2\n\nPintle-How: start"]);
    git(&clone, &["push", "-q", "origin", "HEAD"]);
    let (version, text) = history.version("HEAD").unwrap();
    assert_eq!((version.how, version.who.as_str(), version.verdict, text.as_str()), (How::Git, "Ann", None, "a = 2\n"));
    assert!(matches!(record(&history, "a = 2\n", &adoption(How::Apply, &[]), BOUNDS).unwrap(), Recorded::New(_)));
    let bare = state.path().join(FOLDER);
    git(&bare, &["gc", "-q", "--prune=now"]);
    git(&bare, &["pack-refs", "--all"]);
    assert_eq!(history.versions(None, 10).unwrap().len(), 3);
    record(&history, "a = 3\n", &adoption(How::Reload, &[]), BOUNDS).unwrap();
    git(&bare, &["fsck", "--strict", "--full"]);
    git(&clone, &["pull", "-q"]);
    assert_eq!(fs::read_to_string(clone.join("blog.toml")).unwrap(), "a = 3\n");
    assert_eq!(fs::read_to_string(clone.join("README")).unwrap(), "mine\n");
}

#[test]
fn faults_name_their_remedy() {
    let state = tempfile::tempdir().unwrap();
    let history = history(state.path());
    let bare = state.path().join(FOLDER);
    let record = |text: &str, bounds| record(&history, text, &adoption(How::Reload, &[]), bounds);
    record("a = 1\n", BOUNDS).unwrap();

    let large = format!("a = \"{}\"\n", "x".repeat(2 << 20));
    let fault = record(&large, BOUNDS).unwrap_err();
    assert!(matches!(fault, Fault::TooLarge { .. }) && !fault.passes(), "{fault}");
    let fault = record("a = 2\n", Bounds { history: 100, ..BOUNDS }).unwrap_err();
    assert!(matches!(fault, Fault::Full { .. }) && fault.passes(), "{fault}");
    assert!(matches!(record("a = ", BOUNDS), Err(Fault::Unreadable)));

    fs::write(bare.join("refs/heads/main.lock"), "").unwrap();
    let fault = record("a = 3\n", BOUNDS).unwrap_err();
    assert!(matches!(&fault, Fault::Locked(lock) if lock.ends_with("refs/heads/main.lock")), "{fault}");
    assert!(fault.reason().hints[1].ends_with("main.lock"), "{fault:?}");
    fs::remove_file(bare.join("refs/heads/main.lock")).unwrap();
    record("a = 3\n", BOUNDS).unwrap();

    for spoil in ["HEAD", "refs/heads/main"] {
        let whole = fs::read(bare.join(spoil)).unwrap();
        fs::write(bare.join(spoil), "garbage").unwrap();
        let fault = record("a = 4\n", BOUNDS).unwrap_err();
        assert!(matches!(fault, Fault::Damaged(..)), "{spoil}: {fault:?}");
        assert!(history.versions(None, 10).is_err(), "{spoil}");
        fs::write(bare.join(spoil), whole).unwrap();
    }
    // An object that a crash of the disk has emptied.
    let head = history.version("HEAD").unwrap().0.id;
    let object = bare.join("objects").join(&head[..2]).join(&head[2..]);
    fs::set_permissions(&object, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&object, "").unwrap();
    let fault = record("a = 5\n", BOUNDS).unwrap_err();
    assert!(matches!(fault, Fault::Damaged(..)), "{fault:?}");
    // The remedy works.
    fs::rename(&bare, state.path().join("config.git.damaged")).unwrap();
    record("a = 5\n", BOUNDS).unwrap();
    assert_eq!(history.versions(None, 10).unwrap().len(), 1);

    fs::remove_dir_all(&bare).unwrap();
    fs::write(&bare, "").unwrap();
    assert!(matches!(record("a = 6\n", BOUNDS), Err(Fault::Damaged(..))));
}

/// A kill in the middle of the making leaves the folder that the next attempt removes.
#[test]
fn a_half_made_repository_is_made_again() {
    let state = tempfile::tempdir().unwrap();
    fs::create_dir(state.path().join("config.git.new")).unwrap();
    fs::write(state.path().join("config.git.new/HEAD"), "ref: ").unwrap();
    record(&history(state.path()), "a = 1\n", &adoption(How::Start, &[]), BOUNDS).unwrap();
    let left: Vec<_> = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [FOLDER]);
}
