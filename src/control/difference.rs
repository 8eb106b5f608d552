//! The difference between two texts of the configuration.

use std::time::Duration;

use similar::TextDiff;

/// The lines around a change.
const AROUND: usize = 3;
/// The time for a comparison; then it becomes coarser.
const COMPARING: Duration = Duration::from_millis(500);

/// The lines that differ, in the form of diff -u; empty if none does.
pub(super) fn unified((from, old): (&str, &str), (to, new): (&str, &str)) -> String {
    if old == new {
        return String::new();
    }
    let diff = TextDiff::configure().timeout(COMPARING).diff_lines(old, new);
    diff.unified_diff().context_radius(AROUND).header(from, to).to_string()
}
