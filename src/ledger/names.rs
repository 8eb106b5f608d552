//! The names of the ledger's files.

/// The ledger's file in the state directory.
pub const FILE: &str = "ledger.jsonl";
/// The lock file, which keeps a second process out. It notes the number of the newest record.
pub const LOCK: &str = "ledger.lock";
/// The text of a new lock file, until a start has served: one that fails leaves no trace of use.
pub(super) const UNSERVED: &str = "nobody has served from here yet\n";
/// The text after that, of the same length, while the ledger has no record.
pub(super) const SERVED: &str = "pintle has served from here    \n";
/// The file with the number and hash of the newest line, which the ledger's file must reach.
pub const HEAD: &str = "ledger.head";
/// The ledger's file while it is rewritten.
pub(super) const NEW: &str = "ledger.new";
/// The head's file while it is rewritten.
pub(super) const HEAD_NEW: &str = "ledger.head.new";
/// The ledger's file after an upgrade that has moved the ledger to another folder.
pub const MOVED: &str = "ledger.moved";
/// A copy of a damaged file; further copies are `ledger.damaged.1` and so on.
pub const DAMAGED: &str = "ledger.damaged";
