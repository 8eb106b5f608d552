//! Signals that must not end the process although their default does: logrotate's, and signals sent
//! to every process of this name or service.
//!
//! pintle blocks them instead of catching them: a blocked signal interrupts nothing, and a
//! meaningful one waits until a thread listens for it. Threads inherit the mask; started programs
//! do not (`std` resets it).

use nix::sys::signal::{SigSet, Signal};

/// Signals that report a fault of this process, stop or end it, or announce a child's end.
const LEFT_ALONE: [Signal; 12] = [
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGCHLD,
    Signal::SIGTSTP,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
];
/// Signals that the serving process listens for.
const HEARD: [Signal; 3] = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
/// Terminal signals that helper processes ignore: they end with the serving process.
const OF_TERMINAL: [Signal; 2] = [Signal::SIGINT, Signal::SIGQUIT];

fn set(signals: &[Signal]) -> SigSet {
    signals.iter().copied().collect()
}

/// Blocks all signals except those that should end a process. Call it before there are threads.
pub fn hold_off() {
    let mut blocked = SigSet::all();
    LEFT_ALONE.into_iter().for_each(|signal| blocked.remove(signal));
    // This fails for invalid sets only.
    let _ = blocked.thread_block();
}

/// The same, for a helper process.
pub fn hold_off_in_helper() {
    hold_off();
    let _ = set(&OF_TERMINAL).thread_block();
}

/// The same, for a helper process that has something to do after the serving process has ended: a
/// service manager sends SIGTERM to all processes of a service.
pub fn hold_off_end_in_helper() {
    hold_off_in_helper();
    let _ = set(&[Signal::SIGTERM]).thread_block();
}

/// Unblocks the signals that this thread listens for, including pending ones.
pub fn let_in() {
    let _ = set(&HEARD).thread_unblock();
}
