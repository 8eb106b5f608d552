//! Commands in hints, as they can be pasted: with the configuration of this process.

use std::fmt::Display;
use std::path::{Path, absolute};
use std::sync::OnceLock;

use super::shell_path;

/// The option that names the configuration: a fact about the process.
static OPTION: OnceLock<String> = OnceLock::new();

/// Sets the configuration of this process, which commands do not find by themselves. Only the first call counts.
pub fn set_config(path: &Path) {
    let _ = OPTION.set(option_for(path));
}

/// Returns ` -c FILE` for any configuration, from any folder.
#[must_use]
pub fn option_for(path: &Path) -> String {
    let path = absolute(path).unwrap_or_else(|_| path.to_owned());
    format!(" -c {}", shell_path(&path))
}

/// Returns ` -c FILE`, or nothing if commands find the configuration by themselves.
#[must_use]
pub fn config_option() -> &'static str {
    OPTION.get().map_or("", String::as_str)
}

/// Returns a command about the configuration of this process: `pintle acme plan -c FILE`.
#[must_use]
pub fn pintle(command: impl Display) -> String {
    format!("pintle {command}{}", config_option())
}
