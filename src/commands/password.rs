//! `pintle admin password`: the hash of a password, for the configuration.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::json;
use zeroize::Zeroizing;

use super::{fail, fail_with_hint};
use crate::config::admin::StoredPassword;
use crate::os::words::words;

/// The shortest password, in characters.
const LENGTH_MIN: usize = 12;
/// The longest password, in bytes.
const LENGTH_MAX: u64 = 1024;

/// Asks for a password, and prints the line for the configuration.
pub fn password(as_json: bool) -> ExitCode {
    let asked = if io::stdin().is_terminal() { ask_twice() } else { first_line() };
    let password = match asked {
        Ok(Some(password)) => password,
        Ok(None) => return fail_with_hint(&"the two passwords differ", &"pintle admin password"),
        Err(error) => return fail(&format!("standard input: {}", words(&error))),
    };
    if password.chars().count() < LENGTH_MIN {
        let hint = "four words that come to mind by chance make a good one";
        return fail_with_hint(&format!("the password has fewer than {LENGTH_MIN} characters"), &hint);
    }
    match StoredPassword::new(password.as_bytes()) {
        Ok(hash) if as_json => println!("{}", json!({ "password_hash": hash.as_str() })),
        Ok(hash) => {
            println!("password_hash = \"{}\"", hash.as_str());
            if io::stdout().is_terminal() {
                eprintln!("\nPaste this line below [admin] in the configuration, and run: pintle reload");
            }
        }
        Err(error) => return fail(&error),
    }
    ExitCode::SUCCESS
}

/// The first line of a pipe or file, without its end.
fn first_line() -> io::Result<Option<Zeroizing<String>>> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().take(LENGTH_MAX).read_line(&mut line)?;
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    Ok(Some(line))
}

/// Asks twice without an echo. `None` if the answers differ.
fn ask_twice() -> io::Result<Option<Zeroizing<String>>> {
    let silence = Silence::begin()?;
    let first = ask("Password: ")?;
    let second = ask("The same again: ")?;
    drop(silence);
    Ok(first.filter(|first| second.as_ref() == Some(first)))
}

fn ask(question: &str) -> io::Result<Option<Zeroizing<String>>> {
    eprint!("{question}");
    io::stderr().flush()?;
    let line = first_line();
    eprintln!();
    line
}

/// A terminal that shows no typed characters, until this is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
