//! Metrics that go to Graphite at an interval.

use tokio::time::Instant;

use super::Control;
use super::state::Push;
use crate::graphite::Graphite;
use crate::ledger::time::wall;
use crate::telemetry::exposition::Format;

impl Control {
    /// Starts, changes or ends the thread that sends metrics. Only the process that serves calls this.
    pub(super) fn drive_graphite(&mut self) {
        let wanted = self.config.graphite.clone();
        let known = self.operator.push.as_ref().map(|push| &push.graphite.settings);
        if wanted.as_ref() == known {
            return;
        }
        let servers = self.config.name_servers.clone();
        let numbers = self.operator.graphite_numbers.clone();
        let started = wanted.map(|settings| Graphite::start(settings, servers, numbers)).transpose();
        self.operator.push = match started {
            Ok(graphite) => graphite.map(|graphite| Push { graphite, due: Instant::now() }),
            Err(error) => {
                tracing::error!(%error, "graphite: no thread; no metric is sent");
                None
            }
        };
    }

    /// Sends the metrics if it is time.
    pub(super) fn push_metrics(&mut self) {
        let now = Instant::now();
        if self.operator.push.as_ref().is_none_or(|push| push.due > now) {
            return;
        }
        let metrics = self.metrics(Format::Text);
        if let Some(push) = &mut self.operator.push {
            push.due = now + push.graphite.settings.interval;
            push.graphite.push(metrics, wall());
        }
    }
}
