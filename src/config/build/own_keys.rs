//! The next keys that pintle makes itself: a file without a key is reported, and does not count as a backup.

use super::checker::Checker;
use crate::config::file::SiteTable;
use crate::config::own_key;
use crate::config::stamp::Stamp;
use crate::reason::{Kind, Problem};

/// Warns of each next key that cannot be read.
pub(super) fn report(table: &SiteTable, r: &mut Checker<'_>) {
    for at in &table.own_next {
        let path = r.path(&at.value);
        // The stamp comes before the contents: a write in between then counts as a change.
        r.stamps.push((path.clone(), Stamp::of(&path)));
        if let Err(unusable) = own_key::read(&path) {
            let reason = unusable.next_key(None);
            let kind = if unusable.is_forbidden { Kind::UnreadableKey } else { Kind::Other };
            r.report(Problem::warning(&at.span, reason).about(&path).of_kind(kind));
        }
    }
}
