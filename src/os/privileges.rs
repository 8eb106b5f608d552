//! Who the process is: from root to a user of its own, for good, and what it may do in spite of the file system.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, geteuid, setgroups, setresgid, setresuid};
use rustix::fs::OFlags;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// What is said of a file that this process may not read; its user's name follows.
pub const UNREADABLE: &str = "may not be read by";
/// Others may write here; but with the sticky bit, not to what is somebody else's.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// A user of this system, with one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user's name.
    pub user: String,
    /// The group's.
    pub group: String,
    uid: Uid,
    gid: Gid,
}

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// The name of the user that this process is; a number, if it has none.
#[must_use]
pub fn user() -> String {
    name_of(geteuid())
}

fn name_of(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

impl Account {
    /// A user by name or number, with a group, or else the user's own.
    ///
    /// # Errors
    ///
    /// Which of them this system does not have.
    pub fn find(user: &str, group: Option<&str>) -> Result<Self, String> {
        let by_number = || user.parse().ok().and_then(|n| User::from_uid(Uid::from_raw(n)).ok().flatten());
        let found = User::from_name(user).ok().flatten().or_else(by_number);
        let found = found.ok_or_else(|| format!("there is no user {user:?}"))?;
        let group = match group {
            Some(name) => {
                let by_number = || name.parse().ok().and_then(|n| Group::from_gid(Gid::from_raw(n)).ok().flatten());
                let found = Group::from_name(name).ok().flatten().or_else(by_number);
                found.ok_or_else(|| format!("there is no group {name:?}"))?
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

    /// Whether it is root by another name.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// Makes a folder for this user alone, if it is not there and nobody but root could have prepared its place. A folder
    /// that is there stays as it is, and whose it is.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn own_folder(&self, folder: &Path) -> io::Result<()> {
        let folder = std::path::absolute(folder)?;
        // A link that leads nowhere is something, too.
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

    /// Makes a file for this user, which its group may read, if there is none and nobody but root could have prepared its
    /// place.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn own_file(&self, file: &Path) -> io::Result<()> {
        let file = std::path::absolute(file)?;
        let folder = file.parent().unwrap_or(&file);
        let is_prepared = fs::symlink_metadata(&file).is_ok() || planted_link(&file).is_some();
        if is_prepared || !folder.exists() || !is_roots_alone(folder)? {
            return Ok(());
        }
        let file = OpenOptions::new().append(true).create_new(true).mode(0o640).open(&file)?;
        fchown(file, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }

    /// Becomes this user, the whole process, with no group beside its own and no capability but that of listening below
    /// port 1024, until [`settle`]; `keep_bind` says that it is to stay. There is no way back. To be called as root.
    ///
    /// # Errors
    ///
    /// When the kernel says no; then nothing should go on.
    pub fn become_it(&self, keep_bind: bool) -> io::Result<()> {
        let bind = CapabilitySet::NET_BIND_SERVICE;
        // Later there is no leave to do so. What is permitted already does not need to be in this set.
        shrink_bounding_set(if keep_bind { bind } else { CapabilitySet::empty() });
        set_keep_capabilities(true)?;
        setgroups(&[])?;
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        // A container may not have had it to give.
        let had = capabilities(None)?.permitted & bind;
        set_capabilities(None, CapabilitySets { effective: had, permitted: had, inheritable: CapabilitySet::empty() })?;
        set_keep_capabilities(false)?;
        clear_ambient_capability_set()?;
        Ok(())
    }

    /// Becomes this user in this thread alone.
    fn become_in_thread(&self) -> io::Result<()> {
        let (uid, gid) =
            (rustix::process::Uid::from_raw(self.uid.as_raw()), rustix::process::Gid::from_raw(self.gid.as_raw()));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        Ok(set_thread_res_uid(uid, uid, uid)?)
    }

    /// Does something as this user, in a thread of its own; `None` if that cannot be. To be called as root.
    pub fn as_it<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Option<T> {
        // A thread can be another user, and takes that with it when it ends.
        let act = || self.become_in_thread().ok().map(|()| act());
        std::thread::scope(|scope| scope.spawn(act).join().ok().flatten())
    }

    /// What would let this user read a file.
    #[must_use]
    pub fn hint_to_read(&self, file: &Path) -> String {
        hint_to_read(file, &self.group)
    }
}

/// The link of somebody else than root that a path leads by: what is behind it may be anybody's.
#[must_use]
pub fn planted_link(path: &Path) -> Option<PathBuf> {
    let is_planted = |at: &&Path| fs::symlink_metadata(at).is_ok_and(|is| is.is_symlink() && is.uid() != 0);
    path.ancestors().find(is_planted).map(Path::to_owned)
}

/// Lets go of what was needed until the listeners were bound, in this thread and those that it starts. `keep_bind`
/// leaves it the ports below 1024. Nobody else of the same user may look into the process's memory from now on.
///
/// # Errors
///
/// When the kernel says no.
pub fn settle(keep_bind: bool) -> io::Result<()> {
    let mut keep = CapabilitySet::empty();
    if keep_bind {
        keep |= CapabilitySet::NET_BIND_SERVICE;
    }
    if is_root() {
        // Root that may not read the files of others would be no use to who asked for it.
        keep |= CapabilitySet::DAC_OVERRIDE;
    }
    keep_only(keep)
}

fn keep_only(keep: CapabilitySet) -> io::Result<()> {
    shrink_bounding_set(keep);
    clear_ambient_capability_set()?;
    let held = capabilities(None)?;
    let kept = held.permitted & keep;
    let wanted = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    // A service manager's filter may forbid the call (systemd's @privileged): who has nothing to give up needs none.
    if held != wanted {
        set_capabilities(None, wanted)?;
    }
    // Keys do not go into core dumps, nor to other processes of the same user (ptrace(2)).
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Lets go of everything but the leave to read any file, which only root has to begin with: for who has the keys.
///
/// # Errors
///
/// When the kernel says no.
pub fn settle_as_reader() -> io::Result<()> {
    let keep = if is_root() { CapabilitySet::DAC_READ_SEARCH } else { CapabilitySet::empty() };
    if is_root() {
        setgroups(&[])?;
    }
    keep_only(keep)
}

/// Whoever has no leave to do so has nothing in the set that could be used.
fn shrink_bounding_set(keep: CapabilitySet) {
    for capability in (CapabilitySet::all() & !keep).iter() {
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
}

/// Whether nobody but root can put anything here, or on the way to here.
///
/// # Errors
///
/// When that cannot be seen.
pub fn is_roots_alone(folder: &Path) -> io::Result<bool> {
    let folder = fs::canonicalize(folder)?;
    for (at, path) in folder.ancestors().enumerate() {
        let metadata = fs::metadata(path)?;
        // Above, the sticky bit keeps what is root's in its place; here, what is there may be anybody's.
        let is_open = metadata.mode() & WRITABLE_BY_OTHERS != 0 && (at == 0 || metadata.mode() & STICKY == 0);
        if metadata.uid() != 0 || is_open {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What would let this process read a file.
#[must_use]
pub fn hint(file: &Path) -> String {
    let gid = nix::unistd::getegid();
    let group = Group::from_gid(gid).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name);
    hint_to_read(file, &group)
}

fn hint_to_read(file: &Path, group: &str) -> String {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let is_shut = |folder: &&Path| matches!(fs::metadata(folder.join(".")), Err(e) if e.kind() == io::ErrorKind::PermissionDenied);
    let mut folders: Vec<PathBuf> = file.ancestors().skip(1).filter(is_shut).map(Path::to_owned).collect();
    match folders.pop() {
        // The outermost: what lies below it cannot be seen yet.
        Some(folder) => format!("chgrp {group} {0} && chmod g+x {0}", folder.display()),
        None => format!("chgrp {group} {0} && chmod 640 {0}", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn accounts() {
        let root = Account::find("root", None).unwrap();
        assert!(root.is_root() && root.group == "root");
        assert_eq!(Account::find("0", None).unwrap(), root);
        assert!(Account::find("no such user", None).is_err());
        assert_eq!(Account::find("root", Some("no such group")).unwrap_err(), "there is no group \"no such group\"");
    }

    #[test]
    fn what_is_there_keeps_its_owner() {
        if !is_root() {
            eprintln!("stepping aside: only root can give anything away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let account = Account { user: "one".into(), group: "one".into(), uid: Uid::from_raw(1), gid: Gid::from_raw(1) };
        let owner = |name: &str| fs::symlink_metadata(at(name)).unwrap().uid();
        fs::create_dir(at("there")).unwrap();
        fs::write(at("there/file"), "x").unwrap();
        std::os::unix::fs::symlink(at("there"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
        for folder in ["there", "there/file", "link", "dangling"] {
            let _ = account.own_folder(&at(folder));
            let _ = account.own_file(&at(folder));
        }
        assert!(["there", "there/file", "link", "dangling"].iter().all(|name| owner(name) == 0));
        assert!(!at("nowhere").exists());
        account.own_folder(&at("a/b/c")).unwrap();
        assert_eq!((owner("a"), owner("a/b"), owner("a/b/c")), (0, 0, 1));
        account.own_file(&at("log")).unwrap();
        assert_eq!((owner("log"), fs::metadata(at("log")).unwrap().mode() & 0o777), (1, 0o640));
    }

    #[test]
    fn who_could_have_prepared_a_place() {
        if !is_root() {
            eprintln!("stepping aside: only root can make what is root's");
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
        // Below a folder like /tmp, what is root's stays where it is.
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        assert!(is_roots_alone(&inner).unwrap());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(!is_roots_alone(&inner).unwrap());
    }
}
