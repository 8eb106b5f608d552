//! The places of a pool: the number of connections it may have, and the queue for one that becomes
//! free.
//!
//! First come, first served: whatever becomes free is handed to the first request in the queue, so
//! that no later request can take it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The places of one pool, whose connections are `C` and whose streams are `S`.
pub(in crate::upstream) struct Places<C, S> {
    open: Cell<usize>,
    max: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Waiter<C, S>>>>,
}

impl<C, S> Default for Places<C, S> {
    fn default() -> Self {
        Self { open: Cell::default(), max: Cell::default(), waiting: RefCell::default() }
    }
}

/// The place of one connection.
pub(in crate::upstream) struct Slot<C, S>(Rc<Places<C, S>>);

impl<C, S> Slot<C, S> {
    /// Returns the pool's places.
    pub(super) fn places(&self) -> &Rc<Places<C, S>> {
        &self.0
    }
}

impl<C, S> Drop for Slot<C, S> {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.offer_slots();
    }
}

/// A grant to a waiting request.
pub(super) enum Grant<C, S> {
    /// A connection on which another exchange has ended cleanly.
    Connection(C),
    /// A place for a new connection.
    Slot(Slot<C, S>),
    /// A stream on a shared connection.
    Stream(S),
    /// Nothing yet: the pool has changed, and the request looks again.
    Look,
}

/// The grants that a request can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wants {
    /// A stream on a shared connection.
    pub(super) streams: bool,
    /// A connection that another request has used.
    pub(super) used: bool,
    /// A place for a new connection.
    pub(super) slots: bool,
}

/// A request in the queue.
pub(super) struct Waiter<C, S> {
    wants: Wants,
    grant: RefCell<Option<Grant<C, S>>>,
    waker: RefCell<Waker>,
}

impl<C, S> Waiter<C, S> {
    fn new(wants: Wants) -> Rc<Self> {
        Rc::new(Self { wants, grant: RefCell::default(), waker: RefCell::new(Waker::noop().clone()) })
    }

    /// Ready once the request has a grant.
    pub(super) fn poll_grant(&self, cx: &Context<'_>) -> Poll<Grant<C, S>> {
        if let Some(grant) = self.grant.borrow_mut().take() {
            return Poll::Ready(grant);
        }
        self.waker.borrow_mut().clone_from(cx.waker());
        Poll::Pending
    }
}

impl<C, S> Places<C, S> {
    /// Returns the number of connections.
    pub(super) fn open(&self) -> usize {
        self.open.get()
    }

    /// Sets the limit. If it rises, waiting requests get the new places.
    pub(super) fn set_max(self: &Rc<Self>, max: usize) {
        self.max.set(max);
        self.offer_slots();
    }

    /// Returns a place, if one is free.
    pub(super) fn take(self: &Rc<Self>) -> Option<Slot<C, S>> {
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

    /// Hands a connection to a request that waits for one. Returns it if none does, which is the
    /// usual case.
    pub(super) fn offer_connection(&self, connection: C) -> Option<C> {
        if !self.is_waited_for() {
            return Some(connection);
        }
        match self.give(Grant::Connection(connection), |wants| wants.used) {
            Some(Grant::Connection(connection)) => Some(connection),
            _ => None,
        }
    }

    /// Hands a stream to a request that waits for one. Returns it if none does.
    pub(super) fn offer_stream(&self, stream: S) -> Option<S> {
        match self.give(Grant::Stream(stream), |wants| wants.streams) {
            Some(Grant::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    /// Returns `true` if a request waits for a stream.
    pub(super) fn wants_streams(&self) -> bool {
        self.waiting.borrow().iter().any(|waiter| waiter.wants.streams)
    }

    /// Wakes all requests that wait for a stream: a connection allows more of them.
    pub(super) fn look_for_streams(&self) {
        while self.give(Grant::Look, |wants| wants.streams).is_none() {}
    }

    /// Wakes the requests that wait for a stream and nothing else: a connection has closed.
    pub(super) fn look_elsewhere(&self) {
        while self.give(Grant::Look, |wants| wants.streams && !wants.slots).is_none() {}
    }

    /// Joins the queue. Returns `None` if `max` requests are in it.
    pub(super) fn join(&self, wants: Wants, max: usize) -> Option<Rc<Waiter<C, S>>> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= max {
            return None;
        }
        let waiter = Waiter::new(wants);
        waiting.push_back(waiter.clone());
        Some(waiter)
    }

    /// Leaves the queue. Returns a grant that the request has not taken.
    pub(super) fn leave(&self, waiter: &Rc<Waiter<C, S>>) -> Option<Grant<C, S>> {
        self.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, waiter));
        waiter.grant.borrow_mut().take()
    }

    /// Hands a grant to the first request that can use it. Returns it if there is none.
    fn give(&self, grant: Grant<C, S>, fits: impl Fn(Wants) -> bool) -> Option<Grant<C, S>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The queue does nothing with connections and streams but hand them over.
    type Places = super::Places<(), ()>;
    type Waiter = super::Waiter<(), ()>;

    fn wait(places: &Places, used: bool) -> Rc<Waiter> {
        wait_for(places, Wants { streams: false, used, slots: true })
    }

    fn wait_for(places: &Places, wants: Wants) -> Rc<Waiter> {
        places.join(wants, usize::MAX).unwrap()
    }

    #[test]
    fn a_request_that_waits_for_a_stream_alone_gets_no_place() {
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
        assert_eq!(places.open(), 0, "no request is left that could use it");
    }

    #[test]
    fn places_go_to_the_first_in_the_queue() {
        let places = Rc::new(Places::default());
        places.set_max(2);
        let (one, two) = (places.take().unwrap(), places.take().unwrap());
        assert!(places.take().is_none());
        let waiting: Vec<_> = (0..3).map(|_| wait(&places, false)).collect();
        let granted = || waiting.iter().map(|w| w.grant.borrow().is_some()).collect::<Vec<_>>();
        drop(one);
        assert_eq!((granted(), places.open()), (vec![true, false, false], 2));
        // A later request finds nothing: the place is taken already.
        assert!(places.take().is_none());
        drop(two);
        assert_eq!(granted(), [true, true, false]);
        // A request that is given up passes its grant on.
        drop(waiting[0].grant.borrow_mut().take());
        assert_eq!(granted(), [false, true, true]);
        drop(waiting[1].grant.borrow_mut().take());
        drop(waiting[2].grant.borrow_mut().take());
        assert_eq!(places.open(), 0);
        // A lower limit takes nothing away; a higher one gives places to waiting requests.
        let _held = (places.take().unwrap(), places.take().unwrap());
        let late = wait(&places, false);
        places.set_max(1);
        assert!(late.grant.borrow().is_none());
        places.set_max(3);
        assert!(late.grant.borrow().is_some());
    }
}
