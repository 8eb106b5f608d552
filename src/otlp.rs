//! Sends spans to a collector: OTLP over HTTP, as Protocol Buffers. The cargo feature `otlp` contains this module.
//!
//! A thread of its own collects what workers have encoded, and sends it in one request at a time. Answers that say so
//! (429, 502, 503, 504) and broken connections lead to another attempt; all others, and a collector that stays away, cost
//! the spans, which are counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use aws_lc_rs::rand;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::fetch::{FetchLimits, Fetcher, retry_after};
use crate::os::runtime;
use crate::telemetry::protobuf::{nested_number, push_message};
use crate::telemetry::trace::{CollectorSettings, SpanBatch, SpanCounters, SpanSink, hex, push_resource, push_scope};
use crate::upstream::dns::NameServers;

/// Spans are collected for so long, or up to this size in bytes, before they are sent.
const COLLECT: Duration = Duration::from_secs(1);
const REQUEST_MAX: usize = 512 * 1024;
/// The limits of an attempt.
const LIMITS: FetchLimits =
    FetchLimits { whole: Duration::from_secs(10), connect: Duration::from_secs(5), answer: 64 * 1024 };
/// The pause after a failure: doubled each time, up to the longest. The collector may ask for a longer one.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(300);
/// The time after which the spans of a request are given up.
const PATIENCE: Duration = Duration::from_secs(300);
/// The time for the last spans, when the process ends.
const LAST: Duration = Duration::from_secs(3);

/// The thread that sends, as the control thread holds it.
pub struct SpanExporter {
    settings: watch::Sender<Option<CollectorSettings>>,
    thread: JoinHandle<()>,
}

impl SpanExporter {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub fn start(
        settings: CollectorSettings,
        (sink, batches): (SpanSink, mpsc::Receiver<SpanBatch>),
        numbers: Arc<SpanCounters>,
        servers: NameServers,
    ) -> io::Result<Self> {
        let (sender, settings) = watch::channel(Some(settings));
        let thread = runtime::spawn("otlp", "otlp: no runtime; no span is sent", move || async move {
            let instance = instance();
            SpanSender { settings, batches, sink, numbers, servers, client: None, is_failing: false, instance }
                .run()
                .await;
        })?;
        Ok(Self { settings: sender, thread })
    }

    /// Replaces the settings. Without any, spans that wait are given up.
    pub fn set(&self, settings: Option<CollectorSettings>) {
        self.settings.send_if_modified(|known| {
            let is_new = *known != settings;
            *known = settings;
            is_new
        });
    }

    /// Sends the last spans, and waits for that, but not long.
    pub fn finish(self) {
        let Self { settings, thread } = self;
        drop(settings);
        let _ = thread.join();
    }
}

/// The id of this process among others of its kind: a random UUID.
fn instance() -> String {
    let mut id = [0; 16];
    let _ = rand::fill(&mut id);
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    let text = hex(&id);
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

struct SpanSender {
    settings: watch::Receiver<Option<CollectorSettings>>,
    batches: mpsc::Receiver<SpanBatch>,
    sink: SpanSink,
    numbers: Arc<SpanCounters>,
    servers: NameServers,
    client: Option<TrustingClient>,
    is_failing: bool,
    instance: String,
}

/// A client, and the roots that it trusts.
struct TrustingClient {
    roots: Option<Vec<Vec<u8>>>,
    fetcher: Fetcher<Full<Bytes>>,
}

/// The outcome of an attempt.
enum ExportAttempt {
    /// The collector has taken the spans, but for this number.
    Sent { rejected: u64 },
    /// Another attempt may succeed, after the pause that the collector asks for.
    Later { why: String, after: Option<Duration> },
    /// No attempt will succeed.
    Refused(String),
}

impl SpanSender {
    async fn run(mut self) {
        loop {
            let first = tokio::select! {
                biased;
                changed = self.settings.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => break,
                },
                Some(batch) = self.batches.recv() => batch,
                else => break,
            };
            let spans = self.collect(first).await;
            self.deliver(spans.count, self.request(&spans.bytes)).await;
        }
        let mut last = SpanBatch::default();
        while let Ok(batch) = self.batches.try_recv() {
            self.join(&mut last, batch);
        }
        if last.count > 0 {
            self.try_last(last.count, self.request(&last.bytes)).await;
        }
    }

    fn join(&self, spans: &mut SpanBatch, batch: SpanBatch) {
        self.sink.taken(batch.bytes.len());
        spans.count += batch.count;
        spans.bytes.extend_from_slice(&batch.bytes);
    }

    /// Collects spans for a request. Ends early with the process.
    async fn collect(&mut self, first: SpanBatch) -> SpanBatch {
        let (mut spans, end) = (SpanBatch::default(), Instant::now() + COLLECT);
        self.join(&mut spans, first);
        while spans.bytes.len() < REQUEST_MAX {
            let next = tokio::select! {
                biased;
                Err(_) = self.settings.changed() => return spans,
                next = timeout_at(end, self.batches.recv()) => next,
            };
            match next {
                Ok(Some(batch)) => self.join(&mut spans, batch),
                Ok(None) | Err(_) => break,
            }
        }
        spans
    }

    /// Sends so many spans, again and again if need be.
    async fn deliver(&mut self, count: u64, body: Bytes) {
        let (end, mut pause) = (Instant::now() + PATIENCE, PAUSE);
        loop {
            let settings = self.settings.borrow_and_update().clone();
            let Some(settings) = settings else { return self.sink.lost(count) };
            let mut watched = self.settings.clone();
            let tried = tokio::select! {
                tried = self.attempt(&settings, body.clone()) => tried,
                () = gone(&mut watched) => return self.try_last(count, body).await,
            };
            match tried {
                ExportAttempt::Sent { rejected } => return self.sent(&settings, count, rejected),
                ExportAttempt::Refused(why) => {
                    self.failed(&settings, &why);
                    return self.sink.lost(count);
                }
                ExportAttempt::Later { why, after } => {
                    self.failed(&settings, &why);
                    let wait = after.map_or_else(|| jittered(pause), |after| after.min(ASKED_PAUSE_MAX));
                    if Instant::now() + wait >= end {
                        return self.sink.lost(count);
                    }
                    tokio::select! {
                        () = sleep(wait) => {}
                        // Another collector may take them at once.
                        changed = self.settings.changed() => if changed.is_err() {
                            return self.try_last(count, body).await;
                        }
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Sends spans once, as the process ends.
    async fn try_last(&mut self, count: u64, body: Bytes) {
        let settings = self.settings.borrow().clone();
        let sent = match &settings {
            Some(settings) => timeout(LAST, self.attempt(settings, body)).await.ok(),
            None => None,
        };
        match (sent, settings) {
            (Some(ExportAttempt::Sent { rejected }), Some(settings)) => self.sent(&settings, count, rejected),
            _ => self.sink.lost(count),
        }
    }

    fn request(&self, spans: &[u8]) -> Bytes {
        let mut body = Vec::with_capacity(spans.len() + 512);
        push_message(&mut body, 1, |out| {
            push_message(out, 1, |out| push_resource(out, &self.instance));
            push_message(out, 2, |out| {
                push_message(out, 1, push_scope);
                out.extend_from_slice(spans);
            });
        });
        body.into()
    }

    /// The client for these settings. Other roots, after a reload, need another one.
    fn client(&mut self, settings: &CollectorSettings) -> Result<&mut Fetcher<Full<Bytes>>, String> {
        let known = self.client.take().filter(|client| client.roots == settings.roots);
        let client = match known {
            Some(client) => client,
            None => {
                let fetcher = Fetcher::new(settings.roots.as_deref(), &self.servers, LIMITS)?.with_plain();
                TrustingClient { roots: settings.roots.clone(), fetcher }
            }
        };
        Ok(&mut self.client.insert(client).fetcher)
    }

    async fn attempt(&mut self, settings: &CollectorSettings, body: Bytes) -> ExportAttempt {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&settings.url)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, concat!("pintle/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body));
        let mut request = match request {
            Ok(request) => request,
            Err(error) => return ExportAttempt::Refused(error.to_string()),
        };
        let own = settings.fields.iter().map(|(name, value)| (name.clone(), value.clone()));
        request.headers_mut().extend(own);
        match self.client(settings) {
            Ok(client) => judge(client.fetch(request).await),
            Err(why) => ExportAttempt::Refused(why),
        }
    }

    fn sent(&mut self, settings: &CollectorSettings, count: u64, rejected: u64) {
        if std::mem::take(&mut self.is_failing) {
            tracing::info!(url = settings.url, "the collector takes spans again");
        }
        let rejected = rejected.min(count);
        self.numbers.sent.fetch_add(count - rejected, Ordering::Relaxed);
        self.sink.lost(rejected);
    }

    fn failed(&mut self, settings: &CollectorSettings, error: &str) {
        self.numbers.failures.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(url = settings.url, error, "cannot send spans to the collector");
        }
    }
}

/// Waits for the end of the process.
async fn gone(settings: &mut watch::Receiver<Option<CollectorSettings>>) {
    while settings.changed().await.is_ok() {}
}

/// A pause, up to a quarter longer, so that processes do not come back together.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0];
    let _ = rand::fill(&mut random);
    pause + pause * u32::from(random[0]) / 1024
}

fn judge(answer: Result<Response<Bytes>, String>) -> ExportAttempt {
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return ExportAttempt::Later { why, after: None },
    };
    let status = answer.status();
    match status {
        // ExportTraceServiceResponse: partial_success, rejected_spans.
        _ if status.is_success() => {
            ExportAttempt::Sent { rejected: nested_number(answer.body(), 1, 1).unwrap_or_default() }
        }
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let after = retry_after(answer.headers()).map(|seconds| u64::try_from(seconds).unwrap_or_default().max(1));
            ExportAttempt::Later { why: status.to_string(), after: after.map(Duration::from_secs) }
        }
        _ => ExportAttempt::Refused(format!("{status}: the spans are lost")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let judged = |status: u16, after: &str, body: &'static [u8]| {
            let mut response = Response::builder().status(status);
            if !after.is_empty() {
                response = response.header("Retry-After", after);
            }
            match judge(Ok(response.body(Bytes::from_static(body)).unwrap())) {
                ExportAttempt::Sent { rejected } => format!("sent, {rejected} rejected"),
                ExportAttempt::Later { after, .. } => format!("later {after:?}"),
                ExportAttempt::Refused(_) => "refused".to_owned(),
            }
        };
        assert_eq!(judged(200, "", b""), "sent, 0 rejected");
        assert_eq!(judged(200, "", b"\x0a\x02\x08\x05"), "sent, 5 rejected");
        assert_eq!(judged(202, "", b"\xff\xff"), "sent, 0 rejected");
        for status in [429, 502, 503, 504] {
            assert_eq!(judged(status, "", b""), "later None");
        }
        assert_eq!(judged(429, "7", b""), "later Some(7s)");
        assert_eq!(judged(503, "0", b""), "later Some(1s)");
        assert_eq!(judged(503, "soon", b""), "later None");
        for status in [301, 400, 401, 404, 413, 500, 501] {
            assert_eq!(judged(status, "7", b""), "refused", "{status}");
        }
        assert!(matches!(judge(Err("connection refused".into())), ExportAttempt::Later { after: None, .. }));
    }

    #[test]
    fn pauses_and_ids() {
        for _ in 0..100 {
            assert!((PAUSE..PAUSE * 5 / 4).contains(&jittered(PAUSE)));
        }
        let id = instance();
        assert!(id.len() == 36 && id.as_bytes()[14] == b'4' && id != instance(), "{id}");
    }
}
