//! Counts failed handshakes: the first of each client network in a minute get records of their own, its others a sum.
//!
//! A scan or a client with a broken clock fails thousands of times. One network cannot fill the log with that, and the
//! memory for the sums is bounded (`limits.log_networks`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use super::admission::ClientNetwork;
use crate::clock::ticks_of;

/// Failures of one network in a minute that have records of their own.
const FEW: u64 = 3;
/// The time after which failures are summed up.
const PERIOD: Duration = Duration::from_secs(60);

/// The failures of this minute.
#[derive(Default)]
pub(super) struct FailedHandshakes {
    since: Cell<u32>,
    networks: RefCell<HashMap<ClientNetwork, u64>>,
    /// Failures of further networks, once `networks` is full.
    others: Cell<u64>,
}

/// The failures of a minute without records of their own.
pub(super) struct Sums {
    /// By network.
    pub(super) networks: Vec<(ClientNetwork, u64)>,
    /// Failures of further networks.
    pub(super) others: u64,
    /// The time in which they happened.
    pub(super) ticks: u32,
}

impl FailedHandshakes {
    /// Counts a failure. Returns `true` if it gets a record of its own.
    pub(super) fn count(&self, network: ClientNetwork, most: usize, now: u32) -> bool {
        let mut networks = self.networks.borrow_mut();
        if networks.is_empty() && self.others.get() == 0 {
            self.since.set(now);
        }
        let is_full = networks.len() >= most;
        match networks.get_mut(&network) {
            Some(count) => {
                *count += 1;
                *count <= FEW
            }
            None if is_full => {
                self.others.set(self.others.get() + 1);
                false
            }
            None => {
                networks.insert(network, 1);
                true
            }
        }
    }

    /// Returns the sums of a minute that is over, or of `all` failures.
    pub(super) fn take(&self, now: u32, all: bool) -> Option<Sums> {
        let mut networks = self.networks.borrow_mut();
        let time = now.saturating_sub(self.since.get());
        let is_empty = networks.is_empty() && self.others.get() == 0;
        if is_empty || !(all || time >= ticks_of(PERIOD)) {
            return None;
        }
        let more = networks.drain().filter_map(|(network, count)| Some((network, count.checked_sub(FEW)?)));
        let sums = more.filter(|(_, count)| *count > 0).collect();
        // A scan must not leave its memory behind.
        networks.shrink_to(64);
        Some(Sums { networks: sums, others: self.others.take(), ticks: time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn few_records_and_a_bounded_sum() {
        let failed = FailedHandshakes::default();
        let network = |n: u8| ClientNetwork::of([192, 0, 2, n].into());
        let recorded = (0..10).filter(|_| failed.count(network(1), 2, 5)).count();
        assert_eq!(recorded, 3);
        assert!(failed.count(network(2), 2, 6));
        assert!(!failed.count(network(3), 2, 7) && !failed.count(network(4), 2, 7));
        let minute = ticks_of(PERIOD);
        assert!(failed.take(4 + minute, false).is_none());
        let Sums { networks, others, ticks } = failed.take(5 + minute, false).unwrap();
        assert_eq!((networks, others, ticks), (vec![(network(1), 7)], 2, minute));
        assert!(failed.take(5 + 2 * minute, true).is_none());
        assert!(failed.count(network(3), 2, 5 + 2 * minute));
        assert!(failed.take(6 + 2 * minute, true).is_some());
    }

    #[test]
    fn addresses_of_networks() {
        for (address, want) in [("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2ff:3::4", "2001:db8:1:200::")] {
            assert_eq!(ClientNetwork::of(address.parse().unwrap()).address(), want.parse::<IpAddr>().unwrap());
        }
    }
}
