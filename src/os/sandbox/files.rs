//! Files and ports (Landlock): an allow-list of folders, tied to their inodes instead of their
//! names.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, NetPort,
    PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope, make_bitflags,
};

use super::rules::{Calls, Rules};

/// Files that the C library reads to resolve a name (nsswitch.conf(5), gai.conf(5)), and the
/// plugins that it loads for it on first use.
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
/// The newest Landlock version whose file rights are requested. Older kernels enforce the rights
/// that they know.
const ASKED: ABI = ABI::V5;
/// Links into other folders, as resolvconf makes them, are replaced in their target folder.
const LINKED_FOLDERS: [&str; 2] = ["/run", "/var/run"];

/// The use of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Reads files.
    Read,
    /// Creates, removes, reads and writes files, folders and sockets.
    Write,
    /// Creates and writes files.
    Logs,
    /// Creates and removes sockets.
    Sockets,
}

impl Use {
    /// No use creates devices or links, and none executes anything.
    fn rights(self, is_folder: bool) -> BitFlags<AccessFs> {
        let (file, folder) = match self {
            Self::Read => (AccessFs::ReadFile.into(), AccessFs::ReadDir.into()),
            Self::Write => (
                make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate}),
                make_bitflags!(AccessFs::{ReadDir | RemoveDir | RemoveFile | MakeDir | MakeReg | MakeSock}),
            ),
            Self::Logs => (AccessFs::WriteFile.into(), AccessFs::MakeReg.into()),
            // A socket gets its name by a rename, which replaces the previous socket.
            Self::Sockets => (BitFlags::EMPTY, make_bitflags!(AccessFs::{RemoveFile | MakeSock})),
        };
        if is_folder { file | folder } else { file }
    }
}

/// A place, and its permitted use.
#[derive(Debug)]
struct PermittedPlace {
    /// Device and inode. A new folder under the same name is a different folder.
    is: (u64, u64),
    rights: BitFlags<AccessFs>,
}

/// The rules in force.
#[derive(Debug)]
pub(super) struct RulesInForce {
    /// The Landlock version.
    pub(super) abi: u32,
    /// By canonical path.
    places: HashMap<PathBuf, PermittedPlace>,
    pub(super) connect: Option<BTreeSet<u16>>,
}

/// Restricts this thread and every thread that it starts. Returns the rules in force and the
/// missing features.
pub(super) fn restrict(rules: &Rules) -> Result<(Option<RulesInForce>, Vec<String>), String> {
    let tell = |error: landlock::RulesetError| error.to_string();
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let mut ruleset = ruleset.handle_access(AccessFs::from_all(ASKED)).map_err(tell)?;
    if rules.connect.is_some() {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp).map_err(tell)?;
    }
    let scope = if rules.abstract_sockets { Scope::Signal.into() } else { Scope::AbstractUnixSocket | Scope::Signal };
    let ruleset = ruleset.scope(scope).map_err(tell)?;
    let mut created = ruleset.create().map_err(tell)?;
    let mut places: HashMap<PathBuf, PermittedPlace> = HashMap::new();
    let names = if rules.calls == Calls::Serving { &SYSTEM[..] } else { &[] };
    let system = names.iter().flat_map(|path| [Some(PathBuf::from(path)), linked_folder(Path::new(path))]).flatten();
    let of = |paths: &BTreeSet<PathBuf>, what: Use| paths.iter().cloned().map(move |p| (p, what)).collect::<Vec<_>>();
    let own = [(&rules.write, Use::Write), (&rules.logs, Use::Logs), (&rules.sockets, Use::Sockets)];
    let own = own.into_iter().flat_map(|(paths, what)| of(paths, what));
    let read = system.map(|path| (path, Use::Read)).chain(of(&rules.read, Use::Read));
    // Writable places come first: places below them need no rule of their own.
    for (path, what) in own.chain(read) {
        let Ok(path) = fs::canonicalize(path) else { continue };
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let rights = what.rights(metadata.is_dir());
        if rights.is_empty()
            || path.ancestors().any(|above| places.get(above).is_some_and(|p| p.rights.contains(rights)))
        {
            continue;
        }
        // A place that cannot even be inspected cannot be read either, whatever the sandbox allows.
        let Ok(fd) = PathFd::new(&path) else { continue };
        created = created.add_rule(PathBeneath::new(fd, rights)).map_err(tell)?;
        // If one place has several rules, the kernel enforces their union.
        let is = (metadata.dev(), metadata.ino());
        places.entry(path).or_insert(PermittedPlace { is, rights: BitFlags::EMPTY }).rights |= rights;
    }
    for port in rules.connect.iter().flatten() {
        created = created.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).map_err(tell)?;
    }
    let status = created.restrict_self().map_err(tell)?;
    let abi = match status.landlock {
        LandlockStatus::NotEnabled => {
            return Err("the kernel has Landlock, but it is not enabled (lsm=landlock)".into());
        }
        LandlockStatus::NotImplemented => return Err("the kernel has no Landlock (Linux 5.13)".into()),
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
    };
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err("the kernel does not enforce Landlock".into());
    }
    // Kernels without the right do not restrict ports.
    let connect = rules.connect.clone().filter(|_| abi >= ABI::V4 as u32);
    Ok((Some(RulesInForce { abi, places, connect }), lacks(abi, rules)))
}

/// The features that a kernel with this Landlock version lacks.
pub(super) fn lacks(abi: u32, rules: &Rules) -> Vec<String> {
    let all = [
        (3, true, "readable files can be truncated (Linux 6.2)"),
        (4, rules.connect.is_some(), "connections may go to any port (Linux 6.7)"),
        (5, true, "devices take commands (Linux 6.10)"),
        (6, true, "signals may go to other processes (Linux 6.12)"),
    ];
    let lacking = all.into_iter().filter(|(since, wanted, _)| abi < *since && *wanted);
    lacking.map(|(_, _, what)| format!("landlock {abi}: {what}")).collect()
}

/// The folder that a system link leads to.
fn linked_folder(path: &Path) -> Option<PathBuf> {
    let target = fs::canonicalize(path).ok()?;
    let folder = target.parent()?;
    // Below these, each folder belongs to one service.
    let is_own = LINKED_FOLDERS.iter().any(|f| folder.starts_with(f) && folder != Path::new(f));
    (target != path && is_own).then(|| folder.to_owned())
}

impl RulesInForce {
    /// Returns `true` if a path may be used so. For a missing path, its nearest existing folder
    /// decides.
    pub(super) fn covers(&self, path: &Path, what: Use) -> bool {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let Some(there) = absolute.ancestors().find_map(|a| fs::canonicalize(a).ok()) else { return false };
        let is = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        let known = there.ancestors().filter_map(|above| self.places.get(above).filter(|p| is(above) == Some(p.is)));
        let rights = known.fold(BitFlags::EMPTY, |all, place| all | place.rights);
        rights.contains(what.rights(there.is_dir()))
    }

    /// The number of readable places, without the system's, and of writable places.
    pub(super) fn count(&self) -> (usize, usize) {
        let writes = make_bitflags!(AccessFs::{WriteFile | MakeSock});
        let written = self.places.values().filter(|p| p.rights.intersects(writes)).count();
        (self.places.len() - written, written)
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Pretends that these places and ports are enforced.
    pub(in crate::os::sandbox) fn held(read: &[&Path], write: &[&Path], connect: &[u16]) -> RulesInForce {
        let place = |path: &Path, what: Use| {
            let path = fs::canonicalize(path).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            (path, PermittedPlace { is: (metadata.dev(), metadata.ino()), rights: what.rights(metadata.is_dir()) })
        };
        let read = read.iter().map(|path| place(path, Use::Read));
        let places = read.chain(write.iter().map(|path| place(path, Use::Write))).collect();
        RulesInForce { abi: 7, places, connect: Some(connect.iter().copied().collect()) }
    }
}
