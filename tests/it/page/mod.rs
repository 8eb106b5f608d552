//! The pages of the admin listener, through the real program.

mod answers;
mod browser;
mod client;
mod config;
mod entrance;
mod frame;
mod hostile;
mod keys;
mod openapi;
