//! Connections of one worker in the same state, ordered by age and by network. Finds the one that makes room without a
//! search through all.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::admission::ClientNetwork;
use crate::clock::Ringer;

/// The connections, the oldest first. A change costs the logarithm of their number; no request causes one.
#[derive(Default)]
pub(super) struct Crowd {
    members: BTreeMap<u64, Member>,
    by_network: BTreeSet<(ClientNetwork, u64)>,
    sizes: HashMap<ClientNetwork, usize>,
    /// The same sizes, in order.
    largest: BTreeSet<(usize, ClientNetwork)>,
    next: u64,
}

/// A connection.
pub(super) struct Member {
    pub(super) network: ClientNetwork,
    /// The tick at which it entered this state.
    pub(super) since: u32,
    pub(super) ringer: Ringer,
}

impl Crowd {
    /// Adds a connection, and returns its number, which is never used again.
    pub(super) fn add(&mut self, member: Member) -> u64 {
        let number = self.next;
        self.next += 1;
        self.resize(member.network, |size| size + 1);
        self.by_network.insert((member.network, number));
        self.members.insert(number, member);
        number
    }

    /// Removes a connection, if it is still listed.
    pub(super) fn remove(&mut self, number: u64) -> Option<Member> {
        let member = self.members.remove(&number)?;
        self.by_network.remove(&(member.network, number));
        self.resize(member.network, |size| size.saturating_sub(1));
        Some(member)
    }

    fn resize(&mut self, network: ClientNetwork, change: impl FnOnce(usize) -> usize) {
        let before = self.sizes.remove(&network).unwrap_or_default();
        self.largest.remove(&(before, network));
        let size = change(before);
        if size > 0 {
            self.sizes.insert(network, size);
            self.largest.insert((size, network));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns all connections, the oldest first.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(super) fn get(&self, number: u64) -> Option<&Member> {
        self.members.get(&number)
    }

    /// Returns the number of connections of a network.
    pub(super) fn size_of(&self, network: ClientNetwork) -> usize {
        self.sizes.get(&network).copied().unwrap_or_default()
    }

    /// Returns the oldest connection.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.members.first_key_value().map(|(number, _)| *number)
    }

    /// Returns the oldest connection of a network.
    pub(super) fn oldest_of(&self, network: ClientNetwork) -> Option<u64> {
        self.by_network.range((network, 0)..=(network, u64::MAX)).next().map(|(_, number)| *number)
    }

    /// Returns all connections of a network, or of all networks: by number from `from` on, then those before it.
    pub(super) fn round(&self, network: Option<ClientNetwork>, from: u64) -> impl Iterator<Item = u64> {
        let of_network = network.into_iter().flat_map(move |network| {
            let behind = self.by_network.range((network, from)..=(network, u64::MAX));
            behind.chain(self.by_network.range((network, 0)..(network, from))).map(|(_, number)| *number)
        });
        let of_all = network.is_none().then(|| self.members.range(from..).chain(self.members.range(..from)));
        of_network.chain(of_all.into_iter().flatten().map(|(number, _)| *number))
    }

    /// Returns the network with the most connections, and their number.
    pub(super) fn largest(&self) -> Option<(ClientNetwork, usize)> {
        self.largest.last().map(|(size, network)| (*network, *size))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn by_age_and_by_network() {
        let clock = Rc::new(Clock::default());
        let network = |n: u8| ClientNetwork::of([192, 0, 2, n].into());
        let alarm = clock.alarm();
        let mut crowd = Crowd::default();
        let add = |crowd: &mut Crowd, n| crowd.add(Member { network: network(n), since: 0, ringer: alarm.ringer() });
        let (a, b, c) = (add(&mut crowd, 1), add(&mut crowd, 2), add(&mut crowd, 2));
        assert_eq!((crowd.len(), crowd.oldest(), crowd.largest()), (3, Some(a), Some((network(2), 2))));
        assert_eq!(crowd.round(Some(network(2)), 0).collect::<Vec<_>>(), [b, c]);
        assert_eq!(crowd.round(Some(network(2)), c).collect::<Vec<_>>(), [c, b]);
        assert_eq!(crowd.round(None, b).collect::<Vec<_>>(), [b, c, a]);
        assert!(crowd.remove(b).is_some() && crowd.remove(b).is_none());
        assert_eq!((crowd.oldest_of(network(2)), crowd.size_of(network(2))), (Some(c), 1));
        assert!(crowd.remove(c).is_some());
        assert_eq!((crowd.oldest_of(network(2)), crowd.size_of(network(2))), (None, 0));
        assert_eq!(crowd.largest(), Some((network(1), 1)));
        assert!(crowd.remove(a).is_some());
        assert!(crowd.largest().is_none() && crowd.oldest().is_none() && crowd.sizes.is_empty());
    }
}
