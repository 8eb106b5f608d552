//! `[site.compression]`, as written.

use std::ops::Range;

use crate::config::problem::At;
use crate::config::reader::Reader;

/// The compression of a site's responses.
#[derive(Debug, Default)]
pub(in crate::config) struct CompressionTable {
    pub(in crate::config) span: Range<usize>,
    pub(in crate::config) encodings: Option<Vec<At<String>>>,
    pub(in crate::config) min_size: Option<At<u64>>,
    pub(in crate::config) types: Option<Vec<At<String>>>,
    pub(in crate::config) personal: Option<At<bool>>,
}

impl CompressionTable {
    pub(super) fn read(t: Reader<'_>) -> Self {
        let table = Self {
            span: t.span.clone(),
            encodings: t.texts("encodings"),
            min_size: t.size("min_size"),
            types: t.texts("types"),
            personal: t.boolean("personal"),
        };
        t.finish();
        table
    }
}
