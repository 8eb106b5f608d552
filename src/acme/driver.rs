//! Carries the plans out, on a thread of its own: it may wait for disks and authorities; no other thread waits for it.

mod declare;
pub mod end;
mod known;
mod renew;
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
use tokio::time::{Instant, sleep_until};

use super::budget::OrderBudget;
use super::facts::{CertificateFacts, NextKey};
use super::fault::StepFault;
use super::outlook::Outlook;
use super::request::{CertificateInUse, DriverEnd, DriverRequest, Message, Renew, Renewing, Revoke, Revoking};
use super::step::{CertificatePlan, NextStep};
use super::store;
use super::task::Task;
use super::work::{CertificateWork, Surroundings};
use super::{held, hook};
use crate::config::{Acme, Managed};
use crate::keys::pin::Pin;
use crate::ledger::time::wall;
use crate::os::runtime;
use crate::os::words::words;
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

/// The driver, as the control thread holds it. Its thread ends with this value.
pub struct Driver {
    settings: watch::Sender<Option<Arc<Acme>>>,
    messages: mpsc::Sender<Message>,
    outlooks: watch::Receiver<Arc<[Outlook]>>,
    end: oneshot::Sender<DriverEnd>,
    stopped: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// Starts the thread. Returns its questions, too.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub fn start(
        name_servers: NameServers,
        answers: Arc<Answers>,
    ) -> io::Result<(Self, mpsc::Receiver<DriverRequest>)> {
        let (settings, wanted) = watch::channel(None);
        let (messages, inbox) = mpsc::channel(QUEUE);
        let (questions, requests) = mpsc::channel(QUEUE);
        let (seen, outlooks) = watch::channel(Arc::default());
        let ((end, ends), (stops, stopped)) = (oneshot::channel(), oneshot::channel());
        if let Some(hook) = hook::running() {
            hook.take_back();
        }
        let thread = runtime::spawn("acme", "ACME: no runtime; no certificate is obtained", move || {
            DriverThread::new(name_servers, answers, questions, seen).run(wanted, inbox, ends, stops)
        })?;
        Ok((Self { settings, messages, outlooks, end, stopped, thread: Some(thread) }, requests))
    }

    /// Gives other settings to the driver; with none, it rests.
    pub fn settings(&self, settings: Option<Arc<Acme>>) {
        self.settings.send_replace(settings);
    }

    /// Renews the certificates of a site now, or changes over to their next keys.
    pub fn renew(&self, asked: Renew, reply: oneshot::Sender<Renewing>) {
        let _ = self.messages.try_send(Message::Renew(asked, reply));
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
}

/// The result of a task.
struct Done {
    place: CertificateFolder,
    result: Result<(), StepFault>,
}

/// A certificate's folder.
type CertificateFolder = PathBuf;

/// The settings that the control thread gives.
type GivenSettings = watch::Receiver<Option<Arc<Acme>>>;

/// The thread's state.
struct DriverThread {
    settings: Option<Arc<Acme>>,
    name_servers: NameServers,
    answers: Arc<Answers>,
    questions: mpsc::Sender<DriverRequest>,
    certificates: BTreeMap<CertificateFolder, Rc<CertificateWork>>,
    /// Certificates that are worked on, with their tasks.
    busy: HashMap<CertificateFolder, tokio::task::JoinHandle<()>>,
    budgets: HashMap<String, Rc<RefCell<OrderBudget>>>,
    /// The last log line about each plan, so that none is repeated.
    logged: HashMap<CertificateFolder, String>,
    /// The fault of a key that was logged last for each certificate.
    logged_keys: HashMap<CertificateFolder, Reason>,
    /// The time at which each overdue renewal was last logged.
    logged_overdue: HashMap<CertificateFolder, Seconds>,
    outlooks: watch::Sender<Arc<[Outlook]>>,
    /// The ledger's facts at the last look.
    next_keys: HashMap<CertificateFolder, NextKey>,
    burnt: Vec<Pin>,
    /// The certificates in use at the last look; `None` if the control thread did not say.
    in_use: Option<Vec<CertificateInUse>>,
    /// Failures of this host's side, which no record has: its disk may be full.
    faults: HashMap<CertificateFolder, Reason>,
}

impl DriverThread {
    fn new(
        name_servers: NameServers,
        answers: Arc<Answers>,
        questions: mpsc::Sender<DriverRequest>,
        outlooks: watch::Sender<Arc<[Outlook]>>,
    ) -> Self {
        Self {
            settings: None,
            name_servers,
            answers,
            questions,
            certificates: BTreeMap::new(),
            busy: HashMap::new(),
            budgets: HashMap::new(),
            logged: HashMap::new(),
            logged_keys: HashMap::new(),
            logged_overdue: HashMap::new(),
            outlooks,
            next_keys: HashMap::new(),
            burnt: Vec::new(),
            in_use: None,
            faults: HashMap::new(),
        }
    }

    async fn run(
        mut self,
        mut settings: GivenSettings,
        mut inbox: mpsc::Receiver<Message>,
        end: oneshot::Receiver<DriverEnd>,
        stopped: oneshot::Sender<()>,
    ) {
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
                        let (problem, hint) = (fault.reason.line(), fault.reason.hint_line());
                        tracing::error!(problem, hint, "ACME: cannot work on a certificate");
                        self.faults.insert(place, *fault.reason);
                        look = Instant::now() + LOOK;
                    } else {
                        self.faults.remove(&place);
                        look = Instant::now();
                    }
                }
                () = sleep_until(look) => look = Instant::now() + self.look(&finished, &settings).await.max(PAUSE),
            }
        }
        let how = end.await.unwrap_or(DriverEnd::Stop);
        self.end(how, stopped).await;
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Renew(asked, reply) => {
                self.ask_control().await;
                let _ = reply.send(self.renew(&asked));
            }
            Message::Revoke(asked, reply) => {
                let _ = reply.send(self.declare(&asked).await);
            }
            Message::Plans(reply) => {
                self.ask_control().await;
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
                            tracing::error!(folder = %place.display(), error = %words(&error), "ACME: cannot read the record of a certificate");
                            continue;
                        }
                    };
                    let work = CertificateWork::new(certificate.clone(), record);
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
    fn release_after_changes(&self, only: Option<&CertificateFolder>) {
        let Some(settings) = &self.settings else { return };
        let Acme { authorities, email, profile, challenges, dns_hook, .. } = &**settings;
        // A key of an external account binding shows itself in no text, and is hashed here.
        let secrets: Vec<_> = authorities.iter().map(|a| a.eab.as_ref().map(|eab| &eab.hmac_key)).collect();
        let common = format!("{authorities:?} {secrets:?} {email:?} {profile:?} {challenges:?} {dns_hook:?}");
        let common = store::fingerprint(&common);
        let is_meant =
            |place: &CertificateFolder| only.is_none_or(|only| only == place) && !self.busy.contains_key(place);
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
                let (problem, hint) = (fault.reason.line(), fault.reason.hint_line());
                tracing::error!(problem, hint, "ACME: cannot write the record of a certificate");
            }
        }
    }

    /// Makes all plans, and begins what they say. Returns the time until the next look.
    async fn look(&mut self, finished: &mpsc::Sender<Done>, changes: &GivenSettings) -> Duration {
        let wanted = self.settings.as_ref().map_or(0, |settings| settings.certificates.len());
        if self.certificates.len() < wanted {
            self.set(self.settings.clone());
        }
        if self.certificates.is_empty() {
            self.publish(Vec::new(), wall());
            return LOOK;
        }
        self.ask_control().await;
        // The answer is about newer settings: a site that is gone would seem to lack a certificate.
        if changes.has_changed().unwrap_or(false) {
            return Duration::ZERO;
        }
        let Some(settings) = self.settings.clone() else { return LOOK };
        let now = wall();
        let mut soonest = now + 3600;
        // Orders of one site follow each other: tls-alpn-01 has one answer for each name.
        let mut sites: HashSet<String> = self
            .busy
            .keys()
            .filter_map(|place| self.certificates.get(place))
            .map(|work| work.certificate.site.clone())
            .collect();
        let mut outlooks = Vec::with_capacity(self.certificates.len());
        for (place, work) in self.certificates.clone() {
            let (facts, plan, outlook) = self.outlook(&work, &settings, now);
            outlooks.push((place.clone(), outlook));
            if self.busy.contains_key(&place) || sites.contains(&work.certificate.site) {
                continue;
            }
            self.say(&place, &work, &plan, now);
            if let NextStep::Wait { until } | NextStep::OperatorsTurn { until, .. } = plan.next {
                soonest = soonest.min(until);
                if !work.has_leftovers() {
                    continue;
                }
            }
            if self.busy.len() >= TASKS_MAX {
                continue;
            }
            sites.insert(work.certificate.site.clone());
            let task = self.task(work, facts, plan, &settings);
            let (finished, at) = (finished.clone(), place.clone());
            let running = tokio::task::spawn_local(async move {
                if task.work.has_leftovers() {
                    task.work.clean().await;
                }
                let result = task.perform().await;
                let _ = finished.send(Done { place, result }).await;
            });
            self.busy.insert(at, running);
        }
        self.publish(outlooks, now);
        let left = u64::try_from(soonest.saturating_sub(now)).unwrap_or(0);
        Duration::from_secs(left).min(LOOK)
    }

    fn task(
        &mut self,
        work: Rc<CertificateWork>,
        facts: CertificateFacts,
        plan: CertificatePlan,
        settings: &Arc<Acme>,
    ) -> Task {
        let around = Surroundings {
            settings: settings.clone(),
            name_servers: self.name_servers.clone(),
            answers: self.answers.clone(),
        };
        let budgets =
            settings.authorities.iter().map(|authority| self.budget(settings, &authority.directory)).collect();
        Task { work, facts, plan, around, budgets, questions: self.questions.clone() }
    }
}
