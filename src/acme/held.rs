//! The facts about a chain on disk, and the judgement of a new one.

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;

use super::backoff::{failing_since, last_failure};
use super::facts::{ChainInUse, Checked};
use super::renewal_info::certificate_id;
use super::request::CertificateInUse;
use super::store::{self, CertificateRecord};
use crate::config::Managed;
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::policy::promise::Seconds;
use crate::tls::certificate::Chain;
use crate::tls::rule::Rule;

/// Returns the names of a certificate as an authority takes them: in lower case, sorted, addresses without brackets, and
/// without names that a wildcard among them covers.
#[must_use]
pub(super) fn names(certificate: &Managed) -> Vec<String> {
    let hosts = &certificate.hosts;
    let is_covered = |host: &HostPattern| {
        let exact = host.exact();
        exact.is_some_and(|exact| hosts.iter().any(|other| other.is_wildcard() && other.matches(exact)))
    };
    let mut names: Vec<String> = hosts.iter().filter(|host| !is_covered(host)).map(name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn name(host: &HostPattern) -> String {
    host.address().map_or_else(|| host.to_string(), |address| address.to_canonical().to_string())
}

/// Returns the last preflight of the names that a certificate has now, as far as this user can read it. Changes nothing.
#[must_use]
pub fn last_preflight(certificate: &Managed) -> Option<Checked> {
    store::look(certificate)?.checked.filter(|checked| checked.names == names(certificate))
}

/// The attempts to obtain a first certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirstAttempts {
    /// The time of the first failure; `None` if none has failed.
    pub failing_since: Option<Seconds>,
    /// The last failure in words.
    pub problem: Option<String>,
}

/// Returns the attempts to obtain a first certificate, as far as this user can read them; `None` once there is a
/// certificate. Changes nothing.
#[must_use]
pub fn waiting(certificate: &Managed) -> Option<FirstAttempts> {
    if certificate.chain().symlink_metadata().is_ok() {
        return None;
    }
    let record = store::look(certificate).unwrap_or_default();
    let attempts = || record.authorities.values().map(|known| &known.attempts);
    Some(FirstAttempts {
        failing_since: failing_since(attempts()),
        problem: last_failure(attempts()).map(|last| last.reason().full_line()),
    })
}

/// Returns the facts about the chain that is served: the one on disk may have been refused. `served` is `None` if nobody
/// knows.
pub(super) fn in_use(
    certificate: &Managed,
    record: &CertificateRecord,
    served: Option<&[CertificateInUse]>,
    now: Seconds,
) -> Option<ChainInUse> {
    let on_disk = store::chain(certificate);
    let Some(served) = served else { return on_disk.map(|chain| held(&chain, record)) };
    let of_site =
        |known: &&CertificateInUse| known.site == certificate.site && known.algorithm == certificate.algorithm;
    let Some(served) = served.iter().find(of_site) else {
        // An expired one is not served, and says since when.
        let expired = on_disk.filter(|chain| chain.leaf.not_after.as_second() <= now);
        return expired.map(|chain| held(&chain, record));
    };
    match on_disk.filter(|chain| chain.pin() == served.pin && chain.leaf.serial == served.serial) {
        Some(chain) => Some(held(&chain, record)),
        None => Some(ChainInUse {
            not_before: served.not_before,
            not_after: served.not_after,
            pin: served.pin,
            names: names(certificate),
            id: None,
            from: None,
            spread: record.spread,
        }),
    }
}

/// Returns the facts about a chain.
#[must_use]
pub(super) fn held(chain: &Chain, record: &CertificateRecord) -> ChainInUse {
    let leaf = &chain.leaf;
    ChainInUse {
        not_before: leaf.not_before.as_second(),
        not_after: leaf.not_after.as_second(),
        pin: chain.pin(),
        names: leaf.all_names().collect(),
        id: chain.der().first().and_then(|der| id(der)),
        from: record.from.clone(),
        spread: record.spread,
    }
}

/// Returns the identifier of a certificate for renewal information.
fn id(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let key = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(of) => of.key_identifier.as_ref().map(|key| key.0.to_vec()),
        _ => None,
    })?;
    Some(certificate_id(&key, certificate.raw_serial()))
}

/// Judges a chain before it becomes a candidate.
///
/// # Errors
///
/// Its fault.
pub(super) fn judge(pem: &str, names: &[String], key: Pin, now: Timestamp) -> Result<Chain, String> {
    let chain = Chain::from_pem(pem.as_bytes()).map_err(|error| format!("the authority's chain: {error}"))?;
    if chain.pin() != key {
        return Err("the authority's certificate belongs to another key".to_owned());
    }
    let missing: Vec<&str> = names.iter().map(String::as_str).filter(|name| !covers(&chain, name)).collect();
    if !missing.is_empty() {
        return Err(format!("the authority's certificate lacks {}", missing.join(", ")));
    }
    if chain.leaf.not_after <= now {
        return Err(format!("the authority's certificate has expired on {}", chain.leaf.not_after));
    }
    let broken: Vec<Rule> = chain.broken_rules(now.max(chain.leaf.not_before));
    match broken.first() {
        Some(rule) => Err(format!("the authority's chain: {rule}")),
        None => Ok(chain),
    }
}

fn covers(chain: &Chain, name: &str) -> bool {
    let bracketed = || format!("[{name}]");
    HostPattern::parse(name)
        .or_else(|_| HostPattern::parse(&bracketed()))
        .is_ok_and(|pattern| chain.leaf.covers_pattern(&pattern))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::keys::key_file::KeyAlgorithm;

    #[test]
    fn names_as_an_authority_takes_them() {
        for (hosts, expected) in [
            (&["b.example", "a.example", "a.example"][..], &["a.example", "b.example"][..]),
            (&["a.example", "*.a.example"], &["*.a.example", "a.example"]),
            (&["a.example", "www.a.example", "*.a.example"], &["*.a.example", "a.example"]),
            (&["x.y.a.example", "*.a.example"], &["*.a.example", "x.y.a.example"]),
            (&["*.a.example", "*.b.a.example"], &["*.a.example", "*.b.a.example"]),
        ] {
            let hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
            let (site, folder) = (String::new(), PathBuf::new());
            let managed = Managed { site, hosts, algorithm: KeyAlgorithm::EcdsaP256, folder, adopt: None };
            assert_eq!(names(&managed), expected);
        }
    }
    /// A chain on disk that pintle does not serve renews nothing.
    #[test]
    fn the_chain_that_is_served_counts() {
        let folder = tempfile::TempDir::new().unwrap();
        let hosts = vec![HostPattern::parse("a.example").unwrap()];
        let (algorithm, place) = (KeyAlgorithm::EcdsaP256, folder.path().to_owned());
        let one = Managed { site: "a.example".into(), hosts, algorithm, folder: place, adopt: None };
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2026, 4, 1));
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(one.chain(), &pem).unwrap();
        let chain = Chain::from_pem(pem.as_bytes()).unwrap();
        let end = chain.leaf.not_after.as_second();
        let record = CertificateRecord { from: Some("ca".to_owned()), ..CertificateRecord::default() };
        let served = |serial: &str| CertificateInUse {
            site: "a.example".to_owned(),
            algorithm,
            pin: chain.pin(),
            serial: serial.to_owned(),
            not_before: 0,
            not_after: 1000,
        };
        let look = |served: Option<&[CertificateInUse]>, now| in_use(&one, &record, served, now);
        let same = look(Some(&[served(&chain.leaf.serial)]), end - 1).unwrap();
        assert_eq!((same.not_after, same.from.as_deref()), (end, Some("ca")));
        // The old one still serves: its end counts, and no CA knows it as the predecessor.
        let old = look(Some(&[served("01")]), end - 1).unwrap();
        assert_eq!((old.not_after, old.from, old.id), (1000, None, None));
        assert_eq!(old.names, ["a.example"]);
        // Nothing serves.
        assert_eq!(look(Some(&[]), end - 1), None);
        assert_eq!(look(Some(&[]), end).unwrap().not_after, end);
        assert_eq!(look(None, end - 1).unwrap().not_after, end);
    }
}
