//! The pages of the admin listener, through the real program.

mod answers;
mod browser;
mod client;
mod entrance;
mod frame;
mod hostile;
mod openapi;
