//! The versions of the configuration: kept at each adoption, compared, changed and brought back, by commands and over the
//! API.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Authority, Origin, Pintle, blog, eventually, is_root, outcome, output, pintle};
use crate::ledger::Tmpfs;

const SECRET: &str = "top-secret-4711";

fn state(folder: &TempDir) -> String {
    format!("[admin]\nedit = true\n[state]\ndirectory = {:?}\n", folder.path().join("state"))
}

/// pintle, and what it needs for a reload.
struct Running {
    pintle: Pintle,
    _needed: (Authority, Origin),
}

impl std::ops::Deref for Running {
    type Target = Pintle;

    fn deref(&self) -> &Pintle {
        &self.pintle
    }
}

/// pintle with a state, and a field for its upstream that is a secret.
fn start(folder: &TempDir) -> Running {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let site = blog(&authority, &origin) + &format!("[site.request_headers.set]\nX-Origin-Key = \"{SECRET}\"\n");
    Running { pintle: Pintle::start(&authority, &(state(folder) + &site)), _needed: (authority, origin) }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(["-c", "safe.directory=*"]).args(arguments);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", folder);
    let (code, out, err) = outcome(&mut command);
    assert_eq!(code, 0, "git {arguments:?}: {err}");
    out
}

fn repository(folder: &TempDir) -> PathBuf {
    folder.path().join("state/config.git")
}

fn history(pintle: &Pintle) -> Vec<Value> {
    let (code, out, err) = outcome(pintle.command("config history").arg("--json"));
    assert_eq!(code, 0, "{err}");
    serde_json::from_str::<Value>(&out).unwrap()["versions"].as_array().unwrap().clone()
}

/// Waits until there are so many versions: they are written beside the service.
fn versions(pintle: &Pintle, count: usize) -> Vec<Value> {
    eventually("the versions are kept", || Some(history(pintle)).filter(|versions| versions.len() == count))
}

fn change(pintle: &Pintle, from: &str, to: &str) -> String {
    let before = fs::read_to_string(pintle.config_path()).unwrap();
    assert!(before.contains(from), "{from} is not in {before}");
    before.replacen(from, to, 1)
}

/// Runs `pintle config NAME ..`, and returns exit code, standard output and standard error.
fn config(pintle: &Pintle, arguments: &[&str]) -> (i32, String, String) {
    outcome(pintle.command(&format!("config {}", arguments[0])).args(&arguments[1..]))
}

#[test]
fn each_adoption_is_a_commit_without_secrets() {
    let folder = TempDir::new().unwrap();
    let pintle = start(&folder);
    versions(&pintle, 1);
    let at = pintle.config_path();
    fs::write(&at, change(&pintle, "[state]", "[limits]\nidle = \"70s\"\n[state]")).unwrap();
    pintle.reload();
    versions(&pintle, 2);
    // Nothing has changed: no version.
    pintle.reload();
    fs::write(&at, change(&pintle, "\"70s\"", "\"71s\"")).unwrap();
    pintle.signal("HUP");
    let all = versions(&pintle, 3);
    // A refused one is no version.
    let good = fs::read_to_string(&at).unwrap();
    fs::write(&at, good.replace("\"71s\"", "\"71 moons\"")).unwrap();
    pintle.reload_fails();
    fs::write(&at, &good).unwrap();
    let how: Vec<&str> = all.iter().map(|version| version["how"].as_str().unwrap()).collect();
    assert_eq!(how, ["signal", "reload", "start"]);
    assert_eq!(all[1]["verdict"], "accepted", "{all:?}");
    assert!(all[1]["subject"].as_str().unwrap().contains("limits.idle has changed"), "{all:?}");

    let bare = repository(&folder);
    git(&bare, &["fsck", "--strict", "--full"]);
    let log = git(&bare, &["log", "-p", "--format=%an %s%n%b"]);
    assert!(log.contains("-idle = \"70s\"\n+idle = \"71s\"") && !log.contains(SECRET), "{log}");
    assert!(log.contains("(kept out of the history)"), "{log}");
    git(folder.path(), &["clone", "-q", bare.to_str().unwrap(), "clone"]);
    assert!(fs::read_to_string(folder.path().join("clone/pintle.toml")).unwrap().contains("71s"));
    assert_eq!(fs::metadata(&bare).unwrap().permissions().mode() & 0o777, 0o700);
    let state = eventually("it is known", || Some(pintle.status()).filter(|status| status["history"]["waiting"] == 0));
    let state = &state["history"];
    assert_eq!((&state["error"], &state["newest"]), (&Value::Null, &all[0]["id"]));
}

#[test]
fn a_change_is_applied_and_undone() {
    let folder = TempDir::new().unwrap();
    let pintle = start(&folder);
    versions(&pintle, 1);
    let at = pintle.config_path();
    let original = fs::read_to_string(&at).unwrap();
    fs::set_permissions(&at, fs::Permissions::from_mode(0o640)).unwrap();
    let new = folder.path().join("new.toml");
    let name = new.to_str().unwrap();
    fs::write(&new, change(&pintle, "[state]", "[limits]\nidle = \"70s\"\n[state]")).unwrap();

    // The verdict alone.
    let (code, out, err) = config(&pintle, &["apply", name, "--dry-run"]);
    assert!(code == 0 && out.contains("+idle = \"70s\""), "{out} {err}");
    assert_eq!(fs::read_to_string(&at).unwrap(), original);
    let (code, out, err) = config(&pintle, &["apply", name]);
    assert!(code == 0 && out.contains("limits.idle has changed") && out.contains("in the history as"), "{out} {err}");
    assert_eq!(fs::read_to_string(&at).unwrap(), fs::read_to_string(&new).unwrap());
    assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o777, 0o640);
    let all = versions(&pintle, 2);
    assert_eq!(all[0]["how"], "apply");

    // A refused text changes nothing, and says where.
    fs::write(&new, change(&pintle, "\"70s\"", "\"70 moons\"")).unwrap();
    let before = fs::read_to_string(&at).unwrap();
    let (code, _, err) = config(&pintle, &["apply", name]);
    assert!(code == 1 && err.contains("70 moons") && err.contains("not applied; nothing has changed"), "{err}");
    assert_eq!(fs::read_to_string(&at).unwrap(), before);
    assert_eq!((pintle.status()["reloads_refused"].clone(), history(&pintle).len()), (0.into(), 2));

    // The version before comes back, with the secret that it does not have.
    let (code, out, err) = config(&pintle, &["restore", "HEAD~1"]);
    assert!(code == 0, "{out} {err}");
    assert_eq!(fs::read_to_string(&at).unwrap(), original);
    let all = versions(&pintle, 3);
    assert_eq!(all[0]["text"], all[2]["text"]);
    assert!(all[0]["subject"].as_str().unwrap().starts_with("restore "), "{all:?}");
    let (_, out, _) = config(&pintle, &["diff", "HEAD~1", "HEAD"]);
    assert!(out.contains("-idle = \"70s\"") && !out.contains(SECRET), "{out}");
    let (code, out, _) = config(&pintle, &["diff"]);
    assert_eq!((code, out.as_str()), (0, ""));
    let (_, out, _) = config(&pintle, &["show", all[1]["short"].as_str().unwrap()]);
    assert!(out.contains("idle = \"70s\"") && !out.contains(SECRET), "{out}");
    let (code, _, err) = config(&pintle, &["restore", "ffffffff"]);
    assert!(
        code == 1 && err.contains("no version") && err.contains("pintle config history lists the versions"),
        "{err}"
    );
}

/// A secret that the file no longer has cannot come back.
#[test]
fn a_version_without_its_secret_is_refused() {
    let folder = TempDir::new().unwrap();
    let pintle = start(&folder);
    versions(&pintle, 1);
    let at = pintle.config_path();
    let line = format!("[site.request_headers.set]\nX-Origin-Key = \"{SECRET}\"\n");
    fs::write(&at, change(&pintle, &line, "")).unwrap();
    pintle.reload();
    versions(&pintle, 2);
    let before = fs::read_to_string(&at).unwrap();
    let (code, _, err) = config(&pintle, &["restore", "HEAD~1"]);
    assert!(code == 1 && err.contains("X-Origin-Key") && err.contains("hint: "), "{err}");
    assert_eq!(fs::read_to_string(&at).unwrap(), before);
    // Nor does the placeholder pass for a value.
    let (_, masked, _) = config(&pintle, &["show", "HEAD~1"]);
    fs::write(&at, masked).unwrap();
    let err = pintle.reload_fails();
    assert!(err.contains("this one is missing"), "{err}");
    fs::write(&at, before).unwrap();
}

#[test]
fn changes_over_the_api_name_the_text_that_they_replace() {
    let folder = TempDir::new().unwrap();
    let pintle = start(&folder);
    let at = pintle.config_path();
    let socket = folder.path().join("state/admin.sock");
    let call = |method: &str, path: &str, tag: Option<&str>, body: &str| {
        let mut command = Command::new("curl");
        command.args(["-s", "-i", "-X", method, "--unix-socket"]).arg(&socket);
        command.args(tag.map(|tag| format!("-HIf-Match: {tag}")));
        command.args(["--data-binary", body, &format!("http://localhost/v1{path}")]);
        let (_, out, _) = outcome(&mut command);
        let (head, body) = out.split_once("\r\n\r\n").unwrap();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let tag = head.lines().find_map(|line| line.to_lowercase().strip_prefix("etag: ").map(str::to_owned));
        (status, tag, serde_json::from_str::<Value>(body).unwrap())
    };
    let (status, tag, shown) = call("GET", "/config", None, "");
    let tag = tag.unwrap();
    assert_eq!((status, &shown["running"]["same"], &shown["writable"]), (200, &true.into(), &true.into()), "{shown}");
    assert!(!shown.to_string().contains(SECRET));
    let (_, same, text) = call("GET", "/config/text", None, "");
    assert_eq!((same.as_deref(), text["text"].as_str().unwrap()), (Some(&*tag), &*fs::read_to_string(&at).unwrap()));
    let new = change(&pintle, "[state]", "[limits]\nidle = \"70s\"\n[state]");
    let (status, _, answer) = call("PUT", "/config", None, &new);
    assert!(status == 428 && answer["hints"][0].as_str().unwrap().contains("ETag"), "{answer}");
    assert_eq!(call("PUT", "/config", Some("\"other\""), &new).0, 412);
    let (status, _, verdict) = call("POST", "/config/check", None, &new.replace("70s", "70 moons"));
    let reason = &verdict["reasons"][0];
    assert!(status == 409 && reason["place"]["line"].as_u64().is_some(), "{verdict}");
    let (status, _, verdict) = call("POST", "/config/check", None, &new.replace("idle", "idlex"));
    assert_eq!((status, &verdict["reasons"][0]["fix"]), (409, &"idle".into()), "{verdict}");
    // An editor saves meanwhile.
    let edited = change(&pintle, "[state]", "# edited\n[state]");
    fs::write(&at, &edited).unwrap();
    assert_eq!(call("PUT", "/config", Some(&tag), &new).0, 412);
    assert_eq!(fs::read_to_string(&at).unwrap(), edited);
    let (_, tag, shown) = call("GET", "/config", None, "");
    assert_eq!(shown["running"]["same"], false);
    let (status, after, answer) = call("PUT", "/config", tag.as_deref(), &new);
    assert_eq!((status, &answer["ok"]), (200, &true.into()), "{answer}");
    assert_eq!(fs::read_to_string(&at).unwrap(), new);
    assert_eq!(call("GET", "/config", None, "").1, after);
    // The tag is that of the file, with the secrets that a version does not have.
    let (status, back, answer) = call("POST", "/config/restore?id=HEAD~1", after.as_deref(), "");
    assert_eq!((status, &answer["ok"]), (200, &true.into()), "{answer}");
    assert!(fs::read_to_string(&at).unwrap().contains(SECRET));
    assert_eq!(call("GET", "/config", None, "").1, back);
    for (path, status) in [
        ("/config/history?limit=0", 400),
        ("/config/history/zzzz", 404),
        ("/config/history/..%2f..%2fHEAD", 404),
        ("/config/diff?from=nothing", 404),
        ("/config/nothing", 404),
        ("/config/history?limit=2", 200),
    ] {
        assert_eq!(call("GET", path, None, "").0, status, "{path}");
    }
    assert_eq!(call("DELETE", "/config", None, "").0, 405);
}

/// Whatever the history's state: pintle serves, reloads, says so, and goes on once it can.
#[test]
fn a_history_that_cannot_be_written_never_stops_anything() {
    let folder = TempDir::new().unwrap();
    let pintle = start(&folder);
    versions(&pintle, 1);
    let lock = repository(&folder).join("refs/heads/main.lock");
    fs::write(&lock, "").unwrap();
    fs::write(pintle.config_path(), change(&pintle, "[state]", "[limits]\nidle = \"70s\"\n[state]")).unwrap();
    pintle.reload();
    let status = eventually("the fault is known", || {
        Some(pintle.status()).filter(|status| status["history"]["error"].is_string())
    });
    assert_eq!(status["history"]["waiting"], 1);
    let attention = status["attention"].to_string();
    assert!(attention.contains("main.lock") && attention.contains("if no git works there: rm "), "{attention}");
    assert_eq!(pintle.logged("the history lacks a version of the configuration; pintle serves it", 1).len(), 1);
    fs::remove_file(&lock).unwrap();
    versions(&pintle, 2);
    eventually("the fault is gone", || pintle.status()["history"]["error"].is_null().then_some(()));
}

/// The last bytes of a disk are for the ledger.
#[test]
fn a_small_disk_is_left_to_the_ledger() {
    if !is_root("mount a small disk") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let disk = folder.path().join("state");
    let _disk = Tmpfs::mount(&disk);
    let pintle = start(&folder);
    let status = eventually("the fault is known", || {
        Some(pintle.status()).filter(|status| status["history"]["error"].is_string())
    });
    let error = status["history"]["error"].as_str().unwrap();
    assert!(error.contains("less than 8 MiB are free") && error.contains(disk.to_str().unwrap()), "{error}");
    assert_eq!(status["history"]["hints"][0], "free space there; pintle tries again by itself");
    assert_eq!((&status["history"]["waiting"], &status["ledger"]["error"]), (&1.into(), &Value::Null));
    assert!(!repository(&folder).exists() && !disk.join("config.git.new").exists());
    let remount = |size: &str| {
        output(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&disk));
    };
    remount("16m");
    versions(&pintle, 1);
    // A repository that is there does not grow either.
    remount("4m");
    fs::write(pintle.config_path(), change(&pintle, "[state]", "[limits]\nidle = \"70s\"\n[state]")).unwrap();
    pintle.reload();
    let status = eventually("the fault is known", || {
        let is_new = |error: &str| error.contains("config.git: less than 8 MiB are free");
        Some(pintle.status()).filter(|status| status["history"]["error"].as_str().is_some_and(is_new))
    });
    assert_eq!(status["history"]["waiting"], 1);
    assert_eq!(history(&pintle).len(), 1);
    remount("16m");
    versions(&pintle, 2);
}

/// Without a process, the commands read the files, and a change is for the next start.
#[test]
fn without_a_process() {
    let folder = TempDir::new().unwrap();
    let running = start(&folder);
    versions(&running, 1);
    let copy = TempDir::new().unwrap();
    fs::copy(running.config_path(), copy.path().join("pintle.toml")).unwrap();
    let status = Command::new("cp").arg("-r").arg(repository(&folder)).arg(copy.path()).status().unwrap();
    assert!(status.success());
    // The files of the certificate stay.
    let Running { pintle: process, _needed } = running;
    drop(process);
    let path = copy.path().join("pintle.toml");
    let text = fs::read_to_string(&path).unwrap();
    let old = format!("directory = {:?}", folder.path().join("state"));
    let new = format!("directory = {:?}", copy.path());
    fs::write(&path, text.replace(&old, &new)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = pintle();
        command.arg("config").args(arguments).arg("-c").arg(&path);
        outcome(&mut command)
    };
    let (code, out, err) = run(&["history"]);
    assert!(code == 0 && out.contains("start"), "{out} {err}");
    let (code, out, _) = run(&["diff", "HEAD", "file"]);
    assert!(code == 0 && out.contains("+directory = "), "{out}");
    let changed = copy.path().join("changed.toml");
    fs::write(&changed, fs::read_to_string(&path).unwrap().replace("[state]", "[limits]\nidle = \"70s\"\n[state]"))
        .unwrap();
    let (code, out, err) = run(&["apply", changed.to_str().unwrap()]);
    assert!(code == 0 && out.contains("at the next start"), "{out} {err}");
    assert_eq!(fs::read_to_string(&path).unwrap(), fs::read_to_string(&changed).unwrap());
    fs::write(&changed, "[[site]]\nnothing = 1\n").unwrap();
    let (code, _, err) = run(&["apply", changed.to_str().unwrap()]);
    assert!(code == 1 && err.contains("unknown key"), "{err}");
}

/// The new process keeps the version that it took over with.
#[test]
fn an_upgrade_is_an_adoption() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n";
    let line = crate::upgrade::Line::start(&authority, listen, &blog(&authority, &origin));
    versions(&line.pintle, 1);
    line.upgrade();
    fs::write(line.pintle.config_path(), change(&line.pintle, "[state]", "[limits]\nidle = \"70s\"\n[state]")).unwrap();
    line.upgrade();
    // The same text is no new version.
    assert_eq!(versions(&line.pintle, 2)[0]["how"], "upgrade");
}

/// The file named the folder of its history, and is gone.
#[test]
fn a_lost_file_has_a_history() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pintle.toml");
    for word in ["show", "restore"] {
        let (code, out, err) = outcome(pintle().args(["config", word, "HEAD", "-c"]).arg(&path));
        assert!(code == 1 && err.contains("`git -C STATE/config.git show HEAD:pintle.toml`"), "{word}: {out}{err}");
    }
}
