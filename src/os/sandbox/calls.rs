//! The system-call filter (seccomp): an allow-list of the calls that a proxy needs after its start.
//!
//! The list comes from tracing the end-to-end tests and was reviewed by hand. Any other call fails
//! with ENOSYS, as on an older kernel. The C library and the runtime then fall back to older calls,
//! and an unexpected call costs a feature instead of the service.

use seccompiler::{BpfProgram, TargetArch, apply_filter_all_threads, compile_from_json};
use serde_json::{Value, json};

use super::rules::Calls;

/// ENOSYS, which has this number on every Linux architecture of Rust except MIPS and Alpha.
pub(super) const NO_SUCH_CALL: u32 = 38;

/// Calls that are allowed with any arguments.
const FREE: [&str; 87] = [
    // Open files: sockets, logs, the ledger.
    "read",
    "readv",
    "pread64",
    "write",
    "writev",
    "pwrite64",
    "lseek",
    "close",
    "dup",
    "fcntl",
    "fsync",
    "fdatasync",
    // Copies of thousands of pairs at once.
    "syncfs",
    "ftruncate",
    "flock",
    "fstat",
    "getdents64",
    // Files by name. Landlock and the file system decide which ones.
    "openat",
    "newfstatat",
    "statx",
    // The free space, before the history of the configuration grows.
    "statfs",
    "readlinkat",
    "faccessat",
    "faccessat2",
    "getcwd",
    "mkdirat",
    "unlinkat",
    "renameat",
    "renameat2",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "fchown",
    // Watching the folders of certificates.
    "inotify_init1",
    "inotify_add_watch",
    "inotify_rm_watch",
    // Sockets. The rules below restrict their families.
    "bind",
    "listen",
    "accept4",
    "connect",
    "shutdown",
    "getsockname",
    "getpeername",
    "getsockopt",
    "recvfrom",
    "recvmsg",
    // Waiting.
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "ppoll",
    "eventfd2",
    "pipe2",
    "nanosleep",
    "clock_nanosleep",
    "restart_syscall",
    // Time and randomness.
    "clock_gettime",
    "clock_getres",
    "gettimeofday",
    "getrandom",
    "sysinfo",
    "uname",
    // Memory. The rules below forbid executable memory.
    "munmap",
    "mremap",
    "madvise",
    "brk",
    "membarrier",
    // Threads.
    "exit",
    "exit_group",
    "futex",
    "set_robust_list",
    "rseq",
    "set_tid_address",
    "gettid",
    "getpid",
    "sched_yield",
    "sched_getaffinity",
    "getcpu",
    "sigaltstack",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    // Children that were started earlier.
    "wait4",
    "waitid",
    // The process's own ids.
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
];

/// The same calls under names that newer architectures no longer have.
const FREE_X86_64: [&str; 11] =
    ["open", "stat", "lstat", "access", "readlink", "mkdir", "unlink", "rename", "chmod", "poll", "epoll_wait"];

/// For the key process: it reads files, receives sockets and signs.
const FREE_OF_KEYS: [&str; 43] = [
    "read",
    "readv",
    "write",
    "writev",
    "close",
    "fstat",
    "lseek",
    "openat",
    "newfstatat",
    "statx",
    "recvmsg",
    "recvfrom",
    "munmap",
    "mremap",
    "madvise",
    "brk",
    "exit",
    "exit_group",
    "futex",
    "set_robust_list",
    "rseq",
    "set_tid_address",
    "gettid",
    "getpid",
    "sched_yield",
    "sched_getaffinity",
    "sigaltstack",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "restart_syscall",
    "getrandom",
    "clock_gettime",
    "clock_nanosleep",
    "nanosleep",
    "ppoll",
    "fcntl",
    "getcpu",
    "geteuid",
    // The C library resolves `..` with these, also in the target of a symbolic link.
    "faccessat",
    "faccessat2",
    "readlinkat",
    "membarrier",
];

/// The same calls under names that newer architectures no longer have.
const FREE_OF_KEYS_X86_64: [&str; 6] = ["open", "stat", "lstat", "access", "readlink", "poll"];

// These numbers are the same on x86_64 and aarch64 (linux/socket.h, asm-generic/mman-common.h,
// asm-generic/ioctls.h).
const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const SOCK_STREAM: u64 = 1;
const SOCK_DGRAM: u64 = 2;
const SOCK_KIND: u64 = 0xf;
const IPPROTO_TCP: u64 = 6;
const IPPROTO_UDP: u64 = 17;
/// Connects by sending. Some kernels do not ask Landlock about it, which controls connect(2) only.
const MSG_FASTOPEN: u64 = 0x2000_0000;
/// The same, delayed until the first bytes are sent.
const TCP_FASTOPEN_CONNECT: u64 = 30;
/// Adds another protocol, with its kernel code, on top of TCP.
const TCP_ULP: u64 = 31;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
const MAP_ANONYMOUS: u64 = 0x20;
/// The caller itself, which is a thread here.
const PRIO_PROCESS: u64 = 0;
const CLONE_THREAD: u64 = 0x0001_0000;
/// Flags of clone(2) that create namespaces or request tracing.
const CLONE_OUT: u64 = 0x7e02_2080;
const PR_SET_NAME: u64 = 15;
const PR_GET_NAME: u64 = 16;
/// Libraries load libcap with some name-service plugins, and it makes this call when it is loaded.
const PR_CAPBSET_READ: u64 = 23;
/// Names a memory mapping in /proc.
const PR_SET_VMA: u64 = 0x5356_4d41;
/// FIONBIO, FIONREAD, FIOCLEX; TCGETS and TIOCGWINSZ to detect a terminal; SIOCGIFINDEX for
/// `fe80::1%eth0`.
const IOCTLS: [u64; 6] = [0x5421, 0x541b, 0x5451, 0x5401, 0x5413, 0x8933];

/// Restricts all threads of this process. Returns the number of allowed calls.
pub(super) fn restrict(calls: Calls) -> Result<usize, String> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| format!("no list of calls for {}", std::env::consts::ARCH))?;
    let filter = program(calls, architecture, std::process::id())?;
    apply_filter_all_threads(&filter).map_err(|error| error.to_string())?;
    Ok(names(calls, architecture).count())
}

/// The filter of a process, in the kernel's form.
pub(super) fn program(calls: Calls, architecture: TargetArch, process: u32) -> Result<BpfProgram, String> {
    let free = free(calls, architecture).map(|name| json!({ "syscall": name }));
    let filter: Vec<Value> = free.chain(conditional(calls, process)).collect();
    let text = json!({
        "serving": {
            "mismatch_action": { "errno": NO_SUCH_CALL },
            "match_action": "allow",
            "filter": filter,
        }
    });
    let mut compiled = compile_from_json(text.to_string().as_bytes(), architecture).map_err(|e| e.to_string())?;
    compiled.remove("serving").ok_or_else(|| "no filter was made".to_owned())
}

fn free(calls: Calls, architecture: TargetArch) -> impl Iterator<Item = &'static str> {
    let (all, legacy): (&[&str], &[&str]) = match calls {
        Calls::Serving => (&FREE, &FREE_X86_64),
        Calls::Keys => (&FREE_OF_KEYS, &FREE_OF_KEYS_X86_64),
    };
    let legacy = if architecture == TargetArch::x86_64 { legacy } else { &[] };
    all.iter().chain(legacy).copied()
}

/// All calls that are allowed, with any arguments or with some.
pub(super) fn names(calls: Calls, architecture: TargetArch) -> impl Iterator<Item = String> {
    let mut conditional: Vec<String> =
        conditional(calls, 0).iter().filter_map(|rule| rule["syscall"].as_str().map(str::to_owned)).collect();
    conditional.dedup();
    free(calls, architecture).map(str::to_owned).chain(conditional)
}

/// Calls that are allowed with some arguments only; one rule for each permitted form.
fn conditional(calls: Calls, process: u32) -> Vec<Value> {
    let is = |index: u8, value: u64| json!({ "index": index, "type": "dword", "op": "eq", "val": value });
    let is_not = |index: u8, value: u64| json!({ "index": index, "type": "dword", "op": "ne", "val": value });
    let masked = |index: u8, mask: u64, value: u64| json!({ "index": index, "type": "dword", "op": { "masked_eq": mask }, "val": value });
    let mut rules = Vec::new();
    let mut allow = |syscall: &str, arguments: Vec<Value>| rules.push(json!({ "syscall": syscall, "args": arguments }));
    if calls == Calls::Serving {
        // No raw or packet sockets, netlink, vsock or kernel crypto: these families have much code
        // and many holes. TCP and UDP only: Landlock's port list applies to TCP, so MPTCP, SCTP and
        // DCCP would bypass it.
        for (kind, protocol) in [(SOCK_STREAM, IPPROTO_TCP), (SOCK_DGRAM, IPPROTO_UDP)] {
            allow("socket", vec![is(0, AF_UNIX), masked(1, SOCK_KIND, kind), is(2, 0)]);
            for family in [AF_INET, AF_INET6] {
                for protocol in [0, protocol] {
                    allow("socket", vec![is(0, family), masked(1, SOCK_KIND, kind), is(2, protocol)]);
                }
            }
        }
        for kind in [SOCK_STREAM, SOCK_DGRAM] {
            allow("socketpair", vec![is(0, AF_UNIX), masked(1, SOCK_KIND, kind), is(2, 0)]);
        }
        allow("sendmmsg", vec![masked(3, MSG_FASTOPEN, 0)]);
        allow("setsockopt", vec![is_not(1, IPPROTO_TCP)]);
        allow("setsockopt", vec![is_not(2, TCP_FASTOPEN_CONNECT), is_not(2, TCP_ULP)]);
    }
    allow("sendto", vec![masked(3, MSG_FASTOPEN, 0)]);
    allow("sendmsg", vec![masked(2, MSG_FASTOPEN, 0)]);
    // Writable memory never becomes executable.
    allow("mmap", vec![masked(2, PROT_EXEC, 0)]);
    allow("mprotect", vec![masked(2, PROT_EXEC, 0)]);
    // Threads but no processes. A filter cannot see the flags of clone3; without clone3, libraries
    // use clone.
    allow("clone", vec![masked(0, CLONE_THREAD | CLONE_OUT, CLONE_THREAD)]);
    for option in [PR_SET_NAME, PR_GET_NAME, PR_SET_VMA, PR_CAPBSET_READ] {
        allow("prctl", vec![is(0, option)]);
    }
    if calls == Calls::Serving {
        for request in IOCTLS {
            allow("ioctl", vec![is(1, request)]);
        }
        // The priority of the calling thread, which may become lower only.
        allow("setpriority", vec![is(0, PRIO_PROCESS), is(1, 0)]);
        // A file may be mapped executable, since the C library loads plugins.
        allow("mmap", vec![masked(2, PROT_EXEC | PROT_WRITE, PROT_EXEC), masked(3, MAP_ANONYMOUS, 0)]);
    }
    // The limits of this process only, and signals to this process only; abort(3) sends one.
    allow("prlimit64", vec![is(0, 0)]);
    allow("tgkill", vec![is(0, process.into())]);
    rules
}
