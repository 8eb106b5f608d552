//! Responses that one worker has compressed, by coding.

use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::add;

/// The codings, by their numbers.
pub const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];

/// The counts of one coding.
#[derive(Debug, Default)]
struct CodingCounts {
    responses: AtomicU64,
    before: AtomicU64,
    after: AtomicU64,
}

/// The counts of one worker, which alone changes them.
#[derive(Debug, Default)]
pub struct CompressedMeter([CodingCounts; CODINGS.len()]);

/// The sum of several workers for one coding.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CompressedSum {
    /// Responses.
    pub responses: u64,
    /// Bytes of bodies before compression.
    pub before: u64,
    /// Bytes of bodies that were sent.
    pub after: u64,
}

impl CompressedMeter {
    /// Counts a response whose body had `before` bytes, of which `after` were sent.
    pub fn note(&self, coding: usize, before: u64, after: u64) {
        let Some(counts) = self.0.get(coding) else { return };
        add(&counts.responses, 1);
        add(&counts.before, before);
        add(&counts.after, after);
    }

    /// Adds the counts to sums.
    pub fn add_to(&self, sums: &mut [CompressedSum; CODINGS.len()]) {
        for (sum, counts) in sums.iter_mut().zip(&self.0) {
            sum.responses += counts.responses.load(Ordering::Relaxed);
            sum.before += counts.before.load(Ordering::Relaxed);
            sum.after += counts.after.load(Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        let (one, other, mut sums) = (CompressedMeter::default(), CompressedMeter::default(), Default::default());
        one.note(0, 100, 10);
        other.note(0, 50, 5);
        other.note(2, 7, 3);
        other.note(9, 1, 1);
        one.add_to(&mut sums);
        other.add_to(&mut sums);
        assert_eq!(sums[0], CompressedSum { responses: 2, before: 150, after: 15 });
        assert_eq!((sums[1], sums[2].responses), (CompressedSum::default(), 1));
    }
}
