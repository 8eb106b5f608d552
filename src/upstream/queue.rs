//! The places of a pool: how many connections there may be, and who is next when one becomes free. First come, first
//! served: what becomes free is handed over to the first who waits, and to nobody else.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::error::UpstreamError;
use super::http2::Stream;
use super::pool::{Connection, Pool};
use crate::clock::{Alarm, TICK};

/// The places of one pool.
#[derive(Default)]
pub(super) struct Places {
    open: Cell<usize>,
    max: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
}

/// One of the connections that a pool may have.
pub(super) struct Slot(Rc<Places>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.offer_slots();
    }
}

/// What is handed over to a request that has waited.
pub(super) enum Grant {
    /// A connection that another exchange has left in order.
    Connection(Box<Connection>),
    /// Leave to open one.
    Slot(Slot),
    /// A stream among others.
    Stream(Stream),
    /// Nothing; but what there is has changed.
    Look,
}

/// What a request can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wants {
    /// A stream of a connection that there is.
    pub(super) streams: bool,
    /// A connection that was used before.
    pub(super) used: bool,
    /// Leave to open a connection.
    pub(super) slots: bool,
}

struct Waiter {
    wants: Wants,
    grant: RefCell<Option<Grant>>,
    waker: RefCell<Waker>,
}

impl Places {
    pub(super) fn open(&self) -> usize {
        self.open.get()
    }

    /// Sets the bound; if it is higher than before, those who wait go on.
    pub(super) fn set_max(self: &Rc<Self>, max: usize) {
        self.max.set(max);
        self.offer_slots();
    }

    /// A place, if there is one.
    pub(super) fn take(self: &Rc<Self>) -> Option<Slot> {
        if self.open.get() >= self.max.get() {
            return None;
        }
        self.open.set(self.open.get() + 1);
        Some(Slot(self.clone()))
    }

    fn offer_slots(self: &Rc<Self>) {
        while self.waiting.borrow().iter().any(|waiter| waiter.wants.slots)
            && let Some(slot) = self.take()
        {
            self.give(Grant::Slot(slot), |wants| wants.slots);
        }
    }

    fn is_waited_for(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Hands a connection to who waits for one; else it is given back, as it nearly always is.
    pub(super) fn offer_connection(&self, connection: Box<Connection>) -> Option<Box<Connection>> {
        if !self.is_waited_for() {
            return Some(connection);
        }
        match self.give(Grant::Connection(connection), |wants| wants.used) {
            Some(Grant::Connection(connection)) => Some(connection),
            _ => None,
        }
    }

    /// The same with a stream.
    pub(super) fn offer_stream(&self, stream: Stream) -> Option<Stream> {
        match self.give(Grant::Stream(stream), |wants| wants.streams) {
            Some(Grant::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    /// Whether anybody waits for a stream.
    pub(super) fn wants_streams(&self) -> bool {
        self.waiting.borrow().iter().any(|waiter| waiter.wants.streams)
    }

    /// Lets all who wait for a stream look for one themselves: a connection has more room.
    pub(super) fn look_for_streams(&self) {
        while self.give(Grant::Look, |wants| wants.streams).is_none() {}
    }

    /// Lets those who wait for a stream, and for nothing else, look for another way: a connection is no more.
    pub(super) fn look_elsewhere(&self) {
        while self.give(Grant::Look, |wants| wants.streams && !wants.slots).is_none() {}
    }

    /// Hands something to the first who can use it; gives it back if there is none.
    fn give(&self, grant: Grant, fits: impl Fn(Wants) -> bool) -> Option<Grant> {
        let waiter = {
            let mut waiting = self.waiting.borrow_mut();
            let at = waiting.iter().position(|waiter| fits(waiter.wants));
            at.and_then(|at| waiting.remove(at))
        };
        let Some(waiter) = waiter else { return Some(grant) };
        *waiter.grant.borrow_mut() = Some(grant);
        waiter.waker.borrow().wake_by_ref();
        None
    }
}

impl Pool {
    /// Waits in the queue, for as long as [`super::PoolLimits`] says, counted from the tick `since`. A request that is given
    /// up leaves it, and what was granted to it meanwhile goes to the next.
    pub(super) async fn wait_in_queue(&self, wants: Wants, since: u32, alarm: &Alarm) -> Result<Grant, UpstreamError> {
        let limits = self.limits();
        let waiter = Rc::new(Waiter { wants, grant: RefCell::default(), waker: RefCell::new(Waker::noop().clone()) });
        {
            let mut waiting = self.places.waiting.borrow_mut();
            if waiting.len() >= limits.queue {
                return Err(UpstreamError::Busy);
            }
            waiting.push_back(waiter.clone());
        }
        self.counters.upstream_queued.increment();
        let place = InQueue { pool: self, waiter };
        let waited = TICK.saturating_mul(self.clock.ticks().saturating_sub(since));
        alarm.set(limits.queue_wait.saturating_sub(waited));
        poll_fn(|cx| {
            if let Some(grant) = place.waiter.grant.borrow_mut().take() {
                return Poll::Ready(Ok(grant));
            }
            place.waiter.waker.borrow_mut().clone_from(cx.waker());
            alarm.poll_due(cx).map(|()| Err(UpstreamError::QueueTimeout))
        })
        .await
    }
}

/// Leaves the queue when dropped.
struct InQueue<'p> {
    pool: &'p Pool,
    waiter: Rc<Waiter>,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        self.pool.places.waiting.borrow_mut().retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
        let unused = self.waiter.grant.borrow_mut().take();
        match unused {
            Some(Grant::Connection(connection)) => self.pool.put(connection),
            // To the next, as they are dropped.
            Some(Grant::Slot(_) | Grant::Stream(_) | Grant::Look) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(places: &Places, used: bool) -> Rc<Waiter> {
        wait_for(places, Wants { streams: false, used, slots: true })
    }

    fn wait_for(places: &Places, wants: Wants) -> Rc<Waiter> {
        let waiter = Rc::new(Waiter { wants, grant: RefCell::default(), waker: RefCell::new(Waker::noop().clone()) });
        places.waiting.borrow_mut().push_back(waiter.clone());
        waiter
    }

    #[test]
    fn who_waits_for_a_stream_alone_is_given_no_place() {
        let places = Rc::new(Places::default());
        places.set_max(1);
        let one = places.take().unwrap();
        let stream = wait_for(&places, Wants { streams: true, used: true, slots: false });
        let any = wait(&places, true);
        drop(one);
        assert!(stream.grant.borrow().is_none() && matches!(*any.grant.borrow(), Some(Grant::Slot(_))));
        let both = wait_for(&places, Wants { streams: true, used: true, slots: true });
        places.look_elsewhere();
        assert!(both.grant.borrow().is_none());
        assert!(matches!(*stream.grant.borrow(), Some(Grant::Look)));
        drop(any.grant.borrow_mut().take());
        assert!(matches!(*both.grant.borrow(), Some(Grant::Slot(_))));
        drop(both.grant.borrow_mut().take());
        assert_eq!(places.open(), 0, "nobody is left who could use it");
    }

    #[test]
    fn places_go_to_the_first() {
        let places = Rc::new(Places::default());
        places.set_max(2);
        let (one, two) = (places.take().unwrap(), places.take().unwrap());
        assert!(places.take().is_none());
        let waiting: Vec<_> = (0..3).map(|_| wait(&places, false)).collect();
        let granted = || waiting.iter().map(|w| w.grant.borrow().is_some()).collect::<Vec<_>>();
        drop(one);
        assert_eq!((granted(), places.open()), (vec![true, false, false], 2));
        // Who comes now finds nothing: the place is taken already.
        assert!(places.take().is_none());
        drop(two);
        assert_eq!(granted(), [true, true, false]);
        // Given up: to the next.
        drop(waiting[0].grant.borrow_mut().take());
        assert_eq!(granted(), [false, true, true]);
        drop(waiting[1].grant.borrow_mut().take());
        drop(waiting[2].grant.borrow_mut().take());
        assert_eq!(places.open(), 0);
        // A lower bound takes nothing away; a higher one lets those who wait go on.
        let _held = (places.take().unwrap(), places.take().unwrap());
        let late = wait(&places, false);
        places.set_max(1);
        assert!(late.grant.borrow().is_none());
        places.set_max(3);
        assert!(late.grant.borrow().is_some());
    }
}
