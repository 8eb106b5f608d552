//! The filters, run as the kernel runs them, for every architecture; and what is covered by which folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use seccompiler::{BpfProgram, TargetArch};
use tempfile::TempDir;

use super::calls::{NO_SUCH_CALL, names, program};
use super::files::{Use, lacks, testing};
use super::*;
use crate::reason::Severity;

const PROCESS: u32 = 4711;
/// linux/audit.h
const X86_64: u32 = 0xc000_003e;
const AARCH64: u32 = 0xc000_00b7;
/// linux/seccomp.h
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL: u32 = 0x8000_0000;

/// A system call, as a filter sees it: `struct seccomp_data`.
fn data(architecture: u32, number: u32, arguments: [u64; 6]) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(architecture.to_ne_bytes());
    data.extend(0u64.to_ne_bytes());
    data.extend(arguments.iter().flat_map(|a| a.to_ne_bytes()));
    data
}

/// Classic BPF (Documentation/networking/filter.rst), as much of it as filters are made of.
fn verdict(program: &BpfProgram, data: &[u8]) -> u32 {
    let (mut at, mut a) = (0, 0u32);
    loop {
        let i = &program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
        match i.code {
            0x20 => a = u32::from_ne_bytes(data[i.k as usize..i.k as usize + 4].try_into().unwrap()),
            0x54 => a &= i.k,
            0x05 => at += i.k as usize,
            0x15 => at += jump(a == i.k),
            0x25 => at += jump(a > i.k),
            0x35 => at += jump(a >= i.k),
            0x06 => return i.k,
            code => panic!("instruction {code:#x} is new here"),
        }
    }
}

struct Machine {
    program: BpfProgram,
    architecture: u32,
}

impl Machine {
    #[track_caller]
    fn check(&self, number: u32, arguments: [u64; 6], is_allowed: bool) {
        let want = if is_allowed { ALLOW } else { ERRNO | NO_SUCH_CALL };
        let got = verdict(&self.program, &data(self.architecture, number, arguments));
        assert_eq!(got, want, "call {number} with {arguments:x?} on {:#x}", self.architecture);
    }
}

fn machines() -> [Machine; 2] {
    let machine =
        |target, architecture| Machine { program: program(Calls::Serving, target, PROCESS).unwrap(), architecture };
    [machine(TargetArch::x86_64, X86_64), machine(TargetArch::aarch64, AARCH64)]
}

/// System calls that lead out of a process, by their numbers on both architectures: asm/unistd_64.h,
/// asm-generic/unistd.h.
const WAYS_OUT: [(&str, u32, u32); 40] = [
    ("execve", 59, 221),
    ("execveat", 322, 281),
    ("clone3", 435, 435),
    ("ptrace", 101, 117),
    ("process_vm_readv", 310, 270),
    ("process_vm_writev", 311, 271),
    ("pidfd_getfd", 438, 438),
    ("kcmp", 312, 272),
    ("kill", 62, 129),
    ("tkill", 200, 130),
    ("pidfd_send_signal", 424, 424),
    ("rt_sigqueueinfo", 129, 138),
    ("mount", 165, 40),
    ("umount2", 166, 39),
    ("move_mount", 429, 429),
    ("open_tree", 428, 428),
    ("fsopen", 430, 430),
    ("pivot_root", 155, 41),
    ("chroot", 161, 51),
    ("unshare", 272, 97),
    ("setns", 308, 268),
    ("bpf", 321, 280),
    ("perf_event_open", 298, 241),
    ("userfaultfd", 323, 282),
    ("io_uring_setup", 425, 425),
    ("io_uring_enter", 426, 426),
    ("keyctl", 250, 219),
    ("add_key", 248, 217),
    ("request_key", 249, 218),
    ("init_module", 175, 105),
    ("finit_module", 313, 273),
    ("kexec_load", 246, 104),
    ("reboot", 169, 142),
    ("open_by_handle_at", 304, 265),
    ("memfd_create", 319, 279),
    ("pkey_mprotect", 329, 288),
    ("setuid", 105, 146),
    ("setresuid", 117, 147),
    ("capset", 126, 91),
    ("seccomp", 317, 277),
];

#[test]
fn no_way_out_is_allowed() {
    for (at, machine) in machines().iter().enumerate() {
        for (_, x86_64, aarch64) in WAYS_OUT {
            machine.check([x86_64, aarch64][at], [0; 6], false);
        }
    }
    for target in [TargetArch::x86_64, TargetArch::aarch64] {
        let allowed: Vec<String> = names(Calls::Serving, target).collect();
        assert!(allowed.len() > 90, "the list is suspiciously short: {allowed:?}");
        for (name, ..) in WAYS_OUT {
            assert!(!allowed.iter().any(|a| a == name), "{name}");
        }
        // Who has the keys may do nothing that the proxy may not, and has no way to anywhere.
        let keys: Vec<String> = names(Calls::Keys, target).collect();
        assert!(program(Calls::Keys, target, PROCESS).is_ok() && keys.iter().all(|name| allowed.contains(name)));
        for name in ["socket", "connect", "bind", "accept4", "renameat2", "unlinkat", "ioctl", "socketpair"] {
            assert!(!keys.iter().any(|k| k == name), "{name}");
        }
    }
}

#[test]
fn some_calls_depend_on_their_arguments() {
    let [x86_64, aarch64] = &machines();
    let both = |numbers: (u32, u32), arguments: &[u64], is_allowed: bool| {
        let mut six = [0; 6];
        six[..arguments.len()].copy_from_slice(arguments);
        x86_64.check(numbers.0, six, is_allowed);
        aarch64.check(numbers.1, six, is_allowed);
    };
    let read = (0, 63);
    both(read, &[u64::MAX, u64::MAX, u64::MAX], true);
    let (statfs, syncfs) = ((137, 43), (306, 267));
    both(statfs, &[], true);
    both(syncfs, &[], true);
    let socket = (41, 198);
    for (family, kind, protocol, is_allowed) in [
        (1, 0x80801, 0, true),  // AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK
        (2, 0x80802, 0, true),  // AF_INET, SOCK_DGRAM
        (2, 2, 17, true),       // IPPROTO_UDP
        (10, 0x80801, 0, true), // AF_INET6
        (10, 1, 6, true),       // IPPROTO_TCP
        (2, 3, 0, false),       // SOCK_RAW
        (2, 1, 262, false),     // IPPROTO_MPTCP
        (10, 0x80801, 262, false),
        (2, 1, 132, false), // IPPROTO_SCTP
        (2, 5, 132, false), // the same, SOCK_SEQPACKET
        (2, 6, 33, false),  // SOCK_DCCP, IPPROTO_DCCP
        (2, 2, 136, false), // IPPROTO_UDPLITE
        (2, 2, 1, false),   // IPPROTO_ICMP: ping
        (2, 2, 115, false), // IPPROTO_L2TP
        (2, 1, 256, false), // IPPROTO_SMC
        (2, 1, 17, false),  // what fits another kind
        (2, 2, 6, false),
        (1, 1, 6, false),
        (16, 2, 0, false), // AF_NETLINK
        (17, 2, 0, false), // AF_PACKET
        (38, 5, 0, false), // AF_ALG
        (40, 1, 0, false), // AF_VSOCK
        (43, 1, 0, false), // AF_SMC
        (44, 1, 0, false), // AF_XDP
    ] {
        both(socket, &[family, kind, protocol], is_allowed);
        // The kernel looks at the lower half of an argument only, and so must the filter.
        both(socket, &[family, kind, 1 << 32 | protocol], is_allowed);
    }
    let socketpair = (53, 199);
    both(socketpair, &[1, 0x80801, 0], true);
    both(socketpair, &[2, 1, 0], false);
    let (sendto, sendmsg, sendmmsg) = ((44, 206), (46, 211), (307, 269));
    let (nosignal, fastopen) = (0x4000, 0x2000_0000);
    for (flags, is_allowed) in
        [(0, true), (nosignal, true), (fastopen, false), (fastopen | nosignal, false), (1 << 32 | fastopen, false)]
    {
        both(sendto, &[3, 0, 1, flags], is_allowed);
        both(sendmsg, &[3, 0, flags], is_allowed);
        both(sendmmsg, &[3, 0, 1, flags], is_allowed);
    }
    let setsockopt = (54, 208);
    both(setsockopt, &[3, 6, 1], true); // TCP_NODELAY
    both(setsockopt, &[3, 1, 30], true); // SOL_SOCKET
    both(setsockopt, &[3, 6, 30], false); // TCP_FASTOPEN_CONNECT
    both(setsockopt, &[3, 6, 31], false); // TCP_ULP
    let (mmap, mprotect) = ((9, 222), (10, 226));
    both(mmap, &[0, 4096, 3, 0x22], true); // anonymous, to be written
    both(mmap, &[0, 4096, 5, 0x02], true); // a library's code
    both(mmap, &[0, 4096, 5, 0x22], false); // code from nowhere
    both(mmap, &[0, 4096, 7, 0x02], false); // written and executed
    both(mprotect, &[0, 4096, 3], true);
    both(mprotect, &[0, 4096, 5], false);
    let clone = (56, 220);
    both(clone, &[0x003d_0f00], true); // as pthread_create has it
    both(clone, &[0x11], false); // fork
    both(clone, &[0x003d_0f00 | 0x1000_0000], false); // CLONE_NEWUSER
    let tgkill = (234, 131);
    both(tgkill, &[PROCESS.into(), 1, 6], true);
    both(tgkill, &[1, 1, 9], false);
    let ioctl = (16, 29);
    both(ioctl, &[0, 0x5421], true); // FIONBIO
    both(ioctl, &[0, 0x5412], false); // TIOCSTI
    let prctl = (157, 167);
    both(prctl, &[15], true); // PR_SET_NAME
    both(prctl, &[4, 1], false); // PR_SET_DUMPABLE
    let prlimit64 = (302, 261);
    both(prlimit64, &[0, 7], true);
    both(prlimit64, &[1, 7], false);
}

/// The numbers of another architecture, which the kernel may take all the same: x32, or 32 bit.
#[test]
fn calls_of_another_architecture_are_the_end() {
    let [x86_64, _] = &machines();
    assert_eq!(verdict(&x86_64.program, &data(0x4000_0003, 0, [0; 6])), KILL);
    // x32 has the same architecture, and a bit of its own in the number.
    x86_64.check(0x4000_0000, [0; 6], false);
}

#[test]
fn what_lies_below_a_folder_is_covered_by_it() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    for folder in ["certs/live", "state", "elsewhere"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    fs::write(at("certs/live/a.pem"), "x").unwrap();
    fs::write(at("elsewhere/b.pem"), "x").unwrap();
    symlink("../../elsewhere/b.pem", at("certs/live/b.pem")).unwrap();
    let held = testing::held(&[&at("certs")], &[&at("state")], &[443]);
    let check =
        |path: &str, what: Use, covered: bool| assert_eq!(held.covers(&at(path), what), covered, "{path} {what:?}");
    check("certs", Use::Read, true);
    check("certs/live/a.pem", Use::Read, true);
    check("certs/live/a.pem", Use::Write, false);
    check("certs/live/../live/not-yet.pem", Use::Read, true);
    check("certs/live/b.pem", Use::Read, false); // where the link leads
    check("elsewhere/b.pem", Use::Read, false);
    check("certs-of-others", Use::Read, false);
    check("state/ledger.jsonl", Use::Write, true);
    check("state/ledger.jsonl", Use::Read, true);
    check("state/admin.sock", Use::Sockets, true);
    check("certs/admin.sock", Use::Sockets, false);
    // Another folder of the same name is another folder.
    fs::rename(at("certs"), at("certs.old")).unwrap();
    fs::create_dir_all(at("certs")).unwrap();
    check("certs/a.pem", Use::Read, false);
}

#[test]
fn what_is_beyond_the_sandbox_is_told_with_a_remedy() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    for folder in ["certs", "state", "webroot"] {
        fs::create_dir(at(folder)).unwrap();
    }
    let files = testing::held(&[&at("certs")], &[&at("state")], &[443, 53]);
    let held = Sandbox { files: Some(files), calls: None, lacks: Vec::new() };
    let rules = |read: &[&str], write: &[&str], ports: &[u16]| Rules {
        read: read.iter().map(|name| at(name)).collect(),
        write: write.iter().map(|name| at(name)).collect(),
        connect: Some(ports.iter().copied().collect()),
        ..Rules::default()
    };
    assert_eq!(held.beyond(&rules(&["certs"], &["state"], &[443])), []);
    let beyond = held.beyond(&rules(&["certs", "webroot"], &["certs"], &[443, 8080]));
    let rendered: Vec<String> = beyond.iter().map(|reason| reason.render(Severity::Error, false)).collect();
    assert_eq!(rendered.len(), 3, "{rendered:?}");
    for (line, words) in
        rendered.iter().zip([["webroot", "sandbox.read"], ["certs", "sandbox.write"], ["port 8080", "connect_ports"]])
    {
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
    assert_eq!(Sandbox { files: None, calls: None, lacks: Vec::new() }.beyond(&rules(&["webroot"], &[], &[1])), []);
}

#[test]
fn older_kernels_lack_something() {
    let rules = Rules { connect: Some([443].into()), ..Rules::default() };
    let check = |abi: u32, rules: &Rules, count: usize| assert_eq!(lacks(abi, rules).len(), count, "{abi}");
    check(1, &rules, 4);
    check(3, &rules, 3);
    check(3, &Rules::default(), 2);
    check(4, &rules, 2);
    check(6, &rules, 0);
    assert!(!Path::new("/no/such").exists());
}
