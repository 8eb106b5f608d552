//! The responses of a store that are under way, and what is known of their keys: who waits for whom, and for which keys nobody
//! waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::filling::{Filling, FillingBudget, FillingFollower};
use super::page_key::{ByOwnHash, PageKey};
use super::purge::PurgeScope;
use super::storing::NotStored;

/// The most keys that are remembered because their responses cannot be shared, and for how long, in milliseconds.
const REFUSED_MAX: usize = 4096;
const REFUSED_FOR: u64 = 10_000;
/// The most responses under way.
const FILLINGS_MAX: usize = 10_000;
/// The part of the memory that bodies under way may take besides, as a divisor; a body of the largest size always may.
const UNDER_WAY_PART: u64 = 2;
/// The most keys with fields that responses vary by, and the most of these of a key.
const VARIED_MAX: usize = 4096;
const VARIED_NAMES_MAX: usize = 16;

/// Names of fields, in lower case.
pub type FieldNames = Arc<[Box<[u8]>]>;

#[derive(Debug, Default)]
struct KeysUnderWay {
    fillings: HashMap<PageKey, Arc<Filling>, ByOwnHash>,
    /// Keys whose responses could not be shared or stored, with the reason, and the uptime until which nobody waits.
    /// Without a reason, they are stored, and validated for each request.
    refused: HashMap<PageKey, (Option<NotStored>, u64), ByOwnHash>,
    /// Fields of clients that responses vary by, and that the origin gets for this key only.
    varied: HashMap<PageKey, FieldNames, ByOwnHash>,
}

/// The responses under way.
#[derive(Debug)]
pub struct UnderWay {
    keys: Mutex<KeysUnderWay>,
    /// The memory for their bodies.
    room: Arc<FillingBudget>,
    max_object: u64,
}

/// A request's place among those of its key.
#[derive(Debug)]
pub enum Join {
    /// It asks the origin, and others wait for it.
    Lead(Arc<Filling>),
    /// It waits for another one.
    Follow(FillingFollower),
    /// It asks for itself.
    Alone,
}

impl UnderWay {
    /// Nothing is under way. `memory` is that of the store, and `max_object` bounds a body, both in bytes.
    #[must_use]
    pub fn new(memory: u64, max_object: u64) -> Self {
        let room = FillingBudget::new((memory / UNDER_WAY_PART).max(max_object));
        Self { keys: Mutex::default(), room, max_object }
    }

    fn keys(&self) -> MutexGuard<'_, KeysUnderWay> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a key: who comes next asks anew.
    pub(super) fn forget(&self, key: &PageKey) {
        let mut keys = self.keys();
        keys.fillings.remove(key);
        keys.refused.remove(key);
    }

    /// Forgets all keys.
    pub(super) fn forget_all(&self) {
        let mut keys = self.keys();
        keys.fillings.clear();
        keys.refused.clear();
    }

    /// Finds a request's place.
    #[must_use]
    pub fn join(&self, key: &PageKey, uptime: u64) -> Join {
        let mut keys = self.keys();
        if keys.refused.get(key).is_some_and(|(_, until)| uptime < *until) {
            return Join::Alone;
        }
        if let Some(filling) = keys.fillings.get(key) {
            return filling.follow().map_or(Join::Alone, Join::Follow);
        }
        if keys.fillings.len() >= FILLINGS_MAX {
            return Join::Alone;
        }
        let filling = self.filling();
        keys.fillings.insert(key.clone(), filling.clone());
        Join::Lead(filling)
    }

    /// Finds the place of a request that has waited for long enough for `waited`. The first one asks the origin, too, and
    /// the others wait for either.
    #[must_use]
    pub fn join_after(&self, key: &PageKey, waited: &Arc<Filling>, uptime: u64) -> Join {
        self.leave(key, waited);
        self.join(key, uptime)
    }

    /// Begins a response that nobody else waits for.
    #[must_use]
    pub fn filling(&self) -> Arc<Filling> {
        Filling::new(self.max_object, &self.room)
    }

    /// Ends the place of a request that leads. Requests that come later ask anew.
    pub fn leave(&self, key: &PageKey, filling: &Arc<Filling>) {
        let mut keys = self.keys();
        if keys.fillings.get(key).is_some_and(|own| Arc::ptr_eq(own, filling)) {
            keys.fillings.remove(key);
        }
    }

    /// Notes that a key's responses cannot be shared: for a while, nobody waits for one.
    pub fn refuse(&self, key: &PageKey, reason: NotStored, uptime: u64) {
        self.ask_alone(key, Some(reason), uptime);
    }

    fn ask_alone(&self, key: &PageKey, reason: Option<NotStored>, uptime: u64) {
        let mut keys = self.keys();
        if keys.refused.len() >= REFUSED_MAX {
            keys.refused.retain(|_, (_, until)| uptime < *until);
            if keys.refused.len() >= REFUSED_MAX {
                keys.refused.clear();
            }
        }
        keys.refused.insert(key.clone(), (reason, uptime + REFUSED_FOR));
    }

    /// Notes that a key's responses are stored. Without `is_shareable`, each request validates them: for a while, nobody waits
    /// for another one.
    pub fn accept(&self, key: &PageKey, is_shareable: bool, uptime: u64) {
        match is_shareable {
            true => _ = self.keys().refused.remove(key),
            false => self.ask_alone(key, None, uptime),
        }
    }

    /// Returns the reason why the last response of a key was not stored, if it is remembered.
    #[must_use]
    pub fn refusal(&self, key: &PageKey) -> Option<NotStored> {
        self.keys().refused.get(key).and_then(|(reason, _)| *reason)
    }

    /// The same, of the keys that a purge by URL is for.
    #[must_use]
    pub fn refusal_of(&self, scope: &PurgeScope) -> Option<NotStored> {
        let keys = self.keys();
        let mut refused = keys.refused.iter().filter(|(key, _)| scope.covers(key, &[]));
        refused.find_map(|(_, (reason, _))| *reason)
    }

    /// Notes fields that a key's responses vary by, and that the origin did not get. Returns `false` if they are too many.
    pub fn vary(&self, key: &PageKey, names: Vec<Box<[u8]>>) -> bool {
        let mut keys = self.keys();
        let mut all: Vec<_> = keys.varied.get(key).map(|known| known.to_vec()).unwrap_or_default();
        all.extend(names);
        all.sort_unstable();
        all.dedup();
        if all.len() > VARIED_NAMES_MAX {
            return false;
        }
        if keys.varied.len() >= VARIED_MAX && !keys.varied.contains_key(key) {
            keys.varied.clear();
        }
        keys.varied.insert(key.clone(), all.into());
        true
    }

    /// Returns the fields that [`Self::vary`] has noted.
    #[must_use]
    pub fn varied(&self, key: &PageKey) -> Option<FieldNames> {
        self.keys().varied.get(key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> PageKey {
        PageKey::of(text.as_bytes())
    }

    #[test]
    fn places() {
        let store = UnderWay::new(1 << 20, 1 << 16);
        let Join::Lead(first) = store.join(&key("k"), 0) else { panic!() };
        assert!(matches!(store.join(&key("k"), 0), Join::Follow(_)));
        store.leave(&key("k"), &store.filling());
        assert!(matches!(store.join(&key("k"), 0), Join::Follow(_)), "another one's place");
        store.leave(&key("k"), &first);
        assert!(matches!(store.join(&key("k"), 0), Join::Lead(_)));
        // Who has waited for too long asks, too; the next one waits for that request.
        let Join::Lead(slow) = store.join(&key("w"), 0) else { panic!() };
        let Join::Lead(second) = store.join_after(&key("w"), &slow, 0) else { panic!() };
        let Join::Follow(follower) = store.join_after(&key("w"), &slow, 0) else { panic!() };
        assert!(Arc::ptr_eq(follower.filling(), &second) && !slow.is_followed());
        store.leave(&key("w"), &slow);
        assert!(matches!(store.join_after(&key("w"), &slow, 0), Join::Follow(_)), "the second one's place");
        store.refuse(&key("p"), NotStored::Private, 0);
        assert!(matches!(store.join(&key("p"), REFUSED_FOR - 1), Join::Alone));
        assert_eq!(store.refusal(&key("p")), Some(NotStored::Private));
        assert!(matches!(store.join(&key("p"), REFUSED_FOR), Join::Lead(_)));
        for n in 0..2 * REFUSED_MAX {
            store.refuse(&PageKey::of(&n.to_be_bytes()), NotStored::Private, 0);
        }
        assert!(store.keys().refused.len() <= REFUSED_MAX);
    }
}
