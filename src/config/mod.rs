//! The configuration file: read with the place of every value, checked as a whole, and turned into what the server is
//! built from.
//!
//! First comes a [`Draft`], which knows the text alone; then, with the ledger's book and the files that it names, a
//! [`Config`]. A draft can be resolved again and again: what has not changed since is taken over.

mod changes;
mod file;
mod last_good;
mod outline;
pub mod problem;
mod process;
mod reader;
mod served_last;
mod build;
mod stamp;
pub mod value;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Display, Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use crate::host::HostPattern;
use crate::ledger::leases::Pledge;
use crate::ledger::{Accepted, Book, Ramp};
use crate::os::sandbox;
use crate::policy::promise::Seconds;
use crate::server::{Earlier, Snapshot};
use crate::telemetry::AccessFormat;
use crate::tls::Tickets;
use crate::upstream::dns::{Name, NameServers};

pub use build::refusal::{OwnKey, Refusal};
pub use build::report;
pub use changes::{Changes, Difference};
pub use last_good::{FOLDER as LAST_GOOD, Fresh, LastGood};
pub use outline::{Outline, SiteOutline};
pub use problem::{At, Problem, Problems, Severity};
pub use process::Process;
pub use stamp::{Looked, Stamp};

/// Where the file is looked for when nobody names one.
pub const DEFAULT_PATHS: [&str; 2] = ["config/pintle.toml", "/etc/pintle/pintle.toml"];
/// The largest file that is read.
const FILE_MAX: u64 = 64 << 20;
/// A configuration in this folder is the system's: its state and its socket have the system's places by default.
const SYSTEM_FOLDER: &str = "/etc/pintle";
const SYSTEM_STATE: &str = "/var/lib/pintle";
const SYSTEM_SOCKET: &str = "/run/pintle/admin.sock";
/// The admin socket in the folder of the state, where nothing else is said.
const SOCKET: &str = "admin.sock";
/// What commands over TCP prove themselves with, in the folder of the state.
pub const TOKEN: &str = "admin.token";

/// A file that has been read, but not checked beyond its syntax.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    folder: PathBuf,
    file: Option<file::File>,
    /// What a broken file may have meant: good enough to find the process that has read it when it was whole.
    guess: Option<file::File>,
    problems: Problems,
}

/// What there is to know beside the file.
pub struct Context<'a> {
    /// What was promised.
    pub book: &'a Book,
    /// The time.
    pub now: Seconds,
    /// The configuration in use: what has not changed is taken over from it.
    pub before: Option<&'a Config>,
    /// `before` is served. In an upgrade it is not yet: it is what the new process has seen at its first look.
    pub is_served: bool,
    /// A site that is not fit to be served keeps what it has in `before`, which must be of the same draft; else it makes
    /// the whole configuration unfit.
    pub keeps_sites: bool,
    /// The pairs that were served last, by a process before this one.
    pub last_good: Option<LastGood>,
    /// Whether such a pair, or one of `before`, is served if the files on disk are not fit to be.
    pub stand_in: StandIn,
    /// With `keeps_sites`: a chain that has become shorter counts as unfit, as a file that is being written may end behind any
    /// certificate; but not if its site (the first name) is one of these.
    pub waits_for_chains: Option<Vec<String>>,
    /// Contents that replace those of files, as if they had been written.
    pub instead: HashMap<PathBuf, Vec<u8>>,
    /// Names of files in messages: an operator knows a certificate by the file it comes from.
    pub shown_as: HashMap<PathBuf, PathBuf>,
    /// The chains among `instead` are judged without their keys, which only the caller has.
    pub chains_alone: bool,
    /// Stamps of files of `before` that were taken just now.
    pub looked: Looked,
    /// A site (its first name) and the day until which the operator accepts a lockout, beside those of the file.
    pub accept: Option<(String, String)>,
    /// The chains of the sites in the process before this one, whose sessions may be resumed here.
    pub earlier: Vec<SiteBefore>,
}

/// A site of the process before this one.
#[derive(Debug, Clone)]
pub struct SiteBefore {
    /// Its first name.
    pub name: String,
    /// All its names.
    pub hosts: Vec<HostPattern>,
    /// The chains under which sessions have begun that may still be resumed.
    pub chains: Vec<Earlier>,
}

impl<'a> Context<'a> {
    /// At this moment, with nothing in use.
    #[must_use]
    pub fn new(book: &'a Book, now: Seconds) -> Self {
        Self {
            book,
            now,
            before: None,
            is_served: true,
            keeps_sites: false,
            last_good: None,
            stand_in: StandIn::Never,
            waits_for_chains: None,
            instead: HashMap::new(),
            shown_as: HashMap::new(),
            chains_alone: false,
            looked: Looked::default(),
            accept: None,
            earlier: Vec::new(),
        }
    }
}

impl<'a> Context<'a> {
    /// The name of a file in messages.
    fn shown<'p>(&'p self, path: &'p Path) -> Display<'p> {
        self.shown_as.get(path).map_or(path, PathBuf::as_path).display()
    }

    /// The configuration that clients see now, if this process serves one.
    fn served(&self) -> Option<&'a Config> {
        self.before.filter(|_| self.is_served)
    }
}

/// Whether the pair that was served last takes the place of one on disk that is not fit to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandIn {
    /// What is on disk is judged, and nothing else.
    Never,
    /// Only if it is the very same pair: then, it is time that has made it unfit, and nobody has changed anything.
    Unchanged,
    /// Whatever is on disk.
    Always,
}

/// A configuration that can be served.
pub struct Config {
    /// Where to listen with TLS.
    pub https: Vec<SocketAddr>,
    /// Where to listen without.
    pub http: Vec<SocketAddr>,
    /// How many workers.
    pub workers: usize,
    /// What the workers serve.
    pub snapshot: Arc<Snapshot>,
    /// The upstreams' names that nobody follows yet.
    pub names: Vec<Name>,
    /// Whom to ask for them.
    pub name_servers: NameServers,
    /// Where the access log goes.
    pub access: AccessTarget,
    /// Its form.
    pub access_format: AccessFormat,
    /// Where the state is kept, if it is.
    pub state: Option<PathBuf>,
    /// Where the operator's commands come in.
    pub admin: Option<AdminAddress>,
    /// Who serves.
    pub process: Process,
    /// Whether a process of their own has the keys.
    pub key_process: bool,
    /// What it may do.
    pub sandbox: sandbox::Settings,
    /// What clients are told to hold, site by site; to be in the ledger before it is sent.
    pub pledges: Vec<Pledge>,
    /// Lockouts that the operator has just accepted; to be in the ledger before they happen.
    pub accepted: Vec<Accepted>,
    /// Ramps that begin.
    pub ramps: Vec<Ramp>,
    /// Sites that keep what they have, or some of it.
    pub kept: Vec<Kept>,
    /// What there is to warn of about files that are others than before, each with its site.
    pub news: Vec<(String, Problem)>,
    entries: Vec<Arc<build::Entry>>,
    upstreams: build::Upstreams,
    tickets: Arc<Tickets>,
}

/// A site that was not fit to be served as its files are now.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its place in the file.
    pub index: usize,
    /// Its first name.
    pub site: String,
    /// What is wrong, with places in the draft.
    pub problems: Vec<Problem>,
    /// Whether a promise would be broken, and not only a file be broken.
    pub by_guard: bool,
    /// The certificates that are refused, if they could be read.
    pub certificates: Vec<report::Certificate>,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

/// Where the operator's commands come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// A socket in the file system.
    Unix(PathBuf),
    /// An address of this machine.
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The file of the token that every request must carry; `None` without a folder for it.
        token: Option<PathBuf>,
    },
}

impl Config {
    /// What there is to say about each site.
    pub fn sites(&self) -> impl ExactSizeIterator<Item = &report::Site> {
        self.entries.iter().map(|entry| &entry.report)
    }

    /// The keys of session tickets.
    #[must_use]
    pub fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// The sites, with the chains under which sessions have begun that may still be resumed.
    pub fn chains(&self, now: Seconds) -> impl Iterator<Item = (&report::Site, Vec<Earlier>)> {
        self.entries.iter().enumerate().map(move |(index, entry)| {
            let earlier = self.snapshot.earlier.get(index).map(|e| e.to_vec()).unwrap_or_default();
            let own = build::chains_until(entry, now);
            (&entry.report, earlier.into_iter().filter(|chain| chain.until > now).chain(own).collect())
        })
    }

    /// All files that the sites were made from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.stamps().map(|(path, _)| path.as_path())
    }

    /// The files of sites that are not made as in that configuration.
    pub fn files_beside(&self, before: Option<&Self>) -> impl Iterator<Item = &Path> {
        let plans = before.iter().flat_map(|before| &before.entries).map(|entry| Arc::as_ptr(&entry.plan));
        let known: HashSet<_, foldhash::fast::RandomState> = plans.collect();
        let different = self.entries.iter().filter(move |entry| !known.contains(&Arc::as_ptr(&entry.plan)));
        different.flat_map(|entry| entry.plan.files()).map(|(path, _)| path.as_path())
    }

    /// All files that the sites were made from, with what each was like when it was read.
    pub fn stamps(&self) -> impl Iterator<Item = &(PathBuf, Stamp)> {
        self.entries.iter().flat_map(|entry| entry.plan.files())
    }
}

/// Reads a file.
///
/// # Errors
///
/// When the file itself cannot be read.
pub fn read(path: &Path) -> io::Result<Draft> {
    if fs::metadata(path)?.len() > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any configuration"));
    }
    let text = fs::read_to_string(path)?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    Ok(Draft::new(path, folder, text))
}

impl Draft {
    /// A text as if it stood in that file, and its relative paths were taken from that folder.
    #[must_use]
    pub fn new(path: &Path, folder: &Path, text: String) -> Self {
        let problems = RefCell::new(Problems::new(path, text.clone()));
        let (root, errors) = DeTable::parse_recoverable(&text);
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            problems.borrow_mut().error(&span, error.message().trim());
        }
        // What a parser makes of the rest of a broken file is guesswork, and so would be all complaints about it.
        let is_broken = problems.borrow().has_errors();
        let read = |problems: &RefCell<Problems>| file::File::read(reader::Reader::new(&root, "", problems));
        let guess = is_broken.then(|| read(&RefCell::new(problems.borrow().clone())));
        let file = (!is_broken).then(|| read(&problems));
        Self { path: path.to_owned(), folder: folder.to_owned(), file, guess, problems: problems.into_inner() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where problems' places are.
    #[must_use]
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// Checks everything. The configuration is there unless the problems have errors.
    #[must_use]
    pub fn build(&self, context: &Context<'_>) -> (Option<Config>, Problems) {
        let mut problems = self.problems.clone();
        let Some(file) = &self.file else { return (None, problems) };
        let config = build::build(self, file, context, &mut problems);
        (config.filter(|_| !problems.has_errors()), problems)
    }

    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        self.problems.shared_text()
    }

    /// The folder of the state: as the file says; for the system's own configuration, the system's.
    #[must_use]
    pub fn state(&self) -> Option<PathBuf> {
        self.state_of(self.file.as_ref()?)
    }

    fn state_of(&self, file: &file::File) -> Option<PathBuf> {
        match file.state_directory.as_ref() {
            Some(directory) if directory.value.is_empty() => None,
            Some(directory) => Some(self.place(&directory.value)),
            None => self.is_the_systems().then(|| SYSTEM_STATE.into()),
        }
    }

    /// Where the operator's commands come in: as the file says, or else beside the state. Of a broken file, a guess.
    #[must_use]
    pub fn admin(&self) -> Option<AdminAddress> {
        let file = self.file.as_ref().or(self.guess.as_ref())?;
        match file.admin_listen.as_ref() {
            Some(listen) => match listen.value.strip_prefix("unix:") {
                Some("") => None,
                Some(path) => Some(AdminAddress::Unix(self.place(path))),
                None => listen.value.parse().ok().map(|address| AdminAddress::Tcp {
                    address,
                    token: self.state_of(file).map(|state| state.join(TOKEN)),
                }),
            },
            None if self.is_the_systems() => Some(AdminAddress::Unix(SYSTEM_SOCKET.into())),
            None => self.state_of(file).map(|state| AdminAddress::Unix(state.join(SOCKET))),
        }
    }

    /// Who is to serve; of a broken file, nobody in particular.
    #[must_use]
    pub fn process(&self) -> Process {
        let Some(table) = self.file.as_ref().map(|file| &file.process) else { return Process::default() };
        let is_set = |flag: &Option<At<bool>>| flag.as_ref().is_some_and(|flag| flag.value);
        Process {
            user: table.user.clone(),
            group: table.group.clone(),
            allow_root: is_set(&table.allow_root),
            bind_low_ports: is_set(&table.bind_low_ports),
            prove_upstream: is_set(&table.prove_upstream),
        }
    }

    /// The files of the sites' private keys, if a process of their own is to have them.
    #[must_use]
    pub fn kept_keys(&self) -> Option<Vec<At<PathBuf>>> {
        let file = self.file.as_ref().filter(|f| f.tls.key_process.as_ref().is_some_and(|k| k.value))?;
        let keys = file.sites.iter().flat_map(|site| &site.certificates).filter_map(|c| c.key.as_ref());
        Some(keys.map(|key| key.with(self.folder.join(&key.value))).collect())
    }

    /// The file that the access log goes to, if it goes to one.
    #[must_use]
    pub fn access_file(&self) -> Option<PathBuf> {
        let access = self.file.as_ref()?.log.access.as_ref()?;
        (!matches!(access.value.as_str(), "stdout" | "off")).then(|| self.place(&access.value))
    }

    /// Where a key that names a place to write in stands, if it does.
    #[must_use]
    pub fn place_of(&self, key: &str) -> Range<usize> {
        let named = self.file.as_ref().and_then(|file| match key {
            "state.directory" => file.state_directory.as_ref(),
            "log.access" => file.log.access.as_ref(),
            "admin.listen" => file.admin_listen.as_ref(),
            _ => None,
        });
        named.map(|named| named.span.clone()).unwrap_or_default()
    }

    /// A place in which pintle writes: the same for every process, whatever its working directory.
    fn place(&self, path: &str) -> PathBuf {
        let path = self.folder.join(path);
        std::path::absolute(&path).unwrap_or(path)
    }

    fn is_the_systems(&self) -> bool {
        std::path::absolute(&self.path).is_ok_and(|path| path.starts_with(SYSTEM_FOLDER))
    }
}

#[cfg(test)]
mod tests;
