//! Listeners, trust, and TLS as a whole.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::LazyLock;

use ipnet::IpNet;

use super::checker::Checker;
use super::files::nearest_existing;
use super::upstream_url::{of_port, wrong_port};
use crate::config::file::{LimitsTable, ListenTable, ReportsTable, TlsTable};
use crate::config::problem::At;
use crate::config::value::show_number;
use crate::config::{AdminAddress, Draft};
use crate::host::{HostMap, HostPattern};
use crate::limits::Limits;
use crate::policy::forwarded::{Trust, TrustedField};
use crate::reason::Reason;
use crate::site::ReportsAt;
use crate::upstream::dns::NameServers;

/// The largest number of workers.
const WORKERS_MAX: u64 = 1024;
/// Read once: the sandbox hides the files of cgroups.
static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));
/// The default path of reports.
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
        r.error_with_hint(&(0..0), "listen: no address to listen on", "https = [\"[::]:443\"] or http = [\"[::]:80\"]");
    }
    for (at, address) in http.iter().enumerate() {
        if https.contains(address) && address.port() != 0 {
            let span = table.http.as_ref().and_then(|l| l.get(at)).map_or(0..0, |a| a.span.clone());
            let what = format!("listen.http: {address} is in listen.https, too");
            r.error_with_hint(&span, what, "keep it in one of the lists: a port speaks either TLS or plain HTTP");
        }
    }
    let trust = trust(table, r);
    let proxy_protocol = table.proxy_protocol.as_ref().is_some_and(|p| p.value);
    let health_path = health_path(table, r);
    let who = [("trusted", false), ("everybody", true)];
    let error_details = r.choice("listen.error_details", table.error_details.as_ref(), &who, false);
    let workers = table.workers.as_ref().map_or(0, |w| w.value);
    if let (true, Some(at)) = (workers > WORKERS_MAX, &table.workers) {
        r.error(&at.span, format!("listen.workers: must be between 0 and {}", show_number(WORKERS_MAX)));
    }
    let public = table.public_https_port.as_ref().and_then(|p| {
        let port = u16::try_from(p.value).ok().filter(|p| *p > 0);
        if port.is_none() {
            r.error(&p.span, "listen.public_https_port: must be between 1 and 65,535");
        }
        port
    });
    let workers = if workers == 0 { *CORES } else { usize::try_from(workers).unwrap_or(usize::MAX) };
    Listen { https, http, workers, trust, proxy_protocol, public_https_port: public, health_path, error_details }
}

pub(super) fn addresses(
    key: &str,
    list: Option<&[At<String>]>,
    default_port: u16,
    r: &mut Checker<'_>,
) -> Vec<SocketAddr> {
    let Some(list) = list else { return vec![SocketAddr::from(([0u16; 8], default_port))] };
    let mut addresses = Vec::new();
    for text in list {
        match listen_address(&text.value) {
            Some(address) if addresses.contains(&address) && address.port() != 0 => {
                r.error_with_hint(&text.span, format!("{key}: {address} is listed twice"), "remove one of them");
            }
            Some(address) => addresses.push(address),
            None => r.error(&text.span, not_listenable(key, &text.value, default_port)),
        }
    }
    addresses
}

/// The fault of an address to listen on: mostly its port.
fn not_listenable(key: &str, text: &str, default_port: u16) -> Reason {
    let reason = Reason::new(format!("{key}: invalid address {text:?}"));
    let host = text.parse::<IpAddr>().ok().or_else(|| text.trim_matches(['[', ']']).parse().ok());
    let port = text.rsplit_once(':').filter(|(host, _)| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok());
    let bare =
        text.rsplit_once(':').and_then(|(host, port)| Some((host.parse::<Ipv6Addr>().ok()?, port.parse().ok()?)));
    if let Some((ip, port)) = bare {
        return reason.note("an IPv6 address needs brackets").meant(&SocketAddr::new(ip.into(), port).to_string());
    }
    match (host, port, text.trim_start_matches(':').parse::<u16>()) {
        (Some(ip), _, _) => {
            let address = SocketAddr::new(ip, default_port).to_string();
            reason.note("the port is missing").meant(&address)
        }
        (_, Some((host, port)), _) => reason
            .note(format!("the port {port:?} is not a number between 0 and 65,535"))
            .meant(&format!("{host}:{default_port}")),
        (_, _, Ok(port)) => reason
            .note("an address and a port are needed")
            .hint(format!("\"[::]:{port}\" for all interfaces, \"127.0.0.1:{port}\" for this host only")),
        _ => reason.hint(format!(
            "\"[::]:{default_port}\" for all interfaces, \"127.0.0.1:{default_port}\" for this host only"
        )),
    }
}

/// An address and a port; `localhost:8080` works, names that need DNS do not.
fn listen_address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| {
        let port = text.strip_prefix("localhost:")?.parse::<u16>().ok()?;
        ("localhost", port).to_socket_addrs().ok()?.next()
    })
}

/// Reads which peers are trusted, and which field they set; reports contradictions.
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
            "listen.trust: has no effect: no proxy is trusted",
            "name the proxies in front in listen.trusted_proxies",
        );
    }
    match (&table.proxy_protocol, &table.trust) {
        (Some(at), _) if at.value && nobody => r.error_with_hint(
            &at.span,
            "listen.proxy_protocol: no peer is trusted to send a PROXY header",
            "name the balancers in listen.trusted_proxies",
        ),
        (Some(at), None) if at.value => r.warn(
            &at.span,
            "listen.proxy_protocol: pintle ignores X-Forwarded-* of clients that a PROXY header names",
            "trust = \"proxy\" if the balancers state everything in the PROXY header; trust = \"x-forwarded\" if some of the \
             addresses that it names are proxies in listen.trusted_proxies",
        ),
        (at, Some(trust)) if field == TrustedField::Proxy && !at.as_ref().is_some_and(|at| at.value) => r
            .error_with_hint(
                &trust.span,
                "listen.trust: \"proxy\" needs listen.proxy_protocol: trusted peers state nothing without a PROXY header",
                "proxy_protocol = true",
            ),
        _ => {}
    }
    Trust::new(ranges, field)
}

/// The path on which trusted peers ask for the health of this process.
fn health_path(table: &ListenTable, r: &mut Checker<'_>) -> Option<Box<str>> {
    let path = table.health_path.as_ref()?;
    let is_path =
        path.value.starts_with('/') && path.value.bytes().all(|b| b.is_ascii_graphic() && !b"?#".contains(&b));
    if !is_path {
        r.error_with_hint(
            &path.span,
            format!("listen.health_path: invalid path {:?}", path.value),
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
            "listen.health_path: has no effect: no peer is trusted to ask for it",
            "name the addresses that probes come from in listen.trusted_proxies",
        );
    }
    Some(path.value.as_str().into())
}

/// The reason why a path does not fit probes, if there is one. It is compared byte by byte, before any site.
fn unfit_for_health(path: &str) -> Option<&'static str> {
    if path == "/" {
        Some("is the first page of every site, which trusted proxies request as well")
    } else if path.contains('%') {
        Some("has an escape; pintle compares the path byte by byte, and escapes have several forms")
    } else if path.split('/').skip(1).any(|part| matches!(part, "." | "..")) || path.contains("//") {
        Some("has segments that clients remove; pintle compares the path byte by byte")
    } else if path.starts_with("/.well-known/acme-challenge") {
        Some("is for the challenges of certificate authorities")
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
                        format!("listen.trusted_proxies: {range} trusts everybody: any client may claim another address, or https"),
                        "name only the proxies in front",
                    );
                }
                ranges.push(canonical(range));
            }
            Err(_) => r.error_with_hint(
                &text.span,
                format!("listen.trusted_proxies: invalid address range {:?}", text.value),
                "\"10.0.0.0/8\", \"192.0.2.1\" or \"2001:db8::/32\"",
            ),
        }
    }
    ranges
}

/// `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
pub(super) fn canonical(range: IpNet) -> IpNet {
    match (range.network().to_canonical(), range.prefix_len()) {
        (IpAddr::V4(v4), len @ 96..) if range.network().is_ipv6() => {
            IpNet::new(IpAddr::V4(v4), len - 96).unwrap_or(range)
        }
        _ => range,
    }
}

/// The address for reports of pins that did not match: a path of one of the sites' hosts.
pub(super) fn reports(table: &ReportsTable, by_host: &HostMap<usize>, r: &mut Checker<'_>) -> Option<ReportsAt> {
    let Some(host) = &table.host else {
        r.error_with_hint(&table.span, "reports: host is missing", "host = \"reports.example.net\"");
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
        r.error_with_hint(span, format!("reports.path: invalid path {path:?}"), "path = \"/hpkp\"");
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
            format!("admin.listen: {:?} is neither a socket nor a loopback address with a port", listen.value),
            "\"unix:/run/pintle/admin.sock\" or \"127.0.0.1:9180\"",
        );
    } else if let Some(AdminAddress::Tcp { token: None, .. }) = draft.admin() {
        r.error_with_hint(
            &listen.span,
            "admin.listen: everybody on this host can reach a port, and the token that keeps others out needs \
             state.directory",
            "set directory in [state], or listen on a socket: \"unix:/run/pintle/admin.sock\"",
        );
    } else if let Some(AdminAddress::Unix(path)) = draft.admin() {
        warn_of_other_file(listen, &path, r);
    }
}

/// Warns of a socket that cannot be opened, since another file has its place: pintle serves without commands.
fn warn_of_other_file(listen: &At<String>, socket: &Path, r: &mut Checker<'_>) {
    let Some(at) = nearest_existing(socket) else { return };
    let is_socket = |at: &Path| at.symlink_metadata().is_ok_and(|is| is.file_type().is_socket());
    let fits = if at == socket { is_socket(at) } else { at.is_dir() };
    if !fits {
        let what = if at == socket { "not a socket" } else { "not a folder" };
        r.warn(
            &listen.span,
            format!("admin.listen: {}: {what}: commands do not reach pintle", r.shown(at)),
            "name another place: \"unix:/run/pintle/admin.sock\"",
        );
    }
}

/// The site for clients without a known name, if there is one.
pub(super) fn default_site(
    table: &TlsTable,
    hosts: &[Vec<At<HostPattern>>],
    by_host: &HostMap<usize>,
    r: &mut Checker<'_>,
) -> Option<usize> {
    let words = [("refuse", false), ("default", true)];
    let wanted = r.choice("tls.unknown_name", table.unknown_name.as_ref(), &words, false);
    match (wanted, &table.default_site) {
        (true, None) => {
            let span = table.unknown_name.as_ref().map_or(&table.span, |u| &u.span).clone();
            r.error_with_hint(
                &span,
                "tls.unknown_name: \"default\" needs tls.default_site",
                "default_site = \"blog.example.com\"",
            );
            None
        }
        (_, Some(name)) => {
            let index = HostPattern::parse(&name.value).ok().and_then(|p| by_host.get_pattern(&p).copied());
            if index.is_none() {
                r.error(&name.span, no_such_host("tls.default_site", &name.value, hosts));
            }
            index.filter(|_| wanted)
        }
        (false, None) => None,
    }
}

/// A host that no site has, and the one that may have been meant.
pub(super) fn no_such_host(key: &str, host: &str, hosts: &[Vec<At<HostPattern>>]) -> Reason {
    let known: Vec<String> = hosts.iter().flatten().map(|at| at.value.to_string()).collect();
    Reason::new(format!("{key}: no site has the host {host:?}")).meant_of(host, known.iter().map(String::as_str))
}

/// The addresses of `resolver.name_servers`.
pub(super) fn name_servers(list: Option<&[At<String>]>, r: &mut Checker<'_>) -> NameServers {
    let mut servers = Vec::new();
    for text in list.unwrap_or_default() {
        let address = text.value.parse::<SocketAddr>().ok();
        match address.or_else(|| text.value.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53))) {
            Some(address) => servers.push(address),
            None => r.error(&text.span, not_a_name_server(&text.value)),
        }
    }
    NameServers(servers)
}

fn not_a_name_server(text: &str) -> Reason {
    match wrong_port(text).filter(|(host, _)| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()) {
        Some((host, port)) => of_port("resolver.name_servers", port).meant(&format!("{host}:53")),
        None => Reason::new(format!("resolver.name_servers: invalid address {text:?}"))
            .hint("\"192.0.2.53\", or \"192.0.2.53:5353\" with a port of its own"),
    }
}

/// Derives the numbers of connections that the file does not set from the number of files that may be open.
pub(super) fn fit_limits(table: &LimitsTable, limits: &mut Limits, r: &mut Checker<'_>) {
    let mut fitted = limits.clone();
    fitted.for_open_files(crate::os::open_files::limit());
    if table.connections.is_none() {
        limits.connections = fitted.connections;
    }
    if table.connections_per_client.is_none() {
        limits.connections_per_client = (limits.connections / 8).max(1);
    }
    match &table.shed_idle_at {
        None => limits.shed_idle_at = limits.default_shed_idle_at(),
        Some(at) if limits.shed_idle_at > limits.connections => r.error_with_hint(
            &at.span,
            format!("limits.shed_idle_at: must be at most limits.connections, which is {}", limits.connections),
            "leave the key out for fifteen sixteenths of limits.connections",
        ),
        Some(_) => {}
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
