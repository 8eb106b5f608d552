//! Users and capabilities: root becomes another user for good, and keeps only the capabilities that
//! it needs.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, setgroups, setresgid, setresuid};
use rustix::fs::OFlags;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::plain_file::tidy;
use crate::reason::shell_path;

/// The user that serves if the configuration of root's process names none.
pub const USER: &str = "pintle";

/// Other users may write here; with the sticky bit, they cannot replace files of others.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// A user of this system, with one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserAccount {
    /// The user's name.
    pub user: String,
    /// The group's name.
    pub group: String,
    uid: Uid,
    gid: Gid,
}

/// A user or group of the configuration that this system does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAccount {
    /// The user's name.
    User(String),
    /// The group's name.
    Group(String),
}

impl fmt::Display for NoAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "no such user: {name:?}"),
            Self::Group(name) => write!(f, "no such group: {name:?}"),
        }
    }
}

/// `true` if this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// The name of this process's user; the number, if it has no name.
#[must_use]
pub fn user() -> String {
    name_of(geteuid())
}

/// The names of this process's user and group: the sandbox hides the files that have them.
static NAMES: OnceLock<(Uid, String, Gid, String)> = OnceLock::new();

fn remember_names() {
    let (uid, gid) = (geteuid(), getegid());
    let _ = NAMES.set((uid, name_of(uid), gid, name_of_group(gid)));
}

/// The name of a user by its number; the number, if it has no name.
#[must_use]
pub fn user_name(id: u32) -> String {
    name_of(Uid::from_raw(id))
}

fn name_of(uid: Uid) -> String {
    if let Some((_, name, ..)) = NAMES.get().filter(|(known, ..)| *known == uid) {
        return name.clone();
    }
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

impl UserAccount {
    /// Finds a user by name or number, with the named group or the user's own.
    ///
    /// # Errors
    ///
    /// The user or the group that does not exist.
    pub fn find(user: &str, group: Option<&str>) -> Result<Self, NoAccount> {
        let by_number = || user.parse().ok().and_then(|n| User::from_uid(Uid::from_raw(n)).ok().flatten());
        let found = User::from_name(user).ok().flatten().or_else(by_number);
        let found = found.ok_or_else(|| NoAccount::User(user.to_owned()))?;
        let group = match group {
            Some(name) => {
                let by_number = || name.parse().ok().and_then(|n| Group::from_gid(Gid::from_raw(n)).ok().flatten());
                let found = Group::from_name(name).ok().flatten().or_else(by_number);
                found.ok_or_else(|| NoAccount::Group(name.to_owned()))?
            }
            None => Group::from_gid(found.gid).ok().flatten().unwrap_or_else(|| Group {
                name: found.gid.to_string(),
                passwd: Default::default(),
                gid: found.gid,
                mem: Vec::new(),
            }),
        };
        Ok(Self { user: found.name, group: group.name, uid: found.uid, gid: group.gid })
    }

    /// `true` if this user is root under another name.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// The user's number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.uid.as_raw()
    }

    /// Creates a folder for this user alone, if it is missing and only root could have prepared its
    /// place. An existing folder keeps its owner and mode.
    ///
    /// # Errors
    ///
    /// If the folder cannot be created.
    pub fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let folder = std::path::absolute(folder)?;
        // A link that leads nowhere exists, too.
        let mut missing: Vec<&Path> = folder.ancestors().take_while(|a| fs::symlink_metadata(a).is_err()).collect();
        let Some(above) = missing.last().and_then(|outermost| outermost.parent()) else { return Ok(()) };
        if !is_roots_alone(above)? || planted_link(&folder).is_some() {
            return Ok(());
        }
        while let Some(next) = missing.pop() {
            let mode = if missing.is_empty() { 0o700 } else { 0o755 };
            DirBuilder::new().mode(mode).create(next)?;
        }
        let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
        let made = OpenOptions::new().read(true).custom_flags(flags).open(&folder)?;
        fchown(made, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }

    /// Creates a file for this user, readable for its group, if it is missing and only root could
    /// have prepared its place.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn create_file(&self, file: &Path) -> io::Result<()> {
        let file = std::path::absolute(file)?;
        let folder = file.parent().unwrap_or(&file);
        let is_prepared = fs::symlink_metadata(&file).is_ok() || planted_link(&file).is_some();
        if is_prepared || !folder.exists() || !is_roots_alone(folder)? {
            return Ok(());
        }
        let file = OpenOptions::new().append(true).create_new(true).mode(0o640).open(&file)?;
        fchown(file, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }

    /// Makes the whole process this user: one group, and no capability except listening below port
    /// 1024 until [`settle`]. With `keep_bind` it keeps that one. There is no way back. Only root
    /// may call it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; the caller must not continue then.
    pub fn become_it(&self, keep_bind: bool) -> io::Result<()> {
        let bind = CapabilitySet::NET_BIND_SERVICE;
        // Needs a capability that is gone later. Permitted capabilities do not need to be in this
        // set.
        shrink_bounding_set(if keep_bind { bind } else { CapabilitySet::empty() });
        set_keep_capabilities(true)?;
        setgroups(&[])?;
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        // A container may lack this capability.
        let had = capabilities(None)?.permitted & bind;
        set_capabilities(None, CapabilitySets { effective: had, permitted: had, inheritable: CapabilitySet::empty() })?;
        set_keep_capabilities(false)?;
        clear_ambient_capability_set()?;
        Ok(())
    }

    /// Makes this thread alone the user.
    fn become_in_thread(&self) -> io::Result<()> {
        let (uid, gid) =
            (rustix::process::Uid::from_raw(self.uid.as_raw()), rustix::process::Gid::from_raw(self.gid.as_raw()));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        Ok(set_thread_res_uid(uid, uid, uid)?)
    }

    /// Runs `act` as this user in a thread of its own. `None` if that is impossible. Only root may
    /// call it.
    pub fn as_it<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Option<T> {
        // A thread can be another user, and its end takes that with it.
        let act = || self.become_in_thread().ok().map(|()| act());
        std::thread::scope(|scope| scope.spawn(act).join().ok().flatten())
    }

    /// A command that lets this user read a file.
    #[must_use]
    pub fn hint_to_read(&self, file: &Path) -> String {
        hint_to_read(file, &self.group)
    }
}

/// The first link on a path that another user than root has made: its target may belong to anybody.
#[must_use]
pub fn planted_link(path: &Path) -> Option<PathBuf> {
    let is_planted = |at: &&Path| fs::symlink_metadata(at).is_ok_and(|is| is.is_symlink() && is.uid() != 0);
    path.ancestors().find(is_planted).map(Path::to_owned)
}

/// Gives up what was needed until the listeners were bound, in this thread and every thread that it
/// starts. `keep_bind` keeps ports below 1024. From now on, other processes of this user cannot
/// read this process's memory.
///
/// # Errors
///
/// If the kernel refuses.
pub fn settle(keep_bind: bool) -> io::Result<()> {
    let mut keep = CapabilitySet::empty();
    if keep_bind {
        keep |= CapabilitySet::NET_BIND_SERVICE;
    }
    if is_root() {
        // Root must still read the files of other users: an operator who allows root expects that.
        keep |= CapabilitySet::DAC_OVERRIDE;
    }
    keep_only(keep)
}

fn keep_only(keep: CapabilitySet) -> io::Result<()> {
    remember_names();
    shrink_bounding_set(keep);
    clear_ambient_capability_set()?;
    let held = capabilities(None)?;
    let kept = held.permitted & keep;
    let wanted = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    // A service manager's filter may forbid the call (systemd's @privileged). A process without
    // capabilities does not need it.
    if held != wanted {
        set_capabilities(None, wanted)?;
    }
    // Keeps the keys out of core dumps, and away from other processes of this user (ptrace(2)).
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Gives up everything except permission to read any file, which only root has. For the key
/// process.
///
/// # Errors
///
/// If the kernel refuses.
pub fn settle_as_reader() -> io::Result<()> {
    let keep = if is_root() { CapabilitySet::DAC_READ_SEARCH } else { CapabilitySet::empty() };
    if is_root() {
        setgroups(&[])?;
    }
    keep_only(keep)
}

/// Without the capability, there is nothing in the set to give up.
fn shrink_bounding_set(keep: CapabilitySet) {
    for capability in (CapabilitySet::all() & !keep).iter() {
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
}

/// `true` if only root can create entries here, or on the way here.
///
/// # Errors
///
/// If a folder on the way cannot be inspected.
pub fn is_roots_alone(folder: &Path) -> io::Result<bool> {
    let folder = fs::canonicalize(folder)?;
    for (at, path) in folder.ancestors().enumerate() {
        let metadata = fs::metadata(path)?;
        // In the folders above, the sticky bit protects root's entries. In this folder, an entry
        // may belong to anybody.
        let is_open = metadata.mode() & WRITABLE_BY_OTHERS != 0 && (at == 0 || metadata.mode() & STICKY == 0);
        if metadata.uid() != 0 || is_open {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A command that lets this process read a file.
#[must_use]
pub fn hint(file: &Path) -> String {
    hint_of_owner(file, rustix::process::geteuid().as_raw()).unwrap_or_else(|| hint_to_read(file, &own_group()))
}

/// Returns the command that lets this user's group run a program.
#[must_use]
pub fn hint_to_execute(file: &Path) -> String {
    hint_for_group(file, &own_group(), "g+rx")
}

fn own_group() -> String {
    name_of_group(getegid())
}

fn name_of_group(gid: Gid) -> String {
    if let Some((.., name)) = NAMES.get().filter(|(_, _, known, _)| *known == gid) {
        return name.clone();
    }
    Group::from_gid(gid).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name)
}

/// The command if this user owns what is closed: the permissions of a group do not help its owner.
fn hint_of_owner(file: &Path, me: u32) -> Option<String> {
    let file = tidy(&std::path::absolute(file).unwrap_or_else(|_| file.to_owned()));
    let (closed, mode) = closed_folder(&file).map_or((file, "u+r"), |folder| (folder, "u+rx"));
    let is_mine = fs::metadata(&closed).is_ok_and(|of| of.uid() == me);
    is_mine.then(|| format!("chmod {mode} {}", shell_path(&closed)))
}

/// The outermost closed folder on the way to a file: folders below it cannot be inspected yet.
fn closed_folder(file: &Path) -> Option<PathBuf> {
    let is_shut = |folder: &&Path| matches!(fs::metadata(folder.join(".")), Err(e) if e.kind() == io::ErrorKind::PermissionDenied);
    file.ancestors().skip(1).filter(is_shut).last().map(Path::to_owned)
}

fn hint_to_read(file: &Path, group: &str) -> String {
    hint_for_group(file, group, "640")
}

/// The command that gives a group this mode of a file, or the way to it.
fn hint_for_group(file: &Path, group: &str, mode: &str) -> String {
    let file = tidy(&std::path::absolute(file).unwrap_or_else(|_| file.to_owned()));
    let (closed, mode) = closed_folder(&file).map_or((file, mode), |folder| (folder, "g+x"));
    format!("chgrp {group} {0} && chmod {mode} {0}", shell_path(&closed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn accounts() {
        let root = UserAccount::find("root", None).unwrap();
        assert!(root.is_root() && root.group == "root");
        assert_eq!(UserAccount::find("0", None).unwrap(), root);
        assert!(UserAccount::find("no such user", None).is_err());
        assert_eq!(UserAccount::find("root", Some("no such group")), Err(NoAccount::Group("no such group".to_owned())));
    }

    #[test]
    fn what_is_there_keeps_its_owner() {
        if !is_root() {
            eprintln!("skipped: only root can give files away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let account =
            UserAccount { user: "one".into(), group: "one".into(), uid: Uid::from_raw(1), gid: Gid::from_raw(1) };
        let owner = |name: &str| fs::symlink_metadata(at(name)).unwrap().uid();
        fs::create_dir(at("there")).unwrap();
        fs::write(at("there/file"), "x").unwrap();
        std::os::unix::fs::symlink(at("there"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
        for folder in ["there", "there/file", "link", "dangling"] {
            let _ = account.create_folder(&at(folder));
            let _ = account.create_file(&at(folder));
        }
        assert!(["there", "there/file", "link", "dangling"].iter().all(|name| owner(name) == 0));
        assert!(!at("nowhere").exists());
        account.create_folder(&at("a/b/c")).unwrap();
        assert_eq!((owner("a"), owner("a/b"), owner("a/b/c")), (0, 0, 1));
        account.create_file(&at("log")).unwrap();
        assert_eq!((owner("log"), fs::metadata(at("log")).unwrap().mode() & 0o777), (1, 0o640));
    }

    #[test]
    fn who_could_have_prepared_a_place() {
        if !is_root() {
            eprintln!("skipped: only root can create root's files");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let check = |mode: u32, alone: bool| {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_roots_alone(dir.path()).unwrap(), alone, "{mode:o}");
        };
        check(0o700, true);
        check(0o755, true);
        check(0o770, false);
        check(0o1777, false);
        // Below a folder like /tmp, root's entries stay in place.
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        assert!(is_roots_alone(&inner).unwrap());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(!is_roots_alone(&inner).unwrap());
    }
}
