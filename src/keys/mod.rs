//! Public keys: the PEM and DER files that hold them, and the pins that name them.

pub mod key_file;
pub mod pem;
pub mod pin;
