//! The pages of the admin listener, through the real program.

mod frame;
