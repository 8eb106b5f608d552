//! What somebody would try who took over the process: for the tests, which see it fail. No release has it.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use nix::unistd::{Gid, Pid, Uid, setresgid, setresuid};
use socket2::{Domain, Socket, Type};

/// For connections that lead nowhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Netlink's number (linux/socket.h).
const AF_NETLINK: i32 = 16;

/// Tries it, with a path, an address or a process.
///
/// # Errors
///
/// Why it cannot be done.
pub fn attempt(what: &str, with: &str) -> io::Result<()> {
    let bad = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let process = || with.parse().map(Pid::from_raw).map_err(bad);
    match what {
        "read" => fs::read(with).map(drop),
        "list" => fs::read_dir(with).map(drop),
        "write" => fs::write(with, "x"),
        "exec" => Command::new(with).status().map(drop),
        "connect" => {
            let address: SocketAddr = with.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).map(drop)
        }
        "packet" => Socket::new(Domain::PACKET, Type::DGRAM, None).map(drop),
        "netlink" => Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, None).map(drop),
        "raw" => Socket::new(Domain::IPV4, Type::RAW, Some(socket2::Protocol::ICMPV4)).map(drop),
        "ptrace" => Ok(ptrace::attach(process()?)?),
        "signal" => Ok(rustix::process::test_kill_process(
            rustix::process::Pid::from_raw(process()?.as_raw()).ok_or(io::ErrorKind::InvalidInput)?,
        )?),
        "namespace" => Ok(unshare(CloneFlags::CLONE_NEWUSER)?),
        "root" => {
            let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
            setresgid(group, group, group)?;
            Ok(setresuid(user, user, user)?)
        }
        "bind" => std::net::TcpListener::bind(with).map(drop),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}
