//! Resources of the process: processor time, memory, open files. [`open`] opens the files of /proc before the sandbox
//! closes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;

use rustix::fs::{RawDir, SeekFrom};
use rustix::process::{Resource, getrlimit};

/// The longest line of /proc/self/stat, in bytes.
const STAT_MAX: usize = 2048;
/// Entries of a folder are read in pieces of this size, in bytes.
const FOLDER_BUFFER: usize = 16 * 1024;

/// Returns the name of this host, as of the first call: the sandbox keeps its file from this process later.
#[must_use]
pub fn host_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Some(name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
    })
}

/// The open files of /proc.
struct Sources {
    stat: File,
    descriptors: File,
    ticks: f64,
    page: f64,
}

static SOURCES: OnceLock<Option<Sources>> = OnceLock::new();

/// Opens the files that [`now`] reads. Without this call, or without /proc, [`now`] returns `None`.
pub fn open() {
    let _ = host_name();
    SOURCES.get_or_init(|| {
        Some(Sources {
            stat: File::open("/proc/self/stat").ok()?,
            descriptors: File::open("/proc/self/fd").ok()?,
            ticks: rustix::param::clock_ticks_per_second() as f64,
            page: rustix::param::page_size() as f64,
        })
    });
}

/// The resources that the process uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Processor time, in seconds.
    pub cpu_seconds: f64,
    /// Memory, in bytes, that is not swapped out.
    pub resident_bytes: f64,
    /// Address space, in bytes.
    pub virtual_bytes: f64,
    /// Open file descriptors.
    pub open_files: usize,
    /// The limit of open file descriptors; `None` without one.
    pub open_files_max: Option<u64>,
}

/// Returns the resources in use; `None` if /proc is not readable.
#[must_use]
pub fn now() -> Option<Usage> {
    let sources = SOURCES.get()?.as_ref()?;
    let mut line = [0; STAT_MAX];
    let length = sources.stat.read_at(&mut line, 0).ok()?;
    let line = String::from_utf8_lossy(line.get(..length)?);
    let stat = Stat::parse(&line)?;
    let open_files = count(&sources.descriptors)?;
    Some(Usage {
        cpu_seconds: stat.ticks / sources.ticks,
        resident_bytes: stat.pages * sources.page,
        virtual_bytes: stat.virtual_bytes,
        open_files,
        open_files_max: getrlimit(Resource::Nofile).current,
    })
}

/// Counts the entries of an open folder, without `.` and `..`.
fn count(folder: &File) -> Option<usize> {
    rustix::fs::seek(folder, SeekFrom::Start(0)).ok()?;
    let mut buffer = Vec::with_capacity(FOLDER_BUFFER);
    let mut entries = RawDir::new(folder, buffer.spare_capacity_mut());
    let mut found = 0_usize;
    while let Some(entry) = entries.next() {
        entry.ok()?;
        found += 1;
    }
    Some(found.saturating_sub(2))
}

#[derive(Debug, PartialEq)]
struct Stat {
    ticks: f64,
    pages: f64,
    virtual_bytes: f64,
}

impl Stat {
    /// Reads /proc/PID/stat (proc_pid_stat(5)). The second field, a name in brackets, may contain anything.
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The third field of the line is the first one here.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self { ticks: field(14)? + field(15)?, virtual_bytes: field(23)?, pages: field(24)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc() {
        let line = "292 (a ) b (c) S 1 292 292 0 -1 4194560 5 0 0 0 150 50 0 0 20 0 6 0 4200 85000192 2500 1844 1";
        let stat = Stat { ticks: 200.0, pages: 2500.0, virtual_bytes: 85_000_192.0 };
        assert_eq!(Stat::parse(line), Some(stat));
        for bad in ["", "1 (x", "1 (x) S 1 2", ")", "1 (x) S 1 292 292 0 -1 4194560 5 0 0 0 x 50 0 0 20 0 6 0 1 2 3"] {
            assert_eq!(Stat::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn this_process() {
        open();
        let before = now().unwrap();
        assert!(before.resident_bytes > 1e6 && before.virtual_bytes >= before.resident_bytes, "{before:?}");
        assert!(before.cpu_seconds >= 0.0, "{before:?}");
        let files: Vec<File> = (0..40).map(|_| File::open("/dev/null").unwrap()).collect();
        // Other tests of this process open and close files, too.
        assert!(now().unwrap().open_files > files.len(), "{before:?}");
    }
}
