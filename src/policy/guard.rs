//! The guard: judges all sites together, against every promise made and every promise that they
//! would make.
//!
//! Pure: no I/O and no clock. The configuration decides about objections, and words them.

use super::promise::{Promise, Promises, Seconds, others};
use crate::host::HostPattern;
use crate::keys::pin::Pin;

/// A site, as it would be served.
#[derive(Debug, Clone)]
pub struct Offer<'a> {
    /// Its hosts.
    pub hosts: &'a [HostPattern],
    /// The pins of its chains, leaf first. A client may get any of them.
    pub chains: Vec<&'a [Pin]>,
    /// The promise that its header would make.
    pub set: Option<&'a Promise>,
    /// `true` if it keeps its present pairs, because the new ones are unfit. There is nothing
    /// better to fall back to, so no coming promise is held against it.
    pub is_kept: bool,
}

/// A chain that breaks promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach<'p> {
    /// The index of the site among the offers.
    pub site: usize,
    /// The index of the chain in the site.
    pub chain: usize,
    /// The broken promises.
    pub broken: Vec<&'p Promise>,
}

/// A promise that would bind another site whose chain has none of its pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// The index of the site that would make the promise.
    pub promiser: usize,
    /// The index of the bound site.
    pub bound: usize,
    /// The index of the bound site's chain.
    pub chain: usize,
    /// The site to change: the promising one, unless it keeps its present pairs.
    pub blamed: usize,
}

/// The objections to the offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Objections<'p> {
    /// Broken promises of the past.
    pub breaches: Vec<Breach<'p>>,
    /// Promises that would break at once.
    pub clashes: Vec<Clash>,
}

/// Judges all sites together, against every earlier promise.
#[must_use]
pub fn judge<'p>(offers: &[Offer<'_>], past: &'p [Promise], now: Seconds) -> Objections<'p> {
    judge_by(offers, &Promises::alive(past, now), now)
}

/// The same, by an index of the earlier promises that are alive.
#[must_use]
pub fn judge_by<'p>(offers: &[Offer<'_>], past: &Promises<'p>, now: Seconds) -> Objections<'p> {
    let except = others(&offers.iter().map(|offer| offer.hosts).collect::<Vec<_>>());
    // The new promises, as if they had been sent at once.
    let sets: Vec<(usize, Promise)> = offers
        .iter()
        .enumerate()
        .filter_map(|(at, offer)| Some((at, Promise { first_sent: now, last_sent: now, ..offer.set?.clone() })))
        .collect();
    let coming = Promises::alive(sets.iter().map(|(_, set)| set), now);
    let mut found = Objections::default();
    for (site, (offer, except)) in offers.iter().zip(&except).enumerate() {
        for (chain, pins) in offer.chains.iter().enumerate() {
            let broken = past.broken_by(offer.hosts, except, pins);
            if !broken.is_empty() {
                found.breaches.push(Breach { site, chain, broken });
            }
            for set in coming.broken_by(offer.hosts, except, pins) {
                // A promise against its own site's chains is judged with the set of pins.
                let promiser = sets.iter().find(|(_, s)| std::ptr::eq(s, set)).map_or(site, |(at, _)| *at);
                let blamed = [promiser, site].into_iter().find(|at| !offers[*at].is_kept);
                if let (true, Some(blamed)) = (promiser != site, blamed) {
                    found.clashes.push(Clash { promiser, bound: site, chain, blamed });
                }
            }
        }
    }
    found
}

/// Returns the sites whose clients would be locked out if this promise were made now: the index of
/// each site among the offers, with the index of the chain that breaks the promise.
#[must_use]
pub fn locked_out(set: &Promise, offers: &[Offer<'_>]) -> Vec<(usize, usize)> {
    let except = others(&offers.iter().map(|offer| offer.hosts).collect::<Vec<_>>());
    let mut found = Vec::new();
    for (site, (offer, except)) in offers.iter().zip(&except).enumerate() {
        if offer.hosts.iter().any(|host| set.binds(host, except)) {
            let broken = offer.chains.iter().enumerate().filter(|(_, pins)| !set.is_kept_by(pins));
            found.extend(broken.map(|(chain, _)| (site, chain)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::hpkp::{Hpkp, Mode};

    fn hosts(names: &[&str]) -> Vec<HostPattern> {
        names.iter().map(|n| HostPattern::parse(n).unwrap()).collect()
    }

    fn pins(keys: &[u8]) -> Vec<Pin> {
        keys.iter().map(|n| Pin::of_spki(&[*n])).collect()
    }

    fn set(names: &[&str], keys: &[u8], include_subdomains: bool) -> Promise {
        let policy = Hpkp { mode: Mode::Enforce, max_age: 100, pins: pins(keys), include_subdomains, report_uri: None };
        Promise::of_header(&hosts(names), &[], &policy)
    }

    /// Returns the blamed sites of two, where the first one would make the promise.
    fn clashes(names: [&[&str]; 2], set: &Promise, kept: [bool; 2]) -> Vec<usize> {
        let (first, second) = (hosts(names[0]), hosts(names[1]));
        let (one, two) = (pins(&[1]), pins(&[2, 9]));
        let offers = [
            Offer { hosts: &first, chains: vec![&one], set: Some(set), is_kept: kept[0] },
            Offer { hosts: &second, chains: vec![&two], set: None, is_kept: kept[1] },
        ];
        let found = judge(&offers, &[], 1000);
        assert!(found.breaches.is_empty() && found.clashes.iter().all(|c| (c.promiser, c.bound, c.chain) == (0, 1, 0)));
        found.clashes.iter().map(|c| c.blamed).collect()
    }

    #[test]
    fn who_gives_way() {
        let names: [&[&str]; 2] = [&["example.com"], &["shop.example.com"]];
        let binds = set(names[0], &[1, 7], true);
        assert_eq!(clashes(names, &binds, [false, false]), [0]);
        assert_eq!(clashes(names, &binds, [true, false]), [1]);
        assert_eq!(clashes(names, &binds, [false, true]), [0]);
        assert!(clashes(names, &binds, [true, true]).is_empty());
        assert!(clashes(names, &set(names[0], &[1, 9], true), [false, false]).is_empty());
        assert!(clashes(names, &set(names[0], &[1, 7], false), [false, false]).is_empty());
    }

    /// The site with exactly this host serves `shop.example.com`, so no client notes the wildcard's
    /// pins for it.
    #[test]
    fn a_wildcard_beside_a_name() {
        let names: [&[&str]; 2] = [&["*.example.com"], &["shop.example.com"]];
        let with_exception = Promise { except: hosts(names[1]), ..set(names[0], &[1, 7], true) };
        assert!(clashes(names, &with_exception, [false; 2]).is_empty());
        let (wide, own) = (hosts(names[0]), hosts(names[1]));
        let (one, two) = (pins(&[1]), pins(&[2]));
        let promised = Promise { last_sent: 990, ..set(names[1], &[2, 3], false) };
        let mut offers = vec![
            Offer { hosts: &wide, chains: vec![&one], set: None, is_kept: false },
            Offer { hosts: &own, chains: vec![&two], set: Some(&promised), is_kept: false },
        ];
        assert_eq!(judge(&offers, std::slice::from_ref(&promised), 1000), Objections::default());
        // Without that site, the wildcard serves the host.
        offers.pop();
        assert_eq!(judge(&offers, std::slice::from_ref(&promised), 1000).breaches.len(), 1);
        // A kept site, too: its pairs are no excuse for a name that it did not have.
        offers[0].is_kept = true;
        assert_eq!(judge(&offers, std::slice::from_ref(&promised), 1000).breaches.len(), 1);
    }

    #[test]
    fn what_is_given_out_binds_at_once() {
        let (own, other) = (hosts(&["example.com"]), hosts(&["shop.example.com"]));
        let (one, two) = (pins(&[1, 9]), pins(&[2, 9]));
        let offers = [
            Offer { hosts: &own, chains: vec![&one], set: None, is_kept: false },
            Offer { hosts: &other, chains: vec![&two, &one], set: None, is_kept: false },
        ];
        assert_eq!(locked_out(&set(&["example.com"], &[1, 7], true), &offers), [(1, 0)]);
        assert!(locked_out(&set(&["example.com"], &[1, 9], true), &offers).is_empty());
        assert!(locked_out(&set(&["example.com"], &[1, 7], false), &offers).is_empty());
    }
}
