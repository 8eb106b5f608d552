//! The next steps, as commands to paste.

use std::path::Path;

use crate::commands::drop_privileges::useradd;
use crate::config::is_found;
use crate::init::conclude::Conclusion;
use crate::init::write::{Wishes, orders};
use crate::os::privileges::{self, USER, UserAccount};
use crate::reason::shell_word;

/// The places where packages install the unit.
const UNITS: [&str; 3] = [
    "/etc/systemd/system/pintle.service",
    "/usr/lib/systemd/system/pintle.service",
    "/lib/systemd/system/pintle.service",
];

/// Renders the next steps.
pub(super) fn render(path: &Path, conclusion: &Conclusion, wishes: &Wishes) -> String {
    let option = if is_found(path) { String::new() } else { format!(" -c {}", wishes.path) };
    let host = conclusion.hosts.iter().find(|host| !host.starts_with('*')).unwrap_or(&conclusion.public);
    let has_unit = wishes.is_system && UNITS.iter().any(|unit| Path::new(unit).exists());
    let start = if has_unit { "systemctl enable --now pintle".to_owned() } else { format!("pintle run{option}") };
    let names = conclusion.hosts.join(", ");
    let url = shell_word(&format!("https://{host}/"));
    let mut steps = vec![format!("# check everything that pintle would load\n  pintle check{option}")];
    let edit = match (wishes.email.is_some(), wishes.terms, orders(conclusion, wishes)) {
        (_, _, true) => None,
        (false, _, false) => Some("# uncomment [site.certificate] once its files are there"),
        (true, false, false) => Some("# if you agree to the terms of Let's Encrypt, uncomment terms and acme"),
        (true, true, false) => {
            Some("# choose one of the two [site.certificate]: the comment above them says what acme needs")
        }
    };
    if let Some(what) = edit {
        steps.insert(0, format!("{what}\n  \"${{EDITOR:-vi}}\" {}", wishes.path));
    }
    if privileges::is_root() && UserAccount::find(USER, None).is_err() {
        let what = "# make the user that serves: pintle does not serve as root";
        steps.insert(0, format!("{what}\n  {}", useradd(USER)));
    }
    let orders =
        if orders(conclusion, wishes) { "; pintle gets the certificate once the names point here" } else { "" };
    steps.push(format!("# serve; ports 80 and 443 need root{orders}\n  {start}"));
    steps.push(format!("# once the names point here ({names})\n  pintle verify {url}"));
    format!("Next:\n\n  {}\n", steps.join("\n\n  "))
}
