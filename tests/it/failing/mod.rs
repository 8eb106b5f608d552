//! Upstreams that fail: what readers get, what the log says, and that nothing hangs, leaks, or looks whole when it is not.

mod behaviour;
mod cuts;
mod descriptors;
mod faults;
mod http2;
pub mod http2_faults;
mod names;
mod storm;
mod unprocessed;
mod upgrades;
mod wire;

use std::fmt::Display;
use std::fs;
use std::time::Duration;

use faults::Seen;

use crate::harness::{Authority, Connection, Pintle, eventually, in_time, is_root, read_response};

/// A state of its own, and with it an admin socket.
fn state(authority: &Authority) -> String {
    format!("[state]\ndirectory = {:?}\n", authority.folder().join("state"))
}

/// Open files of a process: what each of them is. Root alone can see that; for others there are none, and no leak is seen.
fn open_files(pintle: &Pintle) -> Vec<String> {
    if !is_root("see which files another process has open") {
        return Vec::new();
    }
    let folder = fs::read_dir(format!("/proc/{}/fd", pintle.pid())).expect("it runs");
    let what = |entry: fs::DirEntry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned());
    folder.filter_map(|entry| what(entry.ok()?)).collect()
}

/// Open files of a process that has just begun, once all of its workers have theirs: it takes connections before that.
fn open_at_first(pintle: &Pintle) -> Vec<String> {
    let mut before = open_files(pintle);
    let mut same = 0;
    eventually("its open files stay the same", || {
        std::thread::sleep(Duration::from_millis(20));
        let now = open_files(pintle);
        same = if now.len() == before.len() { same + 1 } else { 0 };
        before = now;
        (same >= 10).then(|| before.clone())
    })
}

/// Reads the final answer to a request by HTTP/1.1; gives what came, and whether the connection may be used further.
fn seen(connection: &mut Connection, method: &str, what: &dyn Display) -> (Seen, bool) {
    loop {
        match read_response(connection, method) {
            Ok(response) if response.status < 200 => {}
            Ok(response) => {
                let closes = response.field("connection") == Some("close");
                return (Seen::Whole(response.status, response.body), !closes);
            }
            Err(error) => {
                assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "{what}: hangs");
                return (Seen::Broken(Vec::new()), false);
            }
        }
    }
}

/// Waits until it has no more files open than at first, and checks that nothing has panicked.
#[track_caller]
fn assert_no_leaks(pintle: &Pintle, at_first: &[String]) {
    if in_time(|| (open_files(pintle).len() <= at_first.len()).then_some(())).is_none() {
        panic!("at first {at_first:#?}, in the end {:#?}", open_files(pintle));
    }
    assert_eq!(pintle.status()["counters"]["panics"], 0, "{}", pintle.log());
}
