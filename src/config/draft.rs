//! A configuration file as a text: the sites, files and addresses that it names, before anything is checked.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::file;
use super::history::secrets;
use super::problem::{At, Problems};
use super::process::Process;
use super::reader;
use super::syntax::{self, SyntaxError};
use crate::host::HostPattern;
use crate::reason::Reason;

/// The largest configuration file, in bytes.
const FILE_MAX: u64 = 64 << 20;
/// Some editors begin a file with it. It is no part of the text.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// A configuration in this folder is the system's: its state and its socket have defaults.
const SYSTEM_FOLDER: &str = "/etc/pintle";
const SYSTEM_STATE: &str = "/var/lib/pintle";
const SYSTEM_SOCKET: &str = "/run/pintle/admin.sock";
/// The default name of the admin socket, in the folder of the state.
const SOCKET: &str = "admin.sock";
/// The token for commands over TCP, in the folder of the state.
pub const TOKEN: &str = "admin.token";

/// A configuration file that was read, but not checked beyond its syntax and its keys.
#[derive(Debug)]
pub struct Draft {
    pub(super) path: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) file: Option<file::ConfigFile>,
    /// A guess at a broken file: good enough to find the process that read it when it was whole.
    pub(super) guess: Option<file::ConfigFile>,
    pub(super) problems: Problems,
}

/// The address of the admin socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// A socket in the file system.
    Unix(PathBuf),
    /// An address of this machine.
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The file of the token that every request must carry; `None` without state.directory.
        token: Option<PathBuf>,
    },
}

/// Reads a configuration file.
///
/// # Errors
///
/// If the file cannot be read.
pub fn read(path: &Path) -> io::Result<Draft> {
    read_text(path).map(|text| Draft::of_text(path, text))
}

/// The text of a configuration file.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    // It may be a pipe: `-c <(...)`.
    let mut contents = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut contents)?;
    if u64::try_from(contents.len()).is_ok_and(|length| length > FILE_MAX) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut text = String::from_utf8(contents).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}

impl Draft {
    /// A text as if it were that file's, in the file's place.
    #[must_use]
    pub fn of_text(path: &Path, text: String) -> Self {
        Self::new(path, path.parent().unwrap_or_else(|| Path::new("")), text)
    }

    /// A text as if it were that file's. Relative paths begin in `folder`.
    #[must_use]
    pub fn new(path: &Path, folder: &Path, text: String) -> Self {
        let problems = RefCell::new(Problems::new(path, text.clone()));
        let (root, errors) = DeTable::parse_recoverable(&text);
        let errors = errors.iter().map(|error| SyntaxError {
            span: error.span().unwrap_or(0..0),
            message: error.message().trim().to_owned(),
        });
        for (span, reason) in syntax::problems(&text, errors.collect()) {
            problems.borrow_mut().error(&span, reason);
        }
        // The rest of a broken file is guesswork, and so would be every complaint about it.
        let is_broken = problems.borrow().has_errors();
        let read = |problems: &RefCell<Problems>| file::ConfigFile::read(reader::Reader::new(&root, "", problems));
        let guess = is_broken.then(|| read(&RefCell::new(problems.borrow().clone())));
        let file = (!is_broken).then(|| read(&problems));
        if text.contains(secrets::KEPT_OUT) {
            for secrets::MissingSecret { span, name } in secrets::placeholders(root.get_ref()) {
                let reason = Reason::new(format!("{name}: the history has no secrets, and this one is missing"));
                let hint = "write the secret there; `pintle config restore ID` brings back those of the present file";
                problems.borrow_mut().error(&span, reason.hint(hint));
            }
        }
        let (path, folder) = (path.to_owned(), folder.to_owned());
        let mut draft = Self { path, folder, file, guess, problems: problems.into_inner() };
        draft.place_managed();
        draft
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The problems, with their places.
    #[must_use]
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        self.problems.shared_text()
    }

    /// The names of all sites that can be read.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostPattern> {
        let sites = self.file.iter().flat_map(|file| &file.sites);
        let names = sites.flat_map(|site| site.hosts.iter().flatten());
        names.filter_map(|name| HostPattern::of_site(&name.value).ok()).collect()
    }

    /// `true` if a site sends pins that clients enforce.
    #[must_use]
    pub fn sends_pins(&self) -> bool {
        let tables = self.file.iter().flat_map(|file| &file.sites).filter_map(|site| site.hpkp.as_ref());
        tables.into_iter().any(|hpkp| hpkp.mode.as_ref().is_none_or(|mode| mode.value == "enforce"))
    }

    /// The folder of the state, as configured. The system's own configuration has a default.
    #[must_use]
    pub fn state(&self) -> Option<PathBuf> {
        self.state_of(self.file.as_ref()?)
    }

    fn state_of(&self, file: &file::ConfigFile) -> Option<PathBuf> {
        match file.state_directory.as_ref() {
            Some(directory) if directory.value.is_empty() => None,
            Some(directory) => Some(self.place(&directory.value)),
            None => self.is_the_systems().then(|| SYSTEM_STATE.into()),
        }
    }

    /// The address of the admin socket, as configured, or in the folder of the state. A guess for a broken file.
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

    /// The user that serves; the default for a broken file.
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

    /// `true` if the process may change this file, and the chains and keys that it names (`admin.edit`).
    #[must_use]
    pub fn may_edit(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.admin.edit.as_ref().is_some_and(|edit| edit.value))
    }

    /// `true` if the key process reads the private keys.
    #[must_use]
    pub fn has_key_process(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.tls.key_process.as_ref().is_some_and(|kept| kept.value))
    }

    /// The files of the sites' private keys, if the key process reads them.
    #[must_use]
    pub fn kept_keys(&self) -> Option<Vec<At<PathBuf>>> {
        self.has_key_process().then(|| self.key_files())
    }

    /// The files of the private keys: those of the sites, and that of the pages.
    #[must_use]
    pub fn key_files(&self) -> Vec<At<PathBuf>> {
        let sites = self.file.iter().flat_map(|file| &file.sites);
        let own = self.file.iter().filter_map(|file| file.admin.https.as_ref()?.key.as_ref());
        let keys = sites.flat_map(|site| &site.certificates).filter_map(|c| c.key.as_ref()).chain(own);
        keys.map(|key| key.with(self.folder.join(&key.value))).collect()
    }

    /// `limits.connections`, if the file sets it.
    #[must_use]
    pub fn connections(&self) -> Option<u64> {
        self.file.as_ref()?.limits.connections.as_ref().map(|connections| connections.value)
    }

    /// The file of the access log, if it goes to a file.
    #[must_use]
    pub fn access_file(&self) -> Option<PathBuf> {
        let access = self.file.as_ref()?.log.access.as_ref()?;
        let is_file = !matches!(access.value.as_str(), "stdout" | "off") && !access.value.starts_with("syslog:");
        is_file.then(|| self.place(&access.value))
    }

    /// The place of a key that names a writable path; empty if the file lacks it.
    #[must_use]
    pub fn place_of(&self, key: &str) -> Range<usize> {
        if key == "site.hpkp" {
            let tables = self.file.iter().flat_map(|file| &file.sites).filter_map(|site| site.hpkp.as_ref());
            return tables.map(|table| table.span.clone()).next().unwrap_or_default();
        }
        let named = self.file.as_ref().and_then(|file| match key {
            "state.directory" => file.state_directory.as_ref(),
            "log.access" => file.log.access.as_ref(),
            "admin.listen" => file.admin_listen.as_ref(),
            _ => None,
        });
        named.map(|named| named.span.clone()).unwrap_or_default()
    }

    /// A path that pintle writes to: absolute, as processes differ in their working directories.
    fn place(&self, path: &str) -> PathBuf {
        let path = self.folder.join(path);
        std::path::absolute(&path).unwrap_or(path)
    }

    fn is_the_systems(&self) -> bool {
        std::path::absolute(&self.path).is_ok_and(|path| path.starts_with(SYSTEM_FOLDER))
    }
}
