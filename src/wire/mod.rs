//! The bytes between pintle and its peers, clients and upstreams alike: transport, bodies, buffered
//! writes, and the lowest rate at which a client may send or read.

pub mod transport;
pub mod write_buffer;
pub mod http2_send;
pub mod body;
pub mod min_rate;
