//! A container or a service that ends with this process. Where there is one, another process
//! cannot take over. Process 1 of a container has duties, too: it reaps orphans.

use std::path::Path;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use rustix::process::{Pid, getpid, getppid};

use crate::reason::Reason;

/// The inode of the first process namespace (`PROC_PID_INIT_INO`), which is no container's.
const HOST_NAMESPACE: &str = "pid:[4026531836]";
/// The number of orphans that [`reap`] reaps at a time.
const REAPED_MAX: usize = 64;

/// The container or service that ends with this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tie {
    /// The container, whose process 1 this is.
    Container,
    /// The container, whose process 1 started this process and waits for it.
    Entrypoint,
    /// A unit of systemd that does not take another main process.
    Unit,
}

/// The facts that decide.
#[derive(Debug, Clone, Copy)]
struct SupervisorFacts {
    pid: u32,
    parent: i32,
    /// `true` in a process namespace other than the host's.
    in_container: bool,
    /// `true` if process 1 is systemd.
    under_systemd: bool,
    /// `true` if systemd can hear of another main process.
    notifies: bool,
    /// The process that systemd started with this environment.
    main: Option<u32>,
}

impl SupervisorFacts {
    fn tie(self) -> Option<Tie> {
        if self.pid == 1 {
            return Some(Tie::Container);
        }
        if self.parent != 1 {
            return None;
        }
        if self.under_systemd {
            // A process whose parent has ended is the child of process 1, too: systemd does not wait for that one.
            return (!self.notifies && self.main == Some(self.pid)).then_some(Tie::Unit);
        }
        self.in_container.then_some(Tie::Entrypoint)
    }
}

impl Tie {
    /// The reason why another process cannot take over, and what to do instead.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Container | Self::Entrypoint => Reason::new(format!(
                "no upgrade in this container: {self}; nothing has changed"
            ))
            .hint("restart the container, with a new image for a new version: pintle first finishes running requests")
            .hint("`pintle reload` applies most changes of the configuration without a restart"),
            Self::Unit => Reason::new(format!("no upgrade in this service: {self}; nothing has changed"))
                .hint("set Type=notify and NotifyAccess=main in the unit, as dist/systemd/pintle.service has them")
                .hint("until then: systemctl restart"),
        }
    }
}

impl std::fmt::Display for Tie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Container => "pintle is its process 1, and it ends with pintle",
            Self::Entrypoint => "its process 1 started pintle, and ends it when pintle ends",
            Self::Unit => "its unit is without Type=notify, and ends with pintle's first process",
        })
    }
}

/// Returns what ends when this process ends, besides the process.
#[must_use]
pub fn tie() -> Option<Tie> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok();
    SupervisorFacts {
        pid: std::process::id(),
        parent: Pid::as_raw(getppid()),
        in_container: namespace.is_some_and(|namespace| namespace != Path::new(HOST_NAMESPACE)),
        under_systemd: Path::new("/run/systemd/system").is_dir() && is_systemd(),
        notifies: std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty()),
        main: number("SYSTEMD_EXEC_PID"),
    }
    .tie()
}

/// Returns `false` if process 1 is something else than systemd, as in a container that shares `/run` with its host.
/// Under systemd, a unit may hide process 1.
fn is_systemd() -> bool {
    let name = std::fs::read_to_string("/proc/1/comm");
    name.map_or(true, |name| ["systemd", "init"].contains(&name.trim()))
}

/// Reaps ended processes that this process has inherited, as process 1. Leaves its `own` children
/// alone: somebody waits for their exit status.
pub fn reap(own: &[u32]) {
    if !getpid().is_init() {
        return;
    }
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    for _ in 0..REAPED_MAX {
        let Ok(status) = waitid(Id::All, ended | WaitPidFlag::WNOWAIT) else { return };
        let Some(pid) = status.pid() else { return };
        if own.iter().any(|own| i64::from(*own) == i64::from(pid.as_raw())) || waitid(Id::Pid(pid), ended).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_with_this_process() {
        let plain = SupervisorFacts {
            pid: 7,
            parent: 6,
            in_container: false,
            under_systemd: false,
            notifies: false,
            main: None,
        };
        let of_init = SupervisorFacts { parent: 1, ..plain };
        let unit = SupervisorFacts { under_systemd: true, main: Some(7), ..of_init };
        for (facts, tie, case) in [
            (plain, None, "from a shell"),
            (SupervisorFacts { in_container: true, ..plain }, None, "from a shell in a container"),
            (SupervisorFacts { pid: 1, parent: 0, in_container: true, ..plain }, Some(Tie::Container), "docker run"),
            (
                SupervisorFacts { pid: 1, parent: 0, in_container: true, notifies: true, ..plain },
                Some(Tie::Container),
                "podman run --sdnotify=container",
            ),
            (SupervisorFacts { pid: 1, parent: 0, ..plain }, Some(Tie::Container), "init=/usr/bin/pintle"),
            (SupervisorFacts { in_container: true, ..of_init }, Some(Tie::Entrypoint), "docker run --init"),
            (SupervisorFacts { parent: 0, in_container: true, ..plain }, None, "docker exec"),
            (of_init, None, "sysvinit on a machine"),
            (SupervisorFacts { notifies: true, ..unit }, None, "the unit of dist/systemd"),
            (
                SupervisorFacts { notifies: true, in_container: true, ..unit },
                None,
                "the same in a container that boots systemd",
            ),
            (unit, Some(Tie::Unit), "Type=simple"),
            (SupervisorFacts { main: Some(5), ..unit }, None, "its parent has ended"),
            (SupervisorFacts { main: None, ..unit }, None, "nohup, and logged out"),
            (SupervisorFacts { parent: 6, ..unit }, None, "a script that systemd started"),
        ] {
            assert_eq!(facts.tie(), tie, "{case}");
        }
    }

    #[test]
    fn nothing_ends_with_a_test() {
        assert_eq!(tie(), None);
        reap(&[]);
    }
}
