//! Changes of a body on its way to the client: the interface of a filter, and what a change does to a head.
//!
//! A filter has no sockets and no clock. `src/upstream/filtered.rs` moves a body through it.

pub mod head;

use std::fmt;

use bytes::Bytes;

/// The output in bytes after which a filter should stop, and be called again: it bounds what a small input can become.
pub const OUT_STEP: usize = 64 * 1024;

/// A body that is changed piece by piece.
pub trait BodyFilter {
    /// Takes some of `input`, and appends what is ready to `out`. It takes at least a byte, writes at least a byte, or
    /// returns [`Step::More`].
    ///
    /// # Errors
    ///
    /// The body cannot continue: its client sees that it breaks off.
    fn push(&mut self, input: &mut Bytes, out: &mut Vec<u8>) -> Result<Step, FilterFault>;

    /// Writes out what is held back. The source pauses, and the client should be able to use what has come so far.
    ///
    /// # Errors
    ///
    /// As for [`BodyFilter::push`].
    fn flush(&mut self, _out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        Ok(Step::Done)
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// As for [`BodyFilter::push`].
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Step, FilterFault>;
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing is left to write for what was taken.
    Done,
    /// There is more to write: the same call is to be repeated.
    More,
}

/// The reason why a body cannot continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterFault(pub &'static str);

impl fmt::Display for FilterFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for FilterFault {}
