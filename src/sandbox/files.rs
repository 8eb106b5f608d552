//! Files and ports, by Landlock: an allow-list of folders, tied to what they are and not to their names.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, NetPort,
    PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope, make_bitflags,
};

use super::{Calls, Rules};

/// What the C library reads when it looks up a name (nsswitch.conf(5), gai.conf(5)). Libraries: its plugins for that,
/// which it loads when they are first needed.
const SYSTEM: [&str; 12] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
];
/// The newest version of Landlock whose rights for files are asked for; older kernels hold what they know.
const ASKED: ABI = ABI::V5;
/// Symbolic links to another place are replaced in that place, as resolvconf and its like do.
const LINKED_FOLDERS: [&str; 2] = ["/run", "/var/run"];

/// Rights of files that are no folders.
fn reading(is_folder: bool) -> BitFlags<AccessFs> {
    if is_folder { AccessFs::ReadFile | AccessFs::ReadDir } else { AccessFs::ReadFile.into() }
}

/// Files, folders and sockets may come and go; devices and links may not, and nothing may be executed.
fn writing(is_folder: bool) -> BitFlags<AccessFs> {
    let file = make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate});
    if is_folder {
        file | make_bitflags!(AccessFs::{ReadDir | RemoveDir | RemoveFile | MakeDir | MakeReg | MakeSock})
    } else {
        file
    }
}

/// A place that may be read, and perhaps written.
#[derive(Debug)]
struct Place {
    /// Device and inode: another folder under the same name is another folder.
    is: (u64, u64),
    writable: bool,
}

/// What is held.
#[derive(Debug)]
pub(super) struct Held {
    /// The version of Landlock.
    pub(super) abi: u32,
    /// By their paths, without links.
    places: HashMap<PathBuf, Place>,
    pub(super) connect: Option<BTreeSet<u16>>,
}

/// Restricts this thread, and those that it starts. Gives what is held, and what the kernel lacks.
pub(super) fn restrict(rules: &Rules) -> Result<(Option<Held>, Vec<String>), String> {
    let tell = |error: landlock::RulesetError| error.to_string();
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let mut ruleset = ruleset.handle_access(AccessFs::from_all(ASKED)).map_err(tell)?;
    if rules.connect.is_some() {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp).map_err(tell)?;
    }
    let scope = if rules.abstract_sockets { Scope::Signal.into() } else { Scope::AbstractUnixSocket | Scope::Signal };
    let ruleset = ruleset.scope(scope).map_err(tell)?;
    let mut created = ruleset.create().map_err(tell)?;
    let mut places: HashMap<PathBuf, Place> = HashMap::new();
    let names = if rules.calls == Calls::Serving { &SYSTEM[..] } else { &[] };
    let system = names.iter().flat_map(|path| [Some(PathBuf::from(path)), linked_folder(Path::new(path))]).flatten();
    let read = system.chain(rules.read.iter().cloned()).map(|path| (path, false));
    // Those that may be written come first: what lies below them needs no rule of its own.
    for (path, writable) in rules.write.iter().cloned().map(|path| (path, true)).chain(read) {
        let Ok(path) = fs::canonicalize(path) else { continue };
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if path.ancestors().any(|above| places.get(above).is_some_and(|p| p.writable || !writable)) {
            continue;
        }
        // What may not even be looked at cannot be read either, whatever the sandbox says.
        let Ok(fd) = PathFd::new(&path) else { continue };
        let access = if writable { writing(metadata.is_dir()) } else { reading(metadata.is_dir()) };
        created = created.add_rule(PathBeneath::new(fd, access)).map_err(tell)?;
        places.insert(path, Place { is: (metadata.dev(), metadata.ino()), writable });
    }
    for port in rules.connect.iter().flatten() {
        created = created.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).map_err(tell)?;
    }
    let status = created.restrict_self().map_err(tell)?;
    let abi = match status.landlock {
        LandlockStatus::NotEnabled => return Err("this kernel has it, but it is not enabled (lsm=landlock)".into()),
        LandlockStatus::NotImplemented => return Err("this kernel does not have it (Linux 5.13)".into()),
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
    };
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err("this kernel does not hold it".into());
    }
    // Without the right in the kernel, nothing is held about ports.
    let connect = rules.connect.clone().filter(|_| abi >= ABI::V4 as u32);
    Ok((Some(Held { abi, places, connect }), lacks(abi, rules)))
}

/// What a kernel with this version of Landlock lacks.
pub(super) fn lacks(abi: u32, rules: &Rules) -> Vec<String> {
    let all = [
        (3, true, "files that may be read can be truncated (Linux 6.2)"),
        (4, rules.connect.is_some(), "connections may go to any port (Linux 6.7)"),
        (5, true, "devices take commands (Linux 6.10)"),
        (6, true, "signals may go to other processes (Linux 6.12)"),
    ];
    let lacking = all.into_iter().filter(|(since, wanted, _)| abi < *since && *wanted);
    lacking.map(|(_, _, what)| format!("landlock {abi}: {what}")).collect()
}

/// The folder that a link of the system leads to.
fn linked_folder(path: &Path) -> Option<PathBuf> {
    let target = fs::canonicalize(path).ok()?;
    let folder = target.parent()?;
    // Below these, a folder is one service's own.
    let is_own = LINKED_FOLDERS.iter().any(|f| folder.starts_with(f) && folder != Path::new(f));
    (target != path && is_own).then(|| folder.to_owned())
}

impl Held {
    /// Whether a path may be read, or written. One that is not there yet is judged by the folder that is.
    pub(super) fn covers(&self, path: &Path, writable: bool) -> bool {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let Some(there) = absolute.ancestors().find_map(|a| fs::canonicalize(a).ok()) else { return false };
        let is = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        there.ancestors().any(|ancestor| {
            let known = self.places.get(ancestor).filter(|p| p.writable || !writable);
            known.is_some_and(|p| is(ancestor) == Some(p.is))
        })
    }

    /// How many places may be read, the system's left out; and written.
    pub(super) fn count(&self) -> (usize, usize) {
        let writable = self.places.values().filter(|p| p.writable).count();
        (self.places.len() - writable, writable)
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// As if these places were held, and these ports.
    pub(in crate::sandbox) fn held(read: &[&Path], write: &[&Path], connect: &[u16]) -> Held {
        let place = |path: &Path, writable| {
            let path = fs::canonicalize(path).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            (path, Place { is: (metadata.dev(), metadata.ino()), writable })
        };
        let read = read.iter().map(|path| place(path, false));
        let places = read.chain(write.iter().map(|path| place(path, true))).collect();
        Held { abi: 7, places, connect: Some(connect.iter().copied().collect()) }
    }
}
