//! The places of connections from other hosts: as many as the configuration allows, in all and for one network.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::admin::attempts::LogInNetwork;
use crate::config::admin_https::AdminHttpsLimits;

/// The places of connections that are in use.
#[derive(Default)]
pub(super) struct VisitorPlaces {
    taken: RefCell<HashMap<LogInNetwork, usize>>,
}

/// A place, given back when it is dropped.
pub(super) struct VisitorPlace {
    network: LogInNetwork,
    places: Rc<VisitorPlaces>,
}

impl VisitorPlaces {
    /// Takes a place; `None` if all are taken, or all of this network.
    pub(super) fn take(self: &Rc<Self>, network: LogInNetwork, limits: AdminHttpsLimits) -> Option<VisitorPlace> {
        let mut taken = self.taken.borrow_mut();
        let all: usize = taken.values().sum();
        let own = taken.get(&network).copied().unwrap_or_default();
        (all < limits.connections && own < limits.connections_per_client).then_some(())?;
        taken.insert(network, own + 1);
        Some(VisitorPlace { network, places: self.clone() })
    }
}

impl Drop for VisitorPlace {
    fn drop(&mut self) {
        let mut taken = self.places.taken.borrow_mut();
        match taken.get_mut(&self.network) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = taken.remove(&self.network),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn places_in_all_and_for_one_network() {
        let places = Rc::new(VisitorPlaces::default());
        let network = |last: u8| LogInNetwork::V4([192, 0, 2, last]);
        let limits = AdminHttpsLimits { connections: 3, connections_per_client: 2, handshake: Duration::from_secs(30) };
        let take = |last| places.take(network(last), limits);
        let (first, second) = (take(1).unwrap(), take(1).unwrap());
        assert!(take(1).is_none());
        let third = take(2).unwrap();
        assert!(take(3).is_none());
        drop(first);
        drop(second);
        assert!(take(3).is_some());
        drop(third);
        assert!(places.taken.borrow().is_empty());
    }
}
