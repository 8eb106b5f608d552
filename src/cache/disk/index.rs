//! The index of a site's files, in memory: which files there are, which of them a purge is for, and which one makes room.
//! It takes about 100 bytes for each file.

use std::collections::BTreeMap;

use super::name::{PageFileName, Sought};

/// The unit in which a file's size counts: that of most file systems.
const BLOCK: u64 = 4096;
/// The files among which the one that was unused for longest makes room.
const SAMPLE: usize = 8;

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DiskEntry {
    blocks: u32,
    /// The last use, in hours since 1970; a scan of the folder takes the time of the file.
    pub(super) used: u32,
    /// It must be validated before the next use.
    pub(super) is_invalid: bool,
    /// A trusted proxy states another name for its page, so a purge finds it by its marks alone.
    is_renamed: bool,
    marks: Box<[u32]>,
}

impl DiskEntry {
    pub(super) fn new(bytes: u64, used: u32, is_invalid: bool, (marks, is_renamed): (Box<[u32]>, bool)) -> Self {
        let blocks = u32::try_from(bytes.div_ceil(BLOCK)).unwrap_or(u32::MAX);
        Self { blocks, used, is_invalid, is_renamed, marks }
    }

    /// The bytes that it takes on disk.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.blocks) * BLOCK
    }
}

/// The files of a site.
#[derive(Debug, Default)]
pub(super) struct DiskIndex {
    entries: BTreeMap<PageFileName, DiskEntry>,
    bytes: u64,
    /// The files with another name. Without them, a purge by URL needs no look at every file.
    renamed: usize,
    /// Changes with each choice.
    seed: u64,
}

impl DiskIndex {
    pub(super) fn insert(&mut self, name: PageFileName, entry: DiskEntry) {
        self.bytes += entry.bytes();
        self.renamed += usize::from(entry.is_renamed);
        if let Some(before) = self.entries.insert(name, entry) {
            self.bytes -= before.bytes();
            self.renamed -= usize::from(before.is_renamed);
        }
    }

    pub(super) fn remove(&mut self, name: PageFileName) -> Option<DiskEntry> {
        let entry = self.entries.remove(&name)?;
        self.bytes -= entry.bytes();
        self.renamed -= usize::from(entry.is_renamed);
        Some(entry)
    }

    pub(super) fn get_mut(&mut self, name: PageFileName) -> Option<&mut DiskEntry> {
        self.entries.get_mut(&name)
    }

    pub(super) fn has(&self, name: PageFileName) -> bool {
        self.entries.contains_key(&name)
    }

    /// The files of a page.
    pub(super) fn of_page(&self, page: [u64; 2]) -> impl Iterator<Item = (PageFileName, &DiskEntry)> {
        self.entries.range(PageFileName::all_of(page)).map(|(name, entry)| (*name, entry))
    }

    /// The files that a purge is for.
    pub(super) fn found(&self, sought: &Sought) -> Vec<PageFileName> {
        match sought {
            Sought::Page(page) => self.of_page(*page).map(|(name, _)| name).collect(),
            Sought::Url(page, _) if self.renamed == 0 => self.of_page(*page).map(|(name, _)| name).collect(),
            sought => {
                let all = self.entries.iter().filter(|(name, entry)| sought.finds(**name, &entry.marks));
                all.map(|(name, _)| *name).collect()
            }
        }
    }

    /// Returns the file that makes room for others.
    pub(super) fn victim(&mut self) -> Option<PageFileName> {
        // The steps of splitmix64: any place of the map, without a look at all of it.
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ self.seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let from = PageFileName { page: [mixed ^ mixed >> 31, 0], variant: 0 };
        let sample = self.entries.range(from..).chain(self.entries.iter()).take(SAMPLE);
        sample.min_by_key(|(_, entry)| entry.used).map(|(name, _)| *name)
    }

    /// The number of files, and their bytes.
    pub(super) fn size(&self) -> (usize, u64) {
        (self.entries.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u64) -> PageFileName {
        PageFileName { page: [n.wrapping_mul(0x1234_5678_9abc_def1), n], variant: n }
    }

    fn entry(bytes: u64, used: u32) -> DiskEntry {
        DiskEntry::new(bytes, used, false, Default::default())
    }

    #[test]
    fn sizes() {
        let mut index = DiskIndex::default();
        index.insert(name(1), entry(1, 0));
        index.insert(name(2), entry(4097, 0));
        assert_eq!(index.size(), (2, 3 * BLOCK));
        index.insert(name(1), entry(9000, 0));
        assert_eq!(index.size(), (2, 5 * BLOCK));
        assert!(index.remove(name(1)).is_some() && index.remove(name(1)).is_none() && !index.has(name(1)));
        assert_eq!((index.size(), index.found(&Sought::Page(name(2).page)).len()), ((1, 2 * BLOCK), 1));
        assert_eq!((index.victim(), index.remove(name(2)).is_some(), index.size()), (Some(name(2)), true, (0, 0)));
        assert_eq!(index.victim(), None);
    }

    /// A purge by URL finds a file by the name that a proxy states, as long as there is one.
    #[test]
    fn files_with_another_name() {
        let other = || DiskEntry::new(1, 0, false, (Box::new([7]), true));
        let mut index = DiskIndex::default();
        (1..4).for_each(|n| index.insert(name(n), entry(1, 0)));
        let sought = Sought::Url(name(1).page, 7);
        assert_eq!(index.found(&sought), [name(1)]);
        index.insert(name(2), other());
        index.insert(name(3), other());
        index.insert(name(3), entry(1, 0));
        let mut found = index.found(&sought);
        found.sort_unstable();
        let mut both = [name(1), name(2)];
        both.sort_unstable();
        assert_eq!((found, index.renamed), (both.to_vec(), 1));
        index.remove(name(2));
        assert_eq!((index.found(&sought), index.renamed), (vec![name(1)], 0));
    }

    /// Files that are used stay, though each choice looks at a few only.
    #[test]
    fn unused_files_make_room() {
        let mut index = DiskIndex::default();
        (0..1000).for_each(|n| index.insert(name(n), entry(1, if n % 2 == 0 { 10 } else { 5 })));
        for _ in 0..400 {
            let victim = index.victim().unwrap();
            index.remove(victim);
        }
        let used = (0..1000).filter(|n| n % 2 == 0 && index.has(name(*n))).count();
        assert!(used >= 450, "{used} of 500 used ones stay");
    }

    /// The guide says how much memory an index takes: `docs/guide/cache.md`.
    #[test]
    fn an_entry_is_small() {
        let node = size_of::<PageFileName>() + size_of::<DiskEntry>();
        assert!(node <= 56, "{node}");
    }
}
