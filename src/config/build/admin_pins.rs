//! The own certificate of the pages over TLS, judged by the pins of the sites: these bind a name on every port (RFC 7469
//! section 2.6), and `includeSubDomains` binds the names below.

use std::collections::HashSet;
use std::path::Path;

use super::entry::SiteEntry;
use crate::config::CheckContext;
use crate::config::admin_https::AdminHttps;
use crate::config::file::{AdminHttpsTable, SiteTable};
use crate::host::HostPattern;
use crate::ledger::Book;
use crate::ledger::time::{minute, minute_from};
use crate::policy::promise::{Promise, Seconds};
use crate::reason::pasted::pintle;
use crate::reason::{Problem, Reason};
use crate::tls::CertificateSet;
use crate::tls::certificate::Chain;

/// The note for files that changed in place. There is no copy of what the pages had before.
const KEPT: &str = "the certificate in use stays until pintle is restarted; a start serves the pages with this one, and an \
                    upgrade is refused";

/// A certificate of the pages that breaks promises.
pub(super) struct BrokenByPages {
    pub(super) problem: Problem,
    /// The pages do not get it: they keep what they have.
    pub(super) is_refused: bool,
    /// Its names at which it breaks them.
    pub(super) names: HashSet<String>,
}

/// Judges the certificate of the pages. It is refused if a reload, an upgrade, or a change of its files brings it, and the
/// one in use breaks less. At a reload, that is an error only if the text names other files: files that changed in place
/// must not hold up other changes. A new process has no other certificate. Otherwise nothing could replace it, and
/// browsers check no pins: the pages are served all the same.
pub(super) fn broken(
    table: &AdminHttpsTable,
    set: &CertificateSet,
    chain_file: &Path,
    context: &CheckContext<'_>,
) -> Option<BrokenByPages> {
    let chain = &set.first()?.chain;
    let alive = context.book.promises().iter().filter(|promise| promise.is_alive(context.now));
    let broken = alive.map(|promise| (promise, broken_names(chain, promise))).filter(|(_, names)| !names.is_empty());
    let broken: Vec<(&Promise, Vec<String>)> = broken.collect();
    let until = broken.iter().map(|(promise, _)| promise.honoured_until()).max()?;
    let listed = |mut texts: Vec<String>| {
        texts.sort_unstable();
        texts.dedup();
        texts.join(", ")
    };
    let pages = context.served().map(|served| served.admin_https.as_deref());
    let own = pages.flatten().and_then(|pages| pages.tls.as_ref()).filter(|tls| !tls.is_of_site);
    let own: Option<Vec<&Chain>> = own.map(|tls| tls.certificates.iter().map(|one| &*one.chain).collect());
    let of_other = context.pages_in_use.as_ref();
    let in_use = own.or_else(|| of_other.map(|chains| chains.iter().collect()));
    let breaks_more = in_use.as_ref().is_none_or(|in_use| {
        let is_new =
            |promise: &Promise, name: &String| !in_use.iter().any(|one| broken_names(one, promise).contains(name));
        broken.iter().any(|(promise, names)| names.iter().any(|name| is_new(promise, name)))
    });
    let is_known = |pages: &AdminHttps| pages.stamps.iter().any(|(path, _)| path == chain_file);
    let has_other_files = of_other.is_some() || pages.is_some_and(|pages| !pages.is_some_and(is_known));
    // Without a certificate in use, the pages of an old text get this one, as at a start.
    let is_refused = breaks_more && (has_other_files || in_use.is_some());
    let sites = listed(broken.iter().map(|(promise, _)| promise.site.clone()).collect());
    let way = way_for_this_key(chain, &broken, &sites, context.book);
    let names: HashSet<String> = broken.into_iter().flat_map(|(_, names)| names).collect();
    let reason = Reason::new(format!(
        "admin.https.chain: would lock readers out of the pages at {}: the pins of {sites} bind every port, are held \
         until {}, and this chain has none of their keys ({})",
        listed(names.iter().cloned().collect()),
        minute_from(until),
        chain.pin()
    ))
    .hint(way)
    .hint("site = \"...\" instead of chain and key in [admin.https], for the certificate of a site")
    .hint("get a certificate for another name, which no site's pins bind");
    let span = table.chain.as_ref().map_or(&table.span, |chain| &chain.span);
    let problem = match (is_refused, has_other_files) {
        (true, true) => Problem::error(span, reason),
        (true, false) => Problem::warning(span, reason.note(KEPT)),
        (false, _) => Problem::warning(span, reason.note("pintle serves the pages with it all the same")),
    };
    Some(BrokenByPages { problem, is_refused, names })
}

/// The way and the time in which the certificate's own key becomes usable.
fn way_for_this_key(chain: &Chain, broken: &[(&Promise, Vec<String>)], sites: &str, book: &Book) -> String {
    let from = minute_from(broken.iter().map(|(promise, _)| promise.honoured_until()).max().unwrap_or_default());
    let since = broken.iter().map(|(promise, _)| book.promised_since(&promise.site, chain.pin()));
    // Of several sites, the last one counts.
    match since.collect::<Option<Vec<Seconds>>>().and_then(|since| since.into_iter().max()) {
        Some(since) => format!(
            "wait: the key of this chain is promised by {sites} since {}; it is usable from {from}, when no client holds \
             older pins. Restart pintle after that, or `{}`",
            minute(since),
            pintle("reload")
        ),
        None => format!(
            "add the key of this chain to backups of {sites}, and `{}`: it is usable from {from} at the earliest, and until \
             then a restart locks readers out",
            pintle("reload")
        ),
    }
}

/// The objection to a site's pins that the certificate would break once they are sent. There is none for names at which it
/// breaks promises already.
pub(super) fn clash(
    (set, known): (&CertificateSet, &HashSet<String>),
    table: &SiteTable,
    entry: &SiteEntry,
    now: Seconds,
) -> Option<Problem> {
    let chain = &set.first()?.chain;
    let promise = &entry.pledge.as_ref()?.promise;
    let names: Vec<String> = broken_names(chain, promise).into_iter().filter(|name| !known.contains(name)).collect();
    let is_alive = || Promise { first_sent: now, last_sent: now, ..promise.clone() }.is_alive(now);
    if names.is_empty() || !is_alive() {
        return None;
    }
    let span = table
        .hpkp
        .as_ref()
        .map_or(&table.span, |hpkp| hpkp.include_subdomains.as_ref().map_or(&hpkp.span, |include| &include.span));
    let reason = Reason::new(format!(
        "site.hpkp: would lock readers out of the admin pages at {}: these pins bind every port, and admin.https.chain has \
         none of their keys ({})",
        names.join(", "),
        chain.pin()
    ))
    .hint("add the key of admin.https.chain to backups, or remove include_subdomains")
    .hint(format!("site = \"{}\" instead of chain and key in [admin.https]", entry.site.label()));
    Some(Problem { site: Some(entry.site.label()), ..Problem::error(span, reason) })
}

/// The names of a certificate at which it breaks a promise. Those below a wildcard that a site has by itself are not the
/// pages'.
fn broken_names(chain: &Chain, promise: &Promise) -> Vec<String> {
    if promise.is_kept_by(&chain.certain) {
        return Vec::new();
    }
    let is_bound = |name: &HostPattern| match name.is_wildcard() {
        true => promise.binds(name, &promise.hosts),
        false => promise.binds(name, &[]),
    };
    let names = chain.leaf.all_names().filter(|name| HostPattern::parse(name).is_ok_and(|name| is_bound(&name)));
    names.collect()
}
