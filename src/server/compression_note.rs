//! The compression of an answer, for its record.

use std::cell::Cell;

use crate::compression::Coding;

/// The compression of an answer, for its record.
#[derive(Debug)]
pub(super) struct CompressionNote {
    pub(super) coding: Coding,
    /// Bytes of the body so far, before compression.
    pub(super) before: Cell<u64>,
}
