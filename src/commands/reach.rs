//! The files and folders that the serving user can read and write, with a remedy for each missing
//! permission. Nothing here changes an owner, and no remedy does so for a file that may belong to
//! somebody else.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::cache::disk;
use crate::config::{AdminAddress, Config, Draft, LAST_GOOD, TOKEN, acme, history};
use crate::control::sandbox_rules;
use crate::ledger;
use crate::os::plain_file::folder_of;
use crate::os::privileges::{self, UserAccount, is_roots_alone, user_name};
use crate::os::words::words;
use crate::reason::{Problem, Reason, shell_path};
use crate::telemetry::open_log;

/// Write permission for everybody.
const WRITABLE_BY_ALL: u32 = 0o002;
/// The files in a state folder that pintle has created, and that it must be able to write.
const STATE_FILES: [&str; 7] =
    [ledger::FILE, ledger::HEAD, ledger::LOCK, ledger::DAMAGED, TOKEN, LAST_GOOD, acme::FOLDER];
/// The folders among these files.
const STATE_FOLDERS: [&str; 2] = [LAST_GOOD, acme::FOLDER];
/// The beginning of all names of the ledger's files.
const LEDGERS: &str = "ledger.";
/// The folders there that pintle has created, and that it can do without. They have many files.
const STATE_TREES: [&str; 3] = [history::FOLDER, history::NEW_FOLDER, disk::FOLDER];

/// The treatment of missing folders: created, or only inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FolderTreatment {
    /// By the serving user, before it serves.
    Making,
    /// By `pintle check`, which leaves no trace.
    Looking,
}

/// A folder in which the user creates files while it serves.
pub(super) struct Own {
    pub(super) path: PathBuf,
    /// The configuration key that names it.
    key: &'static str,
    /// The socket in it, if that is its purpose.
    socket: Option<PathBuf>,
    /// Its contents, as root found them.
    entries: Option<Vec<PathBuf>>,
    /// The contents of its folder of copies.
    last_good: Vec<PathBuf>,
    /// `true` if root can create pintle's own folder in it, or beside it.
    is_roots: bool,
    /// A process has the ledger in it.
    is_held: bool,
}

/// The folders in which the user creates files while it serves, as the caller finds them.
pub(super) fn folders(draft: &Draft) -> Vec<Own> {
    let list = |path: &Path| -> Option<Vec<PathBuf>> {
        fs::read_dir(path).ok().map(|found| found.flatten().map(|entry| entry.path()).collect())
    };
    let own = |path: PathBuf, key, socket| Own {
        entries: list(&path),
        last_good: list(&path.join(LAST_GOOD)).unwrap_or_default(),
        is_roots: is_roots_alone(above(&path)).unwrap_or(false),
        is_held: ledger::is_held(&path),
        path,
        key,
        socket,
    };
    let state = draft.state().map(|path| own(path, "state.directory", None));
    let socket = match draft.admin() {
        Some(AdminAddress::Unix(path)) => Some(own(folder_of(&path).to_owned(), "admin.listen", Some(path))),
        Some(AdminAddress::Tcp { .. }) | None => None,
    };
    let mut folders: Vec<Own> = state.into_iter().chain(socket).collect();
    folders.dedup_by(|second, first| second.path == first.path);
    folders
}

/// The place for another folder: inside a folder, or beside something that is not a folder.
fn above(path: &Path) -> &Path {
    if path.is_dir() { path } else { folder_of(path) }
}

/// The permissions that this process, or this thread, lacks as the user that it has become.
pub(super) fn troubles(draft: &Draft, folders: &[Own], account: &UserAccount, pass: FolderTreatment) -> Vec<Reason> {
    let mut troubles = Vec::new();
    if let Err(error) = fs::File::open(draft.path()) {
        let what = format!("{}: the user {} cannot read it: {}", draft.path().display(), account.user, words(&error));
        troubles.push(Reason::new(what).hint(account.hint_to_read(draft.path())));
    }
    troubles.extend(folders.iter().filter_map(|folder| prepare_folder(folder, account, pass)));
    troubles.extend(draft.access_file().and_then(|file| prepare_log(&file, account, pass)));
    troubles
}

/// Looks at a folder, or creates it, and returns the trouble with it.
fn prepare_folder(own: &Own, account: &UserAccount, pass: FolderTreatment) -> Option<Reason> {
    let (Own { path, key, .. }, UserAccount { user, group, .. }) = (own, account);
    let trouble = |why: &str, hint: String| {
        let what = format!("{key}: {}: {why}", path.display());
        Some(match planted_link(path) {
            Some(link) => link.trouble(&what),
            None => Reason::new(what).hint(hint),
        })
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = match pass {
                FolderTreatment::Making => fs::DirBuilder::new().recursive(true).mode(0o700).create(path),
                FolderTreatment::Looking => Ok(()),
            };
            let why = |error: &io::Error| format!("the user {user} cannot write there: {}", words(error));
            return made.err().and_then(|error| {
                trouble(&why(&error), format!("install -d -o {user} -g {group} -m 700 {}", shell_path(path)))
            });
        }
        Err(error) => {
            return trouble(&format!("the user {user} cannot look into it: {}", words(&error)), own.another(account));
        }
    };
    if !metadata.is_dir() {
        return trouble("it is not a folder", own.another(account));
    }
    if metadata.mode() & WRITABLE_BY_ALL != 0 {
        return trouble("everybody on this host can write there", own.another(account));
    }
    if let Err(error) = access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        let why = format!(
            "the user {user} cannot write there: {}; pintle never changes the owner of an existing folder",
            words(&error.into())
        );
        return trouble(&why, own.remedy(&metadata, account));
    }
    let unusable = |file: &PathBuf| {
        fs::symlink_metadata(file).is_ok() && access(file, Access::READ_OK | Access::WRITE_OK).is_err()
    };
    let file = own.known_files().into_iter().find(unusable)?;
    let (shown, why) = (format!("{key}: {}", file.display()), format!("the user {user} cannot write it"));
    match fs::symlink_metadata(&file) {
        Ok(is) if is.is_dir() && STATE_FOLDERS.iter().any(|name| file.ends_with(name)) => {
            let what = format!("{shown}: it belongs to user {}, {why}", user_name(is.uid()));
            Some(of_state_folder(&file, &what, &is, account))
        }
        _ => Some(of_file(&file, format!("{shown}: {why}"), account)),
    }
}

/// A remedy for a folder that pintle has made in its state. It has live keys, so the remedy never moves it.
fn of_state_folder(folder: &Path, what: &str, is: &Metadata, account: &UserAccount) -> Reason {
    let (UserAccount { user, group, .. }, at) = (account, shell_path(folder));
    if let Some(link) = planted_link(folder_of(folder)) {
        return link.trouble(what);
    }
    let hint = match user_name(is.uid()) == *user {
        true => format!("chmod u+rwx {at}"),
        false => given(&at, user, group),
    };
    Reason::new(what).hint(hint)
}

impl Own {
    /// The files that pintle creates in such a folder.
    fn known_files(&self) -> Vec<PathBuf> {
        if self.socket.is_some() { Vec::new() } else { STATE_FILES.iter().map(|name| self.path.join(name)).collect() }
    }

    /// A remedy for a folder: its owner becomes the user if it has nothing but pintle's files in it, and no other process has
    /// its ledger; otherwise another folder.
    fn remedy(&self, metadata: &Metadata, account: &UserAccount) -> String {
        let UserAccount { user, group, .. } = account;
        let trees = STATE_TREES.iter().chain([&acme::FOLDER]);
        let trees: Vec<PathBuf> = trees.map(|name| self.path.join(name)).collect();
        let mut known = self.known_files();
        known.extend(self.socket.iter().chain(&trees).cloned());
        let is_ours = |entry: &&PathBuf| {
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            known.contains(entry) || name == "admin.sock" || self.socket.is_none() && name.starts_with(LEDGERS)
        };
        let entries = self.entries.iter().flatten();
        let is_all_ours = self.entries.is_some() && entries.clone().all(|entry| is_ours(&entry));
        if is_all_ours && metadata.uid() != 0 && !self.is_held && !self.own_files().is_empty() {
            return self.taken_over(account);
        }
        if !is_all_ours || metadata.uid() != 0 {
            return self.another(account);
        }
        let inside =
            |folder: &PathBuf| self.last_good.iter().filter(|file| file.starts_with(folder)).cloned().collect();
        let with_contents = entries.flat_map(|entry| [vec![entry.clone()], inside(entry)].concat());
        let files: String = with_contents.map(|file| format!(" {}", shell_path(&file))).collect();
        let folder = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let own = format!("chown -h {user}:{group} {}{files}", shell_path(&folder));
        // Links stay links.
        let there = trees.iter().filter(|tree| self.entries.iter().flatten().any(|entry| entry == *tree));
        there.fold(own, |own, tree| format!("{own} && chown -hR {user}:{group} {}", shell_path(tree)))
    }

    /// The files that pintle has created in the state, as far as they are there: they belong together.
    fn own_files(&self) -> Vec<PathBuf> {
        let entries = || self.entries.iter().flatten();
        let history = self.socket.is_none().then(|| self.path.join(history::FOLDER));
        let files = self.known_files().into_iter().chain(history);
        files.filter(|file| entries().any(|entry| entry == file)).collect()
    }

    /// The command that gives the user a whole state of another user. Root takes the folder first, so that nobody exchanges
    /// anything in it meanwhile. Links, and other names of other users' files, stay as they are.
    fn taken_over(&self, account: &UserAccount) -> String {
        let UserAccount { user, group, .. } = account;
        let at = shell_path(&fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone()));
        format!("chown -h root:root {at} && chmod 700 {at} && {}", given(&at, user, group))
    }

    /// The setting for a folder of pintle's own.
    fn another(&self, account: &UserAccount) -> String {
        let UserAccount { user, group, .. } = account;
        let own = self.own_folder();
        let setting = match &self.socket {
            Some(socket) => {
                let name = socket.file_name().map(PathBuf::from).unwrap_or_default();
                format!("listen = \"unix:{}\" in [admin]", own.join(name).display())
            }
            None => format!("directory = \"{}\" in [state]", own.display()),
        };
        let files = if self.is_held { Vec::new() } else { self.own_files() };
        let at = shell_path(&own);
        let steps = match files.is_empty() {
            true if self.is_roots => return format!("{setting}, a folder that pintle makes for itself"),
            true => format!("install -d -o {user} -g {group} -m 700 {at}"),
            false => {
                let files: String = files.iter().map(|file| format!("{} ", shell_path(file))).collect();
                format!("install -d -m 700 {at} && mv {files}{at}/ && {}", given(&at, user, group))
            }
        };
        format!("{steps}; then {setting}")
    }

    /// Beside the obstacle, or inside the folder of another user, if the user may enter it.
    fn own_folder(&self) -> PathBuf {
        let inside = above(&self.path);
        if access(inside, Access::EXEC_OK).is_ok() {
            return inside.join("pintle");
        }
        let beside = folder_of(&self.path).join("pintle");
        if beside == self.path { beside.with_extension("new") } else { beside }
    }
}

/// The command that gives a user a folder with everything in it. Links, and other names of other users' files, stay as they
/// are.
fn given(at: &str, user: &str, group: &str) -> String {
    format!("find {at} \\( -type d -o -type f -links 1 \\) -exec chown -h {user}:{group} {{}} +")
}

/// The reason why this process could not open its access log, for a check by the user that serves.
pub(super) fn of_own_log(draft: &Draft) -> Option<Problem> {
    let file = draft.access_file()?;
    let folder = folder_of(&file);
    let error = match fs::symlink_metadata(&file) {
        // A missing folder is an error of the configuration already.
        Err(_) if !folder.is_dir() => return None,
        Err(_) => access(folder, Access::WRITE_OK | Access::EXEC_OK).err()?,
        Ok(is) if is.is_dir() => return None,
        Ok(is) if is.file_type().is_fifo() || is.file_type().is_socket() => rustix::io::Errno::INVAL,
        Ok(is) if is.is_symlink() && fs::metadata(&file).is_err() => {
            // The file would be created where the link leads.
            let target = fs::read_link(&file).ok().map(|target| folder.join(target))?;
            access(folder_of(&target), Access::WRITE_OK | Access::EXEC_OK).err()?
        }
        Ok(_) => access(&file, Access::WRITE_OK).err()?,
    };
    let user = privileges::user();
    let (why, hint) = match error {
        rustix::io::Errno::INVAL => {
            ("not a regular file".to_owned(), format!("mv -T {0} {0}.aside", shell_path(&file)))
        }
        error => (
            format!("the user {user} cannot write it: {}", words(&error.into())),
            format!("let {user} write in {}, or name another file", folder.display()),
        ),
    };
    let reason = Reason::new(format!("log.access: {}: {why}", file.display())).hint(hint);
    Some(Problem::error(&draft.place_of("log.access"), reason))
}

/// Looks at the log file, or creates it, and returns the trouble with it.
fn prepare_log(file: &Path, account: &UserAccount, pass: FolderTreatment) -> Option<Reason> {
    let UserAccount { user, group, .. } = account;
    let error = match (fs::symlink_metadata(file), pass) {
        (Ok(is), FolderTreatment::Looking) if is.file_type().is_fifo() || is.file_type().is_socket() => {
            Some(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
        }
        (Ok(_), FolderTreatment::Looking) => access(file, Access::WRITE_OK).err().map(io::Error::from),
        // The judgement of the configuration covers a missing folder. A start as root creates the file only where nobody
        // else could have prepared its place.
        (Err(_), FolderTreatment::Looking) => match is_roots_alone(folder_of(file)) {
            Ok(true) if planted_link(file).is_none() => None,
            _ if !folder_of(file).is_dir() => None,
            _ => access(folder_of(file), Access::WRITE_OK | Access::EXEC_OK).err().map(io::Error::from),
        },
        (_, FolderTreatment::Making) if !folder_of(file).is_dir() => None,
        (_, FolderTreatment::Making) => open_log(file).err(),
    }?;
    let what = format!("log.access: {}: the user {user} cannot write it: {}", file.display(), words(&error));
    if fs::symlink_metadata(file).is_ok() || planted_link(folder_of(file)).is_some() {
        return Some(of_file(file, what, account));
    }
    let hint = format!("install -o {user} -g {group} -m 640 /dev/null {}", shell_path(file));
    Some(Reason::new(what).hint(hint))
}

/// A remedy for a file that the user cannot write. The user gets the file only if it has no other
/// name: whoever can create files in the folder may have planted a link to another user's file.
fn of_file(file: &Path, what: String, account: &UserAccount) -> Reason {
    let UserAccount { user, group, .. } = account;
    if let Some(link) = planted_link(folder_of(file)) {
        return link.trouble(&what);
    }
    let at = shell_path(file);
    // If the user cannot create it again.
    let made = match access(folder_of(file), Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => String::new(),
        Err(_) => format!(" && install -o {user} -g {group} -m 640 /dev/null {at}"),
    };
    match fs::symlink_metadata(file) {
        Ok(is) if is.is_symlink() => {
            Reason::new(format!("{what}; it is a symbolic link, and its target may belong to another user"))
                .command(format!("rm {at}{made}"))
        }
        Ok(is) if !is.is_file() => {
            Reason::new(format!("{what}; not a regular file")).command(format!("mv -T {at} {at}.aside{made}"))
        }
        Ok(is) if is.nlink() > 1 => Reason::new(format!("{what}; it is a hard link, and may belong to another user"))
            .command(format!("mv -T {at} {at}.aside{made}")),
        _ => Reason::new(what).command(format!("chown -h {user}:{group} {at}")),
    }
}

/// A symbolic link on the way to a file.
struct PlantedLink(PathBuf);

impl PlantedLink {
    fn trouble(&self, what: &str) -> Reason {
        let link = self.0.display();
        Reason::new(format!("{what}; the path goes through the symbolic link {link}, which is not root's"))
            .command(format!("rm {}", shell_path(&self.0)))
    }
}

fn planted_link(path: &Path) -> Option<PlantedLink> {
    privileges::planted_link(path).map(PlantedLink)
}

/// Keys of the key process that this user, or this thread's user, can read as well.
pub(super) fn readable_keys(draft: &Draft, user: &str) -> Vec<Problem> {
    let keys = draft.kept_keys().unwrap_or_default();
    let readable = keys.into_iter().filter(|key| access(&key.value, Access::READ_OK).is_ok());
    readable
        .map(|key| {
            let file = key.value.display();
            let what = format!(
                "site.certificate.key: {file}: the user {user} can read it, too, so tls.key_process protects nothing"
            );
            let file = shell_path(&key.value);
            let reason = Reason::new(what).command(format!("chown root:root {file} && chmod 600 {file}"));
            Problem::warning(&key.span, reason).about(&key.value)
        })
        .collect()
}

/// The same if the user does not change: keys that the sandbox lets the serving process read.
pub(super) fn keys_in_reach(draft: &Draft, config: &Config) -> Vec<Problem> {
    let keys = sandbox_rules::keys_in_reach(draft, config);
    keys.into_iter()
        .map(|key| {
            let what = format!(
                "site.certificate.key: {}: the serving process can read it, too, as the same user in a folder that it needs, \
                 so tls.key_process protects nothing",
                key.value.display()
            );
            let reason = Reason::new(what)
                .hint("keep it in a folder with nothing else that the configuration names")
                .hint("start pintle as root with process.user, and make the key readable by root only");
            Problem::warning(&key.span, reason).about(&key.value)
        })
        .collect()
}

/// Folders in which the sandbox lets the serving process write, and whose files it should only
/// read, if the user, or the caller, may write there.
pub(super) fn writes_beside(draft: &Draft, config: &Config, account: Option<&UserAccount>) -> Vec<Problem> {
    let kept = draft.kept_keys().unwrap_or_default().into_iter().map(|key| key.value);
    let read: Vec<PathBuf> = config.files().map(Path::to_owned).chain([draft.path().to_owned()]).chain(kept).collect();
    // Files that pintle makes there itself.
    let own: Vec<PathBuf> = draft.managed().into_iter().map(|certificate| certificate.folder).collect();
    let is_own = |file: &Path| own.iter().any(|folder| file.starts_with(folder));
    let read = read.into_iter().filter(|file| !is_own(file));
    let real: Vec<PathBuf> = read.collect::<Vec<_>>().iter().filter_map(|file| fs::canonicalize(file).ok()).collect();
    let socket = match &config.admin {
        Some(AdminAddress::Unix(path)) => Some(folder_of(path).to_owned()),
        Some(AdminAddress::Tcp { .. }) | None => None,
    };
    let warn = |key: &str, what: &str, folder: Option<PathBuf>| {
        let folder = fs::canonicalize(folder?).ok()?;
        let by_name = || real.iter().any(|file| file.starts_with(&folder) && may_write(folder_of(file)));
        let itself = || real.iter().find(|file| file.starts_with(&folder) && may_write(file));
        let is_open = || match key {
            // The file can be replaced.
            "state.directory" => by_name() || itself().is_some(),
            _ => by_name(),
        };
        let is_open = account.map_or_else(|| Some(is_open()), |account| account.as_it(is_open));
        is_open.filter(|open| *open)?;
        let file = real.iter().find(|file| file.starts_with(&folder))?;
        let what =
            format!("{key}: an attacker who takes over the process can {what} {}, which is there, too", file.display());
        let hint = format!("a folder of its own: {}", folder.join("pintle").display());
        Some(Problem::warning(&draft.place_of(key), Reason::new(what).hint(hint)).about(file))
    };
    let places = [warn("state.directory", "change", config.state.clone()), warn("admin.listen", "remove", socket)];
    places.into_iter().flatten().collect()
}

fn may_write(path: &Path) -> bool {
    access(path, Access::WRITE_OK).is_ok()
}
