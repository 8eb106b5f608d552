//! Compressed forms of stored responses, bounded in bytes: each is made once, at the first request for it.

use std::fmt;
use std::hash::RandomState;

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

    /// The largest form in bytes.
    #[must_use]
    pub fn largest(&self) -> usize {
        self.largest
    }

    /// The bytes of all forms.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.forms.weight()
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
        encoded.put(5000, Coding::Zstd, vec![b'a'; encoded.largest() + 1].into());
        assert!(encoded.get(5000, Coding::Zstd).is_none());
    }
}
