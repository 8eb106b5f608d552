//! The promises that a change of the key would break, today or on a later day.
//!
//! A set that is still sent will be sent until the change: clients note it at the last moment, and hold it for its max-age
//! after that. Pure: no I/O and no clock.

use super::promise::{Promise, Promises, Seconds, SiteNames};
use crate::keys::pin::Pin;

/// The answer for one set of pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedSet {
    /// The set; if it is still sent, as if it were sent until the day.
    pub set: Promise,
    /// `true` if it is still sent.
    pub is_sent: bool,
    /// `true` if clients hold it on the day.
    pub is_held: bool,
    /// `true` if its clients accept the chain.
    pub lets_in: bool,
}

impl JudgedSet {
    /// `true` if the change would lock its clients out.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.is_held && !self.lets_in
    }
}

/// The earliest time at which a chain may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SafeFrom {
    /// Now.
    Now,
    /// From this time.
    At(Seconds),
    /// Never, as long as a set without its keys is sent.
    Never,
}

/// The answer about a chain on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationAnswer {
    /// The sets that bind the site: those that are held now or on the day, and those that have ended.
    pub sets: Vec<JudgedSet>,
    /// The time from which the chain breaks nothing.
    pub safe_from: SafeFrom,
}

impl RotationAnswer {
    /// The sets whose clients the change would lock out.
    pub fn broken(&self) -> impl Iterator<Item = &JudgedSet> {
        self.sets.iter().filter(|judged| judged.is_broken())
    }
}

/// Judges a chain, leaf first, that a site would serve from `day` on. `is_sent` says which sets are still sent now.
#[must_use]
pub fn judge(
    promises: &[Promise],
    names: SiteNames<'_>,
    chain: &[Pin],
    (now, day): (Seconds, Seconds),
    is_sent: &dyn Fn(&Promise) -> bool,
) -> RotationAnswer {
    let day = day.max(now);
    let at = |time: Seconds| -> Vec<(Promise, bool)> {
        let sent_until = |promise: &Promise| {
            let is_sent = is_sent(promise);
            let last_sent = if is_sent { promise.last_sent.max(time) } else { promise.last_sent };
            (Promise { last_sent, ..promise.clone() }, is_sent)
        };
        promises.iter().map(sent_until).collect()
    };
    let (today, then) = (at(now), at(day));
    let sets = then
        .iter()
        .filter(|(set, _)| names.bound_by(set))
        .map(|(set, is_sent)| JudgedSet {
            is_held: set.is_alive(day),
            lets_in: set.is_kept_by(chain),
            is_sent: *is_sent,
            set: set.clone(),
        })
        .collect();
    let alive = Promises::alive(today.iter().map(|(set, _)| set), now);
    let broken = alive.broken_by(names.hosts, names.except, chain);
    let safe_from = if broken.iter().any(|set| is_sent(set)) {
        SafeFrom::Never
    } else {
        broken.into_iter().map(Promise::honoured_until).max().map_or(SafeFrom::Now, SafeFrom::At)
    };
    RotationAnswer { sets, safe_from }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::HostPattern;
    use crate::policy::hpkp::Mode;
    use crate::policy::promise::PromiseChannel;

    fn pin(n: u8) -> Pin {
        Pin::of_spki(&[n])
    }

    fn set(host: &str, keys: &[u8], last_sent: Seconds) -> Promise {
        let mut pins: Vec<Pin> = keys.iter().map(|n| pin(*n)).collect();
        pins.sort_unstable();
        Promise {
            site: host.to_owned(),
            hosts: vec![HostPattern::parse(host).unwrap()],
            except: Vec::new(),
            pins,
            max_age: 100,
            include_subdomains: false,
            channel: PromiseChannel::Header(Mode::Enforce),
            first_sent: 0,
            last_sent,
        }
    }

    fn ask(promises: &[Promise], key: u8, day: Seconds) -> RotationAnswer {
        let hosts = [HostPattern::parse("a.example").unwrap()];
        let names = SiteNames { hosts: &hosts, except: &[] };
        judge(promises, names, &[pin(key)], (1000, day), &|set| set.last_sent >= 1000)
    }

    #[test]
    fn past_sets_end_and_sent_sets_go_on() {
        // The set of the past has the keys 1 and 2, the one that is sent 2 and 3.
        let promises = [set("a.example", &[1, 2], 950), set("a.example", &[2, 3], 1010)];
        let broken = |key, day| ask(&promises, key, day).broken().count();
        assert_eq!((broken(2, 1000), ask(&promises, 2, 1000).safe_from), (0, SafeFrom::Now));
        assert_eq!((broken(3, 1000), ask(&promises, 3, 1000).safe_from), (1, SafeFrom::At(1050)));
        assert_eq!((broken(3, 1049), broken(3, 1050), broken(3, 5000)), (1, 0, 0));
        // Key 1 is in no set that is sent: waiting does not help.
        assert_eq!((broken(1, 1000), broken(1, 5000)), (1, 1));
        assert_eq!(ask(&promises, 1, 1000).safe_from, SafeFrom::Never);
        // A stranger breaks both, and later the one that is sent.
        assert_eq!((broken(9, 1000), broken(9, 1060)), (2, 1));
        // A day before now is now.
        assert_eq!(broken(3, 0), 1);
        // A set of another name binds nothing here.
        let other = [set("b.example", &[1], 1010)];
        assert_eq!((ask(&other, 9, 1000).sets.len(), ask(&other, 9, 1000).safe_from), (0, SafeFrom::Now));
    }

    proptest! {
        /// A client noted each set when it was last sent: the key locks it out exactly as long as it holds the set.
        #[test]
        fn the_day_and_the_date_agree(
            sets in prop::collection::vec((prop::collection::vec(0u8..4, 1..4), 880i64..1020), 0..6),
            key in 0u8..4,
            day in 1000i64..1300,
        ) {
            let promises: Vec<Promise> = sets.iter().map(|(keys, sent)| set("a.example", keys, *sent)).collect();
            let answer = ask(&promises, key, day);
            let locked_out = sets.iter().any(|(keys, sent)| {
                let noted = if *sent >= 1000 { day.max(*sent) } else { *sent };
                !keys.contains(&key) && day < noted + 100
            });
            prop_assert_eq!(answer.broken().count() > 0, locked_out);
            prop_assert_eq!(locked_out, match answer.safe_from {
                SafeFrom::Now => false,
                SafeFrom::At(time) => day < time,
                SafeFrom::Never => true,
            });
        }
    }
}
