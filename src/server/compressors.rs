//! The compressors of a worker: how many run, and how hard they try.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::time::Duration;

use crate::compression::Effort;

/// The delay of the worker's loop above which compressors try less hard.
const LATE: Duration = Duration::from_millis(100);
/// The part of a worker's compressors that one connection may hold, as a divisor.
const CONNECTION_PART: usize = 2;

/// The compressors of a worker.
#[derive(Debug, Default)]
pub(super) struct Compressors {
    running: Rc<Cell<usize>>,
    /// The last known delay of the worker's loop.
    delay: Cell<Duration>,
}

impl Compressors {
    /// Notes the delay of the worker's loop.
    pub(super) fn note_delay(&self, delay: Duration) {
        self.delay.set(delay);
    }

    /// Returns how hard another compressor of at most `most` tries; `None` if there are too many, in all or of a
    /// connection that has `own`. One that is done at once takes no place from others, however slowly its client reads.
    pub(super) fn effort(&self, most: usize, own: &OwnCompressors, is_kept: bool, is_at_once: bool) -> Option<Effort> {
        let running = self.running.get();
        let is_full = running >= most || own.count() >= (most / CONNECTION_PART).max(1);
        match () {
            () if most == 0 || is_full && !is_at_once => None,
            () if is_full || running >= most.div_ceil(2) || self.delay.get() > LATE => Some(Effort::Fast),
            () if is_kept => Some(Effort::Kept),
            () => Some(Effort::Usual),
        }
    }

    /// Counts a compressor for a connection while the slot lives.
    pub(super) fn begin(&self, own: &OwnCompressors) -> CompressorSlot {
        let counts = [self.running.clone(), own.0.get_or_init(Rc::default).clone()];
        counts.iter().for_each(|count| count.set(count.get() + 1));
        CompressorSlot(counts)
    }
}

/// The number of compressors that run for one connection. Most connections never have one.
#[derive(Debug, Default)]
pub(super) struct OwnCompressors(OnceCell<Rc<Cell<usize>>>);

impl OwnCompressors {
    fn count(&self) -> usize {
        self.0.get().map_or(0, |count| count.get())
    }
}

/// The place of a compressor that runs, among all and among those of its connection.
pub(super) struct CompressorSlot([Rc<Cell<usize>>; 2]);

impl Drop for CompressorSlot {
    fn drop(&mut self) {
        self.0.iter().for_each(|count| count.set(count.get() - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn efforts() {
        let compressors = Compressors::default();
        let mut slots = Vec::new();
        for want in [Some(Effort::Usual), Some(Effort::Usual), Some(Effort::Fast), Some(Effort::Fast), None] {
            let own = OwnCompressors::default();
            assert_eq!(compressors.effort(4, &own, false, false), want);
            slots.push(compressors.begin(&own));
        }
        slots.clear();
        let own = OwnCompressors::default();
        let effort = |most, is_kept| compressors.effort(most, &own, is_kept, false);
        assert_eq!(effort(4, true), Some(Effort::Kept));
        assert_eq!((effort(1, false), effort(0, false)), (Some(Effort::Usual), None));
        compressors.note_delay(LATE * 2);
        assert_eq!(effort(4, true), Some(Effort::Fast));
    }

    #[test]
    fn a_connection_has_a_half() {
        let compressors = Compressors::default();
        let (slow, other) = (OwnCompressors::default(), OwnCompressors::default());
        let mut slots = Vec::new();
        while compressors.effort(32, &slow, false, false).is_some() {
            slots.push(compressors.begin(&slow));
        }
        assert_eq!(slots.len(), 16);
        assert_eq!(compressors.effort(32, &other, false, false), Some(Effort::Fast));
        slots.pop();
        assert_eq!(compressors.effort(32, &slow, false, false), Some(Effort::Usual));
    }

    #[test]
    fn what_is_done_at_once_needs_no_place() {
        let compressors = Compressors::default();
        let own = OwnCompressors::default();
        let _slot = compressors.begin(&own);
        assert_eq!(compressors.effort(1, &own, true, false), None);
        assert_eq!(compressors.effort(1, &own, true, true), Some(Effort::Fast));
        assert_eq!(compressors.effort(0, &own, true, true), None, "the operator wants none");
    }
}
