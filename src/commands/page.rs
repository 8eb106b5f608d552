//! `pintle page`: a one-time link to the pages of the running process, and the way of a browser to its socket.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Output;
use super::remote::{address_of_running, say_to};
use super::results::Results;
use crate::config::AdminAddress;
use crate::config::admin::AdminRole;
use crate::control::client::{PATIENCE, relay};
use crate::os::words::words;
use crate::reason::pasted::pintle;

/// Connections of the browser at the same time.
const CONNECTIONS_MAX: usize = 16;
/// A pause after an error of the listener.
const PAUSE: Duration = Duration::from_millis(200);
/// The kernel's table of IPv4 connections, with the user of each end.
const TABLE: &str = "/proc/net/tcp";
/// The state of a socket in [`TABLE`] that has no owner any more.
const TIME_WAIT: &str = "06";

/// The options.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The permissions of the reader.
    pub role: AdminRole,
    /// The loopback port for the browser; 0 for any.
    pub port: u16,
    /// `true` to print the link only.
    pub no_open: bool,
    /// `true` for JSON.
    pub as_json: bool,
}

/// Prints a one-time link. With a Unix socket, then passes the browser's connections on until it is interrupted.
pub fn page(path: &Path, options: &Options, output: &Output) -> ExitCode {
    let mut results = Results::new(options.as_json);
    let Some((draft, address)) = address_of_running(path, output, &mut results) else { return results.end(false) };
    let command = format!("/page/link?role={}", options.role);
    let message = (Method::POST, command.as_str(), String::new());
    let Some((_, answer)) = say_to((&draft, &address), message, PATIENCE, &[StatusCode::OK], &mut results) else {
        return results.end(false);
    };
    let Some(answer) = results.understood::<Value>(&answer) else { return results.end(false) };
    let Some(link) = answer["path"].as_str() else {
        let ok = results.fail(&"the answer cannot be understood");
        return results.end(ok);
    };
    let seconds = answer["seconds"].as_u64().unwrap_or_default();
    match address {
        AdminAddress::Tcp { address, .. } => {
            print(&format!("http://{address}{link}"), seconds, options);
            ExitCode::SUCCESS
        }
        AdminAddress::Unix(socket) => match serve(&socket, link, seconds, options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let what = format!("port {}: {}", options.port, words(&error));
                let ok = results.fail_with_hint(&what, &format!("for any free port: {}", pintle("page --port 0")));
                results.end(ok)
            }
        },
    }
}

fn print(url: &str, seconds: u64, options: &Options) {
    let mut out = io::stdout();
    let role = options.role;
    let _ = if options.as_json {
        writeln!(out, "{}", json!({ "url": url, "role": role.name(), "seconds": seconds }))
    } else {
        writeln!(out, "{url}\n\nThe link works once, within {seconds} seconds, and may {role}.")
    };
    let _ = out.flush();
}

/// Listens for the browser of this user, and connects it to the socket.
fn serve(socket: &Path, link: &str, seconds: u64, options: &Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
        let address = listener.local_addr()?;
        let url = format!("http://{address}{link}");
        print(&url, seconds, options);
        if !options.as_json {
            let port = address.port();
            println!("From another machine: ssh -L {port}:127.0.0.1:{port} THIS-HOST, and then the same link.");
            println!("Ctrl-C ends the connection to the page.");
        }
        if !options.no_open {
            open(&url);
        }
        let (user, places) = (user_of_browser(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        loop {
            let Ok((browser, from)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Ok(permit) = places.clone().acquire_owned().await else { return Ok(()) };
            if !is_of_user(from, address, user) {
                tracing::warn!(%from, "connection of another user closed");
                eprintln!("a connection of another user was closed");
                continue;
            }
            let socket = socket.to_owned();
            tokio::spawn(async move {
                let _permit = permit;
                if let Err(error) = pass(&socket, browser).await {
                    eprintln!("{}: {}", socket.display(), words(&error));
                }
            });
        }
    })
}

async fn pass(socket: &Path, browser: TcpStream) -> io::Result<()> {
    match relay(socket, browser).await {
        // Either side may go at any time.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Ok(()),
        done => done,
    }
}

/// The user whose browser may connect: the one behind sudo, or else this one.
fn user_of_browser() -> u32 {
    let own = rustix::process::geteuid().as_raw();
    let behind = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    behind.filter(|_| own == 0).unwrap_or(own)
}

/// `true` if the other end of a connection belongs to a user, or to root. A port has no permissions, and other users of this
/// host could connect to it.
fn is_of_user(from: SocketAddr, to: SocketAddr, user: u32) -> bool {
    let table = fs::read_to_string(TABLE).unwrap_or_default();
    let owner = owner_in(&table, from, to);
    owner.is_some_and(|owner| owner == user || owner == 0)
}

/// The owner of a socket in the kernel's table.
fn owner_in(table: &str, from: SocketAddr, to: SocketAddr) -> Option<u32> {
    let (from, to) = (in_table(from)?, in_table(to)?);
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        (local == from && remote == to && state != TIME_WAIT).then_some(())?;
        fields.nth(3)?.parse().ok()
    })
}

/// An address as the table has it: the bytes of a number in the order of this machine, in hexadecimal.
fn in_table(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port()))
}

/// Opens the link in the browser of a desktop, if this is one. Never as root: root should not run a browser.
fn open(url: &str) {
    let is_desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    if !is_desktop || !io::stdout().is_terminal() || crate::os::privileges::is_root() {
        return;
    }
    let mut browser = std::process::Command::new("xdg-open");
    let _ = browser.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_in_the_table_of_connections() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let own = in_table(at(8080)).unwrap();
        let table = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: \
             {own} 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 1 1 0 100 0 0 10 0\n   1: \
             {} {own} 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0 100 0 0 10 0\n   2: \
             {} {own} 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 100 0 0 10 0\n",
            in_table(at(40000)).unwrap(),
            in_table(at(40001)).unwrap()
        );
        assert_eq!(owner_in(&table, at(40001), at(8080)), Some(1000));
        assert_eq!(owner_in(&table, at(40000), at(8080)), None);
        assert_eq!(owner_in(&table, at(40001), at(8081)), None);
        assert_eq!(owner_in("", at(40001), at(8080)), None);
    }

    #[test]
    fn a_connection_of_our_own_is_found() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(to).unwrap();
        let table = fs::read_to_string(TABLE).unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(owner_in(&table, client.local_addr().unwrap(), to), Some(own));
    }
}
