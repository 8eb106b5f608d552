//! Bytes between pintle and its peers, towards clients and upstreams alike: the transport, bodies and their pieces,
//! buffered writes, and the least rate at which a client must send or read.

pub mod transport;
pub mod write_buffer;
pub mod http2_send;
pub mod body;
pub mod min_rate;
