//! The history of neighbours while pintle watches.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::network::{EntryState, Mac, Neighbour};

/// The most neighbours with a history.
const NEIGHBOURS_MAX: usize = 4096;
/// The most changes kept for one neighbour.
const CHANGES_MAX: usize = 64;

/// The changes of each neighbour, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    changes: BTreeMap<(String, IpAddr), Vec<NeighbourChange>>,
}

/// A state, and the hardware address in it.
type NeighbourChange = (EntryState, Option<Mac>);

impl History {
    /// Adds what was seen of a neighbour.
    pub fn note(&mut self, seen: &Neighbour) {
        let key = (seen.link.clone(), seen.address);
        if self.changes.len() >= NEIGHBOURS_MAX && !self.changes.contains_key(&key) {
            return;
        }
        let changes = self.changes.entry(key).or_default();
        let now = (seen.state, seen.mac.clone());
        if changes.last() != Some(&now) {
            if changes.len() >= CHANGES_MAX {
                changes.remove(0);
            }
            changes.push(now);
        }
    }

    /// Returns the hardware addresses that a neighbour has had, without direct repetitions.
    #[must_use]
    pub fn macs(&self, address: IpAddr, link: &str) -> Vec<Mac> {
        let mut macs: Vec<Mac> = self.of(address, link).iter().filter_map(|(_, mac)| mac.clone()).collect();
        macs.dedup();
        macs
    }

    /// Returns how often a neighbour went from REACHABLE to STALE, and its states as `STALE → DELAY`.
    #[must_use]
    pub fn cycles(&self, address: IpAddr, link: &str) -> (usize, String) {
        let states: Vec<EntryState> = self.of(address, link).iter().map(|(state, _)| *state).collect();
        let cycles =
            states.windows(2).filter(|pair| pair[0] == EntryState::Reachable && pair[1] == EntryState::Stale).count();
        let shown: Vec<&str> = states.iter().map(|state| state.word()).collect();
        (cycles, shown.join(" → "))
    }

    fn of(&self, address: IpAddr, link: &str) -> &[NeighbourChange] {
        self.changes.get(&(link.to_owned(), address)).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_kept_and_bounded() {
        let mut history = History::default();
        let mut entry = Neighbour {
            address: "10.0.0.1".parse().unwrap(),
            link: "eth0".into(),
            mac: Mac::parse("02:00:00:00:00:01"),
            state: EntryState::Reachable,
            confirmed: None,
            probes: 0,
        };
        history.note(&entry);
        history.note(&entry);
        entry.state = EntryState::Stale;
        history.note(&entry);
        entry.mac = Mac::parse("02:00:00:00:00:02");
        history.note(&entry);
        assert_eq!(history.cycles(entry.address, "eth0"), (1, "REACHABLE → STALE → STALE".to_owned()));
        assert_eq!(history.macs(entry.address, "eth0").len(), 2);
        assert!(history.macs(entry.address, "eth1").is_empty());
        for at in 0..10_000_u32 {
            entry.address = IpAddr::from(at.to_be_bytes());
            entry.state = if at % 2 == 0 { EntryState::Stale } else { EntryState::Reachable };
            history.note(&entry);
        }
        assert!(history.changes.len() <= NEIGHBOURS_MAX);
    }
}
