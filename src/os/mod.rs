//! The operating system: systemd, the sandbox, users and capabilities, signals, files.

pub mod systemd;
pub mod sandbox;
pub mod priority;
pub mod privileges;
pub mod read_error;
pub mod signals;
pub mod plain_file;
pub mod open_files;
pub mod usage;
pub mod allocator;
pub mod supervisor;
pub mod program;
pub mod runtime;
pub mod words;
