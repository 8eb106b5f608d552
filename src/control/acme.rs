//! The control thread's side of ACME: it starts and ends the driver, and answers its questions.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::Control;
use super::reload::{Installed, Verdict};
use crate::acme::driver::Driver;
use crate::acme::facts::NextKey;
use crate::acme::request::{Asked, Known, Request, Served};
use crate::config::{Config, Context};
use crate::host::HostPattern;
use crate::policy::promise::{Promises, others};
use crate::reason::Problem;

/// The driver, once a certificate is to be obtained.
#[derive(Default)]
pub(super) struct Desk {
    running: Option<Running>,
}

struct Running {
    driver: Driver,
    requests: mpsc::Receiver<Request>,
}

impl Desk {
    /// Waits for a question of the driver; forever without one.
    pub(super) async fn request(&mut self) -> Request {
        match &mut self.running {
            Some(running) => match running.requests.recv().await {
                Some(request) => request,
                None => {
                    tracing::error!("ACME: the thread has ended by a bug; the next reload starts it again");
                    self.running = None;
                    std::future::pending().await
                }
            },
            None => std::future::pending().await,
        }
    }
}

impl Control {
    /// Gives the driver the settings in use. Starts it if it is needed for the first time. Only the process that serves
    /// calls this: two drivers would order twice.
    pub(super) async fn drive_acme(&mut self) {
        let settings = self.config.acme.clone();
        if self.acme.running.is_none() && settings.is_some() {
            let answers = self.config.snapshot.answers.clone();
            match Driver::start(self.config.name_servers.clone(), answers) {
                Ok((driver, requests)) => self.acme.running = Some(Running { driver, requests }),
                Err(error) => tracing::error!(%error, "ACME: no thread; no certificate is obtained"),
            }
        }
        if let Some(Running { driver, .. }) = &self.acme.running {
            driver.settings(settings);
        }
    }

    /// Ends the driver, before another process begins.
    pub(super) async fn end_acme(&mut self) {
        if let Some(Running { driver, requests }) = self.acme.running.take() {
            drop(requests);
            driver.end().await;
        }
    }

    /// Answers a question of the driver.
    pub(super) async fn answer_acme(&mut self, request: Request) {
        match request {
            Request::Keys { asked, reply } => {
                let _ = reply.send(self.next_keys(&asked));
            }
            Request::Served(reply) => {
                let pins = self.config.sites().flat_map(|site| &site.certificates).map(|found| found.pin).collect();
                let _ = reply.send(Served { pins, behind_proxy: !self.config.snapshot.trust.is_empty() });
            }
            Request::Judge { site, path, chain, reply } => {
                let _ = reply.send(self.judge_chain(&site, path, chain));
            }
            Request::Serve { site, certificate: (pin, serial), reply } => {
                let verdict = self.look_at_site(&site, None, Some(Installed { pin, serial })).await;
                let _ = reply.send(errors(verdict));
            }
        }
    }

    /// Judges a chain as if it were in that file. Returns the errors that it adds. The driver has the key, and it fits.
    fn judge_chain(&self, site: &str, path: PathBuf, chain: String) -> Vec<String> {
        let now = self.now();
        let ledger = self.ledger();
        let context = |instead: HashMap<PathBuf, Vec<u8>>| Context {
            before: Some(&self.config),
            chains_alone: true,
            instead,
            ..Context::new(ledger.book(), now)
        };
        let (_, old) = self.draft.build(&context(HashMap::new()));
        let (_, new) = self.draft.build(&context(HashMap::from([(path.clone(), chain.into_bytes())])));
        let old = old.sorted();
        let is_old = |p: &Problem| old.iter().any(|o| (&o.reason.what, &o.span) == (&p.reason.what, &p.span));
        let is_own = |p: &&Problem| p.is_error() && (p.path.as_ref() == Some(&path) || !is_old(p));
        let errors: Vec<String> =
            new.sorted().into_iter().filter(is_own).map(|problem| new.placed(problem).reason.line()).collect();
        if !errors.is_empty() {
            tracing::error!(
                site,
                problems = errors.join("; "),
                "the authority's certificate is refused; the old one stays"
            );
        }
        errors
    }

    /// The ledger's facts about next keys.
    fn next_keys(&self, asked: &[Asked]) -> Known {
        let now = self.now();
        let ledger = self.ledger();
        let book = ledger.book();
        let alive = Promises::alive(book.promises(), now);
        let hosts = all_hosts(&self.config);
        let except = others(&hosts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let facts = |Asked { site, hosts: own, pin }: &Asked| {
            let at = hosts.iter().position(|hosts| hosts.first() == own.first());
            let except = at.and_then(|at| except.get(at)).map_or(&[][..], Vec::as_slice);
            let longest = alive.binding(own, except).iter().map(|promise| promise.max_age).max().unwrap_or(0);
            NextKey {
                pin: *pin,
                promised_since: book.promised_since(site, *pin),
                usable_from: alive.safe_from(own, except, *pin),
                longest: i64::try_from(longest).unwrap_or(i64::MAX),
            }
        };
        Known { next: asked.iter().map(facts).collect(), burnt: book.burnt_keys().map(|burnt| burnt.pin).collect() }
    }

    /// Asks the driver for its plans.
    pub(super) async fn acme_plans(&self, reply: oneshot::Sender<Value>) {
        match &self.acme.running {
            Some(running) => running.driver.plans(reply),
            None => _ = reply.send(Value::Array(Vec::new())),
        }
    }

    /// Asks the driver to renew a site's certificates now, or to change over to their next keys. Answers with their
    /// algorithms, which are none for a site whose certificates come from elsewhere.
    pub(super) async fn acme_renew(&self, host: &str, rotate: bool, reply: oneshot::Sender<Vec<String>>) {
        match (&self.acme.running, self.site_of(host)) {
            (Some(running), Some(site)) => running.driver.renew(site, rotate, reply),
            _ => _ = reply.send(Vec::new()),
        }
    }
}

fn all_hosts(config: &Config) -> Vec<Vec<HostPattern>> {
    config.snapshot.sites.iter().map(|site| site.hosts.clone()).collect()
}

fn errors(verdict: Verdict) -> Vec<String> {
    let ok = verdict.ok;
    let mut errors: Vec<String> =
        verdict.reasons().into_iter().filter(Problem::is_error).map(|problem| problem.reason.line()).collect();
    match ok {
        true => errors.clear(),
        false if errors.is_empty() => errors.push("it is not in use".to_owned()),
        false => {}
    }
    errors
}

/// Makes the missing keys and folders of a draft's certificates, on a thread that may wait for the disk.
pub(super) async fn prepare(certificates: Arc<[crate::config::Managed]>) -> Result<(), String> {
    let made = tokio::task::spawn_blocking(move || crate::acme::store::prepare(&certificates)).await;
    made.unwrap_or_else(|panic| Err(panic.to_string()))
}
