//! Promises: sets of pins that clients may hold, and the names that they bind.
//!
//! A client that noted a set of pins accepts a connection only if the chain has one of them (RFC
//! 7469 section 2.6), until the set's max-age has passed. It may have noted the set at the last
//! moment at which the set was sent. So a host may serve a chain only if the chain has a pin of
//! **every** set that any client may still hold for the host. Pure: no I/O and no clock.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::host::{HostPattern, is_below};
use crate::keys::pin::Pin;
use crate::policy::hpkp::{Hpkp, Mode};

/// Seconds since 1970, by the wall clock.
pub type Seconds = i64;
/// One day.
pub const DAY: Seconds = 86_400;

/// The way in which a promise was made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PromiseChannel {
    /// In a header.
    Header(Mode),
    /// Nobody knows: the ledger was lost, and a copy of a served pair shows that there were promises.
    Assumed,
    /// In an export with a lifetime: an app's pin set, a TLSA record.
    Export {
        /// The form: `android`, `tlsa`, ...
        form: String,
        /// The export's number.
        id: String,
        /// `true` if its clients check the leaf only, and not the rest of the chain.
        leaf_only: bool,
    },
}

/// A set of pins that clients may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// The site that made it, by its first name.
    pub site: String,
    /// The hosts that it was made for.
    pub hosts: Vec<HostPattern>,
    /// Names that a wildcard among the hosts covers, but that belong to another site ([`others`]).
    pub except: Vec<HostPattern>,
    /// The pins, in ascending order.
    pub pins: Vec<Pin>,
    /// The time for which a client holds the pins after it noted them, in seconds.
    pub max_age: u64,
    /// `true` if the names below the hosts are bound, too.
    pub include_subdomains: bool,
    /// Its origin.
    pub channel: PromiseChannel,
    /// The time at which it was first sent.
    pub first_sent: Seconds,
    /// Until when it may have been sent. This may lie in the future, since a lease is written
    /// before its pins are sent.
    pub last_sent: Seconds,
}

impl Promise {
    /// The time from which no client holds it.
    #[must_use]
    pub fn honoured_until(&self) -> Seconds {
        self.last_sent.saturating_add(i64::try_from(self.max_age).unwrap_or(i64::MAX))
    }

    /// `true` if it is the same set of pins for the same names, whenever either was sent.
    #[must_use]
    pub fn is_same_set(&self, other: &Self) -> bool {
        let Self { site, hosts, except, pins, max_age, include_subdomains, channel, .. } = self;
        (site, channel, pins, max_age, include_subdomains)
            == (&other.site, &other.channel, &other.pins, &other.max_age, &other.include_subdomains)
            && (hosts, except) == (&other.hosts, &other.except)
    }

    /// `true` if a client may refuse a chain because of it.
    #[must_use]
    pub fn is_alive(&self, now: Seconds) -> bool {
        let enforced = match &self.channel {
            // RFC 7469 section 2.3.1: clients note nothing for a max-age of 0.
            PromiseChannel::Header(mode) => *mode == Mode::Enforce && self.max_age > 0,
            PromiseChannel::Assumed | PromiseChannel::Export { .. } => true,
        };
        enforced && now < self.honoured_until()
    }

    /// `true` if a chain, leaf first, keeps it.
    #[must_use]
    pub fn is_kept_by(&self, chain: &[Pin]) -> bool {
        let leaf_only = matches!(self.channel, PromiseChannel::Export { leaf_only: true, .. });
        let looked_at = if leaf_only { &chain[..chain.len().min(1)] } else { chain };
        looked_at.iter().any(|pin| self.pins.binary_search(pin).is_ok())
    }

    /// `true` if it binds any name that a pattern covers. The names in `except` belong to other
    /// sites.
    #[must_use]
    pub fn binds(&self, target: &HostPattern, except: &[HostPattern]) -> bool {
        self.hosts.iter().any(|host| self.binds_by(host, target, except))
    }

    /// The same, by one of its hosts.
    fn binds_by(&self, noted: &HostPattern, target: &HostPattern, except: &[HostPattern]) -> bool {
        // RFC 7469 section 2.3.1: clients note no header's pins for an address, whatever an older
        // ledger says. Apps check addresses if they are built so.
        let is_noted = noted.address().is_none() || matches!(self.channel, PromiseChannel::Export { .. });
        is_noted && binds((noted, &self.except), self.include_subdomains, (target, except))
    }

    /// The promise of a site's header, which never covers addresses. The caller sets its times.
    #[must_use]
    pub fn of_header(hosts: &[HostPattern], except: &[HostPattern], policy: &Hpkp) -> Self {
        let mut pins = policy.pins.clone();
        pins.sort_unstable();
        Self {
            site: hosts.first().map(ToString::to_string).unwrap_or_default(),
            hosts: hosts.iter().filter(|host| host.address().is_none()).cloned().collect(),
            except: except.to_vec(),
            pins,
            max_age: if policy.mode == Mode::Withdraw { 0 } else { policy.max_age },
            include_subdomains: policy.include_subdomains,
            channel: PromiseChannel::Header(policy.mode),
            first_sent: Seconds::default(),
            last_sent: Seconds::default(),
        }
    }
}

/// The names of a site.
#[derive(Debug, Clone, Copy)]
pub struct SiteNames<'a> {
    /// Its hosts.
    pub hosts: &'a [HostPattern],
    /// The names that its wildcards do not cover ([`others`]).
    pub except: &'a [HostPattern],
}

impl SiteNames<'_> {
    /// `true` if a promise binds any of them.
    #[must_use]
    pub fn bound_by(self, promise: &Promise) -> bool {
        self.hosts.iter().any(|host| promise.binds(host, self.except))
    }

    /// `true` if a site with the names `before` already had each of these names that a promise
    /// binds: whoever the promise locks out here was locked out there.
    #[must_use]
    pub fn were_all_among(self, before: Self, promise: &Promise) -> bool {
        let mut bound = self.hosts.iter().filter(|host| promise.binds(host, self.except));
        bound.all(|host| match host.exact() {
            Some(name) => {
                let is_below = || before.hosts.iter().any(|had| had.is_wildcard() && had.matches(name));
                before.hosts.contains(host) || is_below() && !lists(before.except, name)
            }
            None => {
                let is_below = |name: &&HostPattern| name.exact().is_some_and(|name| host.matches(name));
                let mut had_not = before.except.iter().filter(is_below).filter(|name| !before.hosts.contains(name));
                before.hosts.contains(host)
                    && had_not.all(|name| self.except.contains(name) || !promise.binds(name, &[]))
            }
        })
    }
}

/// The names that a pattern covers, without the exceptions.
type CoveredNames<'a> = (&'a HostPattern, &'a [HostPattern]);

/// `true` if a client that noted pins for a name of `noted` checks them when it visits a name of
/// `target`.
fn binds(
    (noted, not_noted): CoveredNames<'_>,
    include_subdomains: bool,
    (target, not_visited): CoveredNames<'_>,
) -> bool {
    let (noted_base, target_base) = (noted.base(), target.base());
    let is_below = include_subdomains && is_below(target_base, noted_base);
    match (noted.is_wildcard(), target.is_wildcard()) {
        (false, false) => target_base == noted_base || is_below,
        // Some `x.target` is the noted name, or below it; there are infinitely many of the latter.
        (false, true) => {
            let is_noted = parent(noted_base) == Some(target_base) && !lists(not_visited, noted_base);
            is_noted || include_subdomains && target_base == noted_base || is_below
        }
        // The target is some `x.noted`, or below one.
        (true, false) => {
            let is_noted = parent(target_base) == Some(noted_base) && !lists(not_noted, target_base);
            is_noted || is_below && is_below_one(target_base, noted_base, not_noted)
        }
        // Both cover infinitely many names.
        (true, true) => {
            let above = above_under(target_base, noted_base);
            target_base == noted_base || is_below && above.is_some_and(|above| !lists(not_noted, above))
        }
    }
}

/// `true` if a name is below an `x.base` that is not an exception, and is not that `x.base` itself.
fn is_below_one(name: &str, base: &str, except: &[HostPattern]) -> bool {
    above_under(name, base).is_some_and(|above| above != name && !lists(except, above))
}

/// The `x.base` that equals a name below `base`, or that the name is below.
fn above_under<'n>(name: &'n str, base: &str) -> Option<&'n str> {
    let labels = name.strip_suffix(base)?.strip_suffix('.')?;
    name.get(labels.rfind('.').map_or(0, |dot| dot + 1)..)
}

fn lists(names: &[HostPattern], name: &str) -> bool {
    names.iter().any(|n| n.exact() == Some(name))
}

/// For each site, by its hosts: the names that its wildcards cover, but that belong to another
/// site. In ascending order.
#[must_use]
pub fn others(sites: &[&[HostPattern]]) -> Vec<Vec<HostPattern>> {
    let mut by_parent: HashMap<&str, Vec<(usize, &HostPattern)>> = HashMap::new();
    for (site, host) in sites.iter().enumerate().flat_map(|(at, hosts)| hosts.iter().map(move |host| (at, host))) {
        if let (Some(name), false) = (host.exact(), host.address().is_some()) {
            by_parent.entry(parent(name).unwrap_or_default()).or_default().push((site, host));
        }
    }
    let of_site = |(at, hosts): (usize, &&[HostPattern])| {
        let wildcards = hosts.iter().filter(|host| host.is_wildcard());
        let below = wildcards.filter_map(|host| by_parent.get(host.base())).flatten();
        let mut names: Vec<HostPattern> = below.filter(|(site, _)| *site != at).map(|(_, n)| (*n).clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    sites.iter().enumerate().map(of_site).collect()
}

fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, rest)| rest)
}

/// An index of promises by the names that they bind, so that ten thousand of them, and thousands of
/// names in one of them, cost no more than the relevant ones.
#[derive(Debug, Default)]
pub struct Promises<'a> {
    list: Vec<&'a Promise>,
    /// By the base name of each host, a wildcard's without `*.`.
    by_base: HashMap<&'a str, Vec<NotedName<'a>>>,
    /// Exact names by their parent name: those that may bind a wildcard.
    by_parent: HashMap<&'a str, Vec<NotedName<'a>>>,
}

/// A host of a promise, and the promise's place in the list.
type NotedName<'a> = (usize, &'a HostPattern);

impl<'a> Promises<'a> {
    /// Indexes the promises that are alive.
    pub fn alive(promises: impl IntoIterator<Item = &'a Promise>, now: Seconds) -> Self {
        let mut found = Self::default();
        for promise in promises.into_iter().filter(|p| p.is_alive(now)) {
            let index = found.list.len();
            found.list.push(promise);
            for host in &promise.hosts {
                found.by_base.entry(host.base()).or_default().push((index, host));
                if let (false, Some(above)) = (host.is_wildcard(), parent(host.base())) {
                    found.by_parent.entry(above).or_default().push((index, host));
                }
            }
        }
        found
    }

    /// Indexes the promises that are alive and may bind some of these names: for a few of ten thousand sites.
    #[must_use]
    pub fn alive_near(promises: &'a [Promise], names: &[SiteNames<'_>], now: Seconds) -> Self {
        let hosts = || names.iter().flat_map(|names| names.hosts);
        let above = |host| std::iter::successors(Some(HostPattern::base(host)), |name| parent(name));
        let bases: HashSet<&str, foldhash::fast::RandomState> = hosts().flat_map(above).collect();
        let wildcards: Vec<&str> = hosts().filter(|host| host.is_wildcard()).map(HostPattern::base).collect();
        let is_near = |noted: &HostPattern| {
            let base = noted.base();
            let is_under = || parent(base).is_some_and(|above| wildcards.contains(&above));
            bases.contains(base) || !wildcards.is_empty() && is_under()
        };
        Self::alive(promises.iter().filter(|promise| promise.hosts.iter().any(is_near)), now)
    }

    /// The promises that bind any of these hosts, in the order in which they were given. The names
    /// in `except` belong to other sites.
    #[must_use]
    pub fn binding(&self, hosts: &[HostPattern], except: &[HostPattern]) -> Vec<&'a Promise> {
        let mut found = BTreeSet::new();
        for host in hosts {
            let mut look = |names: Option<&Vec<NotedName<'a>>>| {
                for (at, noted) in names.into_iter().flatten() {
                    if !found.contains(at) && self.list[*at].binds_by(noted, host, except) {
                        found.insert(*at);
                    }
                }
            };
            let mut name = Some(host.base());
            while let Some(base) = name {
                look(self.by_base.get(base));
                name = parent(base);
            }
            if host.is_wildcard() {
                look(self.by_parent.get(host.base()));
            }
        }
        found.into_iter().map(|at| self.list[at]).collect()
    }

    /// The promises that a chain would break if these hosts served it.
    #[must_use]
    pub fn broken_by(&self, hosts: &[HostPattern], except: &[HostPattern], chain: &[Pin]) -> Vec<&'a Promise> {
        let mut broken = self.binding(hosts, except);
        broken.retain(|promise| !promise.is_kept_by(chain));
        broken
    }

    /// `true` without any promise.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The time from which a chain with this key alone keeps every promise; `None` if it does so
    /// now.
    #[must_use]
    pub fn safe_from(&self, hosts: &[HostPattern], except: &[HostPattern], key: Pin) -> Option<Seconds> {
        self.broken_by(hosts, except, &[key]).into_iter().map(Promise::honoured_until).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pin(n: u8) -> Pin {
        Pin::of_spki(&[n])
    }

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap()
    }

    fn promise(host: &str, keys: &[u8], include_subdomains: bool) -> Promise {
        let mut pins: Vec<Pin> = keys.iter().map(|n| pin(*n)).collect();
        pins.sort_unstable();
        Promise {
            site: host.to_owned(),
            hosts: vec![pattern(host)],
            except: Vec::new(),
            pins,
            max_age: 100,
            include_subdomains,
            channel: PromiseChannel::Header(Mode::Enforce),
            first_sent: 0,
            last_sent: 1000,
        }
    }

    fn broken(promises: &[Promise], host: &str, chain: &[u8], now: Seconds) -> Vec<String> {
        let chain: Vec<Pin> = chain.iter().map(|n| pin(*n)).collect();
        let alive = Promises::alive(promises, now);
        alive.broken_by(&[pattern(host)], &[], &chain).into_iter().map(|p| p.site.clone()).collect()
    }

    #[test]
    fn every_live_set_must_be_met() {
        let sets = [promise("a.example", &[1, 2], false), promise("a.example", &[2, 3], false)];
        assert!(broken(&sets, "a.example", &[2, 9], 1050).is_empty());
        assert_eq!(broken(&sets, "a.example", &[1], 1050).len(), 1);
        assert_eq!(broken(&sets, "a.example", &[4], 1050).len(), 2);
        // In that very second the promise has ended.
        assert_eq!(broken(&sets, "a.example", &[4], 1099).len(), 2);
        assert!(broken(&sets, "a.example", &[4], 1100).is_empty());
        assert!(broken(&sets, "b.example", &[4], 1050).is_empty());
    }

    #[test]
    fn what_binds_and_what_does_not() {
        let report = Promise { channel: PromiseChannel::Header(Mode::ReportOnly), ..promise("a.example", &[1], true) };
        let withdrawn = Promise { channel: PromiseChannel::Header(Mode::Withdraw), ..report.clone() };
        let nothing = Promise { max_age: 0, last_sent: 2000, ..promise("a.example", &[1], true) };
        assert!(broken(&[report, withdrawn, nothing], "a.example", &[4], 1050).is_empty());
        let export = |leaf_only| Promise {
            channel: PromiseChannel::Export { form: "curl".into(), id: "1".into(), leaf_only },
            ..promise("a.example", &[7], false)
        };
        // The chain's second certificate has the key.
        assert!(broken(&[export(false)], "a.example", &[4, 7], 1050).is_empty());
        assert_eq!(broken(&[export(true)], "a.example", &[4, 7], 1050).len(), 1);
        assert!(broken(&[export(true)], "a.example", &[7, 4], 1050).is_empty());
        assert_eq!(broken(&[export(false)], "a.example", &[], 1050).len(), 1);
    }

    #[test]
    fn addresses_are_bound_by_exports_alone() {
        let old = promise("192.0.2.1", &[1], false);
        assert!(broken(std::slice::from_ref(&old), "192.0.2.1", &[4], 1050).is_empty());
        let export = PromiseChannel::Export { form: "curl".into(), id: "1".into(), leaf_only: false };
        assert_eq!(broken(&[Promise { channel: export, ..old }], "192.0.2.1", &[4], 1050).len(), 1);
        let policy =
            Hpkp { mode: Mode::Enforce, max_age: 9, pins: vec![pin(1)], include_subdomains: true, report_uri: None };
        let hosts = ["192.0.2.1", "[2001:db8::1]", "a.example"].map(pattern);
        let set = Promise::of_header(&hosts, &[], &policy);
        assert_eq!((set.site.as_str(), set.hosts.as_slice()), ("192.0.2.1", &hosts[2..]));
    }

    #[test]
    fn names() {
        let check = |noted: &str, sub: bool, target: &str, want: bool| {
            let p = promise(noted, &[1], sub);
            assert_eq!(!broken(&[p], target, &[4], 1050).is_empty(), want, "{noted} {sub} {target}");
        };
        check("example.com", false, "example.com", true);
        check("example.com", false, "shop.example.com", false);
        check("example.com", true, "shop.example.com", true);
        check("example.com", true, "a.shop.example.com", true);
        check("example.com", true, "badexample.com", false);
        check("example.com", true, "com", false);
        check("shop.example.com", true, "example.com", false);
        check("*.example.com", false, "a.example.com", true);
        check("*.example.com", false, "example.com", false);
        check("*.example.com", false, "b.a.example.com", false);
        check("*.example.com", true, "b.a.example.com", true);
        check("*.example.com", true, "example.com", false);
        check("a.example.com", false, "*.example.com", true);
        check("a.b.example.com", false, "*.example.com", false);
        check("example.com", false, "*.example.com", false);
        check("example.com", true, "*.example.com", true);
        check("example.com", true, "*.a.example.com", true);
        check("*.example.com", false, "*.example.com", true);
        check("*.example.com", false, "*.a.example.com", false);
        check("*.example.com", true, "*.a.example.com", true);
        check("*.a.example.com", true, "*.example.com", false);
    }

    #[test]
    fn from_when_a_key_is_safe() {
        let sets =
            [promise("a.example", &[1, 2], false), Promise { last_sent: 2000, ..promise("a.example", &[2, 3], false) }];
        let alive = Promises::alive(&sets, 1050);
        let hosts = [pattern("a.example")];
        assert_eq!(alive.safe_from(&hosts, &[], pin(2)), None);
        assert_eq!(alive.safe_from(&hosts, &[], pin(3)), Some(1100));
        assert_eq!(alive.safe_from(&hosts, &[], pin(1)), Some(2100));
    }

    #[test]
    fn names_of_other_sites() {
        let list = |names: &[&str]| names.iter().map(|n| pattern(n)).collect::<Vec<_>>();
        let sites = [
            list(&["*.example.com", "www.example.com", "*.a.example.com"]),
            list(&["shop.example.com", "a.example.com", "x.a.example.com", "example.com", "192.0.2.1"]),
            list(&["*.other.org"]),
        ];
        let sites: Vec<&[HostPattern]> = sites.iter().map(Vec::as_slice).collect();
        let want = list(&["a.example.com", "shop.example.com", "x.a.example.com"]);
        assert_eq!(others(&sites), [want, Vec::new(), Vec::new()]);
    }

    fn any_pattern() -> impl Strategy<Value = HostPattern> {
        let name = prop::collection::vec("[ab]", 1..4).prop_map(|labels| labels.join(".") + ".ex.org");
        (any::<bool>(), name).prop_map(|(wild, name)| pattern(&if wild { format!("*.{name}") } else { name }))
    }

    fn any_names() -> impl Strategy<Value = Vec<HostPattern>> {
        prop::collection::vec(any_pattern().prop_map(|host| pattern(host.base())), 0..4)
    }

    proptest! {
        /// The index leaves out nothing, and `binds` agrees with a check of every name.
        #[test]
        fn agrees_with_a_naive_scan(
            noted in prop::collection::vec((any_pattern(), any::<bool>(), any_names()), 0..8),
            target in any_pattern(),
            not_visited in any_names(),
        ) {
            let sets: Vec<Promise> = noted.iter().map(|(host, sub, except)| {
                Promise { except: except.clone(), ..promise(&host.to_string(), &[1], *sub) }
            }).collect();
            let names = names_over(&["a", "b", "c"], 5);
            // A site's own exact names never belong to another site.
            let takes_in = |host: &HostPattern, except: &[HostPattern], name: &String| {
                host.matches(name) && !(host.is_wildcard() && except.iter().any(|e| e.matches(name)))
            };
            let by_names: Vec<bool> = noted.iter().map(|(host, sub, except)| {
                names.iter().filter(|n| takes_in(&target, &not_visited, n)).any(|visited| {
                    takes_in(host, except, visited)
                        || *sub && names.iter().any(|n| takes_in(host, except, n) && visited.ends_with(&format!(".{n}")))
                })
            }).collect();
            let alive = Promises::alive(&sets, 1050);
            let found = alive.binding(std::slice::from_ref(&target), &not_visited);
            let of_site = SiteNames { hosts: std::slice::from_ref(&target), except: &not_visited };
            let near = Promises::alive_near(&sets, &[of_site], 1050);
            prop_assert_eq!(&near.binding(of_site.hosts, of_site.except), &found);
            let by_index: Vec<bool> = sets.iter().map(|s| found.iter().any(|f| std::ptr::eq(*f, s))).collect();
            prop_assert_eq!(by_index, by_names);
        }
    }

    /// All names with up to `depth` labels below `ex.org`.
    fn names_over(labels: &[&str], depth: usize) -> Vec<String> {
        let mut names = vec!["ex.org".to_owned()];
        let mut last = names.clone();
        for _ in 0..depth {
            last = last.iter().flat_map(|n| labels.iter().map(move |l| format!("{l}.{n}"))).collect();
            names.extend(last.iter().cloned());
        }
        names
    }
}
