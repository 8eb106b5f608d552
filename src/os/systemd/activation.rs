//! Sockets that the service manager has bound (sd_listen_fds(3)): so that nothing here needs leave to bind.

use std::net::TcpListener;

use listenfd::ListenFd;

/// A socket that was passed.
#[derive(Debug)]
pub struct Passed {
    /// The socket.
    pub listener: TcpListener,
    /// The name that it was given (`FileDescriptorName=`); empty if it has none.
    pub name: String,
}

/// The sockets that were passed to this process; none if they were meant for another.
///
/// # Errors
///
/// What is wrong with them, and what to do.
pub fn passed() -> Result<Vec<Passed>, String> {
    let meant_for: Option<u32> = std::env::var("LISTEN_PID").ok().and_then(|pid| pid.parse().ok());
    if meant_for != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    let mut sockets = ListenFd::from_env();
    let mut passed = Vec::new();
    for at in 0..sockets.len() {
        let name = names.next().filter(|name| name != "unknown").unwrap_or_default();
        let wrong = |why: &str| {
            format!(
                "socket {at} of systemd ({name:?}): {why}\n  hint: ListenStream= with a port, or an address and a port, is \
                 what pintle can serve"
            )
        };
        let listener = sockets.take_tcp_listener(at).map_err(|error| wrong(&error.to_string()))?;
        let listener = listener.ok_or_else(|| wrong("is not there"))?;
        if listener.local_addr().is_err() {
            return Err(wrong("is no TCP socket"));
        }
        listener.set_nonblocking(true).map_err(|error| wrong(&error.to_string()))?;
        passed.push(Passed { listener, name });
    }
    Ok(passed)
}
