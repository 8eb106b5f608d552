//! The sites whose certificates pintle obtains: their tables, their names, and keys to adopt.

use std::path::Path;

use super::authorities::{KNOWN, known};
use super::checker::{Checker, of_site, unknown};
use super::files::read;
use crate::config::acme::{ALGORITHMS, KEY, Method};
use crate::config::file::{AcmeTable, CertificateTable, SiteTable};
use crate::config::problem::At;
use crate::host::{HostPattern, is_within};
use crate::keys::key_file;
use crate::reason::{Problem, Reason};

/// The largest number of names that public authorities take in one certificate; and in a short-lived one.
const NAMES_MAX: usize = 100;
const NAMES_MAX_SHORT: usize = 25;
/// Names that no public authority certifies (RFC 6761, RFC 6762, RFC 8375).
const PRIVATE: [&str; 7] = ["test", "localhost", "invalid", "local", "internal", "lan", "home.arpa"];

/// Reports tables of a site that contradict themselves.
pub(super) fn check_tables(site: &SiteTable, r: &mut Checker<'_>) {
    let mut seen = Vec::new();
    for table in &site.certificates {
        let listed = table.algorithms.as_deref();
        let Some(span) = table.by_acme() else {
            if let Some(first) = listed.and_then(|listed| listed.first()) {
                let what = "site.certificate.algorithms: has no effect without acme = true";
                r.error_with_hint(&first.span, what, "acme = true, or leave the key out");
            }
            continue;
        };
        if let (Some(chain), None) = (&table.chain, &table.managed) {
            let what = "site.certificate: chain and acme = true exclude each other: pintle stores the chain itself";
            r.error_with_hint(&chain.span, what, "leave chain out, or acme = true");
        }
        check_algorithms(table, r);
        if let Some(managed) = &table.managed {
            if seen.contains(&managed.algorithm) {
                let what = format!("site.certificate: acme = true twice for {}", managed.algorithm);
                r.error_with_hint(span, what, "one table: algorithms = [\"ecdsa-p256\", \"rsa-2048\"]");
            }
            seen.push(managed.algorithm);
        }
    }
}

fn check_algorithms(table: &CertificateTable, r: &mut Checker<'_>) {
    let Some(listed) = &table.algorithms else { return };
    if listed.is_empty() {
        let what = "site.certificate.algorithms: must not be empty";
        r.error_with_hint(&table.span, what, "algorithms = [\"ecdsa-p256\"], or leave the key out");
    }
    for (at, name) in listed.iter().enumerate() {
        if !ALGORITHMS.iter().any(|(word, _)| *word == name.value) {
            let words = ALGORITHMS.iter().map(|(word, _)| *word);
            let reason = unknown("site.certificate.algorithms", "algorithm", &name.value, words);
            r.error(&name.span, reason);
        } else if listed.iter().take(at).any(|before| before.value == name.value) {
            let what = format!("site.certificate.algorithms: {} is listed twice", name.value);
            r.error_with_hint(&name.span, what, "remove one");
        }
    }
}

/// Reports names that the authorities do not certify.
pub(super) fn check_names(table: &AcmeTable, challenges: &[Method], hosts: &[At<HostPattern>], r: &mut Checker<'_>) {
    let label = hosts.first().map(|at| at.value.to_string()).unwrap_or_default();
    let public = known(table.directory.as_ref().map_or(KNOWN[0].name, |at| &at.value));
    let profile = table.profile.as_ref().map(|profile| profile.value.as_str());
    for host in hosts {
        let name = &host.value;
        let problem = |reason: Reason| of_site(&label, Problem::error(&host.span, reason));
        if !challenges.iter().any(|method| method.proves(&name.to_string())) {
            r.report(problem(unproved(name, table.challenges.is_some(), challenges)));
        }
        let Some(known) = public else { continue };
        let wanted = known.for_addresses;
        match (name.address(), wanted) {
            (Some(_), None) => {
                let what = format!("site.hosts: {name}: {} does not certify addresses", known.title);
                r.report(problem(Reason::new(what).hint("give the site a name")));
            }
            (Some(_), Some(wanted)) if profile != Some(wanted) => {
                let what = format!("site.hosts: {name}: {} certifies addresses by one profile only", known.title);
                r.report(problem(Reason::new(what).hint(format!("profile = {wanted:?} in [acme]"))));
            }
            (None, _) if is_private(name) => {
                let what = format!("site.hosts: {name}: no public authority certifies this name");
                let reason = Reason::new(what).hint("a public name, or the directory of a private authority in [acme]");
                r.report(of_site(&label, Problem::warning(&host.span, reason)));
            }
            _ => {}
        }
    }
    let most = if matches!(profile, Some("shortlived" | "tlsserver")) { NAMES_MAX_SHORT } else { NAMES_MAX };
    if let (Some(known), Some(over)) = (public, hosts.get(most)) {
        let what = format!("site.hosts: {} accepts at most {most} names in one certificate", known.title);
        let reason = Reason::new(what).hint("spread the names over several sites");
        r.report(of_site(&label, Problem::error(&over.span, reason)));
    }
}

/// The reason for a name that no challenge proves.
fn unproved(name: &HostPattern, are_listed: bool, challenges: &[Method]) -> Reason {
    let words = challenges.iter().map(|method| method.name()).collect::<Vec<_>>().join(" and ");
    if name.address().is_some() {
        let what = format!("site.hosts: {name}: {words} cannot validate an IP address");
        return Reason::new(what).hint("challenges = [\"http-01\", \"tls-alpn-01\"] in [acme]");
    }
    let listed: Vec<String> = challenges.iter().map(|method| format!("{:?}", method.name())).collect();
    let front =
        if are_listed { format!("challenges = [{}, \"dns-01\"] and ", listed.join(", ")) } else { String::new() };
    Reason::new(format!("site.hosts: {name}: {words} cannot validate a wildcard"))
        .note("authorities certify wildcards by DNS records only")
        .hint(format!("{front}dns_hook = \"/etc/pintle/dns-hook\" in [acme], a program that sets DNS records"))
        .hint("challenges = [\"dns-persist-01\"] in [acme], if the authority offers it")
        .hint("list the names one by one instead of the wildcard")
}

fn is_private(name: &HostPattern) -> bool {
    let base = name.base();
    // The Baseline Requirements of the CAs forbid the underscore.
    !base.contains('.') || base.contains('_') || PRIVATE.iter().any(|domain| is_within(base, domain))
}

/// Reads a key that is to be adopted, unless that has happened before.
pub(super) fn check_adopted(table: &CertificateTable, hosts: &[At<HostPattern>], r: &mut Checker<'_>) {
    let Some((managed, adopt)) = table.managed.as_ref().and_then(|m| Some((m, m.adopt.as_ref()?))) else { return };
    let own = table.chain.as_ref().and_then(|chain| Path::new(&chain.value).parent()).map(|folder| folder.join(KEY));
    if own.is_some_and(|own| own.exists()) {
        return;
    }
    let label = hosts.first().map(|at| at.value.to_string()).unwrap_or_default();
    let path = r.path(&adopt.value);
    let Some(contents) = read("site.certificate.key", &path, &adopt.span, r) else { return };
    let private = key_file::private_key(&contents).and_then(|_| key_file::public_key(&contents));
    let reason = match private {
        Ok(key) if key.algorithm == managed.algorithm => return,
        // One of several: the others are new.
        Ok(key) if is_listed(table, &key.algorithm.to_string()) => return,
        Ok(key) => {
            let what = format!("{}: the key to adopt is {}, not {}", r.shown(&path), key.algorithm, managed.algorithm);
            Reason::new(what).hint(format!("algorithms = [\"{}\"]", key.algorithm))
        }
        Err(why) => Reason::new(format!("{}: no private key to adopt: {why}", r.shown(&path)))
            .hint("name a private key in PEM, or leave key out: pintle makes one"),
    };
    r.report(of_site(&label, Problem::error(&adopt.span, reason).about(&path)));
}

fn is_listed(table: &CertificateTable, algorithm: &str) -> bool {
    table.algorithms.iter().flatten().any(|listed| listed.value == algorithm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_names() {
        let check = |name: &str, want: bool| assert_eq!(is_private(&HostPattern::parse(name).unwrap()), want, "{name}");
        check("blog.example.com", false);
        check("*.example.com", false);
        check("blog.test", true);
        check("test", true);
        check("contest.example", false);
        check("printer", true);
        check("nas.home.arpa", true);
        check("a.internal", true);
        check("my_blog.example.com", true);
        check("*.my_blog.example.com", true);
    }
}
