//! A client that fetches a served certificate, whatever its issuer.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use crate::tls::{KeyTypes, Possession};

/// Time limit for each step.
const PATIENCE: Duration = Duration::from_secs(5);

/// The certificate that an address serves for a name, to clients that accept RSA keys only, or no
/// RSA keys. With `greeting`, a PROXY header comes first.
///
/// # Errors
///
/// If the handshake fails.
pub fn leaf(address: SocketAddr, name: &str, rsa: bool, greeting: bool) -> io::Result<CertificateDer<'static>> {
    let keys = if rsa { KeyTypes::Rsa } else { KeyTypes::Elliptic };
    let mut socket = TcpStream::connect_timeout(&reachable(address), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    if greeting {
        socket.write_all(b"PROXY UNKNOWN\r\n")?;
    }
    let mut stream = Possession::of_any(keys).connect(socket, name)?;
    stream.conn.send_close_notify();
    let _ = stream.conn.complete_io(&mut stream.sock);
    let leaf = stream.conn.peer_certificates().and_then(<[_]>::first).cloned();
    leaf.map(CertificateDer::into_owned).ok_or_else(|| io::Error::other("no certificate was shown"))
}

/// The address to connect to for a listener on all addresses.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
