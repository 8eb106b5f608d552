//! The pages of the admin listener, through the real program.

mod answers;
mod browser;
mod client;
mod config;
mod entrance;
mod first;
mod frame;
mod hostile;
mod https;
mod install;
mod keys;
mod many;
mod openapi;
mod strings;
mod verify;
