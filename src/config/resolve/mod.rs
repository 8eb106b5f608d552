//! From what is written to what is served: every value checked, every problem told.

mod certificates;
mod headers;
mod limits;
mod listen;
mod pins;
pub mod report;
mod upstream;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::file::{File, HstsTable, SiteTable};
use super::problem::{At, Problems};
use super::{AccessTarget, Config};
use crate::host::{HostMap, HostPattern};
use crate::message::Rendered;
use crate::policy::hsts::{Hsts, UpstreamHeader};
use crate::server::Snapshot;
use crate::site::{Policy, Site};
use crate::telemetry::AccessFormat;
use crate::tls::{Certificates, config as tls_config};

/// The age that an HSTS policy gets if the file does not say: one year.
const HSTS_MAX_AGE: u64 = 365 * 86400;

/// What resolving passes around.
struct Resolver<'a> {
    folder: &'a Path,
    problems: &'a mut Problems,
    now: Timestamp,
}

impl Resolver<'_> {
    fn error(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.problems.error(span, message, None);
    }

    fn error_with_hint(&mut self, span: &Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.error(span, message, Some(hint.into()));
    }

    fn warn(&mut self, span: &Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.warn(span, message, Some(hint.into()));
    }

    /// Relative paths are taken from the folder of the file that names them.
    fn path(&self, text: &str) -> PathBuf {
        self.folder.join(text)
    }

    /// One of several words.
    fn choice<T: Copy>(&mut self, key: &str, value: Option<&At<String>>, words: &[(&str, T)], default: T) -> T {
        let Some(value) = value else { return default };
        if let Some((_, chosen)) = words.iter().find(|(word, _)| *word == value.value) {
            return *chosen;
        }
        let known: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        self.error(&value.span, format!("{key}: {:?} is none of {}", value.value, known.join(", ")));
        default
    }
}

/// Checks everything. The configuration is complete only if there are no errors.
pub(super) fn resolve(file: File, folder: &Path, problems: &mut Problems) -> Option<Config> {
    let mut resolver = Resolver { folder, problems, now: Timestamp::now() };
    let r = &mut resolver;
    let listen = listen::resolve(&file.listen, r);
    let mut limits = limits::resolve(&file.limits, r);
    listen::check_admin(file.admin_listen.as_ref(), r);
    if let Some(directory) = &file.state_directory
        && directory.value.is_empty()
    {
        r.error(&directory.span, "state.directory: is empty");
    }
    if file.sites.is_empty() {
        r.error_with_hint(&(0..0), "there is no site", "add a [[site]] with hosts and upstream");
    }
    let mut upstreams = upstream::Upstreams::default();
    let mut certificates = Certificates::default();
    let (mut sites, mut by_host, mut sets, mut reports) = (Vec::new(), HostMap::default(), Vec::new(), Vec::new());
    let mut taken = HashMap::new();
    for (index, table) in file.sites.iter().enumerate() {
        let hosts = hosts(table, index, &mut taken, r);
        for host in &hosts {
            by_host.insert(&host.value, index);
        }
        let names: Vec<HostPattern> = hosts.iter().map(|h| h.value.clone()).collect();
        let loaded = certificates::resolve(table, &hosts, r);
        let pins = pins::resolve(table, &hosts, &loaded, r);
        let hsts = table.hsts.as_ref().map(|t| hsts(t, &hosts, r));
        let target = upstream::resolve(table, &names, &mut upstreams, r);
        headers::check_policies(table, r);
        let served: Vec<_> = loaded.iter().filter_map(|l| l.certificate.clone()).collect();
        if listen.trust.is_empty() && table.certificates.iter().all(|c| c.key.is_none()) {
            r.warn(
                &table.span,
                "site: has no certificate with a key, and no proxy is trusted to end TLS: nobody can reach it but to be \
                 redirected to https",
                "add [site.certificate], or name the proxy in front in listen.trusted_proxies",
            );
        }
        reports.push(report::Site::new(&names, target.as_ref(), &loaded, hsts.as_ref(), pins.as_ref()));
        sets.push((!served.is_empty()).then(|| certificates.insert(&names, served)));
        sites.push(Arc::new(Site {
            canonical: canonical(table, &hosts, r),
            hosts: names,
            hsts: hsts.map(|policy| policy_of(policy, Hsts::NAME, &policy.to_string())),
            hpkp: pins.map(|p| {
                let (name, value) = (p.policy.name(), p.policy.value());
                policy_of(p.policy, name, &value)
            }),
            request: headers::resolve(&table.request_headers, "request_headers", r),
            response: headers::resolve(&table.response_headers, "response_headers", r),
        }));
        upstreams.of_site(target);
    }
    let default = listen::default_site(&file.tls, &by_host, r);
    if let Some(index) = default {
        match sets.get(index).and_then(Option::as_ref) {
            Some(set) => certificates.set_default(set.clone()),
            None => {
                let span = file.tls.default_site.as_ref().map_or(&file.tls.span, |d| &d.span).clone();
                r.error(&span, "tls.default_site: this site has no certificate with a key");
            }
        }
    }
    let versions = listen::versions(&file.tls, r);
    let formats = [("json", AccessFormat::Json), ("combined", AccessFormat::Combined)];
    let access_format = r.choice("log.format", file.log.format.as_ref(), &formats, AccessFormat::Json);
    let access = match file.log.access.as_ref().map(|a| a.value.as_str()) {
        None | Some("stdout") => AccessTarget::Stdout,
        Some("off") => AccessTarget::Off,
        Some(path) => AccessTarget::File(r.path(path)),
    };
    let acme_webroot = file.acme_webroot.as_ref().map(|w| {
        let path = r.path(&w.value);
        if !path.is_dir() {
            r.error_with_hint(
                &w.span,
                format!("acme.webroot: {} is no folder", path.display()),
                "make it, or leave the key out",
            );
        }
        path
    });
    let name_servers = listen::name_servers(file.name_servers.as_deref(), r);
    if r.problems.has_errors() {
        return None;
    }
    listen::fit_limits(&file.limits, &mut limits);
    let certificates = Arc::new(certificates);
    let tickets = tls_config::tickets().ok()?;
    let tls = tls_config::server(certificates.clone(), versions, tickets).ok()?;
    let (names, upstreams) = upstreams.finish();
    let snapshot = Snapshot {
        sites,
        upstreams,
        by_host,
        certificates,
        tls,
        trust: listen.trust,
        proxy_protocol: listen.proxy_protocol,
        https_port: listen.https_port,
        acme_webroot,
        limits,
    };
    Some(Config {
        https: listen.https,
        http: listen.http,
        workers: listen.workers,
        snapshot,
        names,
        name_servers,
        access,
        access_format,
        sites: reports,
    })
}

fn policy_of<T>(policy: T, name: &str, value: &str) -> Policy<T> {
    let mut field = Rendered::default();
    field.push(name, value).expect("names are constant, and values made of digits, base64 and a checked URI");
    Policy { policy, field }
}

/// A site's names, each of which no other site has.
fn hosts(
    table: &SiteTable,
    index: usize,
    taken: &mut HashMap<HostPattern, (usize, Range<usize>)>,
    r: &mut Resolver<'_>,
) -> Vec<At<HostPattern>> {
    let Some(listed) = &table.hosts else {
        if !table.has_hosts {
            r.error_with_hint(&table.span, "site: has no hosts", "hosts = [\"blog.example.com\"]");
        }
        return Vec::new();
    };
    if listed.is_empty() {
        r.error_with_hint(&table.span, "site.hosts: is empty", "hosts = [\"blog.example.com\"]");
    }
    let mut hosts = Vec::new();
    for text in listed {
        let pattern = match HostPattern::parse(&text.value) {
            Ok(pattern) => pattern,
            Err(why) => {
                r.error(&text.span, format!("site.hosts: {:?}: {why}", text.value));
                continue;
            }
        };
        if let Some((other, span)) = taken.get(&pattern) {
            let (line, _) = r.problems.line_and_column(span.start);
            let whose = if *other == index { "this site" } else { "another site" };
            r.error(&text.span, format!("site.hosts: {pattern} belongs to {whose} already, in line {line}"));
            continue;
        }
        taken.insert(pattern.clone(), (index, text.span.clone()));
        hosts.push(text.with(pattern));
    }
    hosts
}

/// The name that the others are redirected to.
fn canonical(table: &SiteTable, hosts: &[At<HostPattern>], r: &mut Resolver<'_>) -> Option<Box<str>> {
    let wanted = table.canonical_redirect.as_ref().filter(|c| c.value)?;
    let first = hosts.first()?;
    match first.value.exact() {
        Some(name) => Some(name.into()),
        None => {
            let message = "site.canonical_redirect: the first host is a wildcard, which is no name to redirect to";
            r.error_with_hint(&wanted.span, message, "put an exact name first");
            None
        }
    }
}

fn hsts(table: &HstsTable, hosts: &[At<HostPattern>], r: &mut Resolver<'_>) -> Hsts {
    let words = [("replace", UpstreamHeader::Replace), ("keep", UpstreamHeader::Keep)];
    let policy = Hsts {
        max_age: table.max_age.as_ref().map_or(HSTS_MAX_AGE, |m| m.value.as_secs()),
        include_subdomains: table.include_subdomains.as_ref().is_some_and(|i| i.value),
        preload: table.preload.as_ref().is_some_and(|p| p.value),
        upstream: r.choice("site.hsts.upstream", table.upstream.as_ref(), &words, UpstreamHeader::Replace),
    };
    for fault in policy.preload_faults() {
        let span = table.preload.as_ref().map_or(&table.span, |p| &p.span);
        r.error_with_hint(
            span,
            format!("site.hsts.preload: the preload list does not take this policy: {fault}"),
            "it wants max_age = \"1y\" or more and include_subdomains = true, for the base domain; \
             leave preload out unless all subdomains are on https for good",
        );
    }
    if policy.preload && policy.preload_faults().is_empty() {
        // hstspreload.org: the header must come from the base domain.
        for host in hosts.iter().filter(|h| h.value.base().matches('.').count() > 1 || h.value.is_wildcard()) {
            r.warn(
                &host.span,
                format!("site.hsts.preload: {} may be no base domain, and only those are preloaded", host.value),
                "preload belongs to the site of example.com, not of www.example.com",
            );
        }
    }
    for host in hosts.iter().filter(|h| h.value.address().is_some()) {
        r.warn(
            &host.span,
            format!("site.hsts: browsers keep no policy for an address like {} (RFC 6797 section 8.1.1)", host.value),
            "give the site a name",
        );
    }
    policy
}
