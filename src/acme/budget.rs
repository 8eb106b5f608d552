//! The budget of orders: Let's Encrypt's rate limits as data, and lower ones of our own. Kept on disk.
//!
//! Each limit is a bucket of tokens, and a bucket gets one back after a fixed time. The CA counts orders,
//! failed validations and issued certificates, each against limits of its own; so does pintle. A failed
//! order takes none of the tokens of certificates. Our buckets are smaller and slower than the CA's, so
//! pintle never meets a limit of the CA, whatever restarts, reloads and clocks do. An order that replaces a
//! compromised key may take what lies between our limit and the CA's.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::host::without_wildcard;
use crate::policy::promise::Seconds;

/// Buckets in one budget: its file stays readable. Beyond, those that are full again first are forgotten.
const BUCKETS_MAX: usize = 20_000;

/// Certificates of other open orders that a bucket may owe beyond its tokens.
const IN_FLIGHT: i64 = 2;

/// Tokens at once, and the seconds after which one returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens of a full bucket.
    pub burst: i64,
    /// Seconds until one token is back.
    pub refill: Seconds,
}

/// A limit: the CA's, and ours below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderLimit {
    /// Its name in the budget's file.
    pub name: &'static str,
    /// The limited thing, as the plan words it.
    pub what: &'static str,
    /// Let's Encrypt's limit (2026-08-05).
    pub theirs: Rate,
    /// Ours.
    pub ours: Rate,
}

/// Certificates for exactly the same names: 5 in 7 days.
pub const SAME_NAMES: OrderLimit = OrderLimit {
    name: "names",
    what: "certificates for the same names",
    theirs: Rate { burst: 5, refill: 34 * 3600 },
    ours: Rate { burst: 4, refill: 36 * 3600 },
};
/// Renewals that name their predecessor. Let's Encrypt exempts them from all limits; a CA that shows
/// a past window for each new certificate must still not get an order a minute.
pub const REPLACED: OrderLimit = OrderLimit {
    name: "replaces",
    what: "renewals that name their predecessor",
    theirs: Rate { burst: i64::MAX, refill: 1 },
    ours: Rate { burst: 8, refill: 12 * 3600 },
};
/// Certificates of a registered domain: 50 in 7 days.
pub const DOMAIN: OrderLimit = OrderLimit {
    name: "domain",
    what: "certificates for the registered domain",
    theirs: Rate { burst: 50, refill: 202 * 60 },
    ours: Rate { burst: 40, refill: 240 * 60 },
};
/// Orders of an account: 300 in 3 hours.
pub const ORDERS: OrderLimit = OrderLimit {
    name: "orders",
    what: "orders of the account",
    theirs: Rate { burst: 300, refill: 36 },
    ours: Rate { burst: 200, refill: 50 },
};
/// Failed validations of a name: 5 in an hour.
pub const VALIDATIONS: OrderLimit = OrderLimit {
    name: "validation",
    what: "failed validations",
    theirs: Rate { burst: 5, refill: 12 * 60 },
    ours: Rate { burst: 4, refill: 15 * 60 },
};
/// New accounts of an address: 10 in 3 hours.
pub const ACCOUNTS: OrderLimit = OrderLimit {
    name: "accounts",
    what: "new accounts",
    theirs: Rate { burst: 10, refill: 18 * 60 },
    ours: Rate { burst: 4, refill: 30 * 60 },
};

/// An order, as the limits see it.
#[derive(Debug, Clone, Copy)]
pub struct CountedOrder<'a> {
    /// The names of the certificate.
    pub names: &'a [String],
    /// `true` if the order names the certificate that it replaces.
    pub replaces: bool,
}

/// The limit that delays an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delay {
    /// The time from which the order is within the budget.
    pub from: Seconds,
    /// The limit.
    pub limit: &'static OrderLimit,
    /// The name or the domain that it is about; empty for an account.
    pub of: String,
    /// `true` if it is the CA's limit that delays the order, not ours.
    pub is_theirs: bool,
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OrderLimit { what, .. } = self.limit;
        let (whose, rate) =
            if self.is_theirs { ("the CA's", self.limit.theirs) } else { ("pintle's", self.limit.ours) };
        let of = if self.of.is_empty() { String::new() } else { format!(" ({})", self.of) };
        let every = match rate.refill {
            seconds if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
            seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
            seconds => format!("{seconds} s"),
        };
        write!(f, "{whose} limit of {what}{of}: {} at once, then one every {every}", rate.burst)
    }
}

/// The orders and failures counted in each bucket at one CA.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderBudget {
    buckets: BTreeMap<String, Bucket>,
}

/// The state of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    /// The time of the last use.
    at: Seconds,
    /// Seconds from then until the bucket is full.
    debt: Seconds,
}

impl OrderBudget {
    /// Returns the limit that delays an order, and until when; `None` if the order is within the budget
    /// now. The order's certificate counts.
    #[must_use]
    pub fn order_from(&self, ask: CountedOrder<'_>, now: Seconds) -> Option<Delay> {
        self.delay(ask, false, |limit, of| self.free_from(limit, of, limit.ours.burst, now))
    }

    /// Does the same for an order that replaces a compromised key: only the CA's limits delay it. `open` is the
    /// number of other orders for the same names whose certificates do not count yet.
    #[must_use]
    pub fn emergency_from(&self, ask: CountedOrder<'_>, open: usize, now: Seconds) -> Option<Delay> {
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        self.delay(ask, true, |limit, of| self.free_from(limit, of, limit.theirs.burst.saturating_sub(open), now))
    }

    /// The delay of an order. If it replaces a compromised key, `emergency` is the number of open orders of others.
    #[must_use]
    pub fn delay_of(&self, ask: CountedOrder<'_>, emergency: Option<usize>, now: Seconds) -> Option<Delay> {
        match emergency {
            Some(open) => self.emergency_from(ask, open, now),
            None => self.order_from(ask, now),
        }
    }

    fn delay(
        &self,
        ask: CountedOrder<'_>,
        is_theirs: bool,
        free_from: impl Fn(&'static OrderLimit, &str) -> Option<Seconds>,
    ) -> Option<Delay> {
        let failures = ask.names.iter().map(|name| (&VALIDATIONS, key_of(name)));
        let taken = buckets(ask).into_iter().chain([(&ORDERS, String::new())]).chain(failures);
        let waits = taken.filter_map(|(limit, of)| Some(Delay { from: free_from(limit, &of)?, limit, of, is_theirs }));
        waits.max_by_key(|delay| delay.from)
    }

    /// Counts an order. Write the budget to disk before the order is made.
    pub fn take_order(&mut self, now: Seconds) {
        self.take(&ORDERS, "", now);
        self.tidy(now);
    }

    /// Counts a certificate that the CA has issued, or may have.
    pub fn take_certificate(&mut self, ask: CountedOrder<'_>, now: Seconds) {
        for (limit, of) in buckets(ask) {
            self.take(limit, &of, now);
        }
        self.tidy(now);
    }

    /// Counts a failed validation of a name.
    pub fn take_failed_validation(&mut self, name: &str, now: Seconds) {
        self.take(&VALIDATIONS, &key_of(name), now);
    }

    /// Returns the time from which a new account is within the budget; `None` if it is now.
    #[must_use]
    pub fn account_from(&self, now: Seconds) -> Option<Seconds> {
        self.free_from(&ACCOUNTS, "", ACCOUNTS.ours.burst, now)
    }

    /// Counts a new account.
    pub fn take_account(&mut self, now: Seconds) {
        self.take(&ACCOUNTS, "", now);
    }

    /// Corrects times in the future, which a clock that was ahead has left: the tokens return from
    /// now on.
    pub fn settle(&mut self, now: Seconds) {
        for bucket in self.buckets.values_mut() {
            bucket.at = bucket.at.min(now);
        }
    }

    /// The time from which a bucket has a token, if it holds `burst` of them.
    fn free_from(&self, limit: &'static OrderLimit, of: &str, burst: i64, now: Seconds) -> Option<Seconds> {
        let bucket = self.buckets.get(&name(limit, of))?;
        let room = burst.saturating_sub(1).saturating_mul(limit.ours.refill);
        let from = bucket.at.saturating_add(bucket.debt).saturating_sub(room);
        (from > now).then_some(from)
    }

    fn take(&mut self, limit: &'static OrderLimit, of: &str, now: Seconds) {
        let bucket = self.buckets.entry(name(limit, of)).or_insert(Bucket { at: now, debt: 0 });
        // Several orders that were within the budget may end at the same time: their certificates count, too.
        let most = if limit.theirs.burst == i64::MAX { limit.ours.burst } else { limit.theirs.burst };
        let full = most.saturating_add(IN_FLIGHT).saturating_mul(limit.ours.refill);
        let passed = now.saturating_sub(bucket.at).max(0);
        let debt = bucket.debt.saturating_sub(passed).max(0);
        *bucket = Bucket { at: now.max(bucket.at), debt: debt.saturating_add(limit.ours.refill).min(full) };
    }

    /// Removes full buckets, so that the budget does not grow with every name ever used.
    fn tidy(&mut self, now: Seconds) {
        let full_at = |bucket: &Bucket| bucket.at.saturating_add(bucket.debt);
        self.buckets.retain(|_, bucket| full_at(bucket) > now);
        if let Some(beyond) = self.buckets.len().checked_sub(BUCKETS_MAX).filter(|beyond| *beyond > 0) {
            let mut all: Vec<Seconds> = self.buckets.values().map(full_at).collect();
            let (_, last, _) = all.select_nth_unstable(beyond - 1);
            let last = *last;
            self.buckets.retain(|_, bucket| full_at(bucket) > last);
        }
    }
}

/// The buckets that a certificate takes from.
fn buckets(ask: CountedOrder<'_>) -> Vec<(&'static OrderLimit, String)> {
    let mut names: Vec<String> = ask.names.iter().map(|name| name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    let set = names.join(" ");
    if ask.replaces {
        return vec![(&REPLACED, set)];
    }
    let mut found = vec![(&SAME_NAMES, set)];
    let mut domains: Vec<String> = names.iter().map(|name| registered(name)).collect();
    domains.sort_unstable();
    domains.dedup();
    found.extend(domains.into_iter().map(|domain| (&DOMAIN, domain)));
    found
}

/// The registered domain of a name, or the name itself if it has none: an address, a private name.
fn registered(name: &str) -> String {
    let name = key_of(name);
    // The list would take the last bytes of an address for a domain.
    if name.parse::<IpAddr>().is_ok() {
        return name;
    }
    psl::domain_str(&name).map_or_else(|| name.clone(), str::to_owned)
}

/// A name in lower case, without the asterisk of a wildcard.
fn key_of(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    without_wildcard(&name).to_owned()
}

/// The name of a bucket in the file.
fn name(limit: &OrderLimit, of: &str) -> String {
    if of.is_empty() { limit.name.to_owned() } else { format!("{} {of}", limit.name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::promise::DAY;
    use proptest::prelude::*;

    /// The longest wait for a token of ours, in seconds.
    const LONGEST_WAIT: Seconds = (2 + IN_FLIGHT) * (DAY + DAY / 2);

    const LIMITS: [&OrderLimit; 6] = [&SAME_NAMES, &REPLACED, &DOMAIN, &ORDERS, &VALIDATIONS, &ACCOUNTS];

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn our_limits_are_lower() {
        for limit in LIMITS {
            assert!(limit.ours.burst < limit.theirs.burst && limit.ours.refill > limit.theirs.refill, "{}", limit.name);
            assert!(limit.ours.refill <= LONGEST_WAIT);
        }
    }

    #[test]
    fn the_same_names() {
        let mut budget = OrderBudget::default();
        let (set, same) = (names(&["b.example.com", "A.example.com"]), names(&["a.example.com", "b.example.com"]));
        for _ in 0..4 {
            assert_eq!(budget.order_from(CountedOrder { names: &set, replaces: false }, 1000), None);
            budget.take_certificate(CountedOrder { names: &set, replaces: false }, 1000);
        }
        let found = budget.order_from(CountedOrder { names: &same, replaces: false }, 1000).unwrap();
        assert_eq!((found.from, found.limit), (1000 + 36 * 3600, &SAME_NAMES));
        let words = "pintle's limit of certificates for the same names (a.example.com b.example.com): 4 at once, then one every 36 h";
        assert_eq!(found.to_string(), words);
        assert_eq!(budget.order_from(CountedOrder { names: &same, replaces: false }, 1000 + 36 * 3600), None);
        // Other names, and renewals that name their predecessor, have buckets of their own.
        assert_eq!(budget.order_from(CountedOrder { names: &same[..1], replaces: false }, 1000), None);
        assert_eq!(budget.order_from(CountedOrder { names: &same, replaces: true }, 1000), None);
    }

    #[test]
    fn a_domain_is_the_registered_one() {
        for (name, want) in [
            ("www.a.example.com", "example.com"),
            ("*.example.co.uk", "example.co.uk"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(registered(name), want);
        }
        let mut budget = OrderBudget::default();
        for n in 0..40 {
            let set = names(&[&format!("n{n}.example.com")]);
            assert_eq!(budget.order_from(CountedOrder { names: &set, replaces: false }, 1000), None, "{n}");
            budget.take_certificate(CountedOrder { names: &set, replaces: false }, 1000);
        }
        let found = budget.order_from(CountedOrder { names: &names(&["x.example.com"]), replaces: false }, 1000);
        assert_eq!(found.map(|delay| (delay.limit, delay.of)), Some((&DOMAIN, "example.com".to_owned())));
        assert_eq!(budget.order_from(CountedOrder { names: &names(&["x.example.org"]), replaces: false }, 1000), None);
    }

    #[test]
    fn failed_validations_delay_each_set_with_the_name() {
        let mut budget = OrderBudget::default();
        for _ in 0..4 {
            budget.take_failed_validation("A.example.com", 1000);
        }
        let set = names(&["b.example.com", "a.example.com"]);
        let found = budget.order_from(CountedOrder { names: &set, replaces: true }, 1000);
        let want =
            Delay { from: 1000 + 15 * 60, limit: &VALIDATIONS, of: "a.example.com".to_owned(), is_theirs: false };
        assert_eq!(found, Some(want));
        assert_eq!(budget.emergency_from(CountedOrder { names: &set, replaces: true }, 0, 1000), None);
        assert_eq!(budget.order_from(CountedOrder { names: &set[..1], replaces: true }, 1000), None);
    }

    #[test]
    fn an_emergency_may_take_what_the_ca_allows() {
        let mut budget = OrderBudget::default();
        let set = names(&["a.example.com"]);
        let (ask, replacing) =
            (CountedOrder { names: &set, replaces: false }, CountedOrder { names: &set, replaces: true });
        for _ in 0..4 {
            budget.take_certificate(ask, 1000);
        }
        assert!(budget.order_from(ask, 1000).is_some());
        assert_eq!(budget.emergency_from(ask, 0, 1000), None);
        // Another order is under way: its certificate is the CA's fifth.
        assert_eq!(budget.emergency_from(ask, 1, 1000).map(|delay| delay.from), Some(1000 + 36 * 3600));
        assert_eq!(budget.delay_of(ask, Some(1), 1000), budget.emergency_from(ask, 1, 1000));
        assert_eq!((budget.delay_of(ask, Some(0), 1000), budget.delay_of(ask, None, 1000).is_some()), (None, true));
        budget.take_certificate(ask, 1000);
        let delay = budget.emergency_from(ask, 0, 1000).unwrap();
        assert_eq!((delay.from, delay.is_theirs), (1000 + 36 * 3600, true));
        let words = "the CA's limit of certificates for the same names (a.example.com): 5 at once, then one every 34 h";
        assert_eq!(delay.to_string(), words);
        // The CA exempts orders that name their predecessor.
        for _ in 0..20 {
            budget.take_certificate(replacing, 1000);
            assert_eq!(budget.emergency_from(replacing, 3, 1000), None);
        }
        assert!(budget.order_from(replacing, 1000).is_some());
    }

    #[test]
    fn a_clock_that_was_ahead() {
        let mut budget = OrderBudget::default();
        let set = names(&["a.example.com"]);
        for _ in 0..4 {
            budget.take_certificate(CountedOrder { names: &set, replaces: false }, 900 * DAY);
        }
        budget.settle(1000);
        let found = budget.order_from(CountedOrder { names: &set, replaces: false }, 1000);
        assert_eq!(found.map(|delay| (delay.from, delay.limit)), Some((1000 + 36 * 3600, &SAME_NAMES)));
    }

    #[test]
    fn orders_that_fail_cost_no_certificate() {
        let mut budget = OrderBudget::default();
        let set = names(&["a.example.com"]);
        for _ in 0..200 {
            assert_eq!(budget.order_from(CountedOrder { names: &set, replaces: false }, 1000), None);
            budget.take_order(1000);
        }
        let found = budget.order_from(CountedOrder { names: &set, replaces: false }, 1000);
        assert_eq!(found.map(|delay| (delay.from, delay.limit)), Some((1050, &ORDERS)));
        assert_eq!(budget.order_from(CountedOrder { names: &set, replaces: false }, 1050), None);
    }

    #[test]
    fn kept_on_disk_and_tidied() {
        let mut budget = OrderBudget::default();
        budget.take_account(0);
        for n in 0..100 {
            let set = names(&[&format!("n{n}.example{n}.com")]);
            budget.take_certificate(CountedOrder { names: &set, replaces: false }, n * 30 * DAY);
        }
        assert!(budget.buckets.len() <= 4, "{budget:?}");
        let text = serde_json::to_string(&budget).unwrap();
        assert_eq!(serde_json::from_str::<OrderBudget>(&text).unwrap(), budget);
    }

    proptest! {
        /// Whoever orders as soon as our budget permits, with restarts and clocks that step back, is
        /// never refused by the CA's bucket.
        #[test]
        fn stays_below_the_limits_of_the_ca(
            steps in prop::collection::vec((0i64..3 * DAY, 0i64..2 * DAY, any::<bool>(), any::<bool>()), 1..120),
        ) {
            let set = names(&["www.example.com"]);
            let ask = CountedOrder { names: &set, replaces: false };
            let mut budget = OrderBudget::default();
            let theirs = SAME_NAMES.theirs;
            // The CA's bucket, in real time, as seconds until it is full. Our clock falls behind.
            let (mut real, mut behind, mut debt) = (0i64, 0i64, 0i64);
            for (passes, step, is_restart, is_emergency) in steps {
                real += passes;
                debt = (debt - passes).max(0);
                if is_restart {
                    behind += step;
                    budget = serde_json::from_str(&serde_json::to_string(&budget).unwrap()).unwrap();
                }
                budget.settle(real - behind);
                let is_free = |budget: &OrderBudget| match is_emergency {
                    true => budget.emergency_from(ask, 0, real - behind).is_none(),
                    false => budget.order_from(ask, real - behind).is_none(),
                };
                while is_free(&budget) {
                    budget.take_certificate(ask, real - behind);
                    debt += theirs.refill;
                    prop_assert!(debt <= theirs.burst * theirs.refill);
                }
            }
        }

        /// A budget never delays an order for longer than it says.
        #[test]
        fn waits_are_bounded(uses in prop::collection::vec(0i64..DAY, 0..60)) {
            let set = names(&["www.example.com"]);
            let (mut budget, mut now) = (OrderBudget::default(), 0);
            for passes in uses {
                now += passes;
                budget.take_certificate(CountedOrder { names: &set, replaces: false }, now);
            }
            let from = budget.order_from(CountedOrder { names: &set, replaces: false }, now).map_or(now, |delay| delay.from);
            prop_assert!(from - now <= LONGEST_WAIT);
        }
    }
}
