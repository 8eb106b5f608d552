//! Upstreams that fail: what readers get, what the log says, and that nothing hangs, leaks, or looks whole when it is not.

mod behaviour;
mod cuts;
mod descriptors;
mod faults;
mod http2;
mod http2_faults;
mod names;
mod storm;
mod upgrades;
mod wire;

use std::fs;

use crate::harness::{Authority, PATIENCE, Pintle};

/// A state of its own, and with it an admin socket.
fn state(authority: &Authority) -> String {
    format!("[state]\ndirectory = {:?}\n", authority.folder().join("state"))
}

/// Open files of a process.
fn open_files(pintle: &Pintle) -> usize {
    fs::read_dir(format!("/proc/{}/fd", pintle.pid())).map_or(0, Iterator::count)
}

/// What they are; for TCP, the kernel's view of them.
fn sockets(pintle: &Pintle) -> (Vec<std::path::PathBuf>, String) {
    let files = fs::read_dir(format!("/proc/{}/fd", pintle.pid())).into_iter().flatten().flatten();
    let tcp = fs::read_to_string(format!("/proc/{}/net/tcp", pintle.pid())).unwrap_or_default();
    (files.filter_map(|f| fs::read_link(f.path()).ok()).collect(), tcp)
}

/// Waits until it has no more files open than at first, and checks that nothing has panicked.
#[track_caller]
fn assert_no_leaks(pintle: &Pintle, at_first: usize) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while open_files(pintle) > at_first {
        assert!(tokio::time::Instant::now() < end, "more than {at_first} files are open: {:?}", sockets(pintle));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(pintle.status()["counters"]["panics"], 0, "{}", pintle.log());
}
