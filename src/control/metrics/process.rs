//! Metrics of the process: this build, requests and connections, files, processor and memory, the access log.

use super::Control;
use crate::control::metrics_body;
use crate::os::{allocator, usage};
use crate::telemetry::LogThread;
use crate::telemetry::exposition::{Exposition, Labels};

impl Control {
    pub(super) fn process_metrics(&self, metrics: &mut Exposition) {
        let build = [("version", env!("CARGO_PKG_VERSION")), ("commit", env!("PINTLE_COMMIT"))];
        metrics.infos("build", "The version and the commit of the program.", [Labels::new(&build)]);
        for (name, help, value) in self.server.counters().iter() {
            metrics.counter(name, help, value);
        }
        let counts = self.counts;
        metrics.counter("rotations", "Certificates that came into use after the start.", counts.rotations);
        metrics.counter("rotations_refused", "Certificates that were refused.", counts.rotations_refused);
        metrics.counter("lockouts_accepted", "Lockouts that the operator accepted.", counts.lockouts_accepted);
        metrics.counter("reloads", "Reloads.", counts.reloads);
        metrics.counter("reloads_refused", "Reloads that were refused.", counts.reloads_refused);
        let broken_off = "Scrapes that broke off: the client left, or read nothing for too long.";
        metrics.counter("scrapes_broken_off", broken_off, metrics_body::broken_off());
        metrics.gauge("connections", "Connections of clients.", self.server.connections() as f64);
        let states = self.connection_states();
        let states = states.iter().map(|(state, count)| (Labels::new(&[("state", state)]), count as f64));
        metrics.gauges(
            "connections_by_state",
            "Connections of clients by state, counted twice a second.",
            &states.collect(),
        );
        metrics.gauge("workers", "Threads that serve connections.", self.server.workers() as f64);
        metrics.gauge("sites", "Sites of the configuration.", self.config.sites().count() as f64);
        let draining = "1 while this process accepts nothing new and lets running requests finish.";
        metrics.flag("draining", draining, self.draining);
        metrics.flag("launcher_alive", "1 if an upgrade is possible.", self.upgrades.launcher.is_some());
        let loaded = "When the configuration in use was loaded, in seconds since 1970.";
        metrics.gauge("config_loaded_timestamp_seconds", loaded, self.loads.loaded.as_second() as f64);
        metrics.flag("config_refused", "1 if the last reload was refused.", self.loads.is_refused);
        self.history_metrics(metrics);
        let started = self.loads.started.as_millisecond() as f64 / 1e3;
        metrics.gauge("process_start_time_seconds", "When the process began, in seconds since 1970.", started);
        allocator_metrics(metrics);
        usage_metrics(metrics);
    }

    fn history_metrics(&self, metrics: &mut Exposition) {
        let waiting = self.recorder.waiting() as f64;
        let help = "Versions of the configuration that are not in its history yet.";
        metrics.gauge("config_versions_waiting", help, waiting);
        let lost = "Versions of the configuration that its history will never have.";
        metrics.counter("config_versions_lost", lost, self.recorder.lost());
    }

    pub(super) fn log_metrics(&self, metrics: &mut Exposition) {
        let log = self.operator.access_log.as_ref();
        let is_written = log.is_none_or(|log| log.trouble().is_none());
        metrics.flag("access_log_ok", "1 if the access log is written to its configured file.", is_written);
        metrics.counter("access_log_lines_lost", "Lost lines of the access log.", log.map_or(0, LogThread::lost));
        metrics.counter("log_lines_lost", "Lost lines of pintle's own log.", crate::telemetry::log::lost());
        let failures = log.map_or(0, LogThread::reopen_failures);
        metrics.counter("access_log_reopen_failures", "Failed attempts to reopen the access log.", failures);
    }
}

fn allocator_metrics(metrics: &mut Exposition) {
    let Some(memory) = allocator::memory() else { return };
    let bytes = [
        ("allocated", "Bytes of the allocator in use by the program.", memory.allocated),
        ("active", "Bytes of pages with memory in use.", memory.active),
        ("resident", "Bytes of the allocator in physical memory.", memory.resident),
        ("retained", "Bytes of address space that the allocator keeps without physical memory.", memory.retained),
    ];
    for (name, help, value) in bytes {
        metrics.gauge(&format!("allocator_{name}_bytes"), help, value as f64);
    }
}

fn usage_metrics(metrics: &mut Exposition) {
    let Some(usage) = usage::now() else { return };
    metrics.counters(
        "process_cpu_seconds",
        "Processor time, in user and system mode.",
        &vec![(Labels::default(), usage.cpu_seconds)],
    );
    metrics.gauge("process_resident_memory_bytes", "Resident memory.", usage.resident_bytes);
    metrics.gauge("process_virtual_memory_bytes", "Address space in use.", usage.virtual_bytes);
    metrics.gauge("process_open_fds", "Open file descriptors.", usage.open_files as f64);
    if let Some(max) = usage.open_files_max {
        metrics.gauge("process_max_fds", "The limit of open file descriptors.", max as f64);
    }
}
