//! A CA: outages, rate limits, windows that move, keys that it refuses. Written from RFC 8555, RFC 9773 and the limits
//! that Let's Encrypt publishes.

use std::collections::BTreeMap;

use pintle::acme::problem::AcmeRemedy;
use pintle::acme::renewal_info::{NoAnswer, SuggestedWindow};
use pintle::keys::pin::Pin;
use pintle::policy::promise::Seconds;

use super::super::random::Random;
use super::{DAY, HOUR, YEARS};

/// Certificates for the same names: 5 at once, and one more each 34 hours.
const BURST: i64 = 5;
const REFILL: Seconds = 34 * HOUR;
/// Failures by chance in a row.
const UNLUCKY_MAX: u32 = 2;

pub struct Authority {
    pub directory: String,
    outages: Vec<(Seconds, Seconds)>,
    /// Since when it refuses a key, and which.
    pub refused: Option<(Seconds, Pin)>,
    /// The time at which it asks for the immediate replacement of earlier certificates.
    replacements: Vec<Seconds>,
    /// `true` if its windows lie beyond the end of the certificates.
    is_late: bool,
    unlucky: u32,
    pub limited_until: Seconds,
    /// By the names: when something was taken last, and seconds until all is there again.
    buckets: BTreeMap<String, (Seconds, Seconds)>,
    pub orders: u32,
    pub revoked: Vec<Pin>,
}

impl Authority {
    pub fn new(directory: &str, start: Seconds, random: &mut Random) -> Self {
        let mut outages = Vec::new();
        for _ in 0..random.below(12) {
            let from = start + random.below(YEARS);
            let length = if random.once_in(3) { random.below(9 * DAY) } else { random.below(10 * HOUR) };
            outages.push((from, from + length));
        }
        let replacements = (0..random.below(4)).map(|_| start + random.below(YEARS)).collect();
        Self {
            directory: directory.to_owned(),
            outages,
            refused: None,
            replacements,
            is_late: random.once_in(10),
            unlucky: 0,
            limited_until: 0,
            buckets: BTreeMap::new(),
            orders: 0,
            revoked: Vec::new(),
        }
    }

    pub fn is_down(&self, now: Seconds) -> bool {
        self.outages.iter().any(|(from, to)| (*from..*to).contains(&now))
    }

    pub fn refuses(&self, key: Pin, now: Seconds) -> bool {
        self.revoked.contains(&key) || self.refused.is_some_and(|(from, pin)| from <= now && pin == key)
    }

    /// A failure that any request may have.
    fn trouble(&mut self, now: Seconds, random: &mut Random) -> Result<(), (AcmeRemedy, Option<Seconds>)> {
        if self.is_down(now) {
            return Err((AcmeRemedy::Temporary, None));
        }
        if now < self.limited_until {
            return Err((AcmeRemedy::RateLimit, Some(self.limited_until - now)));
        }
        if self.unlucky < UNLUCKY_MAX && random.once_in(12) {
            self.unlucky += 1;
            return Err(match random.below(8) {
                0 => {
                    self.limited_until = now + 1 + random.below(20 * HOUR);
                    (AcmeRemedy::RateLimit, Some(self.limited_until - now))
                }
                1..3 => (AcmeRemedy::Validation, None),
                3 => (AcmeRemedy::WithoutReplaces, None),
                4 => (AcmeRemedy::ReadOrder, Some(random.below(HOUR))),
                _ => (AcmeRemedy::Temporary, random.once_in(3).then(|| random.below(HOUR))),
            });
        }
        self.unlucky = 0;
        Ok(())
    }

    /// A new order.
    pub fn order(&mut self, now: Seconds, random: &mut Random) -> Result<(), (AcmeRemedy, Option<Seconds>)> {
        if self.is_down(now) {
            return Err((AcmeRemedy::Temporary, None));
        }
        self.orders += 1;
        self.trouble(now, random)
    }

    /// A certificate is issued. It is an error of the client to meet the limits.
    pub fn issued(&mut self, names: &[String], replaces: bool, now: Seconds) {
        if !replaces {
            let (at, debt) = self.buckets.get(&names.join(" ")).copied().unwrap_or((now, 0));
            let debt = (debt - (now - at)).max(0) + REFILL;
            assert!(debt <= BURST * REFILL, "more certificates than the CA allows");
            self.buckets.insert(names.join(" "), (now, debt));
        }
    }

    /// A step of an order: true if the certificate is there.
    pub fn step(&mut self, key: Pin, now: Seconds, random: &mut Random) -> Result<bool, (AcmeRemedy, Option<Seconds>)> {
        self.trouble(now, random)?;
        if self.refuses(key, now) {
            return Err((AcmeRemedy::Key, None));
        }
        Ok(!random.once_in(3))
    }

    /// The window of a certificate.
    pub fn window(
        &self,
        (from, to): (Seconds, Seconds),
        now: Seconds,
        random: &mut Random,
    ) -> Result<(SuggestedWindow, Option<Seconds>), NoAnswer> {
        if self.is_down(now) || random.once_in(40) {
            return Err(if random.once_in(4) { NoAnswer::Lasting } else { NoAnswer::Temporary });
        }
        let third = (to - from) / 3;
        let (start, end) = match self.replacements.iter().find(|at| (from..=now).contains(*at)) {
            Some(at) => (at - DAY, *at),
            None if self.is_late => (to, to + DAY),
            None if to - from < 10 * DAY => (from + third, to - third),
            None => (to - third - DAY, to - third + DAY),
        };
        let explanation = (end < now).then(|| "https://ca.example/incident".to_owned());
        // Retry-After is mostly a day here, so that ten years pass quickly.
        Ok((SuggestedWindow { start, end, explanation }, (!random.once_in(8)).then_some(DAY)))
    }
}
