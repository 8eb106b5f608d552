//! `[site.compression]`.

use std::sync::Arc;

use super::checker::{Checker, unknown};
use crate::compression::{Coding, CompressionRules, TypePattern, is_event_stream, usual_types};
use crate::config::file::{CompressionTable, SiteTable};
use crate::config::value::show_size;

/// The smallest body that is compressed: below it, a response mostly fits into one packet anyway.
const MIN_SIZE: u64 = 1024;
/// The bounds of that. A smaller body can grow.
const MIN_SIZE_LEAST: u64 = 64;
const MIN_SIZE_MOST: u64 = 1 << 30;

/// Returns the rules of a site's compression; `None` if it has none.
pub(super) fn build(table: &SiteTable, r: &mut Checker<'_>) -> Option<Arc<CompressionRules>> {
    let compression = table.compression.as_deref()?;
    if !table.has_upstream {
        let hint = "set upstream, or remove [site.compression]";
        r.warn(&compression.span, "site.compression: has no effect without upstream", hint);
        return None;
    }
    let min_size = compression.min_size.as_ref().map_or(MIN_SIZE, |size| size.value);
    if let Some(at) = compression.min_size.as_ref().filter(|at| !(MIN_SIZE_LEAST..=MIN_SIZE_MOST).contains(&at.value)) {
        let (least, most) = (show_size(MIN_SIZE_LEAST), show_size(MIN_SIZE_MOST));
        r.error(&at.span, format!("site.compression.min_size: must be between {least} and {most}"));
    }
    Some(Arc::new(CompressionRules {
        encodings: encodings(compression, r),
        min_size,
        types: types(compression, r),
        personal: compression.personal.as_ref().is_some_and(|personal| personal.value),
    }))
}

fn encodings(table: &CompressionTable, r: &mut Checker<'_>) -> Vec<Coding> {
    let Some(given) = &table.encodings else { return Coding::ALL.to_vec() };
    if given.is_empty() {
        let hint = "encodings = [\"zstd\", \"br\", \"gzip\"], or remove [site.compression]";
        r.error_with_hint(&table.span, "site.compression.encodings: names no coding", hint);
    }
    let mut encodings = Vec::new();
    for at in given {
        let known = Coding::ALL.into_iter().find(|coding| coding.name() == at.value);
        match known {
            Some(coding) if encodings.contains(&coding) => {
                r.error(&at.span, format!("site.compression.encodings: duplicate value {:?}", at.value));
            }
            Some(coding) => encodings.push(coding),
            None => {
                let names = Coding::ALL.iter().map(|coding| coding.name());
                r.error(&at.span, unknown("site.compression.encodings", "coding", &at.value, names));
            }
        }
    }
    encodings
}

fn types(table: &CompressionTable, r: &mut Checker<'_>) -> Vec<TypePattern> {
    let Some(given) = &table.types else { return usual_types() };
    if given.is_empty() {
        let hint = "leave the key out for the usual types, or remove [site.compression]";
        r.error_with_hint(&table.span, "site.compression.types: names no type", hint);
    }
    let mut types = Vec::new();
    for at in given {
        match TypePattern::parse(&at.value) {
            Some(TypePattern::Exact(name)) if is_event_stream(name.as_bytes()) => {
                let message = format!("site.compression.types: {name} has no effect");
                r.warn(&at.span, message, "leave it out: event streams are never compressed");
            }
            Some(pattern) => types.push(pattern),
            None => {
                let message = format!("site.compression.types: {:?} is not a media type", at.value);
                r.error_with_hint(&at.span, message, "types = [\"text/html\", \"text/*\", \"*+json\"]");
            }
        }
    }
    types
}
