//! Two network namespaces, for hosts on either side of a wire.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::outcome;

/// Two namespaces, whose loopback devices are up.
pub struct Namespaces {
    /// The names: near, far.
    pub names: [String; 2],
}

impl Namespaces {
    /// Makes the namespaces, and runs `ip` with each of the commands. `None`, with the reason on standard error, if this is
    /// not permitted.
    pub fn make(commands: impl FnOnce([&str; 2]) -> Vec<String>) -> Option<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let names = ["near", "far"].map(|side| format!("pintle-{}-{number}-{side}", std::process::id()));
        let namespaces = Self { names };
        let [near, far] = namespaces.names.each_ref().map(String::as_str);
        let mut all = vec![format!("netns add {near}"), format!("netns add {far}")];
        all.extend([near, far].map(|name| format!("-n {name} link set lo up")));
        all.extend(commands([near, far]));
        for command in all {
            let (code, _, err) = outcome(Command::new("ip").args(command.split(' ')));
            if code != 0 {
                eprintln!("stepping aside: ip {command}: {}", err.trim());
                return None;
            }
        }
        Some(namespaces)
    }

    /// Runs a function in one of the namespaces, on a thread of its own. Sockets that it makes stay there.
    pub fn within<T: Send>(&self, side: usize, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/var/run/netns/{}", self.names[side])).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
        }
    }
}
