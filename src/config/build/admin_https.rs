//! `[admin.https]`: the pages over TLS, for readers on other hosts.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::admin_pins;
use super::certificates::{PrivateKey, certify_problem, chain_file, key_problem, read_chain, read_key};
use super::checker::Checker;
use super::entry::SiteEntry;
use super::files::read_roots;
use super::listen::{Listen, addresses, no_such_host};
use crate::config::admin::{AdminAccess, AdminRole};
use crate::config::admin_https::{AdminHttps, AdminHttpsLimits, AdminTls};
use crate::config::file::{AdminHttpsTable, ConfigFile, SiteTable};
use crate::config::problem::At;
use crate::config::stamp::Stamp;
use crate::config::{CheckContext, Draft, MayLack};
use crate::host::{HostMap, HostPattern};
use crate::limits::Limits;
use crate::policy::promise::Seconds;
use crate::reason::{Problem, Reason, Severity};
use crate::tls::client_auth::ClientAuthority;
use crate::tls::offer::TlsOffer;
use crate::tls::resolver::AnyName;
use crate::tls::{Certificate, CertificateSet, Certificates, config as tls_config, preflight};

/// The port in hints.
const PORT: u16 = 9443;

/// The settings, before the sites are there.
pub(super) struct AdminHttpsPlan {
    listen: Vec<SocketAddr>,
    /// The site whose certificates it has, by its place in the file.
    site: Option<usize>,
    /// Certificates of its own, if they are fit.
    own: Option<CertificateSet>,
    /// The names at which they break promises already. Further pins that bind these are no objection.
    broken: HashSet<String>,
    /// The role of clients with certificates, if there may be any, and their authority, if its file is fit.
    clients: Option<(AdminRole, Option<Arc<ClientAuthority>>)>,
    troubles: Vec<Reason>,
    stamps: Vec<(PathBuf, Stamp)>,
}

/// The parts of the configuration that the settings depend on.
pub(super) struct PageInputs<'a> {
    pub(super) draft: &'a Draft,
    pub(super) file: &'a ConfigFile,
    pub(super) hosts: &'a [Vec<At<HostPattern>>],
    /// The sites by their hosts, the listeners, and the readers with passwords.
    pub(super) near: (&'a HostMap<usize>, &'a Listen, &'a AdminAccess),
    pub(super) context: &'a CheckContext<'a>,
}

/// Checks the table, and loads its files.
pub(super) fn plan(around: &PageInputs<'_>, r: &mut Checker<'_>) -> Option<AdminHttpsPlan> {
    let table = around.file.admin.https.as_deref()?;
    let listen = listen(table, around, r);
    let site = source(table, around, r);
    if around.draft.admin().is_none() {
        let what = "admin.https: the commands need a socket of their own";
        r.error_with_hint(&table.span, what, "listen = \"unix:/run/pintle/admin.sock\" in [admin]");
    }
    let mut problems = r.problems.scratch();
    let mut own = Checker { problems: &mut problems, stamps: Vec::new(), ..*r };
    let clients = clients(table, &mut own);
    let certificates = if site.is_none() { pair(table, &mut own) } else { None };
    let stamps = std::mem::take(&mut own.stamps);
    let problems = problems.into_list();
    let errors = problems.iter().filter(|problem| problem.is_error());
    let mut troubles: Vec<Reason> = errors.map(|problem| r.problems.placed(problem).reason).collect();
    // The sites do not wait for the pages: a start, and a reload, go without what is unfit.
    let is_strict = around.context.may_lack == MayLack::None;
    let severity = |problem: &Problem| if is_strict { problem.severity } else { Severity::Warning };
    for problem in problems {
        r.report(Problem { severity: severity(&problem), ..problem });
    }
    let chain = table.chain.as_ref().map(|chain| r.path(&chain.value)).unwrap_or_default();
    let broken = certificates.as_ref().and_then(|own| admin_pins::broken(table, own, &chain, around.context));
    let is_refused = broken.as_ref().is_some_and(|broken| broken.is_refused);
    let mut names = HashSet::new();
    if let Some(found) = broken {
        troubles.push(r.problems.placed(&found.problem).reason);
        r.report(found.problem);
        names = found.names;
    }
    let own = certificates.filter(|_| !is_refused);
    Some(AdminHttpsPlan { listen, site, own, broken: names, clients, troubles, stamps })
}

impl AdminHttpsPlan {
    /// The objection to a site's pins that bind the pages, whose own certificate has none of their keys.
    pub(super) fn clash(&self, table: &SiteTable, entry: &SiteEntry, now: Seconds) -> Option<Problem> {
        admin_pins::clash((self.own.as_ref()?, &self.broken), table, entry, now)
    }
}

fn listen(table: &AdminHttpsTable, around: &PageInputs<'_>, r: &mut Checker<'_>) -> Vec<SocketAddr> {
    let (key, (_, sites, access)) = ("admin.https.listen", around.near);
    let Some(list) = table.listen.as_deref().filter(|list| !list.is_empty()) else {
        r.error_with_hint(&table.span, "admin.https: listen is missing", format!("listen = [\"192.0.2.1:{PORT}\"]"));
        return Vec::new();
    };
    let listen = addresses(key, Some(list), PORT, r);
    let taken = |address: &SocketAddr| {
        let others = sites.https.iter().chain(&sites.http);
        others.into_iter().any(|other| other == address && address.port() != 0)
    };
    for address in listen.iter().filter(|address| taken(address)) {
        let hint = format!("another port, as in \"{}\"", SocketAddr::new(address.ip(), PORT));
        r.error_with_hint(&table.span, format!("{key}: {address} is a listener of the sites, too"), hint);
    }
    let is_local = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
    if let Some(address) = listen.iter().find(|address| !is_local(address))
        && access.users.is_empty()
        && table.client_ca.is_none()
    {
        let what = format!("{key}: other hosts reach {address}, and nobody there can sign in");
        let reason = Reason::new(what)
            .hint("`pintle admin password` makes the line password_hash for [admin]")
            .hint("client_ca = \"clients.pem\" in [admin.https], the authority of your readers' certificates");
        r.error(&table.span, reason);
    }
    listen
}

/// The site whose certificates it has; `None` with a pair of its own.
fn source(table: &AdminHttpsTable, around: &PageInputs<'_>, r: &mut Checker<'_>) -> Option<usize> {
    let Some(site) = &table.site else {
        let missing = match (&table.chain, &table.key) {
            (Some(_), Some(_)) => return None,
            (None, None) => "the certificate",
            (None, _) => "chain",
            (_, None) => "key",
        };
        let reason = Reason::new(format!("admin.https: {missing} is missing"))
            .hint("chain = \"admin.pem\" and key = \"admin.key\"")
            .hint("site = \"blog.example.com\", for the certificate of that site");
        r.error(&table.span, reason);
        return None;
    };
    if let Some(given) = table.chain.as_ref().or(table.key.as_ref()) {
        let what = "admin.https: it has the certificate of a site, and chain and key of its own";
        r.error_with_hint(&given.span, what, "keep either site, or chain and key");
    }
    let index = HostPattern::parse(&site.value).ok().and_then(|p| around.near.0.get_pattern(&p).copied());
    let Some(index) = index else {
        r.error(&site.span, no_such_host("admin.https.site", &site.value, around.hosts));
        return None;
    };
    let has_key = |site: &SiteTable| site.certificates.iter().any(|pair| pair.key.is_some() || pair.managed.is_some());
    if !around.file.sites.get(index).is_some_and(has_key) {
        let hint = "name another site, or set chain and key instead";
        r.error_with_hint(&site.span, "admin.https.site: this site has no certificate with a key", hint);
    }
    Some(index)
}

fn clients(table: &AdminHttpsTable, r: &mut Checker<'_>) -> Option<(AdminRole, Option<Arc<ClientAuthority>>)> {
    let key = "admin.https.client_role";
    let role = r.choice(key, table.client_role.as_ref(), &AdminRole::ALL, AdminRole::View);
    let Some(at) = &table.client_ca else {
        if let Some(role) = &table.client_role {
            r.warn(&role.span, format!("{key}: has no effect without client_ca"), "client_ca = \"clients.pem\"");
        }
        return None;
    };
    Some((role, authority(at, r)))
}

fn authority(at: &At<String>, r: &mut Checker<'_>) -> Option<Arc<ClientAuthority>> {
    let roots = read_roots("admin.https.client_ca", at, "the authorities of your readers' certificates", r)?;
    match ClientAuthority::new(roots) {
        Ok(authority) => Some(Arc::new(authority)),
        Err(why) => {
            let path = r.path(&at.value);
            let reason = Reason::new(format!("admin.https.client_ca: {}: {why}", r.shown(&path)));
            let reason = reason.hint("name a PEM file with the certificates of your own authorities");
            r.report(Problem::error(&at.span, reason).about(&path));
            None
        }
    }
}

/// Loads a pair of its own.
fn pair(table: &AdminHttpsTable, r: &mut Checker<'_>) -> Option<CertificateSet> {
    let (chain_at, key_at) = (table.chain.as_ref()?, table.key.as_ref()?);
    let path = r.path(&chain_at.value);
    let key: Option<(&At<String>, PrivateKey)> = read_key("admin.https.key", key_at, r);
    let file = chain_file("admin.https.chain", &path, &chain_at.span, r)?;
    let chain = read_chain(&file, &path, chain_at, r)?;
    let faults = preflight::judge(&chain, &[], r.now, None);
    for fault in &faults {
        let reason =
            Reason::new(format!("admin.https.chain: {}: {fault}", r.shown(&path))).hint(fault.hint(&chain.leaf));
        // Better an expired certificate, which browsers warn of, than no page.
        let of_severity = if fault.is_fatal() && !fault.is_of_time() { Problem::error } else { Problem::warning };
        r.report(of_severity(&chain_at.span, reason).about(&path));
    }
    let (key_at, key) = key?;
    match key.certify(chain) {
        Ok(certificate) => {
            let is_fit = !faults.iter().any(|fault| fault.is_fatal() && !fault.is_of_time());
            is_fit.then(|| Certificates::set(vec![Arc::new(certificate)]))
        }
        Err(crate::tls::CertificateError::Key(why)) => {
            let path = r.path(&key_at.value);
            let problem = key_problem(key_at, &path, &why, &why, r);
            r.report(problem);
            None
        }
        Err(error) => {
            let problem = certify_problem(key_at, &path, &error, r);
            r.report(problem);
            None
        }
    }
}

/// The settings in use, with the certificates of now. If files are unfit, the previous certificates stay.
pub(super) fn build(
    plan: AdminHttpsPlan,
    entries: &[Arc<SiteEntry>],
    offer: &TlsOffer,
    limits: &Limits,
    context: &CheckContext<'_>,
) -> AdminHttps {
    let AdminHttpsPlan { listen, site, own, clients, mut troubles, stamps, .. } = plan;
    let before = context.before.and_then(|before| before.admin_https.as_deref());
    let entry = site.and_then(|index| entries.get(index));
    let (certificates, is_of_site) = match entry {
        Some(entry) => (entry.plan.set.clone(), true),
        None => {
            let kept = before.and_then(|before| before.tls.as_ref()).filter(|tls| !tls.is_of_site);
            (own.or_else(|| kept.map(|tls| tls.certificates.clone())), false)
        }
    };
    if let (true, None) = (is_of_site, &certificates) {
        troubles.push(Reason::new("admin.https.site: the site has no certificate yet, so the pages have none"));
    }
    // An unreadable list of authorities admits nobody new, and locks nobody out.
    let clients = clients.and_then(|(role, authority)| {
        let kept = || before.and_then(|before| before.clients.as_ref()).map(|(authority, _)| authority.clone());
        Some((authority.or_else(kept)?, role))
    });
    let verifier = clients.as_ref().map(|(authority, _)| authority.for_handshakes());
    let tls = certificates.and_then(|certificates: Arc<[Arc<Certificate>]>| {
        let config = tls_config::admin(Arc::new(AnyName(certificates.clone())), offer, verifier).ok()?;
        Some(AdminTls { certificates, is_of_site, config })
    });
    let hsts = entry.and_then(|entry| entry.site.hsts.as_ref()).map(|hsts| hsts.policy.to_string());
    AdminHttps { listen, tls, clients, hsts, limits: AdminHttpsLimits::of(limits), troubles, stamps }
}
