//! Compressed forms of stored responses, bounded in bytes: each is made once, at the first request for it.

use std::collections::HashMap;
use std::fmt;
use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::compression::Coding;

/// The part of a site's memory that compressed forms may take in addition, as a divisor.
const MEMORY_PART: u64 = 4;
/// The part of that which one form may take, as a divisor.
const LARGEST_PART: u64 = 8;
/// The size of a form that the table is made for, in bytes, and the bytes that it takes besides its own.
const USUAL_FORM: u64 = 8 << 10;
const OVERHEAD: u64 = 128;
/// The part of the memory for forms that those in the making may take in addition, as a divisor.
const MAKING_PART: u64 = 2;
/// Requests for a form while it is made. The next one makes it anew: the client of the first may be slow.
const PASSED_MAX: u32 = 16;

/// A stored response by its number, and a coding.
type Form = (u64, Coding);

#[derive(Debug, Clone)]
struct FormWeight;

impl Weighter<Form, Bytes> for FormWeight {
    fn weight(&self, _: &Form, body: &Bytes) -> u64 {
        body.len() as u64 + OVERHEAD
    }
}

/// The compressed forms of a site's stored responses. Those of a response that is gone are never asked for again, and make
/// room for others.
pub struct EncodedBodies {
    forms: Cache<Form, Bytes, FormWeight, RandomState>,
    largest: usize,
    making: Mutex<HashMap<Form, Making>>,
    /// The bytes of all forms in the making, and their bound.
    making_bytes: AtomicU64,
    making_most: u64,
}

/// A form in the making.
struct Making {
    bytes: Arc<MadeBytes>,
    /// The number of requests for the form meanwhile.
    passed: u32,
}

/// The bytes of a form so far; `None` if it will not be kept.
type MadeBytes = Mutex<Option<Vec<u8>>>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for EncodedBodies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedBodies").field("forms", &self.forms.len()).finish_non_exhaustive()
    }
}

impl EncodedBodies {
    /// Makes an empty table for a store of this many bytes.
    #[must_use]
    pub fn new(memory: u64) -> Self {
        let capacity = memory / MEMORY_PART;
        let options = OptionsBuilder::new()
            .shards(4)
            .estimated_items_capacity(usize::try_from(capacity / USUAL_FORM).unwrap_or_default().clamp(16, 1 << 20))
            .weight_capacity(capacity)
            .build();
        let options = options.expect("capacity and number of items are given");
        Self {
            forms: Cache::with_options(options, FormWeight, RandomState::default(), DefaultLifecycle::default()),
            largest: usize::try_from(capacity / LARGEST_PART).unwrap_or(usize::MAX),
            making: Mutex::default(),
            making_bytes: AtomicU64::new(0),
            making_most: capacity / MAKING_PART,
        }
    }

    /// Returns the form of a stored response.
    #[must_use]
    pub fn get(&self, number: u64, coding: Coding) -> Option<Bytes> {
        self.forms.get(&(number, coding))
    }

    /// Keeps a form.
    pub fn put(&self, number: u64, coding: Coding, body: Bytes) {
        if body.len() <= self.largest {
            self.forms.insert((number, coding), body);
        }
    }

    /// Begins to make a form. Returns `None` while somebody else makes it.
    pub fn begin(self: &Arc<Self>, number: u64, coding: Coding) -> Option<FormInMaking> {
        let form = (number, coding);
        let mut making = locked(&self.making);
        if let Some(other) = making.get_mut(&form) {
            other.passed += 1;
            if other.passed <= PASSED_MAX {
                return None;
            }
            self.forget(&other.bytes);
        }
        let bytes = Arc::new(Mutex::new(Some(Vec::new())));
        making.insert(form, Making { bytes: bytes.clone(), passed: 0 });
        Some(FormInMaking { encoded: self.clone(), form, bytes })
    }

    /// Gives up what was made of a form.
    fn forget(&self, bytes: &MadeBytes) {
        let forgotten = locked(bytes).take();
        self.making_bytes.fetch_sub(forgotten.map_or(0, |bytes| bytes.len() as u64), Ordering::Relaxed);
    }

    /// Takes room for bytes of a form in the making. Returns `false` if none is left.
    fn takes(&self, more: u64) -> bool {
        let sum = |now: u64| now.checked_add(more).filter(|sum| *sum <= self.making_most);
        self.making_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
    }

    /// The bytes of all forms.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.forms.weight()
    }
}

/// A form that its maker keeps once it is whole. Nobody else makes it meanwhile.
pub struct FormInMaking {
    encoded: Arc<EncodedBodies>,
    form: Form,
    bytes: Arc<MadeBytes>,
}

impl fmt::Debug for FormInMaking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FormInMaking").field("form", &self.form).finish_non_exhaustive()
    }
}

impl FormInMaking {
    /// Adds a piece. A form that becomes too large, or has no room, is not kept.
    pub fn add(&self, piece: &[u8]) {
        let mut bytes = locked(&self.bytes);
        let Some(all) = &mut *bytes else { return };
        if all.len() + piece.len() <= self.encoded.largest && self.encoded.takes(piece.len() as u64) {
            all.extend_from_slice(piece);
            return;
        }
        drop(bytes);
        self.encoded.forget(&self.bytes);
    }

    /// Keeps the form, which is whole.
    pub fn keep(&self) {
        let Some(bytes) = locked(&self.bytes).take() else { return };
        self.encoded.making_bytes.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
        self.encoded.put(self.form.0, self.form.1, bytes.into());
    }

    /// Keeps the form, which was made at once.
    pub fn keep_whole(self, body: Bytes) {
        self.encoded.put(self.form.0, self.form.1, body);
    }
}

impl Drop for FormInMaking {
    fn drop(&mut self) {
        self.encoded.forget(&self.bytes);
        let mut making = locked(&self.encoded.making);
        if making.get(&self.form).is_some_and(|own| Arc::ptr_eq(&own.bytes, &self.bytes)) {
            making.remove(&self.form);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_bounded() {
        let encoded = EncodedBodies::new(1 << 20);
        for number in 0..1000 {
            encoded.put(number, Coding::Gzip, vec![b'a'; 10_000].into());
            encoded.put(number, Coding::Gzip, vec![b'a'; 10_000].into());
        }
        assert!(encoded.bytes() <= (1 << 20) / MEMORY_PART, "{}", encoded.bytes());
        assert!(encoded.get(999, Coding::Brotli).is_none());
        encoded.put(5000, Coding::Zstd, vec![b'a'; encoded.largest + 1].into());
        assert!(encoded.get(5000, Coding::Zstd).is_none());
    }

    #[test]
    fn one_makes_a_form() {
        let encoded = Arc::new(EncodedBodies::new(1 << 20));
        let first = encoded.begin(1, Coding::Gzip).unwrap();
        assert!(encoded.begin(1, Coding::Gzip).is_none());
        assert!(encoded.begin(1, Coding::Zstd).is_some() && encoded.begin(2, Coding::Gzip).is_some());
        first.add(b"abc");
        first.add(b"def");
        assert_eq!(encoded.making_bytes.load(Ordering::Relaxed), 6);
        first.keep();
        assert_eq!(encoded.get(1, Coding::Gzip).as_deref(), Some(&b"abcdef"[..]));
        drop(first);
        assert!(locked(&encoded.making).is_empty() && encoded.making_bytes.load(Ordering::Relaxed) == 0);
        // If a maker goes away, the next request makes the form.
        drop(encoded.begin(3, Coding::Gzip).unwrap());
        encoded.begin(3, Coding::Gzip).unwrap().keep_whole(Bytes::from_static(b"x"));
        assert!(encoded.get(3, Coding::Gzip).is_some() && locked(&encoded.making).is_empty());
    }

    #[test]
    fn a_slow_maker_loses_its_form() {
        let encoded = Arc::new(EncodedBodies::new(1 << 20));
        let slow = encoded.begin(1, Coding::Gzip).unwrap();
        slow.add(b"slow");
        assert!((0..PASSED_MAX).all(|_| encoded.begin(1, Coding::Gzip).is_none()));
        let next = encoded.begin(1, Coding::Gzip).unwrap();
        assert_eq!(encoded.making_bytes.load(Ordering::Relaxed), 0);
        slow.add(b"er");
        slow.keep();
        drop(slow);
        assert!(encoded.get(1, Coding::Gzip).is_none());
        assert!(encoded.begin(1, Coding::Gzip).is_none(), "the next one still makes it");
        next.add(b"quick");
        next.keep();
        assert_eq!(encoded.get(1, Coding::Gzip).as_deref(), Some(&b"quick"[..]));
    }

    #[test]
    fn forms_in_the_making_are_bounded() {
        let encoded = Arc::new(EncodedBodies::new(1 << 20));
        let piece = vec![b'a'; encoded.largest];
        let making: Vec<_> = (0..100).map(|number| encoded.begin(number, Coding::Gzip).unwrap()).collect();
        making.iter().for_each(|one| one.add(&piece));
        let bytes = encoded.making_bytes.load(Ordering::Relaxed);
        assert!(bytes > 0 && bytes <= encoded.making_most, "{bytes}");
        making[0].add(b"a");
        making[0].keep();
        making[99].keep();
        assert!(encoded.get(0, Coding::Gzip).is_none(), "too large");
        assert!(encoded.get(99, Coding::Gzip).is_none(), "no room");
        drop(making);
        assert_eq!(encoded.making_bytes.load(Ordering::Relaxed), 0);
    }
}
