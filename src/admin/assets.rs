//! The style sheet and the script of the pages. Their paths name their contents, so that a browser keeps them for good.

use std::sync::LazyLock;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::telemetry::trace::hex;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/page.js");

static STYLE_PATH: LazyLock<String> = LazyLock::new(|| path("style", STYLE, "css"));
static SCRIPT_PATH: LazyLock<String> = LazyLock::new(|| path("page", SCRIPT, "js"));

fn path(name: &str, content: &str, ending: &str) -> String {
    format!("/assets/{name}-{}.{ending}", hex(&Sha256::digest(content.as_bytes())[..8]))
}

/// The path of the style sheet.
#[must_use]
pub fn style() -> &'static str {
    &STYLE_PATH
}

/// The path of the script.
#[must_use]
pub fn script() -> &'static str {
    &SCRIPT_PATH
}

/// Returns the content type and the contents of an asset; `None` if no asset has this path.
#[must_use]
pub fn find(path: &str) -> Option<(&'static str, Bytes)> {
    if path == style() {
        Some(("text/css; charset=utf-8", Bytes::from_static(STYLE.as_bytes())))
    } else if path == script() {
        Some(("text/javascript; charset=utf-8", Bytes::from_static(SCRIPT.as_bytes())))
    } else {
        None
    }
}
