//! The states of a worker's connections. The idle ones are counted at each tick, so that no request changes a number. When
//! a connection begins or ends, the numbers are put right that cost nothing to know.

use std::rc::Rc;

use super::worker::Worker;
use crate::telemetry::meters::States;

impl Worker {
    /// Counts the connections by their states, if somebody measures.
    pub(super) fn count_states(&self) {
        if !self.view().shared.measures {
            return self.meters.states.set(&States::default());
        }
        self.idle.set(self.listed.count_idle());
        self.note_states();
    }

    /// Notes the states after a connection has begun or ended. As many are idle as at the last tick.
    pub(super) fn note_states(&self) {
        if !self.view().shared.measures {
            return;
        }
        let (silent, open) = self.listed.count();
        let idle = self.idle.get().min(open);
        let (handshaking, tunnel) = (self.handshakes.count(), self.tunnels.get());
        let active = (open - idle).saturating_sub(handshaking + tunnel);
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
