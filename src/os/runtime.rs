//! Threads with a runtime of their own.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread that runs a task on a runtime of its own. Without a runtime, it logs `lost` and ends.
///
/// # Errors
///
/// If no thread can be started.
pub fn spawn<T: Future<Output = ()>>(
    name: &str,
    lost: &'static str,
    task: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
            Ok(runtime) => runtime.block_on(task()),
            Err(error) => tracing::error!(%error, "{lost}"),
        }
    })
}
