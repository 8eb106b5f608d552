//! An upgrade, seen from the new process: it checks and proves everything while the old one serves,
//! then takes the ledger, judges again, records its promises, and serves.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};

use super::cache::open_disk;
use super::changed_pages::{HEARD_MAX, hear_changes};
use super::open_ledger::{open_ledger_with, remedies, unreadable_ledger};
use super::page_listeners::bind_pages;
use super::starting::{Beginning, Parts, StartError, mark_left, promise};
use super::state::PageSocket;
use super::taken_listeners::Listeners;
use super::upgrade::records;
use super::{Control, prove};
use crate::config::{
    AdminAddress, CheckContext, Config, DaysInUse, Draft, HandedCopies, LastGood, MayLack, NamedKeys, ServedBefore,
    StandIn,
};
use crate::handover::channel::ChannelError;
use crate::handover::{
    ChangedPages, Channel, Go, HandedCounts, HandoverAnswer, Hello, Released, ServedSite, TicketKey, VARIABLE, VERSION,
};
use crate::host::HostPattern;
use crate::ledger::time::judged_now;
use crate::ledger::{Book, Ledger, Notice, OpenError, Record};
use crate::os::words::words;
use crate::policy::Scheme;
use crate::reason::{Problem, Reason, texts};
use crate::server::Lent;
use crate::tls::certificate::Chain;
use crate::upstream::dns::follow;

/// Time limit for the old process's first message.
const HELLO: Duration = Duration::from_secs(10);
/// Time limit for sending a message.
const SEND: Duration = Duration::from_secs(10);
/// Time limit for the old process to give up its name once this one serves.
const RELEASE: Duration = Duration::from_secs(10);

/// A new process that was started to take over from another.
pub struct NewProcess {
    channel: Arc<Mutex<Channel>>,
    lent: Vec<Lent>,
    pages: Vec<PageSocket>,
    pub(super) records: Vec<Record>,
    /// `true` if these records are all promises.
    whole: bool,
    /// The old process's `state.directory`, in the form of [`Hello`].
    pub(super) state: Option<Vec<PathBuf>>,
    /// The promises that a first `state.directory` begins with.
    pub(super) first: Vec<Record>,
    may_lack: MayLack,
    /// The days in `accept_lockout_until` that the old process serves with.
    days: Option<DaysInUse>,
    /// The chains of its pages over TLS.
    pages_in_use: Option<Vec<Chain>>,
    /// The keys that its refusals have named.
    named: Option<NamedKeys>,
    /// The pairs in use that this process would find nowhere.
    copies: HandedCopies,
}

impl NewProcess {
    /// Receives the old process's first message; `None` if this is not an upgrade.
    ///
    /// # Errors
    ///
    /// If the environment claims an upgrade, and there is none.
    pub fn of_process() -> Result<Option<Self>, Reason> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let wrong =
            |why: &dyn std::fmt::Display| Reason::new(format!("{VARIABLE} is set, but this is not an upgrade: {why}"));
        let mut channel = Channel::of_stdin().map_err(|e| wrong(&format!("standard input: {}", words(&e))))?;
        let hello: Hello = channel.receive(Some(HELLO), None).map_err(|e| wrong(&e))?;
        let mut newcomer = Self {
            channel: Arc::new(Mutex::new(channel)),
            lent: Vec::new(),
            pages: Vec::new(),
            records: Vec::new(),
            whole: false,
            state: None,
            first: Vec::new(),
            may_lack: MayLack::None,
            days: None,
            pages_in_use: None,
            named: None,
            copies: HandedCopies::default(),
        };
        match newcomer.take(hello) {
            Ok(()) => Ok(Some(newcomer)),
            Err(why) => {
                newcomer.fail(vec![why.clone().into()]);
                Err(why)
            }
        }
    }

    fn take(&mut self, hello: Hello) -> Result<(), Reason> {
        if hello.version != VERSION {
            let what =
                format!("the serving process speaks version {} of the upgrade, this one {VERSION}", hello.version);
            return Err(Reason::new(what).hint("restart pintle instead of an upgrade"));
        }
        self.records =
            records(&hello.ledger).map_err(|e| format!("cannot read the promises of the other process: {e}"))?;
        (self.whole, self.state) = (hello.whole, hello.state);
        self.days = hello.served.as_ref().map(|served| days_of(served));
        self.may_lack = hello.served.map_or(MayLack::None, may_lack);
        self.named = hello.named.map(|named| named.into_iter().collect());
        self.copies = HandedCopies::of(hello.copies);
        let chain = |pem: String| Chain::from_pem(pem.as_bytes()).ok();
        self.pages_in_use = hello.pages_chains.map(|chains| chains.into_iter().filter_map(chain).collect());
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        for sockets in hello.sockets {
            let listeners: Vec<TcpListener> =
                (0..sockets.count).filter_map(|_| channel.take_file()).map(TcpListener::from).collect();
            let is_there = |l: &TcpListener| l.local_addr().is_ok_and(|address| address == sockets.address);
            if listeners.len() != sockets.count || listeners.is_empty() || !listeners.iter().all(is_there) {
                return Err(format!("unexpected sockets for {}", sockets.address).into());
            }
            let scheme = if sockets.tls { Scheme::Https } else { Scheme::Http };
            let (asked, address) = (Some(sockets.asked), sockets.address);
            self.lent.push(Lent { asked, address, scheme: Some(scheme), listeners });
        }
        for asked in hello.pages {
            let socket = channel.take_file().map(TcpListener::from).filter(|socket| socket.local_addr().is_ok());
            let socket = socket.ok_or_else(|| format!("no socket for the pages on {asked}"))?;
            self.pages.push(PageSocket { asked, socket });
        }
        Ok(())
    }

    /// The sites that may be without a certificate: those that the old process serves must keep theirs.
    #[must_use]
    pub fn may_lack(&self) -> MayLack {
        self.may_lack.clone()
    }

    /// The days in `accept_lockout_until` that the old process serves with; `None` if it does not say.
    #[must_use]
    pub fn days(&self) -> Option<DaysInUse> {
        self.days.clone()
    }

    /// The chains that the old process's pages over TLS have; `None` if it does not say.
    #[must_use]
    pub fn pages_in_use(&self) -> Option<Vec<Chain>> {
        self.pages_in_use.clone()
    }

    /// The keys that the old process's refusals have named; `None` if it does not say.
    #[must_use]
    pub fn named(&self) -> Option<NamedKeys> {
        self.named.clone()
    }

    /// The pairs that the old process hands over.
    #[must_use]
    pub fn copies(&self) -> HandedCopies {
        self.copies.clone()
    }

    /// The inputs of the second judgement: a promise or a file may have changed since the first one.
    fn second_look<'c>(&'c self, config: &'c Config, book: &'c Book, strict: bool) -> CheckContext<'c> {
        let (now, _) = judged_now(book.newest());
        CheckContext {
            before: Some(config),
            is_served: false,
            last_good: LastGood::with_handed(config.state.as_deref(), self.copies()),
            stand_in: StandIn::Always,
            may_lack: if strict { MayLack::None } else { self.may_lack() },
            days_in_use: self.days(),
            pages_in_use: self.pages_in_use(),
            named: self.named.as_ref(),
            ..CheckContext::new(book, now)
        }
    }

    /// The contents of the ledger, without taking it.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn book(&self, draft: &Draft) -> Result<Book, Reason> {
        let mut book = match draft.state() {
            Some(folder) => {
                let file = folder.join(crate::ledger::FILE);
                let (book, notices) =
                    crate::ledger::look(&folder).map_err(|error| unreadable_ledger(&folder, &error))?;
                if let (false, true) = (self.whole, notices.iter().any(Notice::is_loss)) {
                    let error = OpenError::Damaged(notices);
                    let hints = remedies(draft.path(), &folder, &error);
                    return Err(Reason::new(format!("{}: {error}", file.display())).hints(hints));
                }
                book
            }
            None => Book::default(),
        };
        for record in self.records.iter().chain(&self.first).cloned() {
            book.apply(record);
        }
        Ok(book)
    }

    /// Takes over the passed sockets, and binds new addresses.
    ///
    /// # Errors
    ///
    /// The addresses that cannot be bound.
    pub fn bind(&mut self, config: &Config) -> Result<Listeners, Vec<Problem>> {
        let listeners = Listeners::bind(config, std::mem::take(&mut self.lent))?;
        Ok(Listeners { pages: bind_pages(config, &mut self.pages), ..listeners })
    }

    /// Tells the old process why it must continue.
    pub fn fail(&self, problems: Vec<Problem>) {
        let key = |problem: &Problem| Some((problem.site.clone()?, problem.key.as_deref()?.to_owned()));
        let named = problems.iter().filter(|problem| problem.is_error()).filter_map(key).collect();
        let answer = HandoverAnswer::Failed { reasons: texts(&problems), problems, named };
        let _ = self.channel.lock().unwrap_or_else(PoisonError::into_inner).send(&answer, &[], SEND);
    }

    /// Reports that everything is checked, and waits for the old process's go.
    async fn stand_by(&self, ready: HandoverAnswer) -> Result<Go, ChannelError> {
        let channel = self.channel.clone();
        let waiting = spawn_blocking(move || {
            let mut channel = channel.lock().unwrap_or_else(PoisonError::into_inner);
            channel.send(&ready, &[], SEND)?;
            channel.receive(None, None)
        });
        waiting.await.unwrap_or_else(|panic| Err(ChannelError::Io(io::Error::other(panic))))
    }

    /// Reports that this process serves. A failure changes nothing. Returns the wait for the old process to give up
    /// its name, and what that one changes until it ends.
    fn report_serving(&self) -> (Option<JoinHandle<()>>, Option<Receiver<ChangedPages>>) {
        let (own, (sender, heard)) = (self.channel.clone(), channel(HEARD_MAX));
        let releasing = spawn_blocking(move || {
            let mut channel = own.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = channel.send(&HandoverAnswer::Serving, &[], SEND);
            let _ = channel.receive::<Released>(Some(RELEASE), None);
            drop(channel);
            hear_changes(own, sender);
        });
        (Some(releasing), Some(heard))
    }
}

impl Control {
    /// Takes over from another process. Must be called on the thread's runtime.
    ///
    /// # Errors
    ///
    /// If it cannot serve correctly. The other process knows, and continues.
    pub async fn take_over(
        draft: Draft,
        config: Config,
        newcomer: NewProcess,
        listeners: Listeners,
        beginning: Beginning,
    ) -> Result<Self, Vec<Problem>> {
        match Self::try_take_over(draft, config, &newcomer, listeners, beginning).await {
            Ok(control) => Ok(control),
            Err(reasons) => {
                newcomer.fail(reasons.clone());
                Err(reasons)
            }
        }
    }

    async fn try_take_over(
        draft: Draft,
        mut config: Config,
        newcomer: &NewProcess,
        listeners: Listeners,
        beginning: Beginning,
    ) -> Result<Self, Vec<Problem>> {
        let parts = Parts::new(&config).map_err(problems_of)?;
        let Listeners { bound, probed, kept, notes, pages } = listeners;
        let address = probed.addresses().first().map(|(address, _)| *address);
        let mut server = parts.server(probed, &config).map_err(|error| vec![error.to_string().into()])?;
        let mut names = std::mem::take(&mut config.names);
        if config.process.prove_upstream {
            // Before a request needs their addresses; otherwise this process follows them once it serves.
            for name in names.drain(..) {
                spawn_local(follow(name, parts.resolver.clone()));
            }
        }
        let proven = match address {
            Some(address) => prove::all(&config, address).await?,
            None => 0,
        };
        tracing::info!(sites = proven, "upgrade: this process is ready to take over");
        let state = config.state.iter().cloned().collect();
        let ready =
            HandoverAnswer::Ready { version: env!("CARGO_PKG_VERSION").into(), kept, notes, state: Some(state) };
        let go = newcomer.stand_by(ready).await.map_err(|error| vec![error.to_string().into()])?;

        let (ledger, before) = ledger(&draft, &go, newcomer)?;
        continue_with(&config, go.tickets, go.rates);
        let (again, problems) = draft.build(&newcomer.second_look(&config, ledger.book(), beginning.strict));
        let Some(mut config) = again else { return Err(problems.shown()) };
        config.names.extend(names);
        let promised =
            promise(ledger, &config, parts.copies.as_ref(), go.since, Some(&before)).await.map_err(problems_of)?;
        mark_left(&beginning.left, &config);
        server.publish(config.snapshot.clone(), false);
        server.settled().await;
        open_disk(&config, None);
        server.listen(bound.addresses(), bound);
        let mut control = Self::of_parts(draft, config, parts, promised, server, Beginning { pages, ..beginning });
        control.files.named.get_mut().extend(newcomer.named().into_iter().flatten());
        match control.config.admin {
            // The other process holds the port for another moment.
            Some(AdminAddress::Tcp { .. }) => control.operator.listener.wait(),
            _ => control.replace_admin_listener(),
        }
        (control.upgrades.released, control.upgrades.heard) = newcomer.report_serving();
        Ok(control)
    }
}

fn problems_of(StartError(why): StartError) -> Vec<Problem> {
    vec![why.into()]
}

/// Takes the ledger for this process, with the old process's records, and returns these, too. If those are all, the file
/// may be in any state, or missing.
fn ledger(draft: &Draft, go: &Go, newcomer: &NewProcess) -> Result<(Ledger, Book), Vec<Problem>> {
    let mut known = records(&go.ledger)
        .map_err(|error| vec![format!("cannot read the promises of the other process: {error}").into()])?;
    let mut book = Book::default();
    for record in &known {
        book.apply(record.clone());
    }
    known.extend(newcomer.first.iter().cloned());
    let mut all = book.clone();
    newcomer.first.iter().for_each(|record| _ = all.apply(record.clone()));
    newcomer.note_move(draft);
    let (mut ledger, notices) = open_ledger_with(draft, go.whole.then_some(all)).map_err(|why| vec![why.into()])?;
    for notice in notices {
        tracing::warn!(%notice, "ledger");
    }
    if !go.whole && ledger.record(known.clone()).is_err() {
        ledger.believe(known);
    }
    newcomer.must_hold(draft, &mut ledger).map_err(|why| vec![why.into()])?;
    Ok((ledger, book))
}

/// Continues with what the old process has in memory: the keys of its tickets, and its counts of clients.
fn continue_with(config: &Config, tickets: Vec<TicketKey>, rates: Option<HandedCounts>) {
    config.tickets().take_over(tickets);
    if let (Some(own), Some(handed)) = (&config.snapshot.rates, &rates) {
        own.counts.take_over(handed);
    }
}

fn days_of(served: &[ServedSite]) -> DaysInUse {
    let day = |site: &ServedSite| Some((site.hosts.first()?.clone(), site.accept_lockout_until.clone()?));
    served.iter().filter_map(day).collect()
}

fn may_lack(served: Vec<ServedSite>) -> MayLack {
    let parse = |host: &String| HostPattern::parse(host).ok();
    let site = |ServedSite { hosts, missing, apart, replaced, unserved_below, .. }| {
        let own = hosts.iter().filter(|host| !apart.contains(host));
        ServedBefore {
            hosts: own.filter_map(parse).collect(),
            missing,
            replaced: replaced.iter().filter_map(parse).collect(),
            unserved_below: unserved_below.map(|names| names.iter().filter_map(parse).collect()),
        }
    };
    MayLack::AllBut(served.into_iter().map(site).collect())
}

/// Completes when the old process has given up its name.
pub(super) async fn released(waiting: &mut Option<JoinHandle<()>>) {
    match waiting {
        Some(waiting) => _ = waiting.await,
        None => std::future::pending().await,
    }
}
