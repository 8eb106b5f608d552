//! A clock that the test sets, for pintle alone: the CA keeps the true time.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::orders::Bed;
use crate::harness::Pintle;

pub struct Clock(TempDir);

impl Clock {
    pub fn new() -> Self {
        let clock = Self(TempDir::new().unwrap());
        clock.set(0);
        clock
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("clock")
    }

    /// Sets it ahead by so many seconds.
    pub fn set(&self, offset: i64) {
        let new = self.0.path().join("new");
        fs::write(&new, offset.to_string()).unwrap();
        fs::rename(new, self.path()).unwrap();
    }

    pub fn start(&self, bed: &Bed, acme: &str, sites: &str) -> Pintle {
        let config = format!("{acme}{sites}");
        let adapt = |command: &mut Command| _ = command.env("PINTLE_TEST_CLOCK", self.path());
        Pintle::start_command(&bed.authority, &bed.pebble.listen(), &config, adapt)
    }

    pub fn command(&self, pintle: &Pintle, name: &str) -> Command {
        let mut command = pintle.command(name);
        command.env("PINTLE_TEST_CLOCK", self.path());
        command
    }
}
