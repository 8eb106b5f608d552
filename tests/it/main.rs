//! End-to-end tests: the program as users run it, on real sockets, against real clients. One binary, so that it links
//! once; one file per behaviour.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

mod harness;

mod acme;
mod admission;
mod bodies;
mod config;
mod demo;
mod drain;
mod errors;
mod export;
mod forwarded;
mod fuzz;
mod headers;
mod http1;
mod http2;
mod key;
mod layers;
mod main_path;
mod model;
mod pins;
mod proxy_protocol;
mod real;
mod redirect;
mod tls;
mod upstream;
mod websocket;
