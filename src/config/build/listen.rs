//! Listeners, trust, and TLS as a whole.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::LazyLock;

use ipnet::IpNet;

use super::Checker;
use crate::config::file::{LimitsTable, ListenTable, ReportsTable, TlsTable};
use crate::config::problem::At;
use crate::config::{AdminAddress, Draft};
use crate::host::{HostMap, HostPattern};
use crate::limits::Limits;
use crate::policy::forwarded::{Trust, TrustedField};
use crate::site::ReportsAt;
use crate::upstream::dns::NameServers;

/// More workers than this are a slip of the pen.
const WORKERS_MAX: u64 = 1024;
/// Looked at once: the sandbox hides what cgroups say about it.
static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));
/// Where reports go if the file does not say.
const REPORTS_PATH: &str = "/hpkp";

pub(super) struct Listen {
    pub(super) https: Vec<SocketAddr>,
    pub(super) http: Vec<SocketAddr>,
    pub(super) workers: usize,
    pub(super) trust: Trust,
    pub(super) proxy_protocol: bool,
    pub(super) public_https_port: Option<u16>,
    pub(super) health_path: Option<Box<str>>,
    pub(super) error_details: bool,
}

pub(super) fn build(table: &ListenTable, r: &mut Checker<'_>) -> Listen {
    let https = addresses("listen.https", table.https.as_deref(), 443, r);
    let http = addresses("listen.http", table.http.as_deref(), 80, r);
    let (all_https, all_http) = (table.https.iter().flatten(), table.http.iter().flatten());
    if https.is_empty() && http.is_empty() && all_https.chain(all_http).next().is_none() {
        r.error(&(0..0), "listen: there is no address to listen on");
    }
    for (at, address) in http.iter().enumerate() {
        if https.contains(address) && address.port() != 0 {
            let span = table.http.as_ref().and_then(|l| l.get(at)).map_or(0..0, |a| a.span.clone());
            r.error(&span, format!("listen.http: {address} is in listen.https, too"));
        }
    }
    let trust = trust(table, r);
    let proxy_protocol = table.proxy_protocol.as_ref().is_some_and(|p| p.value);
    let health_path = health_path(table, r);
    let who = [("trusted", false), ("everybody", true)];
    let error_details = r.choice("listen.error_details", table.error_details.as_ref(), &who, false);
    let workers = table.workers.as_ref().map_or(0, |w| w.value);
    if let (true, Some(at)) = (workers > WORKERS_MAX, &table.workers) {
        r.error(&at.span, format!("listen.workers: more than {WORKERS_MAX}"));
    }
    let public = table.public_https_port.as_ref().and_then(|p| {
        let port = u16::try_from(p.value).ok().filter(|p| *p > 0);
        if port.is_none() {
            r.error(&p.span, "listen.public_https_port: is no port");
        }
        port
    });
    let workers = if workers == 0 { *CORES } else { usize::try_from(workers).unwrap_or(usize::MAX) };
    Listen { https, http, workers, trust, proxy_protocol, public_https_port: public, health_path, error_details }
}

fn addresses(key: &str, list: Option<&[At<String>]>, default_port: u16, r: &mut Checker<'_>) -> Vec<SocketAddr> {
    let Some(list) = list else { return vec![SocketAddr::from(([0u16; 8], default_port))] };
    let mut addresses = Vec::new();
    for text in list {
        match listen_address(&text.value) {
            Some(address) if addresses.contains(&address) && address.port() != 0 => {
                r.error(&text.span, format!("{key}: {address} is listed twice"));
            }
            Some(address) => addresses.push(address),
            None => r.error_with_hint(
                &text.span,
                format!("{key}: {:?} is no address to listen on", text.value),
                format!("\"[::]:{default_port}\" is all interfaces, \"127.0.0.1:{default_port}\" this host only"),
            ),
        }
    }
    addresses
}

/// An address and a port; `localhost:8080` is understood, names that need DNS are not.
fn listen_address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| {
        let port = text.strip_prefix("localhost:")?.parse::<u16>().ok()?;
        ("localhost", port).to_socket_addrs().ok()?.next()
    })
}

/// Whom to believe, and by which field: what goes together, and what does not.
fn trust(table: &ListenTable, r: &mut Checker<'_>) -> Trust {
    let ranges = ranges(&table.trusted_proxies, r);
    let nobody = table.trusted_proxies.is_empty();
    let words = [
        ("x-forwarded", TrustedField::XForwarded),
        ("forwarded", TrustedField::Forwarded),
        ("proxy", TrustedField::Proxy),
    ];
    let field = r.choice("listen.trust", table.trust.as_ref(), &words, TrustedField::default());
    if let (true, Some(at)) = (nobody, &table.trust) {
        r.warn(
            &at.span,
            "listen.trust: nobody is trusted, so that it changes nothing",
            "name the proxies in front in listen.trusted_proxies",
        );
    }
    match (&table.proxy_protocol, &table.trust) {
        (Some(at), _) if at.value && nobody => r.error_with_hint(
            &at.span,
            "listen.proxy_protocol: nobody is trusted to send a PROXY header",
            "name the balancers in listen.trusted_proxies",
        ),
        (Some(at), None) if at.value => r.warn(
            &at.span,
            "listen.proxy_protocol: X-Forwarded-* of clients that a PROXY header names is not believed",
            "trust = \"proxy\" if the balancers state everything in the PROXY header; trust = \"x-forwarded\" if some of the \
             addresses that it names are proxies in listen.trusted_proxies",
        ),
        (at, Some(trust)) if field == TrustedField::Proxy && !at.as_ref().is_some_and(|at| at.value) => r
            .error_with_hint(
                &trust.span,
                "listen.trust: \"proxy\" needs listen.proxy_protocol: without a PROXY header, trusted peers state nothing",
                "proxy_protocol = true",
            ),
        _ => {}
    }
    Trust::new(ranges, field)
}

/// The path that trusted peers ask for this process's health.
fn health_path(table: &ListenTable, r: &mut Checker<'_>) -> Option<Box<str>> {
    let path = table.health_path.as_ref()?;
    let is_path =
        path.value.starts_with('/') && path.value.bytes().all(|b| b.is_ascii_graphic() && !b"?#".contains(&b));
    if !is_path {
        r.error_with_hint(
            &path.span,
            format!("listen.health_path: {:?} is no path", path.value),
            "health_path = \"/healthz\"",
        );
        return None;
    }
    if let Some(why) = unfit_for_health(&path.value) {
        r.error_with_hint(
            &path.span,
            format!("listen.health_path: {:?} {why}", path.value),
            "health_path = \"/healthz\"",
        );
        return None;
    }
    if table.trusted_proxies.is_empty() {
        r.warn(
            &path.span,
            "listen.health_path: nobody is trusted, so that nobody is answered",
            "name the addresses that probes come from in listen.trusted_proxies",
        );
    }
    Some(path.value.as_str().into())
}

/// Why a path is none for probes, if it is none: it is compared to the letter, and stands before all sites.
fn unfit_for_health(path: &str) -> Option<&'static str> {
    if path == "/" {
        Some("is the sites' own first page, which trusted proxies ask for as well")
    } else if path.contains('%') {
        Some("is compared as it is written, and escapes are written in several ways")
    } else if path.split('/').skip(1).any(|part| matches!(part, "." | "..")) || path.contains("//") {
        Some("is compared as it is written, and clients shorten such paths")
    } else if path.starts_with("/.well-known/acme-challenge") {
        Some("is where certificate authorities ask for challenges")
    } else {
        None
    }
}

fn ranges(list: &[At<String>], r: &mut Checker<'_>) -> Vec<IpNet> {
    let mut ranges = Vec::new();
    for text in list {
        let range =
            text.value.parse::<IpNet>().or_else(|e| text.value.parse::<IpAddr>().map(IpNet::from).map_err(|_| e));
        match range {
            Ok(range) => {
                if range.prefix_len() == 0 {
                    r.warn(
                        &text.span,
                        format!("listen.trusted_proxies: {range} is everybody: any client may claim to be another, or to use https"),
                        "name the proxies in front only",
                    );
                }
                ranges.push(canonical(range));
            }
            Err(_) => r.error_with_hint(
                &text.span,
                format!("listen.trusted_proxies: {:?} is no address range", text.value),
                "\"10.0.0.0/8\", \"192.0.2.1\" or \"2001:db8::/32\"",
            ),
        }
    }
    ranges
}

/// `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
fn canonical(range: IpNet) -> IpNet {
    match (range.network().to_canonical(), range.prefix_len()) {
        (IpAddr::V4(v4), len @ 96..) if range.network().is_ipv6() => {
            IpNet::new(IpAddr::V4(v4), len - 96).unwrap_or(range)
        }
        _ => range,
    }
}

/// Where reports of pins that did not match come in: a path of one of the sites' hosts.
pub(super) fn reports(table: &ReportsTable, by_host: &HostMap<usize>, r: &mut Checker<'_>) -> Option<ReportsAt> {
    let Some(host) = &table.host else {
        r.error_with_hint(&table.span, "reports: has no host", "host = \"reports.example.net\"");
        return None;
    };
    let name = HostPattern::parse(&host.value).ok().and_then(|p| p.exact().map(str::to_owned));
    let Some(name) = name.filter(|name| by_host.get(name).is_some()) else {
        r.error_with_hint(
            &host.span,
            format!("reports.host: no site has the host {:?}", host.value),
            "add a [[site]] with this name in hosts; it needs no upstream",
        );
        return None;
    };
    let path = table.path.as_ref().map_or(REPORTS_PATH, |p| p.value.as_str());
    if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#')) {
        let span = table.path.as_ref().map_or(&table.span, |p| &p.span);
        r.error_with_hint(span, format!("reports.path: {path:?} is no path"), "path = \"/hpkp\"");
        return None;
    }
    Some(ReportsAt { host: name.into(), path: path.into() })
}

/// `unix:/run/pintle/admin.sock` or an address.
pub(super) fn check_admin(listen: Option<&At<String>>, draft: &Draft, r: &mut Checker<'_>) {
    let Some(listen) = listen else { return };
    let fits = match listen.value.strip_prefix("unix:") {
        Some(path) => !path.is_empty(),
        None => listen.value.parse::<SocketAddr>().is_ok_and(|a| a.ip().to_canonical().is_loopback() && a.port() != 0),
    };
    if !fits {
        r.error_with_hint(
            &listen.span,
            format!("admin.listen: {:?} is neither a socket's path nor an address of this host alone", listen.value),
            "\"unix:/run/pintle/admin.sock\" or \"127.0.0.1:9180\"",
        );
    } else if let Some(AdminAddress::Tcp { token: None, .. }) = draft.admin() {
        r.error_with_hint(
            &listen.span,
            "admin.listen: a port is open to everybody on this host, and there is no folder for the token that keeps \
             others out",
            "set directory in [state], or listen on a socket: \"unix:/run/pintle/admin.sock\"",
        );
    }
}

/// The site that clients without a known name get, if any does.
pub(super) fn default_site(table: &TlsTable, by_host: &HostMap<usize>, r: &mut Checker<'_>) -> Option<usize> {
    let words = [("refuse", false), ("default", true)];
    let wanted = r.choice("tls.unknown_name", table.unknown_name.as_ref(), &words, false);
    match (wanted, &table.default_site) {
        (true, None) => {
            let span = table.unknown_name.as_ref().map_or(&table.span, |u| &u.span).clone();
            r.error_with_hint(
                &span,
                "tls.unknown_name: which site is the default one?",
                "default_site = \"blog.example.com\"",
            );
            None
        }
        (_, Some(name)) => {
            let index = HostPattern::parse(&name.value).ok().and_then(|p| by_host.get_pattern(&p).copied());
            if index.is_none() {
                r.error(&name.span, format!("tls.default_site: no site has the host {:?}", name.value));
            }
            index.filter(|_| wanted)
        }
        (false, None) => None,
    }
}

pub(super) fn name_servers(list: Option<&[At<String>]>, r: &mut Checker<'_>) -> NameServers {
    let mut servers = Vec::new();
    for text in list.unwrap_or_default() {
        let address = text.value.parse::<SocketAddr>().ok();
        match address.or_else(|| text.value.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53))) {
            Some(address) => servers.push(address),
            None => r.error(&text.span, format!("resolver.name_servers: {:?} is no address", text.value)),
        }
    }
    NameServers(servers)
}

/// The numbers of connections that the file does not give follow from the number of files that may be open.
pub(super) fn fit_limits(table: &LimitsTable, limits: &mut Limits) {
    let mut fitted = limits.clone();
    fitted.for_open_files(crate::os::open_files::limit());
    if table.connections.is_none() {
        limits.connections = fitted.connections;
    }
    if table.connections_per_client.is_none() {
        limits.connections_per_client = (limits.connections / 8).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_for_probes() {
        for path in ["/healthz", "/a/b", "/.well-known/health", "/health/", "/..."] {
            assert_eq!(unfit_for_health(path), None, "{path}");
        }
        for path in ["/", "//", "/%68", "/a/../b", "/./a", "/a/.", "/a//b", "/.well-known/acme-challenge/x"] {
            assert!(unfit_for_health(path).is_some(), "{path}");
        }
    }
}
