//! Signals that must not end a process whose default would: logrotate's, and whatever else is sent to every process of
//! this name or service.
//!
//! They are blocked, and not caught: a blocked signal interrupts nothing, and one that has a meaning waits until there is
//! somebody who listens for it. Every thread inherits this; programs that are started do not (`std` resets it).

use nix::sys::signal::{SigSet, Signal};

/// Signals that report a fault of this process, stop it, end it, or tell of a child.
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
/// Signals that the process which serves listens for.
const HEARD: [Signal; 3] = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
/// Signals of a terminal that helpers leave to the process which serves: they end when it does.
const OF_TERMINAL: [Signal; 2] = [Signal::SIGINT, Signal::SIGQUIT];

fn set(signals: &[Signal]) -> SigSet {
    signals.iter().copied().collect()
}

/// Blocks all signals but those that end a process as they should. To be called before there are threads.
pub fn hold_off() {
    let mut blocked = SigSet::all();
    LEFT_ALONE.into_iter().for_each(|signal| blocked.remove(signal));
    // It fails for no set that can be written down.
    let _ = blocked.thread_block();
}

/// The same, for a helper of the process that serves.
pub fn hold_off_in_helper() {
    hold_off();
    let _ = set(&OF_TERMINAL).thread_block();
}

/// Lets the signals in that this thread listens for from now on, those included that came before.
pub fn let_in() {
    let _ = set(&HEARD).thread_unblock();
}
