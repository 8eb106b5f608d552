//! That a refusal was needed: somebody who would have been locked out.
//!
//! A ledger says that a set may have been sent until the end of a lease. So the witness is a client that came at that
//! moment, to a name that was the site's when it had this set, and has not come back. A second check is that the
//! ledger says no more than that: the set was sent at most one lease before the recorded time.

use std::rc::Rc;

use pintle::lease::ahead;
use pintle::policy::promise::{Promise, PromiseChannel, Seconds};

use super::build::{By, Objection};
use super::client::{App, Client, Millis};
use super::node::names_of;
use super::site::{Entry, Header, NAMES, routes};

/// All sets that were ever to be sent, by any node.
#[derive(Default)]
pub struct Sets {
    list: Vec<Set>,
    /// The last time that dates were mended. It is not known how long ago what was dated too early was sent; but not later.
    pub mended: Millis,
}

struct Set {
    promise: Promise,
    header: Rc<Header>,
    /// The names that were the site's, as bits.
    names: u16,
    /// The last time that it was to be sent.
    last: Millis,
}

impl Sets {
    /// A site is about to be served, or goes on being served.
    pub fn intend(&mut self, entry: &Entry, names: u16, now: Millis) {
        let (Some(promise), Some(header)) = (entry.promise(), &entry.header) else { return };
        match self.list.iter_mut().find(|set| is_same(&set.promise, promise)) {
            Some(set) => (set.names, set.last) = (set.names | names, now),
            None => self.list.push(Set { promise: promise.clone(), header: header.clone(), names, last: now }),
        }
    }

    /// `true` if a client would be locked out, at a node whose clock says this.
    pub fn is_needed(&self, objection: &Objection, apps: &[App], clock: Millis) -> Result<(), String> {
        let Objection { offered, site, chain, by, .. } = objection;
        let to = routes(offered);
        let keys = &offered[*site].table.chains[*chain];
        let visited = || NAMES.iter().enumerate().filter(|(name, _)| to[*name] == Some(*site)).map(|(_, name)| *name);
        let (header, names, at) = match by {
            By::Past(Promise { channel: PromiseChannel::Export { id, .. }, .. }) => {
                let app = apps.iter().find(|app| app.id == *id).ok_or("an export that nobody has made")?;
                let locked_out = visited().any(|name| !app.accepts(name, keys, clock));
                return locked_out.then_some(()).ok_or_else(|| format!("no user of {app:?} is locked out"));
            }
            By::Past(promise) => {
                let set = self.list.iter().find(|set| is_same(&set.promise, promise));
                let set = set.ok_or_else(|| format!("a set that nobody was to send: {promise:?}"))?;
                self.is_tight(set, promise, clock.div_euclid(1000))?;
                (set.header.clone(), set.names, clock.min(promise.last_sent * 1000))
            }
            By::Coming(promiser) => {
                let header = offered[*promiser].header.clone().ok_or("a set without a header")?;
                (header, names_of(&to, *promiser), clock)
            }
        };
        // The chain that was served then had one of the pins, and not all of them.
        let then = &header.policy.pins[..1];
        for name in (0..NAMES.len()).filter(|name| names & (1 << name) != 0) {
            let mut client = Client::default();
            client.visit(NAMES[name], then, Some((header.name, &header.policy)), at);
            if visited().any(|visited| !client.accepts(visited, keys, clock)) {
                return Ok(());
            }
        }
        Err(format!("nobody who came by at {at} and holds {header:?} is locked out at {clock} by {keys:?}"))
    }

    fn is_tight(&self, set: &Set, promise: &Promise, clock: Seconds) -> Result<(), String> {
        let last = (set.last.div_euclid(1000) + ahead(promise.max_age)).max(self.mended.div_euclid(1000) + 1);
        if promise.last_sent.min(clock) <= last {
            return Ok(());
        }
        Err(format!("held against the site until {}, but sent until {last} at most: {promise:?}", promise.last_sent))
    }
}

/// But for their times.
fn is_same(one: &Promise, other: &Promise) -> bool {
    one.site == other.site
        && one.hosts == other.hosts
        && one.except == other.except
        && one.pins == other.pins
        && one.max_age == other.max_age
        && one.include_subdomains == other.include_subdomains
        && one.channel == other.channel
}
