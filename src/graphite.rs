//! Metrics for Graphite: its plaintext protocol over TCP, from the text of `/metrics`.
//!
//! Graphite confirms nothing. So a batch of lines has a connection of its own, and counts as sent once the receiver has
//! closed that connection in order after our end. If it breaks, the whole batch goes out again on a new one: lines are
//! never continued, and a repeated line sets the same value at the same time again.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::fetch::connect;
use crate::os::runtime;
use crate::telemetry::exposition::{Exposition, label_pairs};
use crate::upstream::dns::{NameServers, Resolver};

/// Time limit for one address.
const CONNECT: Duration = Duration::from_secs(10);
/// Time limit for a piece of a batch.
const WRITE: Duration = Duration::from_secs(30);
/// The bytes of a piece.
const PIECE: usize = 64 * 1024;
/// Time limit for the receiver's end of the connection. Some receivers never close.
const CLOSE: Duration = Duration::from_secs(5);
/// The pause after a failure: doubled each time, up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest node of a path, which is the name of a file or a folder at Graphite.
const NODE_MAX: usize = 200;

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphiteSettings {
    /// The name or address of the receiver.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The beginning of every path, without a dot at its end.
    pub prefix: String,
    /// The time from one batch to the next.
    pub interval: Duration,
    /// The bytes of the lines that wait.
    pub queue: usize,
}

/// Counters of lines.
#[derive(Debug, Default)]
pub struct GraphiteCounters {
    /// Lines that Graphite has.
    pub sent: AtomicU64,
    /// Lines that were given up.
    pub dropped: AtomicU64,
    /// Connections that failed.
    pub failures: AtomicU64,
}

/// The thread that sends, as the control thread holds it. It ends with this value.
pub struct Graphite {
    /// The settings.
    pub settings: GraphiteSettings,
    shared: Arc<GraphiteShared>,
    _thread: JoinHandle<()>,
}

struct GraphiteShared {
    queue: Mutex<BatchQueue>,
    wake: Notify,
    numbers: Arc<GraphiteCounters>,
    most: usize,
}

#[derive(Default)]
struct BatchQueue {
    batches: VecDeque<Arc<str>>,
    has_ended: bool,
}

impl Graphite {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub fn start(settings: GraphiteSettings, servers: NameServers, numbers: Arc<GraphiteCounters>) -> io::Result<Self> {
        let (queue, wake, most) = (Mutex::default(), Notify::new(), settings.queue);
        let shared = Arc::new(GraphiteShared { queue, wake, numbers, most });
        let (of_thread, target) = (shared.clone(), settings.clone());
        let thread = runtime::spawn("graphite", "graphite: no runtime; no metric is sent", move || async move {
            run(&of_thread, &target, Resolver::new(servers)).await;
        })?;
        Ok(Self { settings, shared, _thread: thread })
    }

    /// Sends metrics in Prometheus' text format, with their time in seconds since 1970. Writes them on another thread.
    pub fn push(&self, metrics: Exposition, seconds: i64) {
        let (shared, prefix) = (self.shared.clone(), self.settings.prefix.clone());
        spawn_blocking(move || shared.push(lines(&metrics.finish(), &prefix, seconds).into()));
    }
}

impl Drop for Graphite {
    fn drop(&mut self) {
        self.shared.queue().has_ended = true;
        self.shared.wake.notify_one();
    }
}

impl GraphiteShared {
    fn queue(&self) -> MutexGuard<'_, BatchQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch. If the queue is full, the oldest batches are given up.
    fn push(&self, batch: Arc<str>) {
        let batch = newest(batch, self.most, &self.numbers.dropped);
        if batch.is_empty() {
            return;
        }
        let mut queue = self.queue();
        queue.batches.push_back(batch);
        let mut size: usize = queue.batches.iter().map(|batch| batch.len()).sum();
        while size > self.most
            && queue.batches.len() > 1
            && let Some(oldest) = queue.batches.pop_front()
        {
            size = size.saturating_sub(oldest.len());
            self.numbers.dropped.fetch_add(count(&oldest), Ordering::Relaxed);
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Removes a batch that was sent, unless it was given up meanwhile.
    fn sent(&self, batch: &Arc<str>) {
        let mut queue = self.queue();
        if queue.batches.front().is_some_and(|front| Arc::ptr_eq(front, batch)) {
            queue.batches.pop_front();
            self.numbers.sent.fetch_add(count(batch), Ordering::Relaxed);
        }
    }
}

fn count(batch: &str) -> u64 {
    batch.lines().count() as u64
}

/// Returns the whole lines at the end of a batch that fit into `most` bytes.
fn newest(batch: Arc<str>, most: usize, dropped: &AtomicU64) -> Arc<str> {
    if batch.len() <= most {
        return batch;
    }
    let over = batch.len() - most;
    let begin = batch.bytes().skip(over - 1).position(|b| b == b'\n').map_or(batch.len(), |at| over + at);
    let (left_out, kept) = batch.split_at_checked(begin).unwrap_or((&batch, ""));
    dropped.fetch_add(count(left_out), Ordering::Relaxed);
    kept.into()
}

async fn run(shared: &GraphiteShared, target: &GraphiteSettings, resolver: Resolver) {
    let mut pause = PAUSE;
    let mut is_failing = false;
    loop {
        let (batch, has_ended) = {
            let queue = shared.queue();
            (queue.batches.front().cloned(), queue.has_ended)
        };
        let Some(batch) = batch.filter(|_| !has_ended) else {
            if has_ended {
                return;
            }
            shared.wake.notified().await;
            continue;
        };
        match send(&batch, target, &resolver).await {
            Ok(()) => {
                if is_failing {
                    tracing::info!(host = target.host, port = target.port, "graphite takes metrics again");
                }
                (pause, is_failing) = (PAUSE, false);
                shared.sent(&batch);
            }
            Err(error) => {
                shared.numbers.failures.fetch_add(1, Ordering::Relaxed);
                if !is_failing {
                    tracing::warn!(host = target.host, port = target.port, error, "cannot send metrics to graphite");
                }
                is_failing = true;
                tokio::select! {
                    () = sleep(pause) => {}
                    () = async { while !shared.queue().has_ended { shared.wake.notified().await } } => return,
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Sends a batch on a connection of its own, and waits for the receiver's end of it.
async fn send(batch: &str, target: &GraphiteSettings, resolver: &Resolver) -> Result<(), String> {
    let late = |what: &str, limit: Duration| format!("{what} within {} seconds", limit.as_secs());
    let mut socket = connect(resolver, &target.host, target.port, CONNECT).await?;
    for piece in batch.as_bytes().chunks(PIECE) {
        let written = timeout(WRITE, socket.write_all(piece)).await;
        written.map_err(|_| late("the receiver reads nothing", WRITE))?.map_err(|error| error.to_string())?;
    }
    socket.shutdown().await.map_err(|error| error.to_string())?;
    let mut ignored = [0; 64];
    let closed = async {
        while socket.read(&mut ignored).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    match timeout(CLOSE, closed).await {
        Ok(closed) => closed.map_err(|error| error.to_string()),
        // It takes the lines, but does not close: as much as such a receiver ever confirms.
        Err(_) => Ok(()),
    }
}

/// Returns the lines of metrics in Prometheus' text format: `PREFIX.NAME.LABEL-VALUES VALUE SECONDS`. Leaves out infos, whose
/// labels would make new paths with each certificate, and values that are not finite.
fn lines(metrics: &str, prefix: &str, seconds: i64) -> String {
    let mut text = String::with_capacity(metrics.len());
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        if name.ends_with("_info") || !value.parse::<f64>().is_ok_and(f64::is_finite) {
            continue;
        }
        text.push_str(prefix);
        text.push('.');
        push_node(&mut text, name.strip_prefix("pintle_").unwrap_or(name));
        for (_, value) in label_pairs(labels) {
            text.push('.');
            push_node(&mut text, &value);
        }
        let _ = writeln!(text, " {value} {seconds}");
    }
    text
}

/// Adds a node of a path: letters, digits, `_` and `-`; any other character becomes `_`.
pub fn push_node(path: &mut String, node: &str) {
    let begin = path.len();
    path.extend(node.chars().take(NODE_MAX).map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }));
    if path.len() == begin {
        path.push('_');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_values() {
        let check = |line: &str, want: &str| assert_eq!(lines(line, "edge.a", 7), want, "{line}");
        check("# TYPE pintle_x gauge\n", "");
        check("pintle_requests_total 12", "edge.a.requests_total 12 7\n");
        check("process_open_fds 3", "edge.a.process_open_fds 3 7\n");
        check(
            "pintle_upstream_circuit{site=\"blog.example.com\",state=\"half-open\"} 1",
            "edge.a.upstream_circuit.blog_example_com.half-open 1 7\n",
        );
        check("pintle_seconds_bucket{site=\"a\",le=\"0.005\"} 1", "edge.a.seconds_bucket.a.0_005 1 7\n");
        check("pintle_x{site=\"*.b c/..\\\"\\\\\\nü{}=\\\",\"} 0.5", "edge.a.x.__b_c____________ 0.5 7\n");
        check("pintle_x{site=\"\"} 1", "edge.a.x._ 1 7\n");
        check("pintle_build_info{version=\"1\"} 1", "");
        for value in ["NaN", "+Inf", "-Inf", "inf", ""] {
            check(&format!("pintle_x {value}"), "");
        }
        check("pintle_x -1.5e-7", "edge.a.x -1.5e-7 7\n");
        let long = lines(&format!("pintle_x{{site=\"{}\"}} 1", "a".repeat(300)), "p", 7);
        assert_eq!(long.len(), "p.x. 1 7\n".len() + NODE_MAX);
    }

    #[test]
    fn a_full_queue_keeps_the_newest_whole_lines() {
        let shared = GraphiteShared { queue: Mutex::default(), wake: Notify::new(), numbers: Arc::default(), most: 10 };
        let texts = || shared.queue().batches.iter().map(|batch| batch.to_string()).collect::<Vec<_>>();
        shared.push("a\nb\n".into());
        shared.push("c\nd\n".into());
        assert_eq!(texts(), ["a\nb\n", "c\nd\n"]);
        shared.push("e\nf\n".into());
        assert_eq!(texts(), ["c\nd\n", "e\nf\n"]);
        shared.push("1234\n5678\n9\n".into());
        assert_eq!(texts(), ["5678\n9\n"]);
        assert_eq!(shared.numbers.dropped.load(Ordering::Relaxed), 2 + 4 + 1);
        shared.push("123456789\n".into());
        shared.push("12345678901\n".into());
        assert_eq!(texts(), ["123456789\n"]);
    }
}
