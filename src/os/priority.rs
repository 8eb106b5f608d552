//! The priority of a thread.

/// The lowest priority (setpriority(2)).
const LOWEST: i32 = 19;

/// Gives this thread, and those that it starts, the lowest priority: it runs when the others leave the processor. Without
/// permission, nothing changes.
pub fn lower() {
    let _ = rustix::process::setpriority_process(None, LOWEST);
}
