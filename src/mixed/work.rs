//! The work of the scanners, for tests of their cost: the bytes that are decoded, searched or copied. It is counted
//! where bytes may be read more than once.

use std::cell::Cell;

thread_local! {
    static WORK: Cell<usize> = const { Cell::new(0) };
}

/// Adds to the work of this thread.
pub(super) fn add(bytes: usize) {
    WORK.set(WORK.get() + bytes);
}

/// Returns the outcome of a task, and its work.
pub(super) fn count<T>(task: impl FnOnce() -> T) -> (T, usize) {
    let before = WORK.get();
    let outcome = task();
    (outcome, WORK.get() - before)
}
