//! Counts connections: in all, and from each network. All workers share the counts, without a lock, and use them once per
//! connection.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Buckets of each of the two tables.
const BUCKETS: usize = 16 * 1024;

/// The counts of connections.
///
/// Networks may share a bucket by chance. Two tables with different hashes make that rare: the smaller count applies (a
/// count-min sketch). Memory is bounded, whatever addresses come.
pub(super) struct Admission {
    total: AtomicUsize,
    tables: [Box<[AtomicU32]>; 2],
    hashers: [RandomState; 2],
}

impl Default for Admission {
    fn default() -> Self {
        let table = || (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        Self {
            total: AtomicUsize::new(0),
            tables: [table(), table()],
            hashers: [RandomState::new(), RandomState::new()],
        }
    }
}

/// A network of clients: a /32 of IPv4, or a /56 of IPv6, as households get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ClientNetwork(u64);

impl ClientNetwork {
    /// The network that an address is in.
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => u64::from(u32::from(v4)) | 1 << 60,
            IpAddr::V6(v6) => v6.octets()[..7].iter().fold(0, |n, byte| n << 8 | u64::from(*byte)),
        })
    }

    /// The network's first address.
    pub(super) fn address(self) -> IpAddr {
        let v4 = u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or_default();
        match self.0 >> 60 {
            0 => Ipv6Addr::from(u128::from(self.0) << 72).into(),
            _ => Ipv4Addr::from(v4).into(),
        }
    }
}

/// A limit that a connection exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// The limit of all connections.
    Total,
    /// The limit of the client's network.
    Client(ClientNetwork),
}

impl Admission {
    /// Counts a connection while the pass lives, and returns the limit that it exceeds, if any. `network` is `None` for
    /// trusted proxies, which speak for many clients.
    pub(super) fn admit(
        self: &Arc<Self>,
        network: Option<ClientNetwork>,
        max: usize,
        max_per_client: usize,
    ) -> (AdmissionPass, Option<Reached>) {
        let mut pass = AdmissionPass { admission: self.clone(), buckets: None };
        let is_full = self.total.fetch_add(1, Ordering::Relaxed) >= max;
        let of_client = network.and_then(|network| pass.count(network, max_per_client));
        (pass, of_client.or_else(|| is_full.then_some(Reached::Total)))
    }

    /// Returns `true` if idle connections are to make room.
    pub(super) fn is_above(&self, mark: usize) -> bool {
        self.total() > mark
    }

    /// Returns the number of open connections.
    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    fn buckets(&self, network: ClientNetwork) -> [usize; 2] {
        [0, 1].map(|n| self.bucket(n, network))
    }

    fn bucket(&self, table: usize, network: ClientNetwork) -> usize {
        let bucket = self.hashers[table].hash_one(network) % BUCKETS as u64;
        usize::try_from(bucket).expect("a remainder of BUCKETS is below it")
    }
}

/// A counted connection.
pub(super) struct AdmissionPass {
    admission: Arc<Admission>,
    buckets: Option<[usize; 2]>,
}

impl AdmissionPass {
    /// Counts the connection for a network that is known now, instead of the previous one. Returns a limit if the network
    /// exceeds it.
    pub(super) fn count(&mut self, network: ClientNetwork, max_per_client: usize) -> Option<Reached> {
        self.forget();
        let buckets = self.admission.buckets(network);
        let counts = [0, 1].map(|n| self.admission.tables[n][buckets[n]].fetch_add(1, Ordering::Relaxed));
        self.buckets = Some(buckets);
        let before = usize::try_from(counts[0].min(counts[1])).unwrap_or(usize::MAX);
        (before >= max_per_client).then_some(Reached::Client(network))
    }

    fn forget(&mut self) {
        for (n, bucket) in self.buckets.take().into_iter().flatten().enumerate() {
            self.admission.tables[n][bucket].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for AdmissionPass {
    fn drop(&mut self) {
        self.admission.total.fetch_sub(1, Ordering::Relaxed);
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> ClientNetwork {
        ClientNetwork::of(text.parse().unwrap())
    }

    #[test]
    fn limits() {
        let admission = Arc::new(Admission::default());
        let admit = |text: Option<&str>| admission.admit(text.map(network), 4, 2);
        let reached = |text: Option<&str>| admit(text).1;
        let (a1, none) = admit(Some("192.0.2.1"));
        let (a2, still_none) = admit(Some("::ffff:192.0.2.1"));
        assert_eq!((none, still_none), (None, None));
        assert_eq!(reached(Some("192.0.2.1")), Some(Reached::Client(network("192.0.2.1"))));
        let (b1, _) = admit(Some("2001:db8:0:ff01::1"));
        assert!(!admission.is_above(3) && admission.is_above(2));
        let (mut proxied, _) = admit(None);
        assert_eq!(reached(None), Some(Reached::Total));
        drop(a1);
        assert_eq!(reached(Some("192.0.2.1")), None);
        // Whom the proxy speaks for counts, once that is known.
        assert_eq!(proxied.count(network("2001:db8:0:ff99::2"), 2), None);
        assert_eq!(reached(Some("2001:db8:0:ffaa::3")), Some(Reached::Client(network("2001:db8:0:ff00::"))));
        assert_eq!(proxied.count(network("192.0.2.1"), 2), None);
        assert_eq!(reached(Some("2001:db8:0:ffaa::3")), None);
        drop((a2, b1, proxied));
        assert_eq!(admission.total(), 0);
        assert!(admission.tables.iter().flatten().all(|count| count.load(Ordering::Relaxed) == 0));
    }
}
