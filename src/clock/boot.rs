//! Moments that another process, or this machine after its next start, can compare with its own: by the wall clock, which
//! may be set, and by the time since the machine's start.

use std::sync::LazyLock;

use jiff::Timestamp;

use super::since_boot;

/// Returns the wall clock, in milliseconds since 1970.
#[must_use]
pub fn wall_millis() -> i64 {
    Timestamp::now().as_millisecond().saturating_add(test_offset())
}

/// Returns the kernel's id of this boot; `None` if it cannot be read. The sandbox hides the file, so the first call must
/// come before it.
#[must_use]
pub fn boot_id() -> Option<&'static str> {
    static ID: LazyLock<Option<String>> = LazyLock::new(|| {
        let id = test_word(1).or_else(|| std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok());
        id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty())
    });
    ID.as_deref()
}

/// A moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootMoment<'b> {
    /// The boot of the machine.
    pub boot: Option<&'b str>,
    /// The milliseconds since it.
    pub uptime: u64,
    /// The wall clock, in milliseconds since 1970.
    pub wall: i64,
}

impl BootMoment<'static> {
    /// Returns the present moment.
    #[must_use]
    pub fn now() -> Self {
        Self { boot: boot_id(), uptime: since_boot(), wall: wall_millis() }
    }
}

impl BootMoment<'_> {
    /// Returns the milliseconds since an earlier moment: of the same boot by the clock that nobody sets, otherwise by the
    /// wall clock. `None` if that was set back.
    #[must_use]
    pub fn since(&self, earlier: &BootMoment<'_>) -> Option<u64> {
        if self.boot.is_some() && self.boot == earlier.boot {
            return self.uptime.checked_sub(earlier.uptime);
        }
        u64::try_from(self.wall.checked_sub(earlier.wall)?).ok()
    }
}

/// Returns a word of a test's clock: the file named by `PINTLE_TEST_CLOCK` has its offset in seconds,
/// and may have the id of a boot.
#[cfg(debug_assertions)]
fn test_word(at: usize) -> Option<String> {
    let file = std::env::var_os("PINTLE_TEST_CLOCK").and_then(|path| std::fs::read_to_string(path).ok())?;
    file.split_whitespace().nth(at).map(str::to_owned)
}

#[cfg(not(debug_assertions))]
const fn test_word(_: usize) -> Option<String> {
    None
}

/// Returns the offset of a test's clock, in milliseconds.
fn test_offset() -> i64 {
    test_word(0).and_then(|word| word.parse::<i64>().ok()).unwrap_or_default().saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_between_moments() {
        let at = |boot, uptime, wall| BootMoment { boot, uptime, wall };
        for (now, earlier, want) in [
            (at(Some("a"), 50, 0), at(Some("a"), 20, 999), Some(30)),
            (at(Some("a"), 10, 999), at(Some("a"), 20, 0), None),
            (at(Some("b"), 10, 999), at(Some("a"), 20, 900), Some(99)),
            (at(Some("b"), 10, 100), at(Some("a"), 20, 900), None),
            (at(None, 10, 999), at(None, 20, 900), Some(99)),
            (at(None, 10, i64::MIN), at(None, 20, i64::MAX), None),
        ] {
            assert_eq!(now.since(&earlier), want, "{now:?} {earlier:?}");
        }
    }
}
