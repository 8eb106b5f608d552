//! How many TLS handshakes a worker has under way: those who are connected already must not wait for those who may never
//! be.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::{Alarm, Clock, Ringer, ticks_of};

/// A handshake that has had this long is broken off to make room for another: an honest one is over by then, and whoever
/// opens connections to say nothing keeps nobody else out. What is younger stays, so that no more cryptography begins in
/// this time than the limit allows.
const FAIR_SHARE: Duration = Duration::from_secs(1);

/// The handshakes of one worker, the oldest first.
#[derive(Default)]
pub(super) struct Handshakes {
    under_way: RefCell<BTreeMap<u64, UnderWay>>,
    next: Cell<u64>,
}

struct UnderWay {
    since: u32,
    ringer: Ringer,
}

/// What became of the wish to begin.
pub(super) enum Begin {
    /// There was room.
    Begun(Place),
    /// There is, now that the oldest was broken off.
    Instead(Place),
    /// There are too many that have only just begun.
    Full,
}

impl Handshakes {
    /// Begins one, which counts as long as its place is held. The alarm is that of its connection.
    pub(super) fn begin(self: &Rc<Self>, max: usize, alarm: &Alarm, clock: &Clock) -> Begin {
        let now = clock.ticks();
        let mut under_way = self.under_way.borrow_mut();
        let full = under_way.len() >= max;
        if full {
            let oldest = under_way.first_entry().filter(|oldest| oldest.get().since + ticks_of(FAIR_SHARE) < now);
            let Some(oldest) = oldest else { return Begin::Full };
            oldest.remove().ringer.ring();
        }
        let number = self.next.get();
        self.next.set(number + 1);
        under_way.insert(number, UnderWay { since: now, ringer: alarm.ringer() });
        let place = Place { handshakes: self.clone(), number };
        if full { Begin::Instead(place) } else { Begin::Begun(place) }
    }
}

/// A handshake under way.
pub(super) struct Place {
    handshakes: Rc<Handshakes>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handshakes.under_way.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_once_it_has_had_its_time() {
        let clock = Rc::new(Clock::default());
        let handshakes = Rc::new(Handshakes::default());
        let alarms = [(); 4].map(|()| clock.alarm());
        let begin = |n: usize| handshakes.begin(2, &alarms[n], &clock);
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
}
