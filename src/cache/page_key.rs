//! The key of a page as the tables of a store hold it: its text, and a hash that is computed once.

use std::cell::RefCell;
use std::fmt;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher, RandomState};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use super::key;

/// The bytes of the hash, before the text.
const HASH: usize = 8;
/// The largest buffer that a thread keeps for texts, in bytes.
const SPARE_MAX: usize = 4096;

/// Strangers choose the keys: what they hash to must be hard to foresee.
static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

thread_local! {
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The key of a page. All who need it share one allocation.
#[derive(Clone, PartialEq, Eq)]
pub struct PageKey(Arc<[u8]>);

impl PageKey {
    /// Makes the key with this text.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        Self::written(|out| out.extend_from_slice(text))
    }

    /// Makes the key of a page: see [`key::write`].
    #[must_use]
    pub fn of_page(host: &[u8], port: Option<u16>, stated: Option<&[u8]>, target: &[u8]) -> Self {
        Self::written(|out| key::write(out, (host, port), stated, target))
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut whole = SPARE.take();
        whole.clear();
        whole.extend_from_slice(&[0; HASH]);
        write(&mut whole);
        let mut hasher = SECRET.build_hasher();
        hasher.write(whole.get(HASH..).unwrap_or_default());
        if let Some(place) = whole.first_chunk_mut::<HASH>() {
            *place = hasher.finish().to_ne_bytes();
        }
        let own = Self(Arc::from(whole.as_slice()));
        if whole.capacity() <= SPARE_MAX {
            SPARE.set(whole);
        }
        own
    }
}

impl Deref for PageKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.get(HASH..).unwrap_or_default()
    }
}

impl Hash for PageKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.first_chunk().map_or(0, |hash| u64::from_ne_bytes(*hash)));
    }
}

impl fmt::Debug for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self))
    }
}

/// Takes the hash that a [`PageKey`] has.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnHash(u64);

/// The hash of tables by [`PageKey`].
pub type ByOwnHash = BuildHasherDefault<OwnHash>;

impl Hasher for OwnHash {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_their_texts() {
        let hash = |key: &PageKey| ByOwnHash::default().hash_one(key);
        let (one, same, other) =
            (PageKey::of(b"a\n\n/x"), PageKey::of_page(b"a", None, None, b"/x"), PageKey::of(b"b"));
        assert_eq!((&*one, &one, hash(&one)), (&b"a\n\n/x"[..], &same, hash(&same)));
        assert!(one != other && hash(&one) != hash(&other));
        // A large one leaves no large buffer.
        assert_eq!(PageKey::of(&vec![b'x'; 2 * SPARE_MAX]).len(), 2 * SPARE_MAX);
        assert!(SPARE.with_borrow(Vec::capacity) <= SPARE_MAX);
    }
}
