//! How many connections there may be: in all, and from one network. Shared by all workers, without a lock; asked once
//! per connection.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Buckets of each of the two tables.
const BUCKETS: usize = 16 * 1024;

/// The counts.
///
/// Networks share buckets by chance; two tables with different hashes, of which the smaller count is believed, make
/// that rare (a count-min sketch). Memory is bounded whatever addresses come.
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

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are as many as there may be.
    Full,
    /// The client's network has as many as it may have.
    Client,
}

impl Admission {
    /// Lets a connection in; it counts as long as the pass is held. `address` is none for trusted proxies, which
    /// speak for many.
    ///
    /// # Errors
    ///
    /// [`Refused`], if a limit is reached.
    pub(super) fn admit(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        max: usize,
        max_per_client: usize,
    ) -> Result<Pass, Refused> {
        let mut pass = Pass { admission: self.clone(), buckets: None };
        let total = self.total.fetch_add(1, Ordering::Relaxed);
        let of_client = address.map_or(Ok(()), |address| pass.count(address, max_per_client));
        if total >= max { Err(Refused::Full) } else { of_client.map(|()| pass) }
    }

    /// Connections at present.
    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    fn buckets(&self, address: IpAddr) -> [usize; 2] {
        let network: u64 = match address.to_canonical() {
            IpAddr::V4(v4) => u64::from(u32::from(v4)) | 1 << 60,
            // A /56 is what a household gets.
            IpAddr::V6(v6) => v6.octets()[..7].iter().fold(0, |n, octet| n << 8 | u64::from(*octet)),
        };
        [0, 1].map(|n| self.bucket(n, network))
    }

    fn bucket(&self, table: usize, network: u64) -> usize {
        let bucket = self.hashers[table].hash_one(network) % BUCKETS as u64;
        usize::try_from(bucket).expect("a remainder of BUCKETS is below it")
    }
}

/// A connection that counts.
pub(super) struct Pass {
    admission: Arc<Admission>,
    buckets: Option<[usize; 2]>,
}

impl Pass {
    /// Counts the connection for this client's network, too: as soon as it is known whose it is. To be called once.
    ///
    /// # Errors
    ///
    /// [`Refused::Client`], if that network has its share.
    pub(super) fn count(&mut self, address: IpAddr, max_per_client: usize) -> Result<(), Refused> {
        let buckets = *self.buckets.insert(self.admission.buckets(address));
        let counts = [0, 1].map(|n| self.admission.tables[n][buckets[n]].fetch_add(1, Ordering::Relaxed));
        if counts[0].min(counts[1]) as usize >= max_per_client { Err(Refused::Client) } else { Ok(()) }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.admission.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(buckets) = self.buckets {
            for (n, bucket) in buckets.into_iter().enumerate() {
                self.admission.tables[n][bucket].fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let admission = Arc::new(Admission::default());
        let ip = |text: &str| Some(text.parse().unwrap());
        let admit = |address| admission.admit(address, 4, 2).map_err(|r| format!("{r:?}"));
        let a1 = admit(ip("192.0.2.1")).unwrap_or_else(|e| panic!("{e}"));
        let a2 = admit(ip("::ffff:192.0.2.1")).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(admit(ip("192.0.2.1")).err().as_deref(), Some("Client"));
        let b1 = admit(ip("2001:db8:0:ff01::1")).unwrap_or_else(|e| panic!("{e}"));
        let proxy = admit(None).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(admit(None).err().as_deref(), Some("Full"));
        drop((a1, proxy));
        assert!(admit(ip("192.0.2.1")).is_ok());
        // A proxy's connection counts for the client that it turns out to be of.
        let mut late = admit(None).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(late.count("2001:db8:0:ff77::1".parse().unwrap(), 2), Ok(()));
        let mut later = admit(None).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(later.count("2001:db8:0:ff55::1".parse().unwrap(), 2), Err(Refused::Client));
        drop((late, later));
        let b2 = admit(ip("2001:db8:0:ff99::2")).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(admit(ip("2001:db8:0:ffaa::3")).err().as_deref(), Some("Client"));
        drop((a2, b1, b2));
        assert_eq!(admission.total.load(Ordering::Relaxed), 0);
    }
}
