//! Least privilege: root binds, and then is somebody else, with nothing left of what it could do.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use crate::harness::{Authority, BLOG, Client, Origin, Pintle, blog, eventually, outcome, output, pintle, policies};

/// A user that every system has, and that owns nothing.
const USER: &str = "nobody";

fn ids() -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|l| l.starts_with("nobody:")).unwrap();
    let mut numbers = line.split(':').skip(2).map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn is_root() -> bool {
    crate::harness::is_root("become somebody else")
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

struct Bed {
    authority: Authority,
    _origin: Origin,
    folder: TempDir,
    site: String,
}

impl Bed {
    /// Folders that everybody can look into, and a key for the user's group.
    fn new() -> Self {
        let (authority, origin) = (Authority::new(), Origin::hello());
        let site = blog(&authority, &origin) + &policies(&authority);
        let bed = Self { authority, _origin: origin, folder: TempDir::new().unwrap(), site };
        for folder in [bed.authority.folder(), bed.folder.path()] {
            chmod(folder, 0o755);
        }
        chown(bed.key(), None, Some(ids().1)).unwrap();
        chmod(&bed.key(), 0o640);
        bed
    }

    fn key(&self) -> PathBuf {
        self.authority.folder().join("blog.key")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, process: &str) -> String {
        format!(
            "[process]\nuser = \"{USER}\"\n{process}\n[state]\ndirectory = {:?}\n[log]\naccess = {:?}\n{}",
            self.at("state"),
            self.at("access.log"),
            self.site
        )
    }

    fn start(&self, listen: &str, config: &str) -> Pintle {
        Pintle::start_command(&self.authority, listen, config, |command| {
            let path = PathBuf::from(command.get_args().last().unwrap());
            chmod(path.parent().unwrap(), 0o755);
        })
    }
}

/// A port below 1024 that is free on loopback; each only once, as tests run side by side.
fn low_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1022);
    let mut ports = std::iter::repeat_with(|| NEXT.fetch_sub(1, Ordering::Relaxed)).take_while(|port| *port > 600);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// A field of each of the threads.
fn threads(pintle: &Pintle, field: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", pintle.pid())).unwrap().flatten();
    let value = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:")).map(str::to_owned));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    tasks.map(|task| value(fs::read_to_string(task.path().join("status")).unwrap())).collect()
}

#[test]
fn root_becomes_somebody_else_for_good() {
    if !is_root() {
        return;
    }
    let (bed, port, other) = (Bed::new(), low_port(), low_port());
    let listen = format!("[listen]\nhttps = [\"127.0.0.1:{port}\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 2\n");
    let pintle = bed.start(&listen, &bed.config(""));
    let get = || Client::new(&bed.authority).get(pintle.https(), BLOG, "/").status;
    assert_eq!(get(), 200);
    let (uid, gid) = ids();
    let none = "0000000000000000";
    for (field, want) in [
        ("Uid", format!("{uid} {uid} {uid} {uid}")),
        ("Gid", format!("{gid} {gid} {gid} {gid}")),
        ("Groups", String::new()),
        ("CapInh", none.into()),
        ("CapPrm", none.into()),
        ("CapEff", none.into()),
        ("CapBnd", none.into()),
        ("CapAmb", none.into()),
        ("NoNewPrivs", "1".into()),
    ] {
        let all = threads(&pintle, field);
        assert!(all.len() >= 4 && all.iter().all(|value| *value == want), "{field}: {all:?}");
    }
    // What it made belongs to it.
    for path in ["state", "state/ledger.jsonl", "state/admin.sock", "access.log"] {
        let metadata = eventually(path, || fs::symlink_metadata(bed.at(path)).ok());
        assert_eq!((metadata.uid(), metadata.gid()), (uid, gid), "{path}");
    }
    assert_eq!(fs::metadata(bed.at("state")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(pintle.status()["sandbox"]["user"], USER);
    // A port that only root may have cannot come later; what there is goes on.
    pintle.rewrite(|text| text.replace("http = [\"127.0.0.1:0\"]", &format!("http = [\"127.0.0.1:{other}\"]")));
    let err = pintle.reload_fails();
    assert!(err.contains(&format!("cannot listen on 127.0.0.1:{other}: permission denied")), "{err}");
    assert!(err.contains("process.bind_low_ports") && err.contains("ip_unprivileged_port_start"), "{err}");
    assert_eq!(get(), 200);
    assert_eq!(pintle.stop(), 0);
    // Again, with what it left behind.
    let pintle = bed.start(&listen, &bed.config(""));
    assert_eq!(pintle.stop(), 0);
}

#[test]
fn low_ports_can_be_kept() {
    if !is_root() {
        return;
    }
    let (bed, port) = (Bed::new(), low_port());
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 2\n";
    let pintle = bed.start(listen, &bed.config("bind_low_ports = true"));
    // CAP_NET_BIND_SERVICE is number 10.
    for field in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(threads(&pintle, field).iter().all(|value| value == "0000000000000400"), "{field}");
    }
    pintle.rewrite(|text| text.replace("http = [\"127.0.0.1:0\"]", &format!("http = [\"127.0.0.1:{port}\"]")));
    assert!(pintle.reload().contains("reloaded"));
    assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").status, 200);
}

/// Every file and folder below these, with its owner.
fn owners(folders: &[&Path]) -> BTreeMap<PathBuf, (u32, u32)> {
    let mut found = BTreeMap::new();
    let mut left: Vec<PathBuf> = folders.iter().map(|folder| folder.to_path_buf()).collect();
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().flatten().map(|entry| entry.path()));
        }
        found.insert(path, (metadata.uid(), metadata.gid()));
    }
    found
}

/// The first hint of a text.
fn remedy(message: &str) -> &str {
    message
        .lines()
        .find_map(|line| line.trim().strip_prefix("hint: "))
        .unwrap_or_else(|| panic!("no hint in {message}"))
}

/// Files of other users keep their owner, whatever the configuration uses them for; and the printed remedy works.
#[test]
fn nothing_that_was_there_changes_its_owner() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    // As /run is: root's, with sockets and files of others.
    for folder in ["run/other", "runtime", "home"] {
        fs::create_dir_all(bed.at(folder)).unwrap();
    }
    for file in ["run/other.pid", "run/other/secret", "runtime/file", "home/file", "foreign.log"] {
        fs::write(bed.at(file), "foreign").unwrap();
    }
    chown(bed.at("home"), Some(1), Some(1)).unwrap();
    chmod(&bed.at("runtime"), 0o1777);
    symlink(bed.at("run"), bed.at("link")).unwrap();
    symlink(bed.at("nowhere"), bed.at("dangling")).unwrap();
    let file = bed.at("pintle.toml");
    let all = || owners(&[bed.folder.path(), bed.authority.folder()]);
    let socket = |place: &str| format!("[admin]\nlisten = \"unix:{}\"\n", bed.at(place).display());
    let good = bed.config("");
    let state = |place: &str| good.replace(bed.at("state").to_str().unwrap(), bed.at(place).to_str().unwrap());
    let cases = [
        (good.clone() + &socket("run/pintle.sock"), "admin.listen: "),
        (good.clone() + &socket("pintle.sock"), "admin.listen: "), // beside the configuration
        (good.clone() + &socket("link/pintle.sock"), "admin.listen: "),
        (good.clone() + &socket("home/pintle.sock"), "admin.listen: "),
        (good.clone() + &socket("runtime/pintle.sock"), "admin.listen: "),
        (good.clone() + &socket("dangling/pintle.sock"), "admin.listen: "),
        (good.clone() + &socket("run/other.pid/pintle.sock"), "admin.listen: "),
        (state("run"), "state.directory: "),
        (state("link"), "state.directory: "),
        (state("home"), "state.directory: "),
        (state("runtime"), "state.directory: "),
        (state("."), "state.directory: "),
        (good.replace("access.log", "foreign.log"), "log.access: "),
    ];
    for (config, message) in cases {
        fs::write(&file, format!("{listen}{config}")).unwrap();
        let before = all();
        let mut run = Command::new("timeout");
        run.args(["20", env!("CARGO_BIN_EXE_pintle"), "run", "-c"]).arg(&file).env_remove("PINTLE_ALLOW_ROOT");
        let (code, _, err) = outcome(&mut run);
        assert!(code == 1 && err.contains(message) && err.contains("hint: "), "{config}\n{err}");
        assert!(!err.contains("chown -R"), "{err}");
        let (code, _, check) = outcome(pintle().args(["check", "-c"]).arg(&file).env_remove("PINTLE_ALLOW_ROOT"));
        // What is not there yet, `check` does not make to see.
        assert!(
            code == 1 && check.contains(message) || message == "admin.listen: " && err.contains("dangling"),
            "{check}"
        );
        assert!(!check.contains("chown -R"), "{check}");
        let mut after = all();
        // The first time it makes what it may make: those are new, and the user's.
        after.retain(|path, _| before.contains_key(path));
        assert_eq!(before, after, "{config}");
    }
    // The remedy for a socket in a folder like /run, as it is printed.
    fs::write(&file, format!("{listen}{good}{}", socket("run/pintle.sock"))).unwrap();
    let (_, _, err) = outcome(pintle().args(["run", "-c"]).arg(&file).env_remove("PINTLE_ALLOW_ROOT"));
    let setting = remedy(&err).split(" in [admin]").next().unwrap();
    let before = all();
    let pintle = bed.start(listen, &format!("{good}[admin]\n{setting}\n"));
    assert_eq!(pintle.status()["sandbox"]["user"], USER);
    let (made, socket) = (bed.at("run/pintle"), bed.at("run/pintle/pintle.sock"));
    assert_eq!(fs::metadata(&made).unwrap().mode() & 0o777, 0o700);
    for path in [&made, &socket] {
        assert_eq!(fs::symlink_metadata(path).unwrap().uid(), ids().0, "{path:?}");
    }
    assert_eq!(pintle.stop(), 0);
    let mut after = all();
    after.retain(|path, _| before.contains_key(path));
    assert_eq!(before, after);
}

/// The remedy removes a file that the serving user has put in the way. No remedy for root gives that user another
/// user's file.
#[test]
fn no_remedy_gives_away_what_a_link_leads_to() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let config = bed.config("").replace("access.log", "logs/access.log");
    let file = bed.at("pintle.toml");
    fs::write(&file, format!("{listen}{config}")).unwrap();
    let precious = bed.at("precious");
    for (place, kind) in [
        ("logs/access.log", "link"),
        ("logs/access.log", "hard link"),
        ("logs/access.log", "fifo"),
        ("logs", "link"),
        ("state/ledger.jsonl", "link"),
        ("state/admin.token", "link"),
        ("state/admin.token", "hard link"),
        ("state", "link"),
    ] {
        for folder in ["state", "logs", "roots"] {
            let _ = fs::remove_file(bed.at(folder));
            let _ = fs::remove_dir_all(bed.at(folder));
            fs::create_dir(bed.at(folder)).unwrap();
            if folder != "roots" {
                chown(bed.at(folder), Some(ids().0), Some(ids().1)).unwrap();
            }
        }
        fs::write(&precious, "precious\n").unwrap();
        chmod(&precious, 0o600);
        let at = bed.at(place);
        match kind {
            "link" if at.is_dir() => {
                fs::remove_dir(&at).unwrap();
                symlink(bed.at("roots"), &at).unwrap();
            }
            "link" => symlink(&precious, &at).unwrap(),
            "hard link" => fs::hard_link(&precious, &at).unwrap(),
            _ => assert!(Command::new("mkfifo").arg(&at).status().unwrap().success()),
        }
        if kind != "hard link" {
            std::os::unix::fs::lchown(&at, Some(ids().0), Some(ids().1)).unwrap();
        }
        let message = |command: &str| {
            let mut run = Command::new("timeout");
            run.args(["20", env!("CARGO_BIN_EXE_pintle"), command, "-c"]).arg(&file).env_remove("PINTLE_ALLOW_ROOT");
            let (code, _, err) = outcome(&mut run);
            assert!(code == 1 && err.contains(at.to_str().unwrap()), "{place}, {kind}: {code} {err}");
            assert!(!err.contains("chown"), "{place}, {kind}: {err}");
            err
        };
        if place != "logs" {
            // A log that is not there yet, `check` does not make to see.
            message("check");
        }
        let err = message("run");
        output(Command::new("sh").args(["-c", remedy(&err)]));
        assert!(fs::symlink_metadata(&at).is_err(), "{place}, {kind}: {err}");
        for path in [&precious, &bed.at("roots")] {
            assert_eq!(fs::metadata(path).unwrap().uid(), 0, "{place}, {kind}: {path:?}");
        }
        // With the folder there again, nothing is in the way.
        if place == "logs" {
            fs::create_dir(&at).unwrap();
        }
        assert_eq!(bed.start(listen, &config).stop(), 0, "{place}, {kind}");
    }
}

/// State that root has made, by an older version or as root: its owner stays, and the printed remedy works.
#[test]
fn a_state_of_roots_is_given_away_by_hand() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let as_root = format!("[process]\nallow_root = true\n[state]\ndirectory = {:?}\n{}", bed.at("state"), bed.site);
    assert_eq!(bed.start(listen, &as_root).stop(), 0);
    let owner = |name: &str| fs::metadata(bed.at(name)).unwrap().uid();
    assert_eq!((owner("state"), owner("state/ledger.jsonl")), (0, 0));
    let managed = "state/acme/a.example/ecdsa-p256/key.pem";
    fs::create_dir_all(bed.at(managed).parent().unwrap()).unwrap();
    fs::write(bed.at(managed), "").unwrap();
    let config = bed.at("pintle.toml");
    fs::write(&config, format!("{listen}{}", bed.config(""))).unwrap();
    let (code, _, err) = outcome(pintle().args(["run", "-c"]).arg(&config).env_remove("PINTLE_ALLOW_ROOT"));
    assert!(
        code == 1 && err.contains("state.directory: ") && err.contains("the user nobody cannot write there"),
        "{err}"
    );
    assert_eq!((owner("state"), owner("state/ledger.jsonl")), (0, 0));
    let message = remedy(&err);
    assert!(message.starts_with("chown -h nobody:") && message.contains("ledger.jsonl"), "{message}");
    output(Command::new("sh").args(["-c", message]));
    assert_eq!(owner(managed), ids().0, "{message}");
    let pintle = bed.start(listen, &bed.config(""));
    assert_eq!((owner("state"), owner("state/ledger.jsonl")), (ids().0, ids().0));
    assert_eq!(pintle.status()["ledger"]["error"], serde_json::Value::Null);
    assert_eq!(pintle.stop(), 0);
    // And a command of root's, while nobody serves, leaves nothing that the user could not use.
    let merge = bed.at("other.jsonl");
    fs::write(&merge, "").unwrap();
    for gone in ["state/ledger.jsonl", "state"] {
        let gone = bed.at(gone);
        if gone.is_dir() {
            fs::remove_dir_all(gone).unwrap()
        } else {
            // A head without its file would be a loss, and so would the number in the file of the lock.
            fs::remove_file(gone.with_extension("head")).unwrap();
            fs::remove_file(gone.with_extension("lock")).unwrap();
            fs::remove_file(gone).unwrap()
        }
        output(crate::harness::pintle().args(["ledger", "merge", "-c"]).arg(&config).arg(&merge));
        assert_eq!(owner("state"), ids().0);
        for entry in fs::read_dir(bed.at("state")).unwrap().flatten() {
            assert_eq!(entry.metadata().unwrap().uid(), ids().0, "{entry:?}");
        }
    }
}

/// State of a user who has another number on this host: one command gives all of it back, whether the folder has other files
/// or not.
#[test]
fn a_state_of_another_user_is_given_away_as_a_whole() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let config = bed.at("pintle.toml");
    for is_shared in [false, true] {
        let pintle = bed.start(listen, &bed.config(""));
        let copies = || fs::read_dir(bed.at("state/last-good")).into_iter().flatten().count();
        eventually("the pair is copied", || (copies() > 0).then_some(()));
        assert_eq!(pintle.stop(), 0);
        fs::write(&config, format!("{listen}{}", bed.config(""))).unwrap();
        if is_shared {
            fs::write(bed.at("state/theirs"), "theirs\n").unwrap();
        }
        output(Command::new("chown").args(["-R", "12345:12345"]).arg(bed.at("state")));
        chmod(&bed.at("state"), 0o700);
        let mut run = crate::harness::pintle();
        let (code, _, err) = outcome(run.args(["run", "-c"]).arg(&config).env_remove("PINTLE_ALLOW_ROOT"));
        assert!(code == 1 && err.contains("the user nobody cannot write there"), "{err}");
        let (command, setting) = remedy(&err).split_once("; then ").unwrap_or_else(|| (remedy(&err), ""));
        output(Command::new("sh").args(["-c", command]));
        let mut text = bed.config("");
        let folder = match setting.split('"').nth(1) {
            Some(folder) => PathBuf::from(folder),
            None => bed.at("state"),
        };
        assert_eq!(folder == bed.at("state"), !is_shared, "{err}");
        text = text.replace(&format!("{:?}", bed.at("state")), &format!("{folder:?}"));
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        for name in ["ledger.jsonl", "ledger.head", "ledger.lock", "last-good"] {
            assert_eq!(fs::symlink_metadata(folder.join(name)).unwrap().uid(), ids().0, "{name} {err}");
        }
        let pintle = bed.start(listen, &text);
        assert_eq!(pintle.log_json("the ledger is new").len(), 0, "{}", pintle.log());
        assert_eq!(pintle.status()["ledger"]["error"], serde_json::Value::Null);
        assert_eq!(pintle.stop(), 0);
        let theirs = fs::metadata(bed.at("state/theirs"));
        assert!(theirs.is_ok_and(|theirs| theirs.uid() == 12345) == is_shared);
    }
}

/// The copies of the live keys, in a folder that root has restored: nobody is told to move them away, and the remedy brings
/// them back.
#[test]
fn the_copies_are_given_back_by_hand() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let pintle = bed.start(listen, &bed.config(""));
    let folder = bed.at("state/last-good");
    let copies = || fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    eventually("the pair is copied", || copies().iter().any(|copy| copy.extension().is_some()).then_some(()));
    assert_eq!(pintle.stop(), 0);
    let config = bed.at("pintle.toml");
    fs::write(&config, format!("{listen}{}", bed.config(""))).unwrap();
    // A link, and another name of root's file, stay root's.
    let precious = bed.at("precious");
    fs::write(&precious, "precious\n").unwrap();
    fs::hard_link(&precious, folder.join("other-name")).unwrap();
    symlink(&precious, folder.join("link")).unwrap();
    for path in copies().into_iter().chain([folder.clone()]) {
        std::os::unix::fs::lchown(path, Some(0), Some(0)).unwrap();
    }
    let said = |command: &str| {
        let mut started = crate::harness::pintle();
        outcome(started.args([command, "-c"]).arg(&config).env_remove("PINTLE_ALLOW_ROOT"))
    };
    for command in ["check", "run"] {
        let (code, _, err) = said(command);
        assert!(
            code == 1 && err.contains("last-good: it belongs to user root, the user nobody cannot write it"),
            "{err}"
        );
        assert!(!err.contains("not a regular file") && !err.contains("mv -T"), "{command}: {err}");
    }
    let (_, _, err) = said("run");
    output(Command::new("sh").args(["-c", remedy(&err)]));
    assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
    for name in ["other-name", "link"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    assert!(copies().into_iter().chain([folder.clone()]).all(|path| fs::metadata(path).unwrap().uid() == ids().0));
    assert_eq!(bed.start(listen, &bed.config("")).stop(), 0);
}

/// Whoever serves owns the folder of the state: what it leaves there does not lead a command of root's elsewhere.
#[test]
fn commands_of_root_follow_no_links_in_the_state() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let config = bed.at("pintle.toml");
    fs::write(&config, format!("[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n{}", bed.config(""))).unwrap();
    let other = bed.at("other.jsonl");
    fs::write(&other, "").unwrap();
    let precious = bed.at("precious");
    for name in ["ledger.jsonl", "ledger.lock"] {
        for kind in ["link", "dangling link", "hard link", "fifo"] {
            let _ = fs::remove_dir_all(bed.at("state"));
            fs::create_dir(bed.at("state")).unwrap();
            chown(bed.at("state"), Some(ids().0), Some(ids().1)).unwrap();
            fs::write(&precious, "precious\n").unwrap();
            let at = bed.at("state").join(name);
            match kind {
                "link" => symlink(&precious, &at).unwrap(),
                "dangling link" => symlink(bed.at("nowhere"), &at).unwrap(),
                "hard link" => fs::hard_link(&precious, &at).unwrap(),
                _ => assert!(Command::new("mkfifo").arg(&at).status().unwrap().success()),
            }
            let mut merge = Command::new("timeout");
            merge.args(["20", env!("CARGO_BIN_EXE_pintle"), "ledger", "merge", "-c"]).arg(&config).arg(&other);
            let (code, _, err) = outcome(&mut merge);
            assert!(code == 1 && err.contains("state"), "{name}, {kind}: {code} {err}");
            assert_eq!(fs::read_to_string(&precious).unwrap(), "precious\n", "{name}, {kind}");
            assert_eq!(fs::metadata(&precious).unwrap().uid(), 0, "{name}, {kind}");
            assert!(!bed.at("nowhere").exists(), "{name}, {kind}");
        }
    }
}

/// The lines name clients: they are for the operator's group at most, whoever makes the file.
#[test]
fn the_access_log_is_for_its_group_at_most() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("access.log");
    let config = format!(
        "[log]\naccess = {log:?}\n[state]\ndirectory = {:?}\n{}",
        folder.path().join("state"),
        blog(&authority, &origin)
    );
    let pintle = Pintle::start(&authority, &config);
    let mode = || fs::metadata(&log).unwrap().mode() & 0o777;
    assert_eq!(mode() & 0o137, 0, "{:o}", mode());
    fs::rename(&log, folder.path().join("access.log.1")).unwrap();
    assert!(pintle.reload().contains("reloaded"));
    eventually("the log is there again", || log.exists().then_some(()));
    assert_eq!(mode() & 0o137, 0, "{:o}", mode());
}

/// A renewed key is for the same group to read as the one before: the user that serves is in no other.
#[test]
fn an_installed_key_can_be_read_by_the_user() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let site = bed.site.split("[site.hsts]").next().unwrap();
    let pintle = bed.start(listen, &bed.config("").replace(&bed.site, site));
    let renewed = bed.authority.leaf("renewed", &[BLOG]);
    let mut install = pintle.command("install");
    let out = output(install.args(["--site", BLOG]).arg(&renewed.chain).arg(&renewed.key));
    assert!(out.contains("loaded by the running process"), "{out}");
    let key = fs::metadata(bed.key()).unwrap();
    assert_eq!((key.mode() & 0o777, key.gid()), (0o640, ids().1));
    assert_eq!(pintle.status()["sites"][0]["certificates"][0]["pin"], renewed.pin);
}

/// The sandbox hides the files with the names of users and groups. (systemd's library knows nobody's name without them.)
#[test]
fn names_are_names_in_the_sandbox() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    chmod(&bed.key(), 0o644);
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let pintle = bed.start(listen, &bed.config("").replace(&format!("{USER:?}"), "\"daemon\""));
    assert_eq!(pintle.logged("sandbox", 1)[0]["user"], "daemon");
    assert_eq!(pintle.status()["sandbox"]["user"], "daemon");
    chmod(&bed.key(), 0o600);
    let error = pintle.reload_fails();
    assert!(error.contains("not readable by the user daemon") && error.contains("hint: chgrp daemon "), "{error}");
}

/// A folder of the log that is missing has one message, and its remedy is enough.
#[test]
fn a_missing_folder_of_the_log() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n";
    let config = bed.config("").replace("access.log", "two words/access.log");
    let file = bed.at("pintle.toml");
    fs::write(&file, format!("{listen}{config}")).unwrap();
    for command in ["check", "run"] {
        let (code, _, error) = outcome(pintle().args([command, "-c"]).arg(&file));
        assert!(code == 1 && error.contains(": no such folder"), "{command}: {error}");
        assert_eq!(error.matches("log.access").count(), 1, "{command}: {error}");
    }
    let (_, _, error) = outcome(pintle().args(["check", "-c"]).arg(&file));
    output(Command::new("sh").args(["-c", remedy(&error)]));
    let pintle = bed.start(listen, &config);
    assert!(bed.at("two words/access.log").exists(), "{}", pintle.log());
}

/// All at once, each with a remedy, before anything is served; and `check` knows it before.
#[test]
fn what_the_user_cannot_use_is_told_before_it_serves() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    chmod(&bed.key(), 0o600);
    chown(bed.key(), Some(0), Some(0)).unwrap();
    // Not root's alone to prepare: somebody else has the folder.
    fs::create_dir(bed.at("others")).unwrap();
    chown(bed.at("others"), Some(1), Some(1)).unwrap();
    let config = format!("[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n{}", bed.config(""))
        .replace(bed.at("state").to_str().unwrap(), bed.at("others/state").to_str().unwrap())
        .replace(bed.at("access.log").to_str().unwrap(), bed.at("others/access.log").to_str().unwrap());
    let file = bed.at("pintle.toml");
    fs::write(&file, &config).unwrap();
    let (code, _, err) = outcome(pintle().args(["run", "-c"]).arg(&file));
    assert_eq!(code, 1, "{err}");
    for words in [
        "blog.key: not readable by the user nobody",
        "hint: chgrp nogroup ",
        "others/state: the user nobody cannot write there",
        "hint: install -d -o nobody ",
        "others/access.log: the user nobody cannot write it",
    ] {
        assert!(err.contains(words) || words.contains("nogroup") && err.contains("hint: chgrp"), "{words:?} in\n{err}");
    }
    let (code, out, err) = outcome(pintle().args(["check", "-c"]).arg(&file));
    assert!(code == 1 && err.contains("blog.key: not readable by the user nobody"), "{out}{err}");
    let (code, out, _) = outcome(pintle().args(["check", "--json", "-c"]).arg(&file));
    assert!(code == 1 && out.contains("not readable by the user nobody"), "{out}");
    // A fault of the chain hides none of the key.
    let chain = bed.authority.folder().join("blog.pem");
    let whole = fs::read(&chain).unwrap();
    for broken in [&b"no certificate"[..], bed.authority.ca_pem().as_bytes()] {
        fs::write(&chain, broken).unwrap();
        let (code, out, err) = outcome(pintle().args(["check", "-c"]).arg(&file));
        assert!(code == 1 && err.contains("blog.key: not readable by the user nobody"), "{out}{err}");
        assert!(err.contains("blog.pem: ") && err.contains("hint: chgrp"), "{err}");
    }
    fs::write(&chain, whole).unwrap();
    // The file itself.
    chmod(&file, 0o600);
    let (code, _, err) = outcome(pintle().args(["run", "-c"]).arg(&file));
    assert!(code == 1 && err.contains("pintle.toml: the user nobody cannot read it"), "{err}");
    // With all of it mended, there is nothing to tell.
    chmod(&file, 0o644);
    fs::write(&file, format!("[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n{}", bed.config(""))).unwrap();
    chown(bed.key(), None, Some(ids().1)).unwrap();
    chmod(&bed.key(), 0o640);
    let (code, out, err) = outcome(pintle().args(["check", "-c"]).arg(&file));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
}

#[test]
fn root_serves_only_where_it_is_told_to() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let file = bed.at("pintle.toml");
    let run = |process: &str| {
        let text = format!("{process}[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n{}", bed.site);
        fs::write(&file, text).unwrap();
        outcome(pintle().env_remove("PINTLE_ALLOW_ROOT").args(["run", "-c"]).arg(&file))
    };
    if fs::read_to_string("/etc/passwd").unwrap().contains("\npintle:") {
        eprintln!("stepping aside: this system has a user pintle, which root would become");
    } else {
        let (code, _, err) = run("");
        assert!(code == 1 && err.contains("will not serve as root"), "{err}");
        for remedy in ["process.user", "CAP_NET_BIND_SERVICE", "--allow-root"] {
            assert!(err.contains(remedy), "{remedy} in {err}");
        }
    }
    let (code, _, err) = run("[process]\nuser = \"no-such-user\"\n");
    assert!(code == 1 && err.contains("pintle.toml:2:8: error: process.user: no such user: \"no-such-user\""), "{err}");
    let (code, _, err) = run("[process]\nuser = \"nobody\"\ngroup = \"no-such-group\"\n");
    assert!(
        code == 1 && err.contains("pintle.toml:3:9: error: process.group: no such group: \"no-such-group\""),
        "{err}"
    );
    assert!(err.contains("hint: groupadd --system no-such-group") && !err.contains("useradd"), "{err}");
    let (code, _, err) = run("[process]\nuser = \"\"\n");
    assert!(code == 1 && err.contains("process.user: must not be empty") && !err.contains("no such user"), "{err}");
    let (code, _, err) = run("[process]\nuser = \"root\"\n");
    assert!(code == 1 && err.contains("process.user: will not serve as root"), "{err}");
    // Other faults are reported with it.
    let (code, _, err) = run("[process]\nuser = \"no-such-user\"\n[sandbox]\nseccomp = \"maybe\"\n");
    assert!(
        code == 1 && err.contains("no-such-user") && err.contains("sandbox.seccomp: unknown value \"maybe\""),
        "{err}"
    );
}

/// Root that stays root has little more than a user.
#[test]
fn root_that_may_stay_lets_go_of_what_it_can() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &format!("[process]\nallow_root = true\n{}", bed.site));
    // CAP_DAC_OVERRIDE is number 1.
    assert!(threads(&pintle, "CapEff").iter().all(|value| value == "0000000000000002"));
    assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").status, 200);
}
