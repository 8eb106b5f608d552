//! The base of the tests: a CA, an origin that records requests, pintle as a process on port 0, and clients.

mod authority;
mod browser;
mod client;
pub mod double;
pub mod http2_frame;
mod netns;
mod origin;
mod origin2;
pub mod pebble;
mod process;
mod programs;
mod secure;
mod sites;

use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

pub use authority::{Authority, KeyKind, Leaf};
pub use browser::Browser;
pub use client::{Client, Connection, Response, read_response, whole};
pub use netns::Namespaces;
pub use origin::{Origin, Received, Reply};
pub use origin2::Http2Origin;
pub use process::{Pintle, pintle};
pub use programs::{Program, free_port, nginx, program, send_signal, varnish};
pub use secure::{SecureServer, page, read_head, server_config};
pub use sites::{BLOG, blog, blog_at, policies};

/// The longest time that a test waits for anything: a machine may stand still for a while in between.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Returns `true` for root. Otherwise prints the action that only root can do, as the reason to skip the test.
pub fn is_root(what: &str) -> bool {
    let is_root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    if !is_root {
        eprintln!("stepping aside: only root can {what}");
    }
    is_root
}

/// Waits for something to become true, and says what it was if it does not.
#[track_caller]
pub fn eventually<T>(what: &str, found: impl FnMut() -> Option<T>) -> T {
    in_time(found).unwrap_or_else(|| panic!("never happened: {what}"))
}

/// The same, for those who have more to say about it.
pub fn in_time<T>(mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        match found() {
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            outcome => return outcome,
        }
    }
}

/// Runs a program to its end; gives its standard output. Fails with all it said unless it succeeds.
#[track_caller]
pub fn output(command: &mut Command) -> String {
    let (code, out, err) = outcome(command);
    assert_eq!(code, 0, "{command:?}\n--- stdout\n{out}\n--- stderr\n{err}");
    out
}

/// Runs a program to its end; gives exit code, standard output and standard error.
#[track_caller]
pub fn outcome(command: &mut Command) -> (i32, String, String) {
    let done = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    (done.status.code().unwrap_or(-1), text(done.stdout), text(done.stderr))
}

/// `curl --silent --show-error` with the CA, and the site's names pointed at pintle.
pub fn curl(authority: &Authority) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--cacert"]).arg(authority.ca_path());
    curl
}
