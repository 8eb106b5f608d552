//! Strict-Transport-Security (RFC 6797).

use std::fmt;

/// The preload list's minimum max-age, in seconds (hstspreload.org).
const PRELOAD_MAX_AGE: u64 = 365 * 86400;

/// The treatment of the upstream's own field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamHeader {
    /// Dropped; pintle sends its own.
    #[default]
    Replace,
    /// The first one is passed on; pintle sends its own only if there is none.
    Keep,
}

/// A site's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    /// The time for which clients remember the policy, in seconds; 0 makes them forget it (section 6.1.1).
    pub max_age: u64,
    /// `true` if it binds all names below the host, too (section 6.1.2).
    pub include_subdomains: bool,
    /// `true` if the operator wants to be in the browsers' preload lists; not part of the RFC.
    pub preload: bool,
    /// The treatment of the upstream's own field.
    pub upstream: UpstreamHeader,
}

impl Hsts {
    /// The field's name.
    pub const NAME: &'static str = "Strict-Transport-Security";

    /// The preload list's objections, if the policy asks to be preloaded.
    #[must_use]
    pub fn preload_faults(&self) -> Vec<&'static str> {
        let mut faults = Vec::new();
        if self.preload && self.max_age < PRELOAD_MAX_AGE {
            faults.push("max_age is below one year");
        }
        if self.preload && !self.include_subdomains {
            faults.push("include_subdomains is false");
        }
        faults
    }
}

/// The field's value, in the form that every parser accepts: unquoted, without empty directives
/// (section 6.1).
impl fmt::Display for Hsts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "max-age={}", self.max_age)?;
        if self.include_subdomains {
            f.write_str("; includeSubDomains")?;
        }
        if self.preload {
            f.write_str("; preload")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hsts(max_age: u64, include_subdomains: bool, preload: bool) -> Hsts {
        Hsts { max_age, include_subdomains, preload, upstream: UpstreamHeader::Replace }
    }

    #[test]
    fn table() {
        let check = |policy: Hsts, want: &str| assert_eq!(policy.to_string(), want);
        check(hsts(31_536_000, false, false), "max-age=31536000");
        check(hsts(31_536_000, true, false), "max-age=31536000; includeSubDomains");
        check(hsts(63_072_000, true, true), "max-age=63072000; includeSubDomains; preload");
        check(hsts(0, false, false), "max-age=0");
    }

    #[test]
    fn preload() {
        assert!(hsts(31_536_000, true, true).preload_faults().is_empty());
        assert!(hsts(1, false, false).preload_faults().is_empty());
        assert_eq!(hsts(31_535_999, false, true).preload_faults().len(), 2);
    }

    /// A parser by the grammar of RFC 6797 section 6.1, written independently of the writer.
    fn read(value: &str) -> Option<(u64, bool)> {
        let (mut age, mut subdomains, mut seen) = (None, false, Vec::new());
        for directive in value.split(';').map(str::trim).filter(|d| !d.is_empty()) {
            let (name, value) = directive.split_once('=').map_or((directive, None), |(n, v)| (n, Some(v)));
            let name = name.to_ascii_lowercase();
            if seen.contains(&name) {
                return None;
            }
            match (name.as_str(), value) {
                ("max-age", Some(v)) => age = Some(v.trim_matches('"').parse().ok()?),
                ("includesubdomains", None) => subdomains = true,
                ("max-age" | "includesubdomains", _) => return None,
                _ => {}
            }
            seen.push(name);
        }
        Some((age?, subdomains))
    }

    proptest! {
        #[test]
        fn round_trip(max_age in any::<u64>(), subdomains in any::<bool>(), preload in any::<bool>()) {
            prop_assert_eq!(read(&hsts(max_age, subdomains, preload).to_string()), Some((max_age, subdomains)));
        }
    }
}
