//! The output of `pintle --version`: what the build script (`build.rs`) has found.

/// The version and the commit, for `-V`.
pub(super) const SHORT: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("PINTLE_COMMIT"), ")");

/// The same, with the parts that a bug report needs, for `--version`.
pub(super) const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("PINTLE_COMMIT"),
    ")\ntarget     ",
    env!("PINTLE_TARGET"),
    env!("PINTLE_BUILD"),
    "\nfeatures   ",
    env!("PINTLE_FEATURES"),
    "\nlibraries  ",
    env!("PINTLE_LIBRARIES"),
);
