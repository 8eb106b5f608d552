//! The served state beside the files on disk: an export contains the served keys.

use std::process::ExitCode;

use super::{KnownPromises, Like, context, look_at_book, print_problems, refuse};
use crate::config::{Config, Draft, report};
use crate::control::served::{self, ServedNow};
use crate::export::PinSet;
use crate::host::HostPattern;
use crate::ledger::Book;
use crate::reason::Reason;
use crate::reason::pasted::pintle;

/// The configuration on disk. While a process serves, broken promises are not an error: the served
/// pairs keep them, and the process refuses a reload.
pub(super) fn on_disk(draft: &Draft, is_running: bool) -> Result<Config, ExitCode> {
    let known = look_at_book(draft).map_err(|reason| refuse(&reason))?;
    let like = if is_running { Like::start(true) } else { Like::CHECK };
    let (config, problems) = draft.build(&context(draft, &known, &like));
    if is_running && config.is_none() {
        let unbound = KnownPromises { book: Book::default(), ..known };
        if let (Some(config), _) = draft.build(&context(draft, &unbound, &like)) {
            let what = format!("{}: the files cannot be served, as they would break promises", draft.path().display());
            warn(&what, &pintle("check"));
            return Ok(config);
        }
        // Another site may be without a certificate.
        if let (Some(config), problems) = draft.build(&context(draft, &unbound, &Like::start(false))) {
            print_problems(&problems);
            return Ok(config);
        }
    }
    print_problems(&problems);
    config.ok_or_else(|| refuse(&super::count_of_errors(draft, &problems)))
}

/// A site with the chains that the running process serves for a host, whatever is on disk.
pub(super) fn as_served(report: &report::SiteReport, served: &[ServedNow], host: &str) -> report::SiteReport {
    let Some(site) = site_of(served, host) else {
        warn(
            &format!("the running process does not serve {host} yet: these are the keys of the files"),
            &pintle("reload"),
        );
        return report.clone();
    };
    let certificate = |chain: &served::ServedChain| {
        Some(report::CertificateReport {
            path: chain.file.clone(),
            serial: String::new(),
            issuer: String::new(),
            algorithm: chain.key_algorithm(),
            pin: chain.pin()?,
            pins: chain.all_pins(),
            certain: Vec::new(),
            scts: 0,
            not_before: chain.not_after,
            not_after: chain.not_after,
            served: true,
            is_managed: false,
        })
    };
    report::SiteReport { certificates: site.chains.iter().filter_map(certificate).collect(), ..report.clone() }
}

/// As for a request: an exact name takes precedence over a wildcard.
fn site_of<'s>(served: &'s [ServedNow], host: &str) -> Option<&'s ServedNow> {
    let wanted = HostPattern::parse(host).ok()?;
    let has = |test: &dyn Fn(&HostPattern) -> bool| {
        served.iter().find(|site| site.hosts.iter().filter_map(|host| HostPattern::parse(host).ok()).any(|h| test(&h)))
    };
    has(&|pattern| *pattern == wanted).or_else(|| wanted.exact().and_then(|name| has(&|pattern| pattern.matches(name))))
}

/// Reports how the files differ from the served state, and what a reload would change.
pub(super) fn warn_of_reload(files: &report::SiteReport, live: &report::SiteReport, set: &PinSet) {
    let news = files.certificates.iter().filter(|c| live.certificates.iter().all(|l| l.pin != c.pin));
    for certificate in news {
        let served: Vec<String> = live.certificates.iter().map(|c| c.pin.to_string()).collect();
        let what = format!(
            "the files differ from the served keys: {} is served with {}; `pintle reload` would serve {} ({})",
            files.name(),
            served.join(", "),
            certificate.pin,
            certificate.file()
        );
        let is_in = set.keys.iter().any(|key| key.pin == certificate.pin);
        let hint = match is_in {
            true => "this export has both keys".to_owned(),
            false => format!(
                "this export does not have that key, so that the reload would lock its users out: to have it, too, add \
                 --backup {}, or export after the reload",
                certificate.file()
            ),
        };
        warn(&what, &hint);
    }
}

pub(super) fn warn(what: &str, hint: &str) {
    super::warn(&Reason::new(what).hint(hint));
}
