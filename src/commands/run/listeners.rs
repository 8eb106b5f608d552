//! The listeners of a start: sockets that a service manager passes, or bound here.

use std::process::ExitCode;

use crate::commands::{fail_with_hint, refuse};
use crate::config::Config;
use crate::control::{Beginning, PageSocket, bind_pages};
use crate::os::systemd::{self, PassedSocket};
use crate::policy::Scheme;
use crate::reason::{Reason, shell_word};
use crate::server::{BindError, Bound, Lent, bind};

/// The name of a service manager's sockets for the pages over TLS.
const PAGES: &str = "admin";

/// Returns the sockets that a service manager has passed: for the sites, and for the pages over TLS.
pub(super) fn passed() -> Result<(Vec<Lent>, Vec<PageSocket>), Reason> {
    let passed = systemd::activation::passed()?;
    let (pages, sites): (Vec<_>, Vec<_>) = passed.into_iter().partition(|passed| passed.name == PAGES);
    let pages = pages
        .into_iter()
        .filter_map(|passed| Some(PageSocket { asked: passed.listener.local_addr().ok()?, socket: passed.listener }));
    Ok((sites.into_iter().filter_map(lent).collect(), pages.collect()))
}

/// A socket of the service manager, for the listener that its name says, if it says one.
fn lent(passed: PassedSocket) -> Option<Lent> {
    let scheme = match passed.name.as_str() {
        "https" => Some(Scheme::Https),
        "http" => Some(Scheme::Http),
        _ => None,
    };
    let address = passed.listener.local_addr().ok()?;
    Some(Lent { asked: None, address, scheme, listeners: vec![passed.listener] })
}

/// Binds the listeners of the sites, and those of the pages that can be bound: ports below 1024 need a permission
/// that is dropped next.
pub(super) fn bind_all(config: &Config, beginning: &mut Beginning) -> Result<Bound, ExitCode> {
    let bound = bind(&config.https, &config.http, config.workers, &mut beginning.lent);
    let bound = bound.map_err(|errors| cannot_bind(&errors, beginning.is_demo))?;
    if let Some(unused) = beginning.lent.first() {
        return Err(unused_socket(unused));
    }
    let pages = bind_pages(config, &mut beginning.pages);
    match std::mem::replace(&mut beginning.pages, pages).first() {
        None => Ok(bound),
        Some(PageSocket { asked, .. }) => {
            let what = format!("systemd passes a socket named {PAGES} on {asked}, which is not in admin.https.listen");
            Err(fail_with_hint(&what, &"name it there, or leave it out of the socket unit"))
        }
    }
}

fn cannot_bind(errors: &[BindError], is_demo: bool) -> ExitCode {
    for error in errors {
        let reason = Reason::new(error.to_string()).hints(error.hint());
        let port = error.address.port().checked_add(1).unwrap_or(8000);
        refuse(&match is_demo {
            true => reason.hint(format!("choose another port: {}", demo_at(error.scheme.as_str(), port))),
            false => reason,
        });
    }
    ExitCode::from(1)
}

/// The command of this demo, with another port for a scheme.
fn demo_at(scheme: &str, port: u16) -> String {
    let option = format!("--{scheme}-port");
    let mut command = format!("pintle demo {option} {port}");
    let mut arguments = std::env::args().skip_while(|argument| argument != "demo").skip(1);
    while let Some(argument) = arguments.next() {
        if argument == option {
            arguments.next();
        } else if !argument.starts_with(&format!("{option}=")) {
            command = format!("{command} {}", shell_word(&argument));
        }
    }
    command
}

fn unused_socket(unused: &Lent) -> ExitCode {
    let scheme = unused.scheme.map(|s| format!(" as {}", s.as_str())).unwrap_or_default();
    fail_with_hint(
        &format!(
            "systemd passes a socket on {}{scheme}, which is in neither listen.https nor listen.http",
            unused.address
        ),
        &"name it there, or leave it out of the socket unit; a socket with FileDescriptorName=https or =http must be in the list \
          of that name",
    )
}
