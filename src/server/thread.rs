//! A worker's thread: its runtime, and its tasks.

use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::channels::{Assignment, SharedState, Vitals};
use super::worker::Worker;
use super::{accept, relief};
use crate::telemetry::{AccessLog, flush_thread, park_thread};

/// Runs a worker on this thread until it has drained.
pub(super) fn run(shared: SharedState, own: Assignment) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(park_thread)
        .build_local(tokio::runtime::LocalOptions::default())?;
    let result = runtime.block_on(work(shared, own));
    // Requests that are still open get their records now.
    drop(runtime);
    flush_thread();
    result
}

async fn work(mut shared: SharedState, own: Assignment) -> io::Result<()> {
    let Assignment { number, listeners, requests, vitals } = own;
    let worker = Rc::new(Worker::new(number, &mut shared, &vitals).await);
    let Vitals { taken, pulse, drains, .. } = vitals;
    let background = worker.clone();
    tokio::task::spawn_local(async move { background.clock.run().await });
    tokio::task::spawn_local(AccessLog::flush_in_time());
    let background = worker.clone();
    tokio::task::spawn_local(async move { background.sweep().await });
    tokio::task::spawn_local(relief::hear(worker.clone(), requests));
    let background = worker.clone();
    tokio::task::spawn_local(async move { background.show_life(&pulse).await });
    let background = worker.clone();
    let (snapshots, news) = (shared.snapshot, shared.news.clone());
    tokio::task::spawn_local(async move { background.follow_snapshots(snapshots, &taken, &news).await });
    let how = accept::listen(&worker, listeners, &mut shared.draining).await?;
    worker.begin_drain(&how);
    if worker.begins_no_handshake() {
        worker.handshakes.end().await;
    }
    drains.store(true, Ordering::Release);
    shared.news.notify_one();
    worker.drain().await;
    worker.sum_failed_handshakes(true);
    // For the records of requests that are still open.
    worker.clock.begin_turn();
    Ok(())
}
