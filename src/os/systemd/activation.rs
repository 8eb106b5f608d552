//! Socket activation (sd_listen_fds(3)): with sockets bound by systemd, pintle needs no permission
//! to bind.

use std::net::TcpListener;

use listenfd::ListenFd;

use crate::reason::Reason;

/// A passed socket.
#[derive(Debug)]
pub struct PassedSocket {
    /// The socket.
    pub listener: TcpListener,
    /// Its name (`FileDescriptorName=`), or an empty string.
    pub name: String,
}

/// Returns the sockets passed to this process; none if they were meant for another process.
///
/// # Errors
///
/// The fault of a socket, and its remedy.
pub fn passed() -> Result<Vec<PassedSocket>, Reason> {
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
            Reason::new(format!("socket {at} of systemd ({name:?}): {why}"))
                .hint("set ListenStream= to a port, or to an address and a port")
        };
        let listener = sockets.take_tcp_listener(at).map_err(|error| wrong(&error.to_string()))?;
        let listener = listener.ok_or_else(|| wrong("is missing"))?;
        if listener.local_addr().is_err() {
            return Err(wrong("is not a TCP socket"));
        }
        listener.set_nonblocking(true).map_err(|error| wrong(&error.to_string()))?;
        passed.push(PassedSocket { listener, name });
    }
    Ok(passed)
}
