//! The permissions of a process: what the operator sets, and what a sandbox enforces.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// The strictness with which a part of the sandbox is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strength {
    /// Off.
    Off,
    /// As far as the kernel supports it.
    #[default]
    Auto,
    /// Required: without all of it, pintle does not start.
    Require,
}

/// The operator's settings (`[sandbox]`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SandboxSettings {
    /// Landlock: files and ports.
    pub landlock: Strength,
    /// Seccomp: system calls.
    pub seccomp: Strength,
    /// `true` if connections may go to any port.
    pub connect_anywhere: bool,
    /// Additional ports, beside those of the upstreams and of DNS.
    pub connect_ports: Vec<u16>,
    /// Additional readable files and folders, beside those named in the configuration.
    pub read: Vec<PathBuf>,
    /// Additional writable files and folders.
    pub write: Vec<PathBuf>,
}

/// The permissions of a process. Permission for a folder includes everything below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Readable files and folders.
    pub read: BTreeSet<PathBuf>,
    /// Readable and writable files and folders.
    pub write: BTreeSet<PathBuf>,
    /// Log folders: logs are created and written there, nothing is read or removed.
    pub logs: BTreeSet<PathBuf>,
    /// Socket folders: sockets are created and removed there, no file is written.
    pub sockets: BTreeSet<PathBuf>,
    /// Ports that TCP connections may go to; `None` for all ports.
    pub connect: Option<BTreeSet<u16>>,
    /// `true` if abstract sockets of other processes can be reached.
    pub abstract_sockets: bool,
    /// The list of system calls.
    pub calls: Calls,
}

/// Lists of system calls, by the purpose of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Calls {
    /// The proxy.
    #[default]
    Serving,
    /// Signs requests that arrive on the sockets it receives.
    Keys,
}
