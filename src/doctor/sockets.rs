//! TCP sockets, from /proc/net/tcp and tcp6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::files::HostFiles;

/// A state of a socket that a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tcp {
    /// Waits for clients.
    Listen,
    /// Waits until late packets have gone.
    TimeWait,
    /// Any other.
    Other,
}

/// A socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Its own address.
    pub local: SocketAddr,
    /// The address of the peer.
    pub remote: SocketAddr,
    /// Its state.
    pub state: Tcp,
    /// Bytes to be read; connections to be accepted if it listens.
    pub waiting: u64,
    /// Its inode; 0 for a socket that no process holds.
    pub inode: u64,
}

/// Reads all TCP sockets. `None` if the kernel's tables cannot be read.
#[must_use]
pub fn read(files: &HostFiles) -> Option<Vec<Socket>> {
    let four = files.table("/proc/net/tcp");
    let six = files.table("/proc/net/tcp6");
    if four.is_none() && six.is_none() {
        return None;
    }
    let (four, six) = (four.unwrap_or_default(), six.unwrap_or_default());
    Some(four.lines().chain(six.lines()).filter_map(line).collect())
}

fn line(line: &str) -> Option<Socket> {
    let mut words = line.split_whitespace();
    let (local, remote) = (address(words.nth(1)?)?, address(words.next()?)?);
    let state = match words.next()? {
        "0A" => Tcp::Listen,
        "06" => Tcp::TimeWait,
        _ => Tcp::Other,
    };
    let waiting = u64::from_str_radix(words.next()?.split(':').nth(1)?, 16).ok()?;
    let inode = words.nth(4).and_then(|inode| inode.parse().ok()).unwrap_or_default();
    Some(Socket { local, remote, state, waiting, inode })
}

/// Reads an address in words of four bytes, each in the order of the machine.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if !ip.is_ascii() {
        return None;
    }
    let mut bytes = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::*;

    #[test]
    fn sockets_are_read_from_the_tables_of_the_kernel() {
        let (_folder, files) = tree(&[
            (
                "/proc/net/tcp",
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                 0: 0100007F:01BB 00000000:0000 0A 00000000:00000005 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n   \
                 1: 0200000A:9C40 0100000A:0050 06 00000000:00000000 03:00000F00 00000000     0        0 0 3 0\nbroken\n 2: zz\n 3: é0007F:01BB é0:1 0A\n",
            ),
            (
                "/proc/net/tcp6",
                "  sl\n   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 99 1\n",
            ),
        ]);
        let found = read(&files).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(
            (found[0].local, found[0].state, found[0].waiting, found[0].inode),
            ("127.0.0.1:443".parse().unwrap(), Tcp::Listen, 5, 4711)
        );
        assert_eq!((found[1].remote, found[1].state), ("10.0.0.1:80".parse().unwrap(), Tcp::TimeWait));
        assert_eq!((found[2].local, found[2].inode), ("[::]:443".parse().unwrap(), 99));
        assert_eq!(read(&tree(&[]).1), None);
    }
}
