//! Detects redirect loops behind a TLS offloader that never declares https: pintle's own redirect comes back as a request for
//! the same URL, again without a scheme. pintle then answers with an error that names the missing field.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Slots for remembered redirects. A redirect overwrites another one with the same hash modulo this.
const SLOTS: usize = 4096;
/// A browser follows a redirect at once. A request after this time is a new visit, not a loop.
const RETURN: Duration = Duration::from_secs(10);
/// A proxy that has stated a scheme for a host within this time does not cause a loop.
const MEMORY: Duration = Duration::from_secs(3600);

/// The latest redirects, shared by all workers without a lock.
pub(super) struct LoopGuard {
    begin: Instant,
    hasher: RandomState,
    /// Upper half: the hash; lower half: when, in tenths of a second, or zero.
    redirects: Box<[AtomicU64]>,
    /// The same, for proxies that stated a scheme.
    stated: Box<[AtomicU64]>,
}

impl Default for LoopGuard {
    fn default() -> Self {
        let slots = || (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { begin: Instant::now(), hasher: RandomState::new(), redirects: slots(), stated: slots() }
    }
}

impl LoopGuard {
    /// Notes that a trusted proxy states the schemes of a host's requests.
    pub(super) fn scheme_stated(&self, proxy_and_host: impl Hash) {
        let (slot, mark) = self.slot(&self.stated, proxy_and_host);
        // Stores only news: all cores share the cache line.
        let old = slot.load(Ordering::Relaxed);
        if old >> 32 != mark >> 32 || self.age(old) > MEMORY / 2 {
            slot.store(mark, Ordering::Relaxed);
        }
    }

    /// Returns `true` if the same redirect was sent to the same client a moment ago, and came back. Forgets it then, so that
    /// the next request starts over. `proxy_and_host` names the proxy that states no scheme.
    pub(super) fn comes_back(&self, proxy_and_host: impl Hash, client_and_url: impl Hash) -> bool {
        let (slot, mark) = self.slot(&self.stated, proxy_and_host);
        let old = slot.load(Ordering::Relaxed);
        if old >> 32 == mark >> 32 && self.age(old) < MEMORY {
            return false;
        }
        let (slot, mark) = self.slot(&self.redirects, client_and_url);
        let old = slot.load(Ordering::Relaxed);
        let back = old >> 32 == mark >> 32 && self.age(old) < RETURN;
        slot.store(if back { 0 } else { mark }, Ordering::Relaxed);
        back
    }

    /// Returns `true` if an upstream's redirect to the same URL was passed to the same client a moment ago. Forgets it then.
    pub(super) fn repeats(&self, client_and_url: impl Hash) -> bool {
        let (slot, mark) = self.slot(&self.redirects, ("upstream", client_and_url));
        let old = slot.load(Ordering::Relaxed);
        let back = old >> 32 == mark >> 32 && self.age(old) < RETURN;
        slot.store(if back { 0 } else { mark }, Ordering::Relaxed);
        back
    }

    fn slot<'a>(&self, slots: &'a [AtomicU64], key: impl Hash) -> (&'a AtomicU64, u64) {
        let hash = self.hasher.hash_one(key);
        let mark = (hash & !0xffff_ffff) | u64::from(self.now());
        let at = usize::try_from(hash % SLOTS as u64).expect("a remainder of SLOTS is below it");
        (&slots[at], mark)
    }

    /// Returns the tenths of a second since the start, plus one.
    fn now(&self) -> u32 {
        u32::try_from(self.begin.elapsed().as_millis() / 100).unwrap_or(u32::MAX - 1) + 1
    }

    fn age(&self, mark: u64) -> Duration {
        match u32::try_from(mark & 0xffff_ffff).unwrap_or(0) {
            0 => Duration::MAX,
            then => Duration::from_millis(u64::from(self.now().saturating_sub(then)) * 100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_is_reported_once() {
        let guard = LoopGuard::default();
        assert!(!guard.comes_back("proxy, host", "client, /a"));
        assert!(!guard.comes_back("proxy, host", "client, /b"));
        assert!(!guard.comes_back("proxy, host", "other client, /a"));
        assert!(guard.comes_back("proxy, host", "client, /a"));
        assert!(!guard.comes_back("proxy, host", "client, /a"));
        tokio::time::advance(RETURN + Duration::from_secs(1)).await;
        assert!(!guard.comes_back("proxy, host", "client, /a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_states_the_scheme_makes_no_loop() {
        let guard = LoopGuard::default();
        guard.scheme_stated("proxy, host");
        assert!(!guard.comes_back("proxy, host", "client, /a"));
        assert!(!guard.comes_back("proxy, host", "client, /a"));
        assert!(!guard.comes_back("proxy, other host", "client, /a"));
        assert!(guard.comes_back("proxy, other host", "client, /a"));
        tokio::time::advance(MEMORY + Duration::from_secs(1)).await;
        assert!(!guard.comes_back("proxy, host", "client, /c"));
        assert!(guard.comes_back("proxy, host", "client, /c"));
    }
}
