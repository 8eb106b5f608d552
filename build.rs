//! Tells `pintle --version` what this program is made of: the commit, and the versions of the
//! libraries that read what strangers send.
//!
//! Nothing here depends on the time, the host or the user, so two builds of one commit are equal.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The libraries that `pintle --version` names.
const LIBRARIES: [&str; 4] = ["rustls", "aws-lc-sys", "h2", "tikv-jemalloc-sys"];
/// The length of a shortened commit.
const SHORT: usize = 12;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=PINTLE_COMMIT");
    for source in ["src", "vendor", "dist/commit", "Cargo.toml", "Cargo.lock"] {
        // A path that is missing would run this script each time.
        if Path::new(source).exists() {
            println!("cargo:rerun-if-changed={source}");
        }
    }
    let commit = given().or_else(checked_out).or_else(archived).or_else(packaged);
    println!("cargo:rustc-env=PINTLE_COMMIT={}", commit.unwrap_or_else(|| "unknown".into()));
    println!("cargo:rustc-env=PINTLE_FEATURES={}", features());
    println!("cargo:rustc-env=PINTLE_LIBRARIES={}", libraries().join(", "));
    println!("cargo:rustc-env=PINTLE_TARGET={}", env::var("TARGET").unwrap_or_default());
    let debug = env::var("PROFILE").is_ok_and(|profile| profile == "debug");
    println!("cargo:rustc-env=PINTLE_BUILD={}", if debug { " (not optimised)" } else { "" });
}

/// The commit that a distribution's build names.
fn given() -> Option<String> {
    env::var("PINTLE_COMMIT").ok().and_then(|commit| shortened(&commit))
}

/// The commit of this folder's own repository. A repository further up is another project's.
fn checked_out() -> Option<String> {
    let mut git = PathBuf::from(".git");
    // A linked work tree has a file there.
    if let Some(linked) = fs::read_to_string(&git).ok().as_deref().and_then(|text| text.strip_prefix("gitdir:")) {
        git = PathBuf::from(linked.trim());
    }
    let common = fs::read_to_string(git.join("commondir")).map_or_else(|_| git.clone(), |path| git.join(path.trim()));
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    // Without optimisation, a commit alone builds nothing again.
    if env::var("PROFILE").is_ok_and(|profile| profile != "debug") {
        for file in [git.join("HEAD"), git.join("logs/HEAD")].iter().filter(|file| file.exists()) {
            println!("cargo:rerun-if-changed={}", file.display());
        }
    }
    let commit = match head.trim().strip_prefix("ref: ") {
        None => shortened(&head),
        Some(name) => fs::read_to_string(common.join(name)).ok().and_then(|commit| shortened(&commit)).or_else(|| {
            let packed = fs::read_to_string(common.join("packed-refs")).ok()?;
            let line = packed.lines().find(|line| line.split_once(' ').is_some_and(|(_, packed)| packed == name))?;
            shortened(line.split_once(' ')?.0)
        }),
    }?;
    Some(if is_changed() { format!("{commit}, changed") } else { commit })
}

/// `true` if git finds changes since the commit; `false` without git.
fn is_changed() -> bool {
    let status = Command::new("git")
        .args(["status", "--porcelain", "--untracked-files=no"])
        .env("GIT_OPTIONAL_LOCKS", "0")
        .output();
    status.is_ok_and(|status| status.status.success() && !status.stdout.is_empty())
}

/// The commit that `git archive` writes into its archives.
fn archived() -> Option<String> {
    fs::read_to_string("dist/commit").ok().and_then(|commit| shortened(&commit))
}

/// The commit that `cargo package` notes.
fn packaged() -> Option<String> {
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    shortened(text.split_once("\"sha1\":")?.1.trim_start().strip_prefix('"')?.split('"').next()?)
}

fn shortened(commit: &str) -> Option<String> {
    let commit = commit.trim();
    let is_commit = commit.len() >= SHORT && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| commit.chars().take(SHORT).collect())
}

/// The features of Cargo.toml that are on, in a fixed order.
fn features() -> String {
    let name = |(key, _): (String, String)| Some(key.strip_prefix("CARGO_FEATURE_")?.to_lowercase().replace('_', "-"));
    let mut on: Vec<String> = env::vars().filter_map(name).filter(|name| name != "default").collect();
    on.sort();
    if on.is_empty() { "none".into() } else { on.join(", ") }
}

/// The libraries with their versions, as Cargo.lock has them.
fn libraries() -> Vec<String> {
    let lock = fs::read_to_string("Cargo.lock").unwrap_or_default();
    let version = |name: &str| {
        let package = lock.split("[[package]]").find(|package| package.contains(&format!("\nname = \"{name}\"\n")))?;
        // Without the commit that follows the version of a bundled library.
        Some(format!("{name} {}", package.split_once("\nversion = \"")?.1.split(['"', '-']).next()?))
    };
    LIBRARIES.iter().filter_map(|name| version(name)).collect()
}
