//! The states of a worker's connections. They are counted at each tick, and when a connection begins or ends, so that no
//! request changes a number.

use std::rc::Rc;

use super::worker::Worker;
use crate::telemetry::meters::States;

impl Worker {
    /// Counts the connections by their states, if somebody measures.
    pub(super) fn count_states(&self) {
        if !self.view().shared.measures {
            return self.meters.states.set(&States::default());
        }
        let (silent, idle, others) = self.listed.count();
        let (handshaking, tunnel) = (self.handshakes.count(), self.tunnels.get());
        let active = others.saturating_sub(handshaking + tunnel);
        let states = match self.is_draining() {
            false => States { silent, handshaking, idle, active, tunnel, draining: 0 },
            true => States { silent, handshaking, idle: 0, active: 0, tunnel, draining: idle + active },
        };
        self.meters.states.set(&states);
    }

    /// Counts a connection that has become a tunnel, while the guard lives.
    pub(super) fn tunnel(self: &Rc<Self>) -> InTunnel {
        self.tunnels.set(self.tunnels.get() + 1);
        InTunnel(self.clone())
    }
}

/// A connection that is a tunnel.
pub(super) struct InTunnel(Rc<Worker>);

impl Drop for InTunnel {
    fn drop(&mut self) {
        self.0.tunnels.set(self.0.tunnels.get().saturating_sub(1));
    }
}
