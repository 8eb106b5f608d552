//! A disk for tests that loses whatever is not durable, and can fail at any operation.
//! `tests/it/model` uses it, too.

use std::collections::BTreeMap;
use std::io;

use super::Disk;

/// A file as programs see it, and the part that is certain to survive a crash.
#[derive(Debug, Clone, Default)]
pub(super) struct FakeFile {
    pub(super) seen: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// The range that a sync failed to write. The system considers it written from then on: it is
    /// readable until the machine goes down, and no later sync writes it.
    pub(super) lost: Option<std::ops::Range<usize>>,
}

/// A disk with a volatile cache. It is dead after `crash_at` operations; the operation `fail_at`
/// fails.
#[derive(Debug, Clone, Default)]
pub(super) struct FakeDisk {
    pub(super) files: BTreeMap<String, FakeFile>,
    /// The names that a crash leaves.
    pub(super) durable_names: BTreeMap<String, Vec<u8>>,
    pub(super) operations: usize,
    pub(super) crash_at: Option<usize>,
    pub(super) fail_at: Option<usize>,
    /// Free bytes.
    pub(super) room: Option<usize>,
    /// Decides how much an unfinished operation leaves.
    pub(super) luck: u64,
}

impl FakeDisk {
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.crash_at.is_some_and(|at| self.operations > at) {
            return Err(io::Error::other("the machine is off"));
        }
        if self.fail_at == Some(self.operations) {
            return Err(io::Error::other("input/output error"));
        }
        Ok(())
    }

    fn random(&mut self, below: usize) -> usize {
        self.luck = self.luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.luck >> 33).expect("31 bits") % below.max(1)
    }

    pub(super) fn is_off(&self) -> bool {
        self.crash_at.is_some_and(|at| self.operations > at)
    }

    /// Returns the disk at the next boot: all that is durable, and any part of the rest.
    pub(super) fn reboot(mut self) -> Self {
        // A rename that was not made durable may have happened or not.
        let names: Vec<String> = self.files.keys().chain(self.durable_names.keys()).cloned().collect();
        let newer = self.random(2) == 0;
        let mut files = BTreeMap::new();
        for name in names {
            let kept = if newer { self.files.get(&name).cloned() } else { None };
            let contents = match (kept, self.durable_names.get(&name)) {
                (Some(file), _) => self.torn(&file),
                (None, Some(durable)) if !newer => durable.clone(),
                (None, _) => continue,
            };
            files.insert(name, FakeFile { seen: contents.clone(), durable: contents, lost: None });
        }
        if !newer {
            // The old names, with the bytes appended to them since.
            let now = self.files.clone();
            for (name, file) in &mut files {
                if let Some(current) = now.get(name).filter(|c| c.seen.starts_with(&file.durable)) {
                    let torn = self.torn(current);
                    if torn.starts_with(&file.durable) {
                        *file = FakeFile { seen: torn.clone(), durable: torn, lost: None };
                    }
                }
            }
        }
        let durable_names = files.iter().map(|(n, f)| (n.clone(), f.durable.clone())).collect();
        Self { files, durable_names, luck: self.luck, ..Self::default() }
    }

    /// Returns the durable bytes and some of the rest, the last ones perhaps as zeros.
    fn torn(&mut self, file: &FakeFile) -> Vec<u8> {
        if !file.seen.starts_with(&file.durable) {
            return if self.random(2) == 0 { file.seen.clone() } else { file.durable.clone() };
        }
        let extra = file.seen.len() - file.durable.len();
        let len = file.durable.len() + self.random(extra + 1);
        let mut contents = file.seen[..len].to_vec();
        if self.random(3) == 0 {
            let zeros = self.random(20);
            contents.extend(std::iter::repeat_n(0, zeros.min(file.seen.len() - len)));
        }
        contents
    }
}

impl Disk for FakeDisk {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.step()?;
        Ok(self.files.get(name).map(|f| f.seen.clone()))
    }

    fn append(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        let step = self.step();
        let fits = self.room.unwrap_or(usize::MAX).min(contents.len());
        let len = match (&step, self.is_off() || self.fail_at == Some(self.operations)) {
            (Err(_), true) => self.random(contents.len() + 1).min(fits),
            _ => fits,
        };
        if let Some(room) = &mut self.room {
            *room -= len;
        }
        self.files.entry(name.to_owned()).or_default().seen.extend_from_slice(&contents[..len]);
        step?;
        if len < contents.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.step()?;
        let len = usize::try_from(len).expect("no file here is that long");
        let file = self.files.entry(name.to_owned()).or_default();
        if let Some(room) = &mut self.room {
            *room += file.seen.len().saturating_sub(len);
        }
        file.seen.truncate(len);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        if let Err(error) = self.step() {
            if let (false, Some(file)) = (self.is_off(), self.files.get_mut(name)) {
                file.lost = Some(file.durable.len().min(file.seen.len())..file.seen.len());
            }
            return Err(error);
        }
        if let Some(file) = self.files.get_mut(name) {
            file.durable = file.seen.clone();
            if let Some(lost) = &file.lost {
                let end = lost.end.min(file.durable.len());
                file.durable[lost.start.min(end)..end].fill(0);
            }
            if let Some(durable) = self.durable_names.get_mut(name) {
                *durable = file.durable.clone();
            }
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.step()?;
        if let (Some(file), Some(room)) = (self.files.remove(name), &mut self.room) {
            *room += file.seen.len();
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        let file = self.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.step()?;
        self.durable_names = self.files.iter().map(|(n, f)| (n.clone(), f.durable.clone())).collect();
        Ok(())
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        self.step()?;
        // It may be durable at once. One that is not is as good as an older one.
        let file = FakeFile { seen: text.into(), durable: text.into(), lost: None };
        self.durable_names.insert(super::LOCK.into(), file.durable.clone());
        self.files.insert(super::LOCK.into(), file);
        Ok(())
    }

    fn is_as_left(&mut self, name: &str, len: u64) -> io::Result<bool> {
        self.step()?;
        Ok(self.files.get(name).is_some_and(|file| file.seen.len() as u64 == len))
    }
}
