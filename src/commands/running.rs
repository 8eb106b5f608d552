//! Processes that serve a configuration, found without their admin socket: while they start, or after `admin.listen` or
//! `state.directory` has changed in the file.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::param::clock_ticks_per_second;

use crate::config::{DEFAULT_PATHS, Draft};
use crate::control::trusted_users;
use crate::ledger::is_held;

/// The age up to which a process without an admin socket counts as starting, in seconds.
const YOUNG: u64 = 15;

/// A process that serves a configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServingProcess {
    /// Its number.
    pub(super) id: u32,
    /// The seconds since its start.
    age: u64,
}

/// The newest process that serves a configuration; `None` if this user sees none. Another user's process may only claim to.
pub(super) fn newest(draft: &Draft) -> Option<ServingProcess> {
    let config = fs::canonicalize(draft.path()).ok()?;
    let trusted = trusted_users(draft);
    let uptime = uptime(&fs::read_to_string("/proc/uptime").ok()?)?;
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let serving = processes.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let of = |name: &str| entry.path().join(name);
        if !is_of(&fs::read_to_string(of("status")).ok()?, &trusted) {
            return None;
        }
        let named = configurations(&fs::read(of("cmdline")).ok()?)?;
        let is_this = |path: &PathBuf| {
            // A relative path begins where the process was started.
            let start = if path.is_absolute() { Some(PathBuf::new()) } else { fs::read_link(of("cwd")).ok() };
            start.and_then(|start| fs::canonicalize(start.join(path)).ok()).is_some_and(|path| path == config)
        };
        named.iter().find(|path| is_this(path))?;
        if !sees(&of("root"), &config) {
            return None;
        }
        let started = started(&fs::read_to_string(of("stat")).ok()?)?;
        Some(ServingProcess { id, age: uptime.saturating_sub(started / clock_ticks_per_second().max(1)) })
    });
    serving.min_by_key(|process| process.age)
}

/// Returns `true` if a process is about to serve a configuration, and has no admin socket yet. If this user sees no
/// process, the lock of the ledger tells.
pub(super) fn is_starting(draft: &Draft) -> bool {
    match newest(draft) {
        Some(process) => process.age < YOUNG,
        None => draft.state().is_some_and(|folder| is_held(&folder)),
    }
}

/// Returns `true` if a process is one of these users', as its `/proc/ID/status` has it. A process whose memory is closed
/// belongs to root as a file.
fn is_of(status: &str, users: &BTreeSet<u32>) -> bool {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // The real user, the effective one, and others.
    let effective = ids.and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
    effective.is_some_and(|user: u32| users.contains(&user))
}

/// Returns `false` if a process has another file under the configuration's name, as in a container of its own. A unit of
/// systemd has mounts of its own and the same file.
fn sees(root: &Path, config: &Path) -> bool {
    let Ok(name) = config.strip_prefix("/") else { return true };
    let theirs = match fs::metadata(root.join(name)) {
        Ok(theirs) => theirs,
        // Only root looks into processes whose memory is closed.
        Err(error) => return error.kind() == std::io::ErrorKind::PermissionDenied,
    };
    fs::metadata(config).is_ok_and(|ours| (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
}

/// The configurations that a command line may mean: the named one, or the defaults. `None` unless it is of `pintle run`.
fn configurations(command_line: &[u8]) -> Option<Vec<PathBuf>> {
    let words: Vec<&OsStr> =
        command_line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(OsStr::from_bytes).collect();
    let (program, arguments) = words.split_first()?;
    let is_pintle = Path::new(program).file_name().is_some_and(|name| name == "pintle");
    // A launcher's arguments are those of the processes that it will start.
    let is_launcher = arguments.first().is_some_and(|word| *word == "launcher");
    if !is_pintle || is_launcher || !arguments.iter().any(|word| *word == "run") {
        return None;
    }
    let mut rest = arguments.iter();
    while let Some(word) = rest.next().map(|word| word.as_bytes()) {
        if word == b"-c" || word == b"--config" {
            return Some(rest.next().map(PathBuf::from).into_iter().collect());
        }
        let attached = word.strip_prefix(b"--config=").or_else(|| word.strip_prefix(b"-c"));
        if let Some(path) = attached {
            return Some(vec![PathBuf::from(OsStr::from_bytes(path.strip_prefix(b"=").unwrap_or(path)))]);
        }
    }
    Some(DEFAULT_PATHS.iter().map(PathBuf::from).collect())
}

/// The seconds since the boot, as `/proc/uptime` has them.
fn uptime(text: &str) -> Option<u64> {
    text.split(['.', ' ']).next()?.parse().ok()
}

/// The time of a process's start, in ticks since the boot, as `/proc/ID/stat` has it.
fn started(stat: &str) -> Option<u64> {
    // The name of the program may have blanks. The start is the 22nd field, and the name the second one.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let check = |words: &[&str], want: Option<&[&str]>| {
            let found = configurations(words.join("\0").as_bytes());
            let want = want.map(|paths| paths.iter().map(PathBuf::from).collect::<Vec<_>>());
            assert_eq!(found, want, "{words:?}");
        };
        check(&["/usr/bin/pintle", "run", "-c", "/etc/p.toml"], Some(&["/etc/p.toml"]));
        check(&["pintle", "--log-level", "debug", "run", "--config", "p.toml", ""], Some(&["p.toml"]));
        check(&["pintle", "run", "--config=/a b.toml"], Some(&["/a b.toml"]));
        check(&["pintle", "run", "-c/p.toml"], Some(&["/p.toml"]));
        check(&["pintle", "run"], Some(&DEFAULT_PATHS));
        check(&["pintle", "launcher", "/usr/bin/pintle", "run", "-c", "/etc/p.toml"], None);
        check(&["pintle", "status", "-c", "/etc/p.toml"], None);
        check(&["/bin/sh", "run", "-c", "/etc/p.toml"], None);
        check(&[], None);
    }

    #[test]
    fn users_of_processes() {
        let check = |status: &str, want: bool| assert_eq!(is_of(status, &[0, 7].into()), want, "{status}");
        check("Name:\tpintle\nUid:\t7\t7\t7\t7\nGid:\t9\t9\t9\t9\n", true);
        check("Name:\tpintle\nUid:\t0\t9\t9\t9\n", false);
        check("Name:\tpintle\n", false);
    }

    #[test]
    fn ages() {
        assert_eq!(uptime("350735.47 234388.90\n"), Some(350735));
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 5 6";
        assert_eq!(started(stat), Some(4242));
        assert_eq!((uptime(""), started("7 (a")), (None, None));
    }
}
