//! Sites that are addresses: clients send no name for one (RFC 6066 section 3), so pintle chooses the certificate by the
//! address that they reached. This file reports addresses that clients cannot reach that way.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};

use super::checker::Checker;
use super::listen::Listen;
use crate::config::file::{ConfigFile, TlsTable};
use crate::config::problem::At;
use crate::host::HostPattern;

/// The settings that decide how clients reach an address.
pub(super) struct AddressSettings<'a> {
    pub(super) listen: &'a Listen,
    pub(super) tls: &'a TlsTable,
    pub(super) default_site: Option<usize>,
}

pub(super) fn check(
    file: &ConfigFile,
    hosts: &[Vec<At<HostPattern>>],
    places: &AddressSettings<'_>,
    r: &mut Checker<'_>,
) {
    // Without TLS here there is nothing to choose.
    if places.listen.https.is_empty() {
        return;
    }
    for (index, (site, hosts)) in file.sites.iter().zip(hosts).enumerate() {
        if places.default_site == Some(index) || site.certificates.iter().all(|c| c.key.is_none()) {
            continue;
        }
        for host in hosts {
            let Some(address) = host.value.address() else { continue };
            if !places.listen.https.iter().any(|listener| listens_at(listener.ip(), address)) {
                r.error_with_hint(
                    &host.span,
                    format!(
                        "site.hosts: {}: no client can reach it: clients send no name for an address, and no listener has \
                         this one",
                        host.value
                    ),
                    remedy(&host.value, places, Some(address)),
                );
            } else if !is_here(address) {
                r.warn(
                    &host.span,
                    format!(
                        "site.hosts: {}: this host does not have the address: clients that come through another one (NAT) \
                         send no name, and get no certificate",
                        host.value
                    ),
                    remedy(&host.value, places, None),
                );
            }
        }
    }
}

fn listens_at(listener: IpAddr, address: IpAddr) -> bool {
    match listener {
        IpAddr::V4(v4) if v4.is_unspecified() => address.is_ipv4(),
        // Dual-stack.
        IpAddr::V6(v6) if v6.is_unspecified() => true,
        other => other.to_canonical() == address.to_canonical(),
    }
}

/// `true` unless this host certainly lacks the address. Sends nothing.
fn is_here(address: IpAddr) -> bool {
    !matches!(UdpSocket::bind((address, 0)), Err(error) if error.kind() == ErrorKind::AddrNotAvailable)
}

fn remedy(host: &HostPattern, places: &AddressSettings<'_>, listen: Option<IpAddr>) -> String {
    let port = places.listen.https.first().map_or(443, std::net::SocketAddr::port);
    let default = match (places.tls.unknown_name.is_some(), places.tls.default_site.is_some()) {
        (true, true) => "make it tls.default_site".to_owned(),
        _ => format!("[tls] unknown_name = \"default\" and default_site = {:?}", host.to_string()),
    };
    match listen {
        Some(address) => {
            format!("listen there: https = [{:?}]; or {default}", std::net::SocketAddr::new(address, port).to_string())
        }
        None => default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners() {
        let check = |listener: &str, address: &str, want: bool| {
            assert_eq!(listens_at(listener.parse().unwrap(), address.parse().unwrap()), want, "{listener} {address}");
        };
        check("::", "192.0.2.1", true);
        check("::", "2001:db8::1", true);
        check("0.0.0.0", "192.0.2.1", true);
        check("0.0.0.0", "2001:db8::1", false);
        check("192.0.2.1", "192.0.2.1", true);
        check("::ffff:192.0.2.1", "192.0.2.1", true);
        check("192.0.2.2", "192.0.2.1", false);
    }
}
