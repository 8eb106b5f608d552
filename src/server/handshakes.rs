//! Bounds the TLS handshakes of a worker, so that established connections do not wait for clients that may never finish one.
//! A handshake begins when its ClientHello is complete; before that it costs nothing.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::admission::ClientNetwork;
use super::crowd::{Crowd, Member};
use crate::clock::{Alarm, Clock, ticks_of};

/// The age at which a handshake may be broken off to make room for another: an honest one is over by then. A younger one
/// stays, unless its network has more of them than the newcomer's. So the limit also bounds the cryptography that begins in
/// this time.
pub(super) const FAIR_SHARE: Duration = Duration::from_secs(1);

/// The interval at which a rotation checks whether the handshakes with the previous chain are over.
const END_LOOK: Duration = Duration::from_millis(10);

/// The handshakes of one worker.
#[derive(Default)]
pub(super) struct Handshakes {
    under_way: RefCell<Crowd>,
}

/// The answer to a handshake that wants to begin.
pub(super) enum Begin {
    /// A slot was free.
    Begun(HandshakeSlot),
    /// Another handshake was broken off for it.
    Instead(HandshakeSlot),
    /// All handshakes under way are too young to be broken off.
    Full,
}

impl Handshakes {
    /// Begins a handshake, which counts while its slot lives. `alarm` is that of its connection.
    pub(super) fn begin(self: &Rc<Self>, max: usize, network: ClientNetwork, alarm: &Alarm, clock: &Clock) -> Begin {
        let now = clock.ticks();
        let mut under_way = self.under_way.borrow_mut();
        let full = under_way.len() >= max;
        if full {
            let Some(victim) = victim(&under_way, network, now) else { return Begin::Full };
            if let Some(victim) = under_way.remove(victim) {
                victim.ringer.ring();
            }
        }
        let number = under_way.add(Member { network, since: now, ringer: alarm.ringer() });
        let slot = HandshakeSlot { handshakes: self.clone(), number };
        if full { Begin::Instead(slot) } else { Begin::Begun(slot) }
    }

    /// Returns the number of handshakes under way.
    pub(super) fn count(&self) -> usize {
        self.under_way.borrow().len()
    }

    /// Waits until the handshakes that are under way now are over. Breaks those off that take longer than an honest one. Their
    /// clients must not get the previous chain once they may hold pins that it breaks.
    pub(super) async fn end(&self) {
        let old: Vec<u64> = self.under_way.borrow().round(None, 0).collect();
        let end = Instant::now() + FAIR_SHARE;
        let is_over = || old.iter().all(|number| self.under_way.borrow().get(*number).is_none());
        while !is_over() && Instant::now() < end {
            sleep(END_LOOK).await;
        }
        for member in old.into_iter().filter_map(|number| self.under_way.borrow_mut().remove(number)) {
            member.ringer.ring();
        }
        // Their tasks end with their next turn.
        yield_now().await;
    }
}

/// Returns the handshake that makes room for one of `network`: the oldest of the largest network, if that has more than
/// `network` will have; else the oldest of all, if it has had its time.
fn victim(under_way: &Crowd, network: ClientNetwork, now: u32) -> Option<u64> {
    let own = under_way.size_of(network) + 1;
    let larger = under_way.largest().filter(|(_, size)| *size > own);
    let of_larger = larger.and_then(|(network, _)| under_way.oldest_of(network));
    of_larger.or_else(|| {
        let oldest = under_way.oldest()?;
        (under_way.get(oldest)?.since + ticks_of(FAIR_SHARE) < now).then_some(oldest)
    })
}

/// The slot of a handshake.
pub(super) struct HandshakeSlot {
    handshakes: Rc<Handshakes>,
    number: u64,
}

impl HandshakeSlot {
    /// Returns `true` if another handshake has got its place.
    pub(super) fn is_lost(&self) -> bool {
        self.handshakes.under_way.borrow().get(self.number).is_none()
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        self.handshakes.under_way.borrow_mut().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(n: u8) -> ClientNetwork {
        ClientNetwork::of([192, 0, 2, n].into())
    }

    #[test]
    fn the_oldest_makes_room_once_it_has_had_its_time() {
        let clock = Rc::new(Clock::default());
        let handshakes = Rc::new(Handshakes::default());
        let alarms = [(); 4].map(|()| clock.alarm());
        let begin = |n: usize| handshakes.begin(2, network(1), &alarms[n], &clock);
        let Begin::Begun(_first) = begin(0) else { panic!("no room") };
        let Begin::Begun(second) = begin(1) else { panic!("no room") };
        assert!(matches!(begin(2), Begin::Full));
        (0..ticks_of(FAIR_SHARE)).for_each(|_| clock.tick());
        assert!(matches!(begin(2), Begin::Full));
        clock.tick();
        let Begin::Instead(_third) = begin(2) else { panic!("no room") };
        assert!(alarms[0].is_due() && !alarms[1].is_due() && !alarms[2].is_due());
        drop(second);
        let Begin::Begun(_fourth) = begin(3) else { panic!("no room") };
        assert_eq!(handshakes.under_way.borrow().len(), 2);
    }

    #[test]
    fn a_network_with_more_gives_way_at_once() {
        let clock = Rc::new(Clock::default());
        let handshakes = Rc::new(Handshakes::default());
        let alarms = [(); 8].map(|()| clock.alarm());
        let begin = |n: usize, of: u8| handshakes.begin(4, network(of), &alarms[n], &clock);
        let _held: Vec<Begin> = (0..4).map(|n| begin(n, 1)).collect();
        assert!(matches!(begin(4, 1), Begin::Full), "of the same network: nothing is gained");
        let Begin::Instead(_second) = begin(5, 2) else { panic!("no room") };
        assert!(alarms[0].is_due() && !alarms[1].is_due());
        let Begin::Instead(_third) = begin(6, 2) else { panic!("no room") };
        assert!(alarms[1].is_due());
        assert!(matches!(begin(7, 2), Begin::Full), "both have two");
    }
}
