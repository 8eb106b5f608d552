//! Redirect loops behind an offloader that never says https: our own redirect comes back as a request for the same
//! URL, again without a scheme. Told once what is missing, the operator can mend it; redirected for ever, nobody can.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Redirects that are remembered at the same time, by chance of their hash.
const SLOTS: usize = 4096;
/// A browser follows a redirect at once; a person who comes again later is no loop.
const RETURN: Duration = Duration::from_secs(10);
/// A proxy that stated a scheme for a host not longer ago than this knows how to.
const MEMORY: Duration = Duration::from_secs(3600);

/// The redirects of late, shared by all workers without a lock.
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
        // A store only when there is something new to say: the line is shared.
        let old = slot.load(Ordering::Relaxed);
        if old >> 32 != mark >> 32 || self.age(old) > MEMORY / 2 {
            slot.store(mark, Ordering::Relaxed);
        }
    }

    /// Whether the redirect that is about to be sent was sent before, just now, to the same client for the same URL,
    /// and came back. If so it is forgotten: the next one starts anew. `proxy_and_host` is whose word on the scheme
    /// is missing.
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

    fn slot<'a>(&self, slots: &'a [AtomicU64], key: impl Hash) -> (&'a AtomicU64, u64) {
        let hash = self.hasher.hash_one(key);
        let mark = (hash & !0xffff_ffff) | u64::from(self.now());
        let at = usize::try_from(hash % SLOTS as u64).expect("a remainder of SLOTS is below it");
        (&slots[at], mark)
    }

    /// Tenths of a second since the start, never zero.
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
    async fn a_loop_is_told_once() {
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
