//! Attempts of an attacker who has taken over the process. Only the tests have them, and expect
//! them to fail.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use nix::unistd::{Gid, Pid, Uid, setresgid, setresuid};
use socket2::{Domain, Protocol, Socket, Type};

/// A timeout for connections that lead nowhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Netlink's number (linux/socket.h).
const AF_NETLINK: i32 = 16;
/// Protocols beside TCP and UDP (linux/in.h), and the flag that connects by sending (linux/socket.h).
const IPPROTO_MPTCP: i32 = 262;
const IPPROTO_SCTP: i32 = 132;
const IPPROTO_UDPLITE: i32 = 136;
const MSG_FASTOPEN: i32 = 0x2000_0000;

/// Makes an attempt, with a path, an address or a process id.
///
/// # Errors
///
/// The reason why it fails.
pub fn attempt(what: &str, with: &str) -> io::Result<()> {
    let bad = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let process = || with.parse().map(Pid::from_raw).map_err(bad);
    match what {
        "read" => fs::read(with).map(drop),
        "list" => fs::read_dir(with).map(drop),
        "write" => fs::write(with, "x"),
        "remove" => fs::remove_file(with),
        "exec" => Command::new(with).status().map(drop),
        "connect" => {
            let address: SocketAddr = with.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).map(drop)
        }
        "packet" => Socket::new(Domain::PACKET, Type::DGRAM, None).map(drop),
        "netlink" => Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, None).map(drop),
        "mptcp" | "sctp" | "udplite" => another_protocol(what),
        "fastopen" | "fastopen-message" => fast_open(what, with),
        "raw" => Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).map(drop),
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

/// Opens a socket of a protocol that Landlock's TCP ports do not cover.
fn another_protocol(what: &str) -> io::Result<()> {
    let (kind, protocol) = match what {
        "mptcp" => (Type::STREAM, IPPROTO_MPTCP),
        "sctp" => (Type::STREAM, IPPROTO_SCTP),
        _ => (Type::DGRAM, IPPROTO_UDPLITE),
    };
    Socket::new(Domain::IPV4, kind, Some(Protocol::from(protocol))).map(drop)
}

/// Connects without connect(2).
fn fast_open(what: &str, with: &str) -> io::Result<()> {
    let address: SocketAddr = with.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    let sent = match what {
        "fastopen" => socket.send_to_with_flags(b"x", &address.into(), MSG_FASTOPEN),
        _ => socket.send_to_vectored_with_flags(&[io::IoSlice::new(b"x")], &address.into(), MSG_FASTOPEN),
    };
    sent.map(drop)
}
