//! The decisions about a request, made without a connection by the functions that serve connections: with a worker and a
//! connection of its own, over the snapshot that serves. It opens no socket and changes no state that workers share.

mod fields;
mod http2;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::admission::{Admission, ClientNetwork};
use super::answered::answered;
use super::asked::{self, Asked, Turn};
use super::cached;
use super::channels::{Drain, PublishedSnapshot, SharedState, Vitals, peers};
use super::connection::tls_settings;
use super::context::{Context, TlsFacts};
use super::decide::{Decision, Work, decide};
use super::filters;
use super::local_reply::{self, reject};
use super::mixed;
use super::proxy_header;
use super::rejection::Rejection;
use super::reply::Reply;
use super::service::{self, reply_to};
use super::snapshot::Snapshot;
use super::traffic::Traffic;
use super::worker::Worker;
use crate::clock::{Alarm, uptime};
use crate::compression::{Coding, Identity};
use crate::host::FoundBy;
use crate::limits::Limits;
use crate::message::{HeadFault, RequestHead, ResponseHead, parse_request, parse_response};
use crate::mixed::media::RewriteKind;
use crate::policy::Scheme;
use crate::policy::forwarded::{Origin, Peer};
use crate::telemetry::trace::channel;
use crate::tls::greeting::{choice, client_hello};
use crate::tls::{CertificateSet, ChosenBy};
use crate::upstream::{
    Circuit, Client, Interim, ResponseBody, Upstream, UpstreamError, UpstreamRequest, UpstreamResponse,
};

pub use super::cached::{CacheStep, CacheVerdict};
pub use super::context::NoPins;
pub use fields::{FateReason, FieldChange, FieldFate, FieldList};

/// A request to explain.
#[derive(Debug, Clone)]
pub struct Question {
    /// The scheme of the listener that it comes by.
    pub listener: Scheme,
    /// The ports of the TLS listeners.
    pub https_ports: Vec<u16>,
    /// The address of the peer.
    pub from: IpAddr,
    /// The address that the peer has reached, if the request names one.
    pub reached: Option<IpAddr>,
    /// The name in SNI.
    pub name: Option<String>,
    /// The PROXY header before the first byte.
    pub proxy_header: Option<Vec<u8>>,
    /// The head of the request.
    pub head: RequestBytes,
    /// The head of the upstream's response, as HTTP/1.1: a supposition, and no redirect.
    pub response: Vec<u8>,
}

/// The head of a request, as its client sends it.
#[derive(Debug, Clone)]
pub enum RequestBytes {
    /// The bytes of HTTP/1.1.
    Http1(Vec<u8>),
    /// The fields of HTTP/2, pseudo-fields first.
    Http2(FieldList),
}

/// The decisions about a request.
pub struct Explanation {
    /// The peer, after its PROXY header.
    pub peer: Peer,
    /// The source that its PROXY header names; `None` without a header.
    pub proxied: Option<Option<IpAddr>>,
    /// The certificate; `None` without TLS.
    pub certificate: Option<Chosen>,
    /// The client's request; `None` if it was never read.
    pub head: Option<RequestHead>,
    /// The client and the scheme; `None` if the head cannot be read.
    pub origin: Option<Origin>,
    /// The site: its index, and the kind of pattern that it was found by.
    pub site: Option<(usize, FoundBy)>,
    /// The decision.
    pub decision: Decided,
    /// The part of the site's cache; `None` without one, or if the upstream is not asked.
    pub cache: Option<CacheVerdict>,
    /// The decision about the rewriting of references; `None` if the site has none rewritten, or the answer is pintle's own.
    pub rewriting: Option<Result<RewriteKind, &'static str>>,
    /// The decision about compression; `None` if the site has none, or the answer is pintle's own.
    pub compression: Option<Result<Coding, Identity>>,
    /// The answer, without fields of framing and connection.
    pub answer: Option<ExplainedAnswer>,
    /// The head that the upstream gets.
    pub sent: Option<Vec<u8>>,
    /// The fields of the request, and their fates on the way to the upstream.
    pub request_fields: Vec<FieldChange>,
    /// The fields of the response, and their fates on the way to the client.
    pub response_fields: Vec<FieldChange>,
    /// The fields of the upstream's supposed response.
    supposed: FieldList,
    /// The reason why the site's pins may not be sent.
    pub pins: Result<(), NoPins>,
    /// `true` if policies may go with the answer.
    pub noted: bool,
}

/// The choice of a certificate.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The name in SNI.
    pub name: Option<String>,
    /// The certificates, or the alert that refuses the handshake.
    pub outcome: Result<CertificateSet, u8>,
    /// The reason; `None` for a probe's certificate.
    pub by: Option<ChosenBy>,
}

/// The decision about a request.
#[derive(Debug, Clone)]
pub enum Decided {
    /// The connection is closed without a response.
    Closed(Closed),
    /// A redirect.
    Redirect(Vec<u8>),
    /// The list of methods.
    Options,
    /// The health of the process.
    Health,
    /// An answer to an ACME challenge.
    Challenge,
    /// A report of failed pins is read.
    Report,
    /// A report of http references is read.
    MixedReport,
    /// The upstream is asked.
    Forward(Arc<Upstream>),
    /// The request is refused. `cause` is that of the access log, `kind` the error type of RFC 9209.
    Refuse {
        /// The detail.
        cause: String,
        /// The error type of Proxy-Status.
        kind: &'static str,
    },
}

/// The reason to close a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// A trusted peer sends no PROXY header, or an invalid one.
    NoProxyHeader,
    /// No client can send this name in SNI.
    NoSuchName,
    /// The handshake is refused with this alert.
    Alert(u8),
    /// The stream of HTTP/2 is reset, with this code.
    Reset(u32),
}

/// An answer.
#[derive(Debug, Clone)]
pub struct ExplainedAnswer {
    /// The status code.
    pub status: u16,
    /// Names and values.
    pub fields: FieldList,
}

/// Explains a request.
pub async fn explain(snapshot: &Arc<Snapshot>, question: &Question) -> Explanation {
    let worker = worker(snapshot.clone()).await;
    worker.set_https_ports(question.https_ports.clone());
    let alarm = worker.clock.alarm();
    let mut peer = Peer::new(question.from, question.listener, &snapshot.trust);
    let mut proxied = None;
    if snapshot.proxy_protocol && peer.proxy.is_some() {
        match proxy_header::parse(question.proxy_header.as_deref().unwrap_or_default()) {
            Ok(Some((_, header))) => {
                peer.speaks_for(header.source, header.scheme, &snapshot.trust);
                proxied = Some(header.source);
            }
            _ => return Explanation::closed(peer, proxied, None, Closed::NoProxyHeader),
        }
    }
    let certificate = match question.listener {
        Scheme::Http => None,
        Scheme::Https => match chosen(snapshot, question, &peer) {
            Some(chosen) => Some(chosen),
            None => return Explanation::closed(peer, proxied, None, Closed::NoSuchName),
        },
    };
    let tls = match &certificate {
        None => None,
        Some(Chosen { outcome: Err(alert), .. }) => {
            let alert = *alert;
            return Explanation::closed(peer, proxied, certificate, Closed::Alert(alert));
        }
        Some(Chosen { outcome: Ok(set), name, .. }) => Some(TlsFacts::of(name.as_deref().map(Into::into), set.clone())),
    };
    let context = connection(&worker, Client::new(peer), tls, &alarm);
    let mut head = RequestHead::default();
    let read = match read_head(&question.head, &snapshot.limits, &mut head).await {
        Ok(()) => Ok(asked::read(&mut head, &context)),
        Err(UnreadHead::Fault(fault)) => Err((Rejection::Head(fault), asked::read_refused(&mut head, &context))),
        Err(UnreadHead::Reset(code)) => return Explanation::closed(peer, proxied, certificate, Closed::Reset(code)),
        Err(UnreadHead::FarTooLarge) => {
            let decision = Decided::Refuse { cause: "the head is far too large".into(), kind: "http_request_error" };
            let answer = Some(ExplainedAnswer { status: 431, fields: FieldList::new() });
            return Explanation { certificate, proxied, decision, answer, ..Explanation::empty(peer) };
        }
    };
    let mut explanation = Explanation { certificate, proxied, ..Explanation::empty(peer) };
    let (asked, reply) = match read {
        Ok(asked) => {
            let turn = Turn { head: &head, asked: &asked, context: &context, alarm: &alarm };
            let reply = explanation.decide(&turn, question).await;
            (Some(asked), reply)
        }
        Err((rejection, asked)) => {
            explanation.decision = refused(&rejection);
            let reply = reject(rejection, &head, asked.as_ref(), &context);
            (asked, reply)
        }
    };
    explanation.conclude(&reply, asked.as_ref(), &head, &context);
    explanation.head = Some(head);
    explanation
}

/// The reason why a head cannot be read.
enum UnreadHead {
    /// A fault that pintle answers.
    Fault(HeadFault),
    /// The stream of HTTP/2 is reset, with this code.
    Reset(u32),
    /// h2 itself answers with 431.
    FarTooLarge,
}

/// Reads a head as a connection does.
async fn read_head(asked: &RequestBytes, limits: &Limits, head: &mut RequestHead) -> Result<(), UnreadHead> {
    match asked {
        RequestBytes::Http1(bytes) => match parse_request(bytes, &limits.head(), head) {
            Ok(Some(_)) => Ok(()),
            incomplete_or_wrong => Err(UnreadHead::Fault(incomplete_or_wrong.err().unwrap_or(HeadFault::TooLarge))),
        },
        RequestBytes::Http2(fields) => match http2::read(fields, limits).await {
            http2::ReadHead::Request { parts, ended } => {
                super::http2::head::read(&parts, ended, &limits.head(), head).map_err(UnreadHead::Fault)
            }
            http2::ReadHead::TooLarge => Err(UnreadHead::FarTooLarge),
            http2::ReadHead::Reset(reason) => Err(UnreadHead::Reset(reason.into())),
        },
    }
}

/// A worker that serves nobody.
async fn worker(snapshot: Arc<Snapshot>) -> Rc<Worker> {
    let traffic = Traffic::new(1, &snapshot).current();
    let (_, snapshots) = watch::channel(PublishedSnapshot { number: 1, snapshot, rotates: false, traffic });
    let (_, draining) = watch::channel(Drain::No);
    let mut shared = SharedState {
        admission: Arc::<Admission>::default(),
        loop_guard: Arc::default(),
        access: None,
        spans: channel().0,
        snapshot: snapshots,
        news: Arc::<Notify>::default(),
        draining,
        untrusted: Arc::default(),
        uploads: Arc::default(),
        reports: Arc::default(),
        peers: peers(0).0,
    };
    Rc::new(Worker::new(0, &mut shared, &Vitals::default()).await)
}

/// A connection of that worker.
fn connection(worker: &Rc<Worker>, client: Client, tls: Option<TlsFacts>, alarm: &Alarm) -> Context {
    let entry = worker.listed.list(ClientNetwork::of(client.peer.address), worker.ticks(), alarm);
    let (pass, _) = worker.admission.admit(None, usize::MAX, usize::MAX);
    Context::new(worker.clone(), client, tls, entry, worker.connection(), pass)
}

/// The certificate for a question; `None` if no client can ask so.
fn chosen(snapshot: &Snapshot, question: &Question, peer: &Peer) -> Option<Chosen> {
    let protocol: &[u8] = if matches!(question.head, RequestBytes::Http2(_)) { b"h2" } else { b"http/1.1" };
    let hello = client_hello(question.name.as_deref(), protocol)?;
    let settings = tls_settings(snapshot, &hello, peer);
    let made = choice(&settings, &hello, question.reached)?;
    let name = made.name.as_deref();
    let (by, own) = match name {
        Some(_) => snapshot.certificates.look_up(name),
        None => snapshot.certificates.look_up_reached(question.reached),
    };
    let outcome = made.certificates().cloned().ok_or_else(|| made.alert().unwrap_or_default());
    // For probes, there may be another certificate than for clients.
    let is_own = outcome.is_err() || own.is_some();
    Some(Chosen { name: name.map(str::to_owned), outcome, by: is_own.then_some(by) })
}

struct NoInterim;

impl Interim for NoInterim {
    fn interim(&mut self, _: &ResponseHead) {}
}

impl Explanation {
    fn empty(peer: Peer) -> Self {
        Self {
            peer,
            proxied: None,
            certificate: None,
            head: None,
            origin: None,
            site: None,
            decision: Decided::Options,
            cache: None,
            rewriting: None,
            compression: None,
            answer: None,
            sent: None,
            request_fields: Vec::new(),
            response_fields: Vec::new(),
            supposed: Vec::new(),
            pins: Err(NoPins::None),
            noted: false,
        }
    }

    fn closed(peer: Peer, proxied: Option<Option<IpAddr>>, certificate: Option<Chosen>, why: Closed) -> Self {
        Self { proxied, certificate, decision: Decided::Closed(why), ..Self::empty(peer) }
    }

    /// Decides as a worker does, and makes the answer.
    async fn decide(&mut self, turn: &Turn<'_>, question: &Question) -> Reply {
        let decided = decide(turn);
        self.decision = match &decided {
            Ok(Decision::Redirect(location)) => Decided::Redirect(location.clone()),
            Ok(Decision::Options) => Decided::Options,
            Ok(Decision::Health) => Decided::Health,
            Ok(Decision::Proof(_) | Decision::Work(Work::Challenge)) => Decided::Challenge,
            Ok(Decision::Work(Work::Report)) => Decided::Report,
            Ok(Decision::Work(Work::MixedReport)) => Decided::MixedReport,
            Ok(Decision::Work(Work::Forward(pool, _) | Work::Recall(pool))) => {
                Decided::Forward(pool.upstream().clone())
            }
            Ok(Decision::Work(Work::Cached(fetch))) => Decided::Forward(fetch.pool.upstream().clone()),
            Err(rejection) => refused(rejection),
        };
        match reply_to(decided, turn) {
            Ok(reply) => reply,
            Err(Work::Forward(pool, _) | Work::Recall(pool)) => self.forward(pool.upstream(), turn, question),
            Err(Work::Cached(fetch)) => self.forward(fetch.pool.upstream(), turn, question),
            Err(Work::Report | Work::MixedReport) => local_reply::report_accepted(turn),
            Err(work @ Work::Challenge) => {
                let reply = service::answer(work, None, turn, &mut NoInterim).await;
                if let Some(cause) = &reply.error {
                    self.decision = Decided::Refuse { cause: cause.clone(), kind: "http_request_error" };
                }
                reply
            }
        }
    }

    /// Writes the request to the upstream, and answers with a response of the upstream as the question supposes it.
    fn forward(&mut self, upstream: &Arc<Upstream>, turn: &Turn<'_>, question: &Question) -> Reply {
        let Turn { head, asked, context, .. } = *turn;
        let mut is_stored = false;
        if let Some(site) = &asked.site {
            let key = context.websocket_key(head);
            let mut sent = Vec::new();
            let cached = site.cache().map(|cache| cached::explained(cache, turn));
            let (verdict, own) = cached.map_or((None, None), |(verdict, own)| (Some(verdict), own));
            if verdict.as_ref().is_some_and(CacheVerdict::is_refusal) {
                self.decision = refused(&Rejection::NotStored);
                return reject(Rejection::NotStored, head, Some(asked), context);
            }
            is_stored = verdict.as_ref().is_some_and(CacheVerdict::is_answer);
            let request = turn.upstream_request(site, key.as_deref());
            let request = UpstreamRequest { head: own.as_ref().unwrap_or(head), ..request };
            request.write_http1(upstream, &mut sent);
            self.request_fields = fields::of_request(head, &sent, site, own.is_some());
            self.cache = verdict;
            self.sent = Some(sent);
        }
        let response = match upstream.health.circuit(uptime()) {
            Circuit::Open(left) if !is_stored => Err(UpstreamError::CircuitOpen(left)),
            Circuit::Open(_) | Circuit::Closed | Circuit::HalfOpen => supposed(question, context),
        };
        match &response {
            Ok(response) => {
                self.supposed = fields::list(&response.head.fields);
                self.rewriting = asked.site.as_ref().and_then(|site| mixed::decision(site, head, &response.head));
            }
            Err(error) => {
                self.decision = Decided::Refuse { cause: error.to_string(), kind: error.proxy_status() };
            }
        }
        let mut reply = answered(response, None, turn, upstream, None);
        self.compression = filters::described(&mut reply, turn);
        reply
    }

    /// Notes the answer, and the facts that it was made of.
    fn conclude(&mut self, reply: &Reply, asked: Option<&Asked>, head: &RequestHead, context: &Context) {
        let mut written = Vec::new();
        reply.write_fields(&mut written, &context.worker.clock.date());
        let fields = fields::parse(&written);
        let supposed = if reply.forwarded { std::mem::take(&mut self.supposed) } else { Vec::new() };
        let is_rewritten = matches!(self.rewriting, Some(Ok(_)));
        self.response_fields = fields::of_response(&supposed, &fields, reply.site.as_deref(), is_rewritten);
        self.answer = Some(ExplainedAnswer { status: reply.head.status.as_u16(), fields });
        self.noted = reply.noted;
        let Some(asked) = asked else { return };
        self.origin = Some(asked.origin.clone());
        let Some(site) = &asked.site else { return };
        self.pins = context.pins(site, head);
        self.site = asked.view.shared.by_host.find(head.host_bytes()).map(|(by, index)| (*index, by));
    }
}

fn refused(rejection: &Rejection) -> Decided {
    Decided::Refuse { cause: rejection.cause(), kind: rejection.proxy_status() }
}

/// The upstream's response that a question supposes.
fn supposed(question: &Question, context: &Context) -> Result<UpstreamResponse, UpstreamError> {
    let limits = context.worker.view().shared.limits.pool().response_head;
    let mut head = ResponseHead::default();
    match parse_response(&question.response, false, &limits, &mut head) {
        Ok(Some(_)) => Ok(UpstreamResponse { head, body: ResponseBody::Empty, upgraded: None }),
        Ok(None) | Err(_) => Err(UpstreamError::Malformed("response")),
    }
}
