//! The pages of the admin listener, through the real program.

mod answers;
mod browser;
mod frame;
