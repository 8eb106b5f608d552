//! The settings that belong to no site.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::admin_https::PageInputs;
use super::checker::Checker;
use super::files::nearest_existing;
use super::suites::Fit;
use super::{
    acme, addresses, admin, admin_https, cache, hooks, limits, listen, log, metrics, offer, process, rate, traces,
};
use crate::config::file::ConfigFile;
use crate::config::problem::At;
use crate::config::{AccessTarget, Acme, CheckContext, Draft};
use crate::host::{HostMap, HostPattern};
use crate::reason::{Reason, shell_word};
use crate::telemetry::AccessFormat;
use crate::telemetry::access::LogRules;
use crate::tls::offer::TlsOffer;

/// The settings that belong to no site.
pub(super) struct Globals {
    pub(super) listen: listen::Listen,
    pub(super) limits: crate::limits::Limits,
    pub(super) reports: Option<crate::site::ReportsAt>,
    pub(super) offer: TlsOffer,
    /// The keys that clients can use, if not all.
    pub(super) fit: Option<Fit>,
    pub(super) access: AccessTarget,
    pub(super) access_format: Option<AccessFormat>,
    pub(super) recent: usize,
    pub(super) log: LogRules,
    pub(super) acme_webroot: Option<PathBuf>,
    pub(super) acme: Option<Acme>,
    pub(super) name_servers: crate::upstream::dns::NameServers,
    pub(super) by_host: HostMap<usize>,
    pub(super) default_site: Option<usize>,
    pub(super) sandbox: crate::os::sandbox::SandboxSettings,
    pub(super) hooks: Vec<crate::events::Hook>,
    /// The limits of requests of each site, in the order of the file.
    pub(super) rates: Vec<Option<crate::policy::rate::SiteRates>>,
    pub(super) admin_access: std::sync::Arc<crate::config::admin::AdminAccess>,
    pub(super) admin_https: Option<admin_https::AdminHttpsPlan>,
    pub(super) graphite: Option<crate::graphite::GraphiteSettings>,
    pub(super) traces: Option<crate::telemetry::trace::CollectorSettings>,
}

/// Checks the settings that belong to no site.
pub(super) fn globals(
    draft: &Draft,
    file: &ConfigFile,
    hosts: &[Vec<At<HostPattern>>],
    context: &CheckContext<'_>,
    r: &mut Checker<'_>,
) -> Globals {
    let listen = listen::build(&file.listen, r);
    let mut limits = limits::build(&file.limits, r);
    listen::check_admin(file.admin_listen.as_ref(), draft, r);
    let admin_access = admin::build(&file.admin, r);
    check_state(file, draft, r);
    check_sites(file, draft, context.before.is_some_and(|before| before.sites().len() > 0), r);
    let mut by_host = HostMap::default();
    for (index, hosts) in hosts.iter().enumerate() {
        for host in hosts {
            by_host.insert(&host.value, index);
        }
    }
    let reports = file.reports.as_ref().and_then(|t| listen::reports(t, &by_host, r));
    let default_site = listen::default_site(&file.tls, hosts, &by_host, r);
    let places = addresses::AddressSettings { listen: &listen, tls: &file.tls, default_site };
    addresses::check(file, hosts, &places, r);
    check_default_site(file, default_site, r);
    let offer = offer::build(&file.tls, r);
    let fit = Fit::of(&file.tls, &offer);
    let (access, access_format) = log::access(file, draft, r);
    let acme_webroot = acme_webroot(file, r);
    let acme = acme::build(draft, file, hosts, (&listen, &limits), r);
    let name_servers = listen::name_servers(file.name_servers.as_deref(), r);
    listen::fit_limits(&file.limits, &mut limits, r);
    process::check(&file.process, r);
    let sandbox = process::sandbox(&file.sandbox, r);
    let inputs = PageInputs { draft, file, hosts, near: (&by_host, &listen, &admin_access), context };
    let admin_https = admin_https::plan(&inputs, r);
    Globals {
        graphite: metrics::graphite(&file.metrics, &limits, r),
        traces: traces::traces(&file.metrics, &limits, r),
        listen,
        limits,
        reports,
        offer,
        fit,
        recent: log::recent(&file.log, &access, draft, r),
        access,
        access_format,
        log: log::rules(&file.log, r),
        acme_webroot,
        acme,
        name_servers,
        by_host,
        default_site,
        sandbox,
        hooks: hooks::build(file, r),
        rates: rate::build(file, hosts, r),
        admin_access,
        admin_https,
    }
}

/// Refuses a configuration without a site, unless its first one can come from the page: then there is nothing to lose yet.
fn check_sites(file: &ConfigFile, draft: &Draft, served_sites: bool, r: &mut Checker<'_>) {
    if !file.sites.is_empty() {
        return;
    }
    match draft.may_edit() && draft.admin().is_some() {
        true if served_sites => {
            let hint = "keep one of them, or end pintle: a start with this file serves the page alone";
            r.error_with_hint(&(0..0), "no site is configured, but some are served", hint);
        }
        true => {
            let hint = "`pintle page` sets up the first one";
            r.warn(&(0..0), "no site is configured: pintle serves only its page", hint);
        }
        false => {
            let reason = Reason::new("no site is configured").hint("add a [[site]] with hosts and upstream");
            r.error(&(0..0), reason.hint("edit = true in [admin]: `pintle page` sets up the first one"));
        }
    }
}

/// Refuses an empty name of the state folder. Warns of a file in its place: a start serves all the same, with promises in
/// memory. Warns of a folder that every user can write to: whoever replaces the ledger there decides which keys may be
/// served.
fn check_state(file: &ConfigFile, draft: &Draft, r: &mut Checker<'_>) {
    if let Some(directory) = file.state_directory.as_ref().filter(|directory| directory.value.is_empty()) {
        r.error_with_hint(&directory.span, "state.directory: must not be empty", "leave the key out, or name a folder");
    }
    let Some(folder) = draft.state() else { return cache::check_state(file, r) };
    if let Some(other) = nearest_existing(&folder).filter(|nearest| !nearest.is_dir()) {
        r.warn(
            &draft.place_of("state.directory"),
            format!("state.directory: {}: not a folder: pintle forgets its promises at its end", r.shown(other)),
            "name a folder of its own: directory = \"/var/lib/pintle\"",
        );
    }
    if std::fs::metadata(&folder).is_ok_and(|m| m.is_dir() && m.mode() & 0o002 != 0) {
        r.warn(
            &draft.place_of("state.directory"),
            format!("state.directory: {}: everybody on this host can write there", r.shown(&folder)),
            format!("chmod o-w {}", shell_word(&r.shown(&folder))),
        );
    }
}

fn check_default_site(file: &ConfigFile, default_site: Option<usize>, r: &mut Checker<'_>) {
    if default_site.and_then(|at| file.sites.get(at)).is_some_and(|s| s.certificates.iter().all(|c| c.key.is_none())) {
        let span = file.tls.default_site.as_ref().map_or(&file.tls.span, |d| &d.span).clone();
        let hint = "give it [site.certificate] with chain and key, or name another site";
        r.error_with_hint(&span, "tls.default_site: this site has no certificate with a key", hint);
    }
}

fn acme_webroot(file: &ConfigFile, r: &mut Checker<'_>) -> Option<PathBuf> {
    file.acme.webroot.as_ref().map(|w| {
        let path = r.path(&w.value);
        if !path.is_dir() {
            let shown = r.shown(&path);
            // `mkdir` makes no folder where something else is.
            let (what, hint) = match nearest_existing(&path).filter(|nearest| !nearest.is_dir()) {
                Some(other) if other == path => ("not a folder", "name a folder, or leave the key out".to_owned()),
                Some(other) => ("no such folder", format!("{} is a file: name a folder", r.shown(other))),
                None => ("no such folder", format!("mkdir -p {}, or leave the key out", shell_word(&shown))),
            };
            r.error_with_hint(&w.span, format!("acme.webroot: {shown}: {what}"), hint);
        }
        path
    })
}
