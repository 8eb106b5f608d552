//! `[site.mixed_content]`, as written.

use std::ops::Range;

use crate::config::problem::At;
use crate::config::reader::Reader;

/// The tools of a site against mixed content.
#[derive(Debug, Default)]
pub(in crate::config) struct MixedTable {
    pub(in crate::config) span: Range<usize>,
    /// One word, or several.
    pub(in crate::config) mode: Option<Vec<At<String>>>,
    pub(in crate::config) hosts: Option<Vec<At<String>>>,
    pub(in crate::config) types: Option<Vec<At<String>>>,
}

impl MixedTable {
    pub(super) fn read(t: Reader<'_>) -> Self {
        let table = Self {
            span: t.span.clone(),
            mode: match t.is_list("mode") {
                true => t.texts("mode"),
                false => t.text("mode").map(|mode| vec![mode]),
            },
            hosts: t.texts("hosts"),
            types: t.texts("types"),
        };
        t.finish();
        table
    }
}
