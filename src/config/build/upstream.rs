//! `upstream` and `[site.upstream_options]`: the place that requests go to, and its four names.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::ServerName;

use super::checker::Checker;
use super::files::read;
use super::upstream_url::{Endpoint, UpstreamScheme, invalid_host, of_port, parse_url, wrong_port};
use super::{health, report};
use crate::config::file::{SiteTable, UpstreamTable};
use crate::config::problem::At;
use crate::config::stamp::Stamp;
use crate::host::HostPattern;
use crate::keys::key_file::{self, Want};
use crate::reason::near::nearest;
use crate::reason::{Problem, Reason};
use crate::upstream::dns::{Addresses, UpstreamName};
use crate::upstream::tls::{Verification, client, default_roots};
use crate::upstream::{Health, HostHeader, Upstream, UpstreamTls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// Domains that do not exist on the public network (RFC 6761, RFC 6762, RFC 8375, and ICANN's `.internal`).
const NEAR_DOMAINS: [&str; 4] = [".localhost", ".local", ".home.arpa", ".internal"];

/// The parts that the upstreams of all sites share.
#[derive(Default)]
pub(in crate::config) struct Upstreams {
    /// Each name is followed once, however many sites use it.
    names: HashMap<(String, u16), Addresses>,
    /// Names that nobody follows yet.
    new_names: Vec<UpstreamName>,
    roots: HashMap<Option<PathBuf>, (Stamp, Arc<RootCertStore>)>,
    /// Sites with the same settings share one upstream, and its connections.
    known: HashMap<String, KnownUpstream>,
}

#[derive(Clone)]
struct KnownUpstream {
    upstream: Arc<Upstream>,
    name: (String, u16),
}

/// Copies all but the new names, each of which can be handed out once.
impl Clone for Upstreams {
    fn clone(&self) -> Self {
        Self { names: self.names.clone(), new_names: Vec::new(), roots: self.roots.clone(), known: self.known.clone() }
    }
}

impl Upstreams {
    /// Returns the names that nobody follows yet, and forgets those that no site uses any longer.
    pub(super) fn finish<'a>(&mut self, used: impl Iterator<Item = &'a SiteUpstream>) -> Vec<UpstreamName> {
        let used: HashSet<*const Upstream> = used.map(|t| Arc::as_ptr(&t.upstream)).collect();
        self.known.retain(|_, known| used.contains(&Arc::as_ptr(&known.upstream)));
        let names: HashSet<&(String, u16)> = self.known.values().map(|known| &known.name).collect();
        self.names.retain(|name, _| names.contains(name));
        std::mem::take(&mut self.new_names)
    }

    fn addresses(&mut self, endpoint: &Endpoint) -> Addresses {
        if let Some(address) = endpoint.address() {
            return Addresses::Fixed([address].into());
        }
        let key = (endpoint.host.clone(), endpoint.port);
        if let Some(known) = self.names.get(&key) {
            return known.clone();
        }
        let (name, addresses) = UpstreamName::new(&endpoint.host, endpoint.port);
        self.new_names.push(name);
        self.names.insert(key, addresses.clone());
        addresses
    }
}

/// A site's upstream, and its part of the report.
pub(super) struct SiteUpstream {
    pub(super) upstream: Arc<Upstream>,
    pub(super) report: report::UpstreamReport,
}

pub(super) fn build(
    table: &SiteTable,
    hosts: &[HostPattern],
    collects: bool,
    shared: &mut Upstreams,
    r: &mut Checker<'_>,
) -> Option<SiteUpstream> {
    let url = url(table, collects, r)?;
    let none = UpstreamTable::default();
    let options = table.upstream_options.as_deref().unwrap_or(&none);
    let (connect_timeout, response_timeout, total_timeout) = timeouts(options, r);
    let (scheme, endpoint) = parse_url(url, r)?;
    let https = scheme == UpstreamScheme::Https;
    // All of these report their problems before the first failure returns.
    let connect = connect(options, &endpoint, r);
    let default_port = scheme.default_port();
    let host_header = host_header(options, &endpoint, &endpoint.authority(default_port), r);
    let names = if https { tls_names(options, &endpoint, r) } else { unused_names(options, scheme, r) };
    let skip = options.insecure_skip_verify.as_ref().is_some_and(|s| s.value);
    let ca = options.ca.as_ref().map(|ca| r.path(&ca.value));
    let roots = if https && !skip { roots(options.ca.as_ref(), ca.as_ref(), shared, r).map(Some) } else { Some(None) };
    let (connect, names, roots) = (connect?, names?, roots?);
    warn_of_itself(url, &connect, hosts, r);
    warn_of_plain_http(url, scheme, &connect, r);
    let http2 = options.http2.as_ref().is_none_or(|h| h.value);
    let rule = health::breaker(table.circuit_breaker.as_deref(), r);
    let check = match table.health_check.as_deref() {
        None => None,
        Some(check) => Some(health::check(check, &host_header, hosts, r)?),
    };
    let report = report(url, &connect, names.as_ref(), skip, &host_header);
    let ca_stamp = ca.as_ref().map(|ca| Stamp::of(ca));
    let key = format!(
        "{report:?} {ca:?} {ca_stamp:?} {http2} {skip} {connect_timeout:?} {response_timeout:?} {total_timeout:?} {rule:?} \
         {check:?}"
    );
    if let Some(known) = shared.known.get(&key) {
        return Some(SiteUpstream { upstream: known.upstream.clone(), report });
    }
    let tls = match &names {
        None => None,
        Some(names) => Some(tls(url, names, roots, http2, r)?),
    };
    let own_names = own_names(&endpoint, &host_header, default_port);
    let upstream = Arc::new(Upstream {
        label: url.value.as_str().into(),
        addresses: shared.addresses(&connect),
        tls,
        http2_only: scheme == UpstreamScheme::Http2,
        host_header,
        own_names,
        connect_timeout,
        response_timeout,
        total_timeout,
        health: Health::new(&url.value, rule, check),
    });
    shared.known.insert(key, KnownUpstream { upstream: upstream.clone(), name: (connect.host, connect.port) });
    Some(SiteUpstream { upstream, report })
}

fn url<'t>(table: &'t SiteTable, collects: bool, r: &mut Checker<'_>) -> Option<&'t At<String>> {
    // A site that only collects reports needs no upstream.
    if !table.has_upstream && !collects {
        r.error_with_hint(&table.span, "site: upstream is missing", "upstream = \"https://example.wordpress.com\"");
    }
    table.upstream.as_ref()
}

/// The timeouts for connecting, for the response, and for both together.
fn timeouts(options: &UpstreamTable, r: &mut Checker<'_>) -> (Duration, Duration, Option<Duration>) {
    let given = [&options.connect_timeout, &options.response_timeout, &options.total_timeout];
    for (key, timeout) in ["connect_timeout", "response_timeout", "total_timeout"].into_iter().zip(given) {
        if let Some(timeout) = timeout.as_ref().filter(|timeout| timeout.value.is_zero()) {
            r.error(&timeout.span, format!("site.upstream_options.{key}: must be more than 0s"));
        }
    }
    let [connect, response, total] = given.map(|timeout| timeout.as_ref().map(|timeout| timeout.value));
    (connect.unwrap_or(CONNECT_TIMEOUT), response.unwrap_or(RESPONSE_TIMEOUT), total)
}

fn report(
    url: &At<String>,
    connect: &Endpoint,
    names: Option<&TlsNames>,
    skip: bool,
    host_header: &HostHeader,
) -> report::UpstreamReport {
    report::UpstreamReport {
        url: url.value.clone(),
        connect: format!("{}:{}", connect.host, connect.port),
        server_name: names.map(|n| n.sni.clone()),
        verify_name: names.filter(|_| !skip).map(|n| n.verify.clone()),
        host_header: match host_header {
            HostHeader::Client => None,
            HostHeader::Fixed(host) => Some(host.to_string()),
        },
    }
}

/// Prepares TLS. Without roots, the certificate is not verified.
fn tls(
    url: &At<String>,
    names: &TlsNames,
    roots: Option<Arc<RootCertStore>>,
    http2: bool,
    r: &mut Checker<'_>,
) -> Option<UpstreamTls> {
    let (sni, verify) = (server_name(&names.sni)?, server_name(&names.verify)?);
    let verification = roots.map_or(Verification::Skip, |roots| Verification::As(roots, verify));
    match client(sni, &verification, http2) {
        Ok(tls) => Some(tls),
        Err(error) => {
            r.error(&url.span, format!("site.upstream: cannot prepare TLS: {error}"));
            None
        }
    }
}

/// The names that the upstream may call itself in a redirect.
fn own_names(endpoint: &Endpoint, host_header: &HostHeader, default_port: u16) -> Vec<(Box<str>, u16)> {
    let mut own_names: Vec<(Box<str>, u16)> = vec![(endpoint.host.as_str().into(), endpoint.port)];
    if let HostHeader::Fixed(host) = host_header
        && let Some(fixed) = Endpoint::parse(host, Some(default_port))
    {
        own_names.push((fixed.host.as_str().into(), fixed.port));
    }
    own_names.dedup();
    own_names
}

fn connect(options: &UpstreamTable, endpoint: &Endpoint, r: &mut Checker<'_>) -> Option<Endpoint> {
    let Some(connect) = &options.connect else { return Some(endpoint.clone()) };
    let parsed = Endpoint::parse(&connect.value, Some(endpoint.port));
    if parsed.is_none() {
        let reason = match wrong_port(&connect.value) {
            Some((host, port)) => of_port("site.upstream_options.connect", port).meant(host),
            None => Reason::new(format!("site.upstream_options.connect: invalid address {:?}", connect.value))
                .hint("connect = \"HOST:PORT\""),
        };
        r.error(&connect.span, reason);
    }
    parsed
}

/// Warns of an upstream that is the site itself, by its public name: requests would loop.
fn warn_of_itself(url: &At<String>, connect: &Endpoint, hosts: &[HostPattern], r: &mut Checker<'_>) {
    if connect.address().is_none() && hosts.iter().any(|h| h.matches(&connect.host)) {
        let what =
            format!("site.upstream: {} is this site's own name: once DNS points here, requests loop", connect.host);
        let hint = "name the host behind pintle: upstream = \"https://example.wordpress.com\", or set connect";
        let problem = Problem::warning(&url.span, Reason::new(what).hint(hint));
        r.report(problem.shared("upstream with the site's own name", connect.host.as_str()));
    }
}

/// Warns of plain HTTP to a public host: anybody on the way reads cookies and passwords, and changes pages.
fn warn_of_plain_http(url: &At<String>, scheme: UpstreamScheme, connect: &Endpoint, r: &mut Checker<'_>) {
    let is_near = match connect.address().map(|a| a.ip().to_canonical()) {
        Some(IpAddr::V4(a)) => a.is_loopback() || a.is_private() || a.is_link_local(),
        Some(IpAddr::V6(a)) => a.is_loopback() || a.is_unique_local() || a.is_unicast_link_local(),
        // `localhost`, a name of the local network or of a container
        None => !connect.host.contains('.') || NEAR_DOMAINS.iter().any(|d| connect.host.ends_with(d)),
    };
    if scheme != UpstreamScheme::Https && !is_near {
        let reason = Reason::new(format!(
            "site.upstream: the connection to {} is not encrypted: others can read and change all of it",
            connect.host
        ));
        let problem = Problem::warning(&url.span, reason.hint("use https:// if the host offers it"));
        r.report(problem.shared("upstream without TLS", connect.host.as_str()));
    }
}

fn host_header(options: &UpstreamTable, endpoint: &Endpoint, own: &str, r: &mut Checker<'_>) -> HostHeader {
    let upstream = || HostHeader::Fixed(own.into());
    match options.host_header.as_ref() {
        // A hosted blog expects its own name. A server that is configured by its address has none.
        None if endpoint.address().is_some() => HostHeader::Client,
        None => upstream(),
        Some(word) => match word.value.as_str() {
            "upstream" => upstream(),
            "client" => HostHeader::Client,
            name => {
                if Endpoint::parse(name, Some(80)).is_none() {
                    let reason = invalid_host("site.upstream_options.host_header", name, "");
                    r.error(&word.span, reason.note("expected one of: upstream, client, or a name"));
                } else if let Some(near) = nearest(name, ["upstream", "client"]).filter(|_| !name.contains(['.', ':']))
                {
                    let what = format!("site.upstream_options.host_header: {name:?} is a host of that name");
                    let reason = Reason::new(what).meant(near).hint(format!("for the host: \"{name}:80\""));
                    r.report(Problem::warning(&word.span, reason));
                }
                HostHeader::Fixed(name.into())
            }
        },
    }
}

/// The names of TLS.
struct TlsNames {
    sni: String,
    verify: String,
}

fn tls_names(options: &UpstreamTable, endpoint: &Endpoint, r: &mut Checker<'_>) -> Option<Option<TlsNames>> {
    let mut name = |key: &str, given: &Option<At<String>>, default: &str| match given {
        None => Some(default.to_owned()),
        Some(given) if server_name(&given.value).is_some() => Some(given.value.clone()),
        Some(given) => {
            r.error_with_hint(
                &given.span,
                format!("site.upstream_options.{key}: invalid name {:?}", given.value),
                format!("{key} = \"origin.example.com\""),
            );
            None
        }
    };
    let sni = name("server_name", &options.server_name, endpoint.bare());
    let verify = name("verify_name", &options.verify_name, sni.as_deref().unwrap_or_default());
    if let (Some(skip), Some(_)) = (options.insecure_skip_verify.as_ref().filter(|s| s.value), &options.verify_name) {
        r.error_with_hint(
            &skip.span,
            "site.upstream_options: verify_name has no effect with insecure_skip_verify",
            "remove one of them",
        );
    }
    if let Some(skip) = options.insecure_skip_verify.as_ref().filter(|s| s.value) {
        r.warn(
            &skip.span,
            "site.upstream_options.insecure_skip_verify: anyone on the network path can pose as the upstream",
            "name its CA: ca = \"FILE\"",
        );
    }
    Some(Some(TlsNames { sni: sni?, verify: verify? }))
}

/// Reports keys about TLS, which have no effect for an upstream without it.
fn unused_names(options: &UpstreamTable, scheme: UpstreamScheme, r: &mut Checker<'_>) -> Option<Option<TlsNames>> {
    let texts = [("server_name", &options.server_name), ("verify_name", &options.verify_name), ("ca", &options.ca)];
    let flags = [("insecure_skip_verify", &options.insecure_skip_verify), ("http2", &options.http2)];
    let spans = texts.into_iter().filter_map(|(k, v)| v.as_ref().map(|v| (k, &v.span)));
    for (key, span) in spans.chain(flags.into_iter().filter_map(|(k, v)| v.as_ref().map(|v| (k, &v.span)))) {
        let scheme = scheme.word();
        let what = format!("site.upstream_options.{key}: has no effect: the upstream is {scheme}, not https");
        r.error_with_hint(span, what, "remove it, or use https:// in upstream");
    }
    Some(None)
}

fn server_name(text: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(text.to_owned()).ok()
}

/// The roots for the upstream's certificate: Mozilla's, or those of a file.
fn roots(
    at: Option<&At<String>>,
    path: Option<&PathBuf>,
    shared: &mut Upstreams,
    r: &mut Checker<'_>,
) -> Option<Arc<RootCertStore>> {
    let key = path.cloned();
    let stamp = path.map_or(Stamp::Absent, |path| Stamp::of(path));
    if let Some((known, roots)) = shared.roots.get(&key)
        && *known == stamp
    {
        r.stamps.extend(key.map(|path| (path, stamp)));
        return Some(roots.clone());
    }
    let roots = match (at, path) {
        (Some(at), Some(path)) => {
            let contents = read("site.upstream_options.ca", path, &at.span, r)?;
            Arc::new(roots_of(&contents, path, &at.span, r)?)
        }
        _ => default_roots(),
    };
    shared.roots.insert(key, (stamp, roots.clone()));
    Some(roots)
}

/// The roots of a file. Warns of a certificate that cannot be a root, as the others are still good.
fn roots_of(contents: &[u8], path: &Path, span: &Range<usize>, r: &mut Checker<'_>) -> Option<RootCertStore> {
    const FORM: &str = "expected CA certificates in PEM";
    let name = format!("site.upstream_options.ca: {}", r.shown(path));
    let certificates = match key_file::certificates(contents) {
        Ok(certificates) => certificates,
        Err(error) => {
            let reason = Reason::new(format!("{name}: {error}"));
            let reason = match error.hint(path, Want::Chain) {
                Some(hint) => reason.hint(hint),
                None => reason.note(FORM),
            };
            r.report(Problem::error(span, reason).about(path));
            return None;
        }
    };
    let mut store = RootCertStore::empty();
    for (line, certificate) in certificates {
        if let Err(error) = store.add(certificate) {
            let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            let reason = Reason::new(format!("{name}: {place}the certificate cannot be a root: {error}")).note(FORM);
            r.report(Problem::warning(span, reason).about(path));
        }
    }
    if store.is_empty() {
        let reason = Reason::new(format!("{name}: no certificate in it can be a root")).note(FORM);
        r.report(Problem::error(span, reason).about(path));
        return None;
    }
    Some(store)
}
