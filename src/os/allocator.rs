//! The memory of the allocator, by its own account.

/// The memory of the allocator, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllocatorMemory {
    /// In use by the program.
    pub allocated: usize,
    /// Pages with such bytes.
    pub active: usize,
    /// In physical memory, with the allocator's own data and unused pages.
    pub resident: usize,
    /// Address space that the allocator keeps and that has no physical memory.
    pub retained: usize,
}

/// Returns the memory of the allocator. `None` without jemalloc.
#[must_use]
#[cfg(feature = "jemalloc")]
pub fn memory() -> Option<AllocatorMemory> {
    use tikv_jemalloc_ctl::{epoch, stats};

    // The figures are those of the last epoch.
    epoch::advance().ok()?;
    Some(AllocatorMemory {
        allocated: stats::allocated::read().ok()?,
        active: stats::active::read().ok()?,
        resident: stats::resident::read().ok()?,
        retained: stats::retained::read().ok()?,
    })
}

/// Returns the memory of the allocator. `None` without jemalloc.
#[must_use]
#[cfg(not(feature = "jemalloc"))]
pub fn memory() -> Option<AllocatorMemory> {
    None
}

#[cfg(all(test, feature = "jemalloc"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_active_and_resident() {
        let memory = memory().unwrap();
        assert!(
            memory.allocated > 0 && memory.active >= memory.allocated && memory.resident >= memory.active,
            "{memory:?}"
        );
    }
}
