//! Two nodes and all of their clients, in one true time.
//!
//! The clients that matter are those that came by once, at the last moment at which a set was sent, and not since: of
//! all that hold the set for a name, they hold it longest. One such *ghost* for each name and set stands for all of
//! them, so that no client is left out. Clients that come and go, with all that they remember, walk beside them.

use std::rc::Rc;

use super::build::Objection;
use super::client::{App, Client, Key, Millis};
use super::node::{Node, Running};
use super::random::Random;
use super::site::{Entry, Header, NAMES, Table};
use super::witness::Sets;

/// By how much a worker's clock may be behind: a tick.
const LAG: u64 = 499;

pub struct Fleet {
    pub now: Millis,
    pub nodes: [Node; 2],
    pub ghosts: Vec<Ghost>,
    /// All that were ever made, given out or not.
    pub apps: Vec<App>,
    pub wanderers: [Client; 2],
    pub sets: Sets,
    /// Lockouts that were accepted at each node.
    pub accepted: [Vec<(String, Key)>; 2],
    /// The entries that the nodes served at the last look.
    looked_at: [Vec<Rc<Entry>>; 2],
    pub counts: Counts,
}

/// Counts of events, so that a test can see whether anything happened.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub ghosts: u64,
    pub visits: u64,
    pub admitted: u64,
    pub kept: u64,
    pub refused_by_past: u64,
    pub refused_by_coming: u64,
    pub unwritten: u64,
    pub accepted: u64,
    pub starts: u64,
    pub power_failures: u64,
    pub mended: u64,
    pub merges: u64,
    pub exports: u64,
}

/// Somebody who holds one set for one name.
pub struct Ghost {
    who: Who,
    /// The node that he heard it from.
    of: usize,
    /// The nodes whose ledgers know of him.
    known_to: [bool; 2],
    /// The node's dates were behind then. They are mended once its clock is right; until that, nobody else may rely on
    /// them, and if it stops first, nobody ever will know better.
    is_early: bool,
    excuses: Vec<Excuse>,
}

enum Who {
    Browser(Client, usize, Rc<Header>),
    App(App),
}

/// Why he may be locked out.
enum Excuse {
    /// The operator took it upon himself: a leaf of that site.
    Accepted(String, Key),
    /// The node was serving this already when it learned of him.
    Served(usize, Rc<Entry>),
}

impl Ghost {
    fn accepts(&self, name: &str, chain: &[Key], now: Millis) -> bool {
        match &self.who {
            Who::Browser(client, ..) => client.accepts(name, chain, now),
            Who::App(app) => app.accepts(name, chain, now),
        }
    }

    /// The last moment at which he holds anything.
    pub fn end(&self) -> Millis {
        match &self.who {
            Who::Browser(client, ..) => client.end(),
            Who::App(app) => app.until - 1,
        }
    }

    /// The place of one of its names, if a node knows of this client.
    pub fn name_at(&self, node: usize) -> Option<usize> {
        let looks_at = |name: &str| !self.accepts(name, &[Key::MAX], self.end());
        NAMES.iter().position(|name| looks_at(name)).filter(|_| self.known_to[node])
    }

    fn is_excused(&self, node: usize, entry: &Rc<Entry>, leaf: Key) -> bool {
        self.excuses.iter().any(|excuse| match excuse {
            Excuse::Accepted(site, accepted) => *site == entry.label() && *accepted == leaf,
            Excuse::Served(at, served) => *at == node && Rc::ptr_eq(served, entry),
        })
    }
}

impl Fleet {
    pub fn new(random: &mut Random, now: Millis, tables: [Vec<Table>; 2]) -> Self {
        let [one, two] = tables;
        Self {
            now,
            nodes: [Node::new(random.next(), one), Node::new(random.next(), two)],
            ghosts: Vec::new(),
            apps: Vec::new(),
            wanderers: Default::default(),
            sets: Sets::default(),
            accepted: Default::default(),
            looked_at: Default::default(),
            counts: Counts::default(),
        }
    }

    /// Somebody comes by at every name, at the last moment since `from` at which pins are sent there.
    pub fn visit(&mut self, from: Millis) -> Result<(), String> {
        let now = self.now;
        self.ghosts.retain(|ghost| now <= ghost.end());
        for at in 0..self.nodes.len() {
            let Some(running) = &self.nodes[at].running else { continue };
            let is_early = running.early_by > 0 || running.unmended;
            let mut fresh = Vec::new();
            for (name, entry) in served(running) {
                let (Some(header), Some(pledge)) = (&entry.header, &entry.pledge) else { continue };
                let Some(last) = last_sent(running, |uptime| pledge.lease.holds(uptime), from, now) else { continue };
                let was_here = |ghost: &&mut Ghost| {
                    let knows = ghost.of == at && ghost.known_to[at] && !ghost.known_to[1 - at];
                    let is_same = matches!(&ghost.who, Who::Browser(_, n, h) if *n == name && h == header);
                    knows && is_same && ghost.is_early == is_early && ghost.excuses.is_empty()
                };
                self.counts.visits += 1;
                let field = Some((header.name, &header.policy));
                if let Some(Ghost { who: Who::Browser(client, ..), .. }) = self.ghosts.iter_mut().find(was_here) {
                    client.visit(NAMES[name], &entry.table.chains[0], field, last);
                    continue;
                }
                for chain in &entry.table.chains {
                    let mut client = Client::default();
                    client.visit(NAMES[name], chain, field, last);
                    let is_meant = header.name == "Public-Key-Pins" && header.policy.max_age > 0;
                    if is_meant != client.holds_any(last) {
                        return Err(format!("{} with {chain:?} sends what nobody notes: {header:?}", NAMES[name]));
                    }
                    if is_meant && *chain == entry.table.chains[0] {
                        let mut known_to = [false; 2];
                        known_to[at] = true;
                        let who = Who::Browser(client, name, header.clone());
                        fresh.push(Ghost { who, of: at, known_to, is_early, excuses: Vec::new() });
                    }
                }
            }
            self.counts.ghosts += fresh.len() as u64;
            let known = self.ghosts.len();
            self.ghosts.append(&mut fresh);
            (0..2).try_for_each(|node| self.check(node, known))?;
        }
        Ok(())
    }

    /// Nobody that a node knows of is locked out there, now that it may be serving something else.
    pub fn check_all(&mut self, node: usize) -> Result<(), String> {
        let Some(running) = &self.nodes[node].running else { return Ok(()) };
        let known = &self.looked_at[node];
        if known.len() == running.entries.len() && known.iter().zip(&running.entries).all(|(a, b)| Rc::ptr_eq(a, b)) {
            return Ok(());
        }
        self.check(node, 0)?;
        self.looked_at[node].clone_from(&running.entries);
        Ok(())
    }

    /// The same, of the ghosts from that place on.
    fn check(&self, node: usize, from: usize) -> Result<(), String> {
        let Some(running) = &self.nodes[node].running else { return Ok(()) };
        for ghost in self.ghosts[from..].iter().filter(|ghost| ghost.known_to[node]) {
            for (name, entry) in served(running) {
                for chain in &entry.table.chains {
                    let accepts = ghost.accepts(NAMES[name], chain, self.now);
                    if !accepts && !ghost.is_excused(node, entry, chain[0]) {
                        let (site, at) = (entry.label(), self.now);
                        let who = ghost.describe();
                        return Err(format!("locked out of {} (site {site}) by {chain:?} at {at}: {who}", NAMES[name]));
                    }
                }
            }
        }
        Ok(())
    }

    /// A client that comes and goes visits some name of a node.
    pub fn wander(&mut self, node: usize, random: &mut Random) -> Result<(), String> {
        let (now, name) = (self.now, random.index(NAMES.len()));
        let Some(running) = &self.nodes[node].running else { return Ok(()) };
        let Some(entry) = running.routes[name].map(|site| running.entries[site].clone()) else { return Ok(()) };
        let chain = random.pick(&entry.table.chains);
        let holds = entry.pledge.as_ref().is_some_and(|p| p.lease.holds(running.uptime(now)));
        let field = entry.header.as_ref().filter(|_| holds).map(|h| (h.name, &h.policy));
        let client = &mut self.wanderers[node];
        if client.visit(NAMES[name], chain, field, now) {
            return Ok(());
        }
        // There must be a ghost who could tell the same tale, and is excused.
        let unmet = client.unmet(NAMES[name], chain, now);
        let is_ghost = |host: &str, policy: &super::client::Policy| {
            let tells = |ghost: &&Ghost| matches!(&ghost.who, Who::Browser(_, n, h) if NAMES[*n] == host && h.policy == *policy);
            let is_excused = |g: &Ghost| !g.known_to[node] || g.is_excused(node, &entry, chain[0]);
            self.ghosts.iter().filter(tells).any(is_excused)
        };
        if !unmet.iter().any(|(host, policy)| is_ghost(host, policy)) {
            return Err(format!("a client is locked out of {} by {chain:?}: {unmet:?}", NAMES[name]));
        }
        self.wanderers[node] = Client::default();
        Ok(())
    }

    /// Each refusal has somebody who would have been locked out.
    pub fn judge(&mut self, node: usize, objections: &[Objection]) -> Result<(), String> {
        let clock = self.now - self.nodes[node].behind;
        for objection in objections {
            match objection.by {
                super::build::By::Past(_) => self.counts.refused_by_past += 1,
                super::build::By::Coming(_) => self.counts.refused_by_coming += 1,
            }
            self.sets.is_needed(objection, &self.apps, clock).map_err(|why| format!("refused without need: {why}"))?;
        }
        Ok(())
    }

    /// The operator took it upon himself to lock out whoever a node knows of by now.
    pub fn excuse(&mut self, node: usize, site: String, leaf: Key) {
        for ghost in self.ghosts.iter_mut().filter(|ghost| ghost.known_to[node]) {
            ghost.excuses.push(Excuse::Accepted(site.clone(), leaf));
        }
        self.accepted[node].push((site, leaf));
    }

    /// An app is built with an export.
    pub fn give_out(&mut self, node: usize, app: App) -> Result<(), String> {
        let mut known_to = [false; 2];
        known_to[node] = true;
        let from = self.ghosts.len();
        self.ghosts.push(Ghost { who: Who::App(app), of: node, known_to, is_early: false, excuses: Vec::new() });
        self.check(node, from)
    }

    /// A node has learned what the other one knew.
    pub fn learn(&mut self, node: usize) {
        let Some(running) = &self.nodes[node].running else { return };
        self.looked_at[node].clear();
        for ghost in self.ghosts.iter_mut().filter(|g| g.known_to[1 - node] && !g.known_to[node] && !g.is_early) {
            ghost.known_to[node] = true;
            // What the operator said here is about them, too, as far as they came by before he said it.
            let accepted = self.accepted[node].iter();
            ghost.excuses.extend(accepted.map(|(site, leaf)| Excuse::Accepted(site.clone(), *leaf)));
            for (name, entry) in served(running) {
                if entry.table.chains.iter().any(|chain| !ghost.accepts(NAMES[name], chain, self.now)) {
                    ghost.excuses.push(Excuse::Served(node, entry.clone()));
                }
            }
        }
    }

    /// A node's dates are right again.
    pub fn mended(&mut self, node: usize) {
        let is_right = self.nodes[node].behind == 0 && self.nodes[node].running.as_ref().is_some_and(|r| !r.unmended);
        for ghost in self.ghosts.iter_mut().filter(|g| is_right && g.of == node && g.is_early) {
            ghost.is_early = false;
            self.counts.mended += 1;
        }
    }

    /// A node goes down. Whom it dated too early, and has not mended, it does not know of.
    pub fn stop(&mut self, node: usize, power_fails: bool) {
        self.nodes[node].stop(power_fails);
        for ghost in self.ghosts.iter_mut().filter(|g| g.of == node && g.is_early) {
            ghost.known_to = [false; 2];
        }
    }
}

impl Ghost {
    fn describe(&self) -> String {
        let early = if self.is_early { ", dated too early" } else { "" };
        match &self.who {
            Who::Browser(client, ..) => format!("who came by at node {}{early}: {client:?}", self.of),
            Who::App(app) => format!("of node {}: {app:?}", self.of),
        }
    }
}

/// The names that are served, with their sites.
fn served(running: &Running) -> impl Iterator<Item = (usize, &Rc<Entry>)> {
    running.routes.iter().enumerate().filter_map(|(name, site)| Some((name, running.entries.get((*site)?)?)))
}

/// The last moment between two at which a lease holds, for the worker whose clock is most behind.
fn last_sent(running: &Running, holds: impl Fn(u64) -> bool, from: Millis, to: Millis) -> Option<Millis> {
    let is_sent = |at: Millis| holds(running.uptime(at).saturating_sub(LAG));
    if is_sent(to) {
        return Some(to);
    }
    let (mut sent, mut not) = (from, to);
    if !is_sent(sent) {
        return None;
    }
    while not - sent > 1 {
        let middle = sent.midpoint(not);
        if is_sent(middle) { sent = middle } else { not = middle }
    }
    Some(sent)
}

impl Counts {
    pub fn sum(counts: &[Self]) -> Self {
        let sum = |of: fn(&Self) -> u64| counts.iter().map(of).sum();
        Self {
            ghosts: sum(|c| c.ghosts),
            visits: sum(|c| c.visits),
            admitted: sum(|c| c.admitted),
            kept: sum(|c| c.kept),
            refused_by_past: sum(|c| c.refused_by_past),
            refused_by_coming: sum(|c| c.refused_by_coming),
            unwritten: sum(|c| c.unwritten),
            accepted: sum(|c| c.accepted),
            starts: sum(|c| c.starts),
            power_failures: sum(|c| c.power_failures),
            mended: sum(|c| c.mended),
            merges: sum(|c| c.merges),
            exports: sum(|c| c.exports),
        }
    }

    /// A model in which nothing happens proves nothing.
    pub fn assert_enough(&self, histories: u64) {
        let often = [self.ghosts, self.visits, self.admitted, self.starts];
        let seldom = [
            self.kept,
            self.refused_by_past,
            self.refused_by_coming,
            self.accepted,
            self.power_failures,
            self.mended,
            self.merges,
            self.exports,
        ];
        assert!(often.iter().all(|n| *n >= histories), "{self:?}");
        assert!(seldom.iter().all(|n| *n >= histories / 100), "{self:?}");
        assert!(self.unwritten >= histories / 5000, "{self:?}");
    }
}
