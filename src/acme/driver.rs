//! Carries the plans out, on a thread of its own: it may wait for disks and authorities; no other thread waits for it.

mod declare;
mod say;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::budget::{Ask, Budget};
use super::facts::{Ca, Facts, NextKey, UnusableNext};
use super::fault::Fault;
use super::outlook::Outlook;
use super::request::{CandidateKey, Message, Request, Revoke, Revoking, ask};
use super::step::{KeyChoice, Next, Plan};
use super::store;
use super::task::Task;
use super::work::{Surroundings, Work};
use super::{held, plan};
use crate::config::{Acme, Managed};
use crate::keys::pin::Pin;
use crate::ledger::time::wall;
use crate::policy::promise::Seconds;
use crate::reason::Reason;
use crate::server::Answers;
use crate::upstream::dns::NameServers;

/// Certificates that are worked on at the same time.
const TASKS_MAX: usize = 4;
/// The longest time between two looks: the clock and the ledger may have changed.
const LOOK: Duration = Duration::from_secs(30);
/// The shortest time between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Messages that wait for their turn, in each direction: more than the admin socket has callers. The control thread never
/// waits for the driver, which waits for the control thread's answers; a message beyond is dropped with its reply.
const QUEUE: usize = 64;
/// The time limit for the end of the thread, which may have DNS records to remove.
const END: Duration = Duration::from_secs(10);

/// The driver, as the control thread holds it. Its thread ends with this value.
pub struct Driver {
    settings: watch::Sender<Option<Arc<Acme>>>,
    messages: mpsc::Sender<Message>,
    outlooks: watch::Receiver<Arc<[Outlook]>>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// Starts the thread. Returns its questions, too.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub fn start(name_servers: NameServers, answers: Arc<Answers>) -> io::Result<(Self, mpsc::Receiver<Request>)> {
        let (settings, wanted) = watch::channel(None);
        let (messages, inbox) = mpsc::channel(QUEUE);
        let (questions, requests) = mpsc::channel(QUEUE);
        let (seen, outlooks) = watch::channel(Arc::default());
        let thread = std::thread::Builder::new().name("acme".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
            match runtime {
                Ok(runtime) => runtime.block_on(Run::new(name_servers, answers, questions, seen).run(wanted, inbox)),
                Err(error) => tracing::error!(%error, "ACME: no runtime; no certificate is obtained"),
            }
        })?;
        Ok((Self { settings, messages, outlooks, thread: Some(thread) }, requests))
    }

    /// Gives other settings to the driver; with none, it rests.
    pub fn settings(&self, settings: Option<Arc<Acme>>) {
        self.settings.send_replace(settings);
    }

    /// Renews the certificates of a site now. `rotate` asks for a changeover to the next key. The answer has their
    /// algorithms.
    pub fn renew(&self, site: String, rotate: bool, reply: oneshot::Sender<Vec<String>>) {
        let _ = self.messages.try_send(Message::Renew { site, rotate, reply });
    }

    /// Declares keys compromised.
    pub fn revoke(&self, asked: Revoke, reply: oneshot::Sender<Revoking>) {
        let _ = self.messages.try_send(Message::Revoke(asked, reply));
    }

    /// Returns the outlooks of all certificates, as of the last look.
    #[must_use]
    pub fn outlooks(&self) -> Arc<[Outlook]> {
        self.outlooks.borrow().clone()
    }

    /// Asks for the plans of all certificates.
    pub fn plans(&self, reply: oneshot::Sender<Value>) {
        let _ = self.messages.try_send(Message::Plans(reply));
    }

    /// Ends the thread: nothing is ordered or written any more. An open order is on disk.
    pub async fn end(self) {
        let Self { messages, thread, .. } = self;
        drop(messages);
        let joined = thread.map(|thread| tokio::task::spawn_blocking(move || thread.join()));
        if let Some(joined) = joined
            && timeout(END, joined).await.is_err()
        {
            tracing::warn!("ACME: the thread does not end");
        }
    }
}

/// The result of a task.
struct Done {
    place: Place,
    result: Result<(), Fault>,
}

/// A certificate's folder.
type Place = PathBuf;

/// The thread's state.
struct Run {
    settings: Option<Arc<Acme>>,
    name_servers: NameServers,
    answers: Arc<Answers>,
    questions: mpsc::Sender<Request>,
    certificates: BTreeMap<Place, Rc<Work>>,
    /// Certificates that are worked on.
    busy: HashSet<Place>,
    budgets: HashMap<String, Rc<RefCell<Budget>>>,
    /// The last log line about each plan, so that none is repeated.
    said: HashMap<Place, String>,
    /// The fault of a key that was logged last for each certificate.
    said_keys: HashMap<Place, Reason>,
    /// The time at which each overdue renewal was last logged.
    said_overdue: HashMap<Place, Seconds>,
    outlooks: watch::Sender<Arc<[Outlook]>>,
    /// The ledger's facts at the last look.
    next_keys: HashMap<Place, NextKey>,
    burnt: Vec<Pin>,
}

impl Run {
    fn new(
        name_servers: NameServers,
        answers: Arc<Answers>,
        questions: mpsc::Sender<Request>,
        outlooks: watch::Sender<Arc<[Outlook]>>,
    ) -> Self {
        Self {
            settings: None,
            name_servers,
            answers,
            questions,
            certificates: BTreeMap::new(),
            busy: HashSet::new(),
            budgets: HashMap::new(),
            said: HashMap::new(),
            said_keys: HashMap::new(),
            said_overdue: HashMap::new(),
            outlooks,
            next_keys: HashMap::new(),
            burnt: Vec::new(),
        }
    }

    async fn run(mut self, mut settings: watch::Receiver<Option<Arc<Acme>>>, mut inbox: mpsc::Receiver<Message>) {
        let (finished, mut done) = mpsc::channel(TASKS_MAX);
        let mut look = Instant::now();
        loop {
            tokio::select! {
                // A message that follows other settings is about those.
                biased;
                Ok(()) = settings.changed() => {
                    let settings = settings.borrow_and_update().clone();
                    self.set(settings);
                    look = Instant::now();
                }
                message = inbox.recv() => match message {
                    Some(message) => {
                        self.take(message).await;
                        look = Instant::now();
                    }
                    None => break,
                },
                Some(Done { place, result }) = done.recv() => {
                    self.busy.remove(&place);
                    // Its settings may have changed meanwhile.
                    self.release_after_changes(Some(&place));
                    if let Err(fault) = result {
                        tracing::error!(problem = fault.text, "ACME: cannot work on a certificate");
                        look = Instant::now() + LOOK;
                    } else {
                        look = Instant::now();
                    }
                }
                () = sleep_until(look) => look = Instant::now() + self.look(&finished).await.max(PAUSE),
            }
        }
        // Another process may set the same records.
        for work in self.certificates.values() {
            work.clean().await;
        }
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Renew { site, rotate, reply } => {
                let _ = reply.send(self.renew(&site, rotate));
            }
            Message::Revoke(asked, reply) => {
                let _ = reply.send(self.declare(&asked).await);
            }
            Message::Plans(reply) => {
                self.ask_ledger().await;
                let _ = reply.send(self.plans());
            }
        }
    }

    fn set(&mut self, settings: Option<Arc<Acme>>) {
        self.settings = settings;
        let wanted: &[Managed] = self.settings.as_ref().map_or(&[], |settings| &settings.certificates);
        let known = std::mem::take(&mut self.certificates);
        for certificate in wanted {
            let place = certificate.folder.clone();
            let work = match known.get(&place) {
                Some(work) if work.certificate == *certificate => work.clone(),
                // A task that is under way shares the record.
                Some(work) => Rc::new(work.with(certificate.clone())),
                None => {
                    let record = match store::record(certificate) {
                        Ok(record) => record,
                        // The next look tries again.
                        Err(error) => {
                            tracing::error!(folder = %place.display(), %error, "ACME: cannot read the record of a certificate");
                            continue;
                        }
                    };
                    let work = Work::new(certificate.clone(), record);
                    self.answers.set(&work.name(), work.record.borrow().answers.clone());
                    Rc::new(work)
                }
            };
            self.certificates.insert(place, work);
        }
        for (_, work) in known.iter().filter(|(place, _)| !self.certificates.contains_key(*place)) {
            self.answers.set(&work.name(), Vec::new());
        }
        self.release_after_changes(None);
    }

    /// Permits attempts now if the settings have changed since the last ones: an authority may have objected to those.
    /// `only` names the one certificate to look at; `None` for all that no task works on.
    fn release_after_changes(&self, only: Option<&Place>) {
        let Some(settings) = &self.settings else { return };
        let Acme { authorities, email, profile, challenges, dns_hook, .. } = &**settings;
        // A key of an external account binding shows itself in no text, and is hashed here.
        let secrets: Vec<_> = authorities.iter().map(|a| a.eab.as_ref().map(|eab| &eab.hmac_key)).collect();
        let common = format!("{authorities:?} {secrets:?} {email:?} {profile:?} {challenges:?} {dns_hook:?}");
        let common = store::fingerprint(&common);
        let is_meant = |place: &Place| only.is_none_or(|only| only == place) && !self.busy.contains(place);
        for (_, work) in self.certificates.iter().filter(|(place, _)| is_meant(place)) {
            let names = held::names(&work.certificate);
            let fingerprint = store::fingerprint(&format!("{common} {names:?}"));
            if work.record.borrow().settings == fingerprint {
                continue;
            }
            let changed = work.change(|record| {
                record.settings = fingerprint;
                record.release();
            });
            if let Err(fault) = changed {
                tracing::error!(problem = fault.text, "ACME: cannot write the record of a certificate");
            }
        }
    }

    fn renew(&mut self, site: &str, rotate: bool) -> Vec<String> {
        let mut algorithms = Vec::new();
        for work in self.certificates.values().filter(|work| work.certificate.site == site) {
            let changed = work.change(|record| {
                record.asked.renew |= !rotate;
                record.asked.rotate |= rotate;
                record.release();
            });
            match changed {
                Ok(()) => algorithms.push(work.certificate.algorithm.to_string()),
                Err(fault) => tracing::error!(problem = fault.text, "ACME: cannot record the request for a renewal"),
            }
        }
        algorithms
    }

    /// Asks for the ledger's facts about all next keys.
    async fn ask_ledger(&mut self) {
        let mut places = Vec::new();
        let mut asked = Vec::new();
        for (place, work) in &self.certificates {
            // The facts about a fresh key are those about one that no client knows.
            let pin = store::usable_pin(&work.certificate, KeyChoice::Next).unwrap_or_else(|_| Some(unknown_pin()));
            if let Some(pin) = pin {
                let Managed { site, hosts, .. } = &work.certificate;
                places.push(place.clone());
                asked.push(CandidateKey { site: site.clone(), hosts: hosts.clone(), pin });
            }
        }
        if !asked.is_empty()
            && let Some(known) = ask(&self.questions, |reply| Request::Keys { asked, reply }).await
        {
            self.next_keys = places.into_iter().zip(known.next).collect();
            self.burnt = known.burnt;
        }
    }

    /// Makes all plans, and begins what they say. Returns the time until the next look.
    async fn look(&mut self, finished: &mpsc::Sender<Done>) -> Duration {
        let wanted = self.settings.as_ref().map_or(0, |settings| settings.certificates.len());
        if self.certificates.len() < wanted {
            self.set(self.settings.clone());
        }
        if self.certificates.is_empty() {
            self.publish(Vec::new(), wall());
            return LOOK;
        }
        self.ask_ledger().await;
        let Some(settings) = self.settings.clone() else { return LOOK };
        let now = wall();
        let mut soonest = now + 3600;
        // Orders of one site follow each other: tls-alpn-01 has one answer for each name.
        let mut sites: HashSet<String> = self
            .busy
            .iter()
            .filter_map(|place| self.certificates.get(place))
            .map(|work| work.certificate.site.clone())
            .collect();
        let mut outlooks = Vec::with_capacity(self.certificates.len());
        for (place, work) in self.certificates.clone() {
            let facts = self.facts(&work, &settings, now);
            let plan = plan::next(&facts, now);
            outlooks.push((place.clone(), Outlook::of(&facts, &plan, &work.certificate, &work.record.borrow(), now)));
            if self.busy.contains(&place) || sites.contains(&work.certificate.site) {
                continue;
            }
            self.say(&place, &work, &plan, now);
            if let Next::Wait { until } | Next::OperatorsTurn { until, .. } = plan.next {
                soonest = soonest.min(until);
                continue;
            }
            if self.busy.len() >= TASKS_MAX {
                continue;
            }
            sites.insert(work.certificate.site.clone());
            self.busy.insert(place.clone());
            let task = self.task(work, facts, plan, &settings);
            let finished = finished.clone();
            tokio::task::spawn_local(async move {
                let result = task.perform().await;
                let _ = finished.send(Done { place, result }).await;
            });
        }
        self.publish(outlooks, now);
        let left = u64::try_from(soonest.saturating_sub(now)).unwrap_or(0);
        Duration::from_secs(left).min(LOOK)
    }

    fn task(&mut self, work: Rc<Work>, facts: Facts, plan: Plan, settings: &Arc<Acme>) -> Task {
        let around = Surroundings {
            settings: settings.clone(),
            name_servers: self.name_servers.clone(),
            answers: self.answers.clone(),
        };
        let budgets =
            settings.authorities.iter().map(|authority| self.budget(settings, &authority.directory)).collect();
        Task { work, facts, plan, around, budgets, questions: self.questions.clone() }
    }

    fn budget(&mut self, settings: &Acme, directory: &str) -> Rc<RefCell<Budget>> {
        let load = || {
            let path = store::file_of(&settings.folder, "budget", directory);
            let read = store::load(&path).unwrap_or_else(|error| {
                tracing::error!(file = %path.display(), %error, "ACME: cannot read the budget of orders");
                None
            });
            let mut budget: Budget = read.unwrap_or_default();
            budget.settle(wall());
            Rc::new(RefCell::new(budget))
        };
        self.budgets.entry(directory.to_owned()).or_insert_with(load).clone()
    }

    fn facts(&mut self, work: &Work, settings: &Arc<Acme>, now: Seconds) -> Facts {
        let certificate = &work.certificate;
        let record = work.record.borrow();
        let chain = store::chain(certificate).map(|chain| held::held(&chain, &record));
        let (live, next) =
            (store::usable_pin(certificate, KeyChoice::Live), store::usable_pin(certificate, KeyChoice::Next));
        let known = self.next_keys.get(&certificate.folder);
        let held_until = known.filter(|key| key.pin == unknown_pin()).and_then(|key| key.usable_from);
        let unusable_next = next.as_ref().err().map(|fault| UnusableNext { fault: fault.clone(), held_until });
        let pin = next.ok().flatten();
        let unknown = |pin| NextKey { pin, promised_since: None, usable_from: Some(Seconds::MAX), longest: 0 };
        let known = known.filter(|key| Some(key.pin) == pin).cloned();
        let mut facts = Facts {
            site: certificate.site.clone(),
            algorithm: certificate.algorithm.to_string(),
            names: held::names(certificate),
            chain,
            unusable_live: live.as_ref().err().cloned(),
            unusable_next,
            live: live.ok().flatten(),
            live_since: record.live_since,
            next: known.or_else(|| pin.map(unknown)),
            info: record.info.clone(),
            order: record.order.clone(),
            checked: record.checked.clone(),
            asked: record.asked,
            compromise: record.compromise.clone(),
            burnt: self.burnt.clone(),
            cas: Vec::new(),
            rotate_every: settings.rotate_every.and_then(|every| Seconds::try_from(every.as_secs()).ok()),
        };
        for authority in &settings.authorities {
            let known = record.authorities.get(&authority.directory).cloned().unwrap_or_default();
            facts.cas.push(Ca {
                directory: authority.directory.clone(),
                has_renewal_info: known.has_renewal_info,
                attempts: known.attempts,
                order_from: None,
            });
        }
        facts.settle(now);
        for at in 0..facts.cas.len() {
            let budget = self.budget(settings, &facts.cas[at].directory);
            let ask = Ask { names: &facts.names, replaces: facts.replaces(at).is_some() };
            let from = budget.borrow().order_from(ask, now).map(|(from, limit)| (from, limit.what.to_owned()));
            facts.cas[at].order_from = from;
        }
        facts
    }
}

/// A pin that no key has.
fn unknown_pin() -> Pin {
    Pin::of_spki(&[])
}
