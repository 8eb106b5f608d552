//! The compressors of a worker: how many run, and how hard they try.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::compression::Effort;

/// The delay of the worker's loop above which compressors try less hard.
const LATE: Duration = Duration::from_millis(100);

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

    /// Returns how hard another compressor of at most `most` tries; `None` if there are too many.
    pub(super) fn effort(&self, most: usize, is_kept: bool) -> Option<Effort> {
        let running = self.running.get();
        match () {
            () if running >= most => None,
            () if running >= most.div_ceil(2) || self.delay.get() > LATE => Some(Effort::Fast),
            () if is_kept => Some(Effort::Kept),
            () => Some(Effort::Usual),
        }
    }

    /// Counts a compressor while the slot lives.
    pub(super) fn begin(&self) -> CompressorSlot {
        self.running.set(self.running.get() + 1);
        CompressorSlot(self.running.clone())
    }
}

/// The place of a compressor that runs.
pub(super) struct CompressorSlot(Rc<Cell<usize>>);

impl Drop for CompressorSlot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
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
            assert_eq!(compressors.effort(4, false), want);
            slots.push(compressors.begin());
        }
        slots.clear();
        assert_eq!(compressors.effort(4, true), Some(Effort::Kept));
        assert_eq!((compressors.effort(1, false), compressors.effort(0, false)), (Some(Effort::Usual), None));
        compressors.note_delay(LATE * 2);
        assert_eq!(compressors.effort(4, true), Some(Effort::Fast));
    }
}
