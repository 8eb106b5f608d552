//! Upstreams that fail: what readers get, what the log says, and that nothing hangs, leaks, or looks whole when it is not.

mod behaviour;
mod cuts;
mod descriptors;
mod faults;
mod names;
mod storm;
mod wire;

use std::fs;

use crate::harness::{Authority, Pintle, eventually};

/// A state of its own, and with it an admin socket.
fn state(authority: &Authority) -> String {
    format!("[state]\ndirectory = {:?}\n", authority.folder().join("state"))
}

/// Open files of a process.
fn open_files(pintle: &Pintle) -> usize {
    fs::read_dir(format!("/proc/{}/fd", pintle.pid())).map_or(0, Iterator::count)
}

/// Waits until it has no more files open than at first, and checks that nothing has panicked.
#[track_caller]
fn assert_no_leaks(pintle: &Pintle, at_first: usize) {
    eventually("all files are closed again", || (open_files(pintle) <= at_first).then_some(()));
    assert_eq!(pintle.status()["counters"]["panics"], 0, "{}", pintle.log());
}
