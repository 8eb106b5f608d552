//! The connections of one worker, and which of them makes room when there are too many: first silent ones, then idle ones.
//! A connection with a request in progress never does.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::admission::ClientNetwork;
use super::compressors::OwnCompressors;
use super::crowd::{Crowd, Member};
use super::handshakes::FAIR_SHARE;
use crate::clock::{Alarm, ticks_of};

/// Connections that one search for an idle one looks at.
const LOOKED_AT: usize = 1024;
/// A network with at least as many connections, and more than a quarter of the worker's, makes room before others do.
const CROWD_LEAST: usize = 8;

/// All connections of a worker.
#[derive(Default)]
pub(super) struct Connections {
    /// Silent ones: no ClientHello yet, or no request on a plain connection.
    silent: RefCell<Crowd>,
    /// The others. The alarm of a connection knows if it is idle, so that a request changes nothing here.
    open: RefCell<Crowd>,
    /// The start of the next search for an idle one.
    looked_at: Cell<u64>,
}

impl Connections {
    /// Lists a silent connection while the entry lives. `now` is in ticks.
    pub(super) fn list(self: &Rc<Self>, network: ClientNetwork, now: u32, alarm: &Alarm) -> ConnectionEntry {
        let number = self.silent.borrow_mut().add(Member { network, since: now, ringer: alarm.ringer() });
        ConnectionEntry {
            connections: self.clone(),
            number: Cell::new(number),
            is_silent: Cell::new(true),
            compressors: OwnCompressors::default(),
        }
    }

    /// Returns the numbers of silent connections, and of all others.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.silent.borrow().len(), self.open.borrow().len())
    }

    /// Returns the number of idle connections. Looks at each one.
    pub(super) fn count_idle(&self) -> usize {
        self.open.borrow().members().filter(|member| member.ringer.is_resting()).count()
    }

    /// Ends one connection of a network to make room for another of it, or one of any network if `network` is `None`.
    /// Returns `false` if none can be ended. A newcomer of this worker is listed already.
    pub(super) fn make_room(
        &self,
        network: Option<ClientNetwork>,
        newcomer: Option<&ConnectionEntry>,
        now: u32,
    ) -> bool {
        let newcomer = newcomer.map(|entry| entry.number.get());
        let end = |number: Option<u64>| number.is_some_and(|n| Some(n) != newcomer && self.end_silent(n));
        match network {
            Some(network) => {
                let oldest = self.silent.borrow().oldest_of(network);
                end(oldest) || self.end_resting_of(Some(network))
            }
            None => {
                let of_many = self.oldest_of_many();
                let oldest = self.silent.borrow().oldest();
                let had_its_time = oldest.filter(|number| self.is_silent_since(*number, ticks_of(FAIR_SHARE), now));
                end(of_many) || end(had_its_time) || self.end_resting() || end(oldest)
            }
        }
    }

    fn end_silent(&self, number: u64) -> bool {
        let ended = self.silent.borrow_mut().remove(number);
        ended.inspect(|member| member.ringer.ring()).is_some()
    }

    /// Returns the oldest silent connection of a network that has a crowd of them, however young it is. A browser opens some
    /// at once, and they are about to speak.
    fn oldest_of_many(&self) -> Option<u64> {
        let silent = self.silent.borrow();
        let (network, _) = silent.largest().filter(|(_, size)| *size >= CROWD_LEAST)?;
        silent.oldest_of(network)
    }

    fn is_silent_since(&self, number: u64, ticks: u32, now: u32) -> bool {
        self.silent.borrow().get(number).is_some_and(|member| now.saturating_sub(member.since) >= ticks)
    }

    /// Ends an idle connection: of a crowd, if one network is one.
    fn end_resting(&self) -> bool {
        let largest = {
            let open = self.open.borrow();
            open.largest().filter(|(_, size)| *size >= CROWD_LEAST && *size > open.len() / 4)
        };
        largest.is_some_and(|(network, _)| self.end_resting_of(Some(network))) || self.end_resting_of(None)
    }

    /// Ends the connection of a network, or of any, that is idle for the longest time. Continues where the last search stopped,
    /// so that of very many all have their turn.
    fn end_resting_of(&self, network: Option<ClientNetwork>) -> bool {
        let open = self.open.borrow();
        let mut at = self.looked_at.get();
        let looked_at = open.round(network, at).take(LOOKED_AT).inspect(|number| at = number + 1);
        let resting = looked_at.filter_map(|number| Some((open.get(number)?.ringer.rest()?, number)));
        let found = resting.min().map(|(_, number)| number);
        self.looked_at.set(at);
        // It stays listed until its task ends it: a request may just have come.
        let member = found.and_then(|number| open.get(number));
        member.inspect(|member| member.ringer.ring()).is_some()
    }
}

/// The entry of a listed connection.
pub(super) struct ConnectionEntry {
    connections: Rc<Connections>,
    number: Cell<u64>,
    is_silent: Cell<bool>,
    /// The compressors that run for its answers.
    pub(super) compressors: OwnCompressors,
}

impl ConnectionEntry {
    /// Notes that the client has sent a ClientHello or a request.
    pub(super) fn speaks(&self) {
        if self.is_silent.get()
            && let Some(member) = self.connections.silent.borrow_mut().remove(self.number.get())
        {
            self.is_silent.set(false);
            self.number.set(self.connections.open.borrow_mut().add(member));
        }
    }

    /// Notes that the client is in another network than its socket's address.
    pub(super) fn is_of(&self, network: ClientNetwork) {
        let mut crowd = self.crowd().borrow_mut();
        if let Some(member) = crowd.remove(self.number.get()) {
            self.number.set(crowd.add(Member { network, ..member }));
        }
    }

    fn crowd(&self) -> &RefCell<Crowd> {
        if self.is_silent.get() { &self.connections.silent } else { &self.connections.open }
    }
}

impl Drop for ConnectionEntry {
    fn drop(&mut self) {
        self.crowd().borrow_mut().remove(self.number.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    struct Bed {
        clock: Rc<Clock>,
        connections: Rc<Connections>,
    }

    impl Bed {
        fn new() -> Self {
            Self { clock: Rc::default(), connections: Rc::default() }
        }

        fn add(&self, n: u8) -> (Alarm, ConnectionEntry) {
            let alarm = self.clock.alarm();
            let entry = self.connections.list(network(n), self.clock.ticks(), &alarm);
            (alarm, entry)
        }

        fn make_room(&self, of: Option<u8>) -> bool {
            self.connections.make_room(of.map(network), None, self.clock.ticks())
        }
    }

    fn network(n: u8) -> ClientNetwork {
        ClientNetwork::of([192, 0, 2, n].into())
    }

    #[test]
    fn silent_ones_of_a_crowd_first() {
        let bed = Bed::new();
        let (honest, own) = bed.add(1);
        let crowd: Vec<_> = (0..=CROWD_LEAST).map(|_| bed.add(2)).collect();
        let (resting, talker) = bed.add(3);
        talker.speaks();
        resting.rests(true);
        assert!(bed.make_room(None) && bed.make_room(None));
        let due: Vec<_> = crowd.iter().map(|(alarm, _)| alarm.is_due()).collect();
        assert!(due[0] && due[1] && due[2..].iter().all(|due| !due), "{due:?}");
        // The rest is no crowd, and all are young: the idle connection gives way.
        assert!(bed.make_room(None));
        assert!(resting.is_due() && !honest.is_due() && !crowd[2].0.is_due());
        // Nobody rests, so that the young must go.
        assert!(bed.make_room(None) && honest.is_due() && !crowd[2].0.is_due());
        for (alarm, _) in &crowd[2..] {
            assert!(bed.make_room(None) && alarm.is_due());
        }
        assert!(!bed.make_room(None));
        drop((own, crowd));
        assert_eq!(bed.connections.silent.borrow().len(), 0);
    }

    /// A browser opens up to six at once.
    #[test]
    fn fresh_ones_of_a_browser_stay_while_others_rest() {
        let bed = Bed::new();
        let idle: Vec<_> = (10..14).map(|n| bed.add(n)).collect();
        for (alarm, entry) in &idle {
            entry.speaks();
            alarm.rests(true);
        }
        let fresh: Vec<_> = (0..6).map(|_| bed.add(1)).collect();
        for (alarm, _) in &idle {
            assert!(bed.make_room(None) && alarm.is_due());
            assert!(fresh.iter().all(|(alarm, _)| !alarm.is_due()));
        }
    }

    #[test]
    fn old_silent_ones_before_those_at_rest() {
        let bed = Bed::new();
        let (silent, _own) = bed.add(1);
        let (resting, talker) = bed.add(2);
        talker.speaks();
        resting.rests(true);
        (0..ticks_of(FAIR_SHARE)).for_each(|_| bed.clock.tick());
        assert!(bed.make_room(None));
        assert!(silent.is_due() && !resting.is_due());
    }

    #[test]
    fn a_network_makes_room_for_its_own() {
        let bed = Bed::new();
        let (other, _own) = bed.add(1);
        assert!(!bed.make_room(Some(2)), "nobody of that network");
        let (busy, first) = bed.add(2);
        let (resting, second) = bed.add(2);
        first.speaks();
        second.speaks();
        resting.rests(true);
        let (moved, third) = bed.add(9);
        third.is_of(network(2));
        assert!(bed.make_room(Some(2)) && moved.is_due());
        assert!(bed.make_room(Some(2)) && resting.is_due() && !busy.is_due());
        assert!(!bed.make_room(Some(2)) && !other.is_due(), "the busy one stays");
    }

    #[test]
    fn a_newcomer_does_not_give_way_to_itself() {
        let bed = Bed::new();
        let (alarm, own) = bed.add(1);
        let make_room = |of: Option<ClientNetwork>| bed.connections.make_room(of, Some(&own), bed.clock.ticks());
        assert!(!make_room(Some(network(1))) && !make_room(None) && !alarm.is_due());
        let (other, _second) = bed.add(1);
        assert!(!make_room(Some(network(1))), "the other one is younger: its turn comes with the next");
        drop(own);
        assert!(bed.make_room(Some(1)) && other.is_due());
    }

    #[test]
    fn whoever_rests_for_longest_makes_room_first() {
        let bed = Bed::new();
        let crowd: Vec<_> = (0..6).map(|n| bed.add(n / 3)).collect();
        crowd.iter().for_each(|(_, entry)| entry.speaks());
        for n in [4, 0, 5, 2, 0] {
            // The one that rests again has had a request meanwhile; a second call changes nothing.
            crowd[n].0.rests(false);
            crowd[n].0.rests(true);
            crowd[4].0.rests(true);
        }
        for n in [4, 5, 2, 0] {
            assert!(bed.make_room(None));
            let due: Vec<_> = crowd.iter().map(|(alarm, _)| alarm.is_due()).collect();
            assert!(due[n], "{n}: {due:?}");
        }
        assert!(!bed.make_room(None), "the others are busy");
    }

    #[test]
    fn a_crowd_makes_room_before_older_ones_of_others() {
        let bed = Bed::new();
        let (old, own) = bed.add(1);
        own.speaks();
        old.rests(true);
        let crowd: Vec<_> = (0..CROWD_LEAST).map(|_| bed.add(2)).collect();
        for (alarm, entry) in &crowd {
            entry.speaks();
            alarm.rests(true);
        }
        assert!(bed.make_room(None) && crowd[0].0.is_due() && !old.is_due());
        drop(crowd);
        assert!(bed.make_room(None) && old.is_due());
    }

    #[test]
    fn whoever_rests_is_found_behind_many_that_are_busy() {
        let bed = Bed::new();
        let busy: Vec<_> = (0..2 * LOOKED_AT).map(|_| bed.add(1)).collect();
        busy.iter().for_each(|(_, entry)| entry.speaks());
        let (resting, last) = bed.add(1);
        last.speaks();
        resting.rests(true);
        assert!((0..4).any(|_| bed.make_room(Some(1))) && resting.is_due());
        assert!((0..8).all(|_| !bed.make_room(None)));
    }
}
