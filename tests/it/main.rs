//! End-to-end tests: the program as users run it, on real sockets, against real clients. One binary, so that it links
//! once; one file per behaviour.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "numbers that the tests choose themselves"
)]

mod harness;

mod acme;
mod addresses;
mod admin;
mod guard;
mod graphite;
mod begun;
mod bodies;
mod cache;
mod chains;
mod clock;
mod closed_output;
mod compression;
mod config;
mod container;
mod copies;
mod demo;
mod differential;
mod doctor;
mod documents;
mod drain;
mod elsewhere;
mod ends;
mod errors;
mod expiry;
mod explain;
mod export;
mod failing;
mod fields;
mod first_day;
mod forwarded;
mod fuzz;
mod headers;
mod health;
mod hooks;
mod hostile;
mod http1;
mod http2;
mod init;
mod install;
mod interim;
mod key;
mod keys;
mod last_good;
mod layers;
mod ledger;
mod load;
mod lockouts;
mod logs;
mod loss;
mod main_path;
mod manual;
mod many_sites;
mod metrics;
mod mixed;
mod model;
mod new_state;
mod otlp;
mod outside;
mod page;
mod page_pins;
mod pasted;
mod pebble;
mod pem;
mod pins;
mod preflight;
mod privileges;
mod prometheus;
mod prose;
mod proxy_protocol;
mod ramp;
mod rate;
mod real;
mod records;
mod redirect;
mod refusals;
mod refused_edits;
mod reload;
mod reports;
mod rotation;
mod sandbox;
mod sessions;
mod signals;
mod soak;
mod startup;
mod state;
mod syslog;
mod systemd;
mod targets;
mod tls;
mod unopened;
mod upgrade;
mod uploads;
mod upstream;
mod verify;
mod versions;
mod watch;
mod websocket;
