//! `pintle doctor`: checks of the host, for faults that took real edges down.
//!
//! A check is a pure function from a [`host::Host`] to findings, each with evidence, verdict and
//! remedy. [`host`] and [`files`] read the host below a root folder; [`netlink`], [`visit`] and
//! [`dns`] ask the kernel, the upstreams and the name servers. Every wait and every read has a
//! limit, and no content of a file makes a check panic.

pub mod metrics;
pub mod checks;
pub mod sysctl;
pub mod neighbours;
mod neighbour_history;
pub mod nic;
mod nic_drivers;
pub mod docker;
mod conntrack;
mod accept_queue;
mod descriptors;
mod ports;
mod pressure;
mod clock;
mod name_servers;
pub mod upstreams;
mod listeners;
mod outside;
mod units;
mod huge_pages;
mod key_files;
pub mod host;
pub mod gather;
pub mod visit;
pub mod dns;
pub mod netlink;
pub mod programs;
pub mod network;
pub mod sockets;
pub mod counters;
pub mod files;
pub mod finding;
