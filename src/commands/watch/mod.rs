//! `pintle status --watch`: the state of the running process, again and again: on a terminal in place, elsewhere as blocks
//! of lines.

mod screen;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::remote::address_of_running;
use super::results::Results;
use super::{Output, fail};
use crate::config::AdminAddress;
use crate::control::client::ask_for;
use screen::{DisplaySpace, Scene, blocks};

/// Time limit for an answer; then the display says so, and asks again.
const PATIENCE: Duration = Duration::from_secs(10);
/// The shortest pause between two answers.
const PAUSE_LEAST: Duration = Duration::from_millis(100);
/// The size of a terminal that does not say it: columns and rows.
const SIZE: (usize, usize) = (80, 24);

/// The alternate screen without a cursor, and the way back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// The options.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The pause between two answers.
    pub pause: Duration,
    /// The number of answers; `None` for no end.
    pub rounds: Option<u64>,
    /// `true` for JSON, one line for each answer.
    pub as_json: bool,
}

/// Shows the state of the running process until a signal, the end of the rounds or the end of the reader. Exit code 0 if
/// the process has answered last.
pub fn watch(path: &Path, options: Options, output: &Output) -> ExitCode {
    // JSON is for answers only, one a line.
    let mut results = Results::new(false);
    let Some((_, address)) = address_of_running(path, output, &mut results) else { return results.end(false) };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let is_screen = io::stdout().is_terminal() && !options.as_json;
    let last = runtime.block_on(async {
        let signals = Signals::new()?;
        let terminal = is_screen.then(Terminal::enter).transpose()?;
        let color = terminal.is_some() && output.color_of_stdout;
        let end = StatusWatch { address, options, color, is_screen, seen: None, error: None }.run(signals).await;
        drop(terminal);
        end
    });
    // An answer that is still awaited does not hold up the end.
    runtime.shutdown_background();
    match last {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(error)) => fail(&error),
        // The reader has left, as `head -1` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// The terminal while the display has it. It gets its own screen back when this is dropped.
struct Terminal;

impl Terminal {
    fn enter() -> io::Result<Self> {
        say(ENTER)?;
        Ok(Self)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = say(LEAVE);
    }
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The signals that end the display, and the one that changes its size.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    resize: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            resize: signal(SignalKind::window_change())?,
        })
    }

    /// Waits for a signal. `true` if it ends the display.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            _ = self.hangup.recv() => true,
            _ = self.resize.recv() => false,
        }
    }
}

struct StatusWatch {
    address: AdminAddress,
    options: Options,
    color: bool,
    is_screen: bool,
    /// The last answer, when it came, and the display of it.
    seen: Option<(Value, Instant, Scene)>,
    /// The failure of the last question.
    error: Option<String>,
}

impl StatusWatch {
    /// Shows answers until the end. Returns the failure of the last question.
    async fn run(mut self, mut signals: Signals) -> io::Result<Option<String>> {
        let mut round = 0;
        loop {
            let address = self.address.clone();
            let asking = tokio::task::spawn_blocking(move || ask(&address));
            tokio::pin!(asking);
            let answer = loop {
                tokio::select! {
                    answer = &mut asking => break answer.unwrap_or_else(|panic| Err(panic.to_string())),
                    ends = signals.next() => match ends {
                        true => return Ok(self.error),
                        false => self.draw()?,
                    },
                }
            };
            self.take(answer);
            self.show()?;
            round += 1;
            if self.options.rounds.is_some_and(|rounds| round >= rounds) {
                return Ok(self.error);
            }
            let next = Instant::now() + self.options.pause.max(PAUSE_LEAST);
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(next) => break,
                    ends = signals.next() => match ends {
                        true => return Ok(None),
                        false => self.draw()?,
                    },
                }
            }
        }
    }

    /// Takes an answer, and compares it with the one before.
    fn take(&mut self, answer: Result<Value, String>) {
        let now = Instant::now();
        match answer {
            Ok(status) => {
                let before = self.seen.as_ref().map(|(before, at, _)| (before, now.duration_since(*at)));
                let scene = Scene::of(&status, before, Timestamp::now());
                self.seen = Some((status, now, scene));
                self.error = None;
            }
            Err(error) => self.error = Some(error),
        }
    }

    fn show(&self) -> io::Result<()> {
        match &self.seen {
            _ if self.is_screen => self.draw(),
            Some((status, ..)) if self.options.as_json && self.error.is_none() => say(&format!("{status}\n")),
            _ if self.options.as_json => Ok(()),
            _ => {
                let lines = blocks(self.scene(), self.error.as_deref(), &DisplaySpace::PLAIN);
                say(&format!("{}\n\n", lines.join("\n")))
            }
        }
    }

    fn scene(&self) -> Option<&Scene> {
        self.seen.as_ref().map(|(_, _, scene)| scene)
    }

    /// Draws the screen anew, line by line, so that it does not flicker. Nothing if there is none.
    fn draw(&self) -> io::Result<()> {
        if !self.is_screen {
            return Ok(());
        }
        let (columns, rows) = size();
        let look = DisplaySpace { columns: Some(columns), rows: Some(rows), color: self.color };
        let lines = blocks(self.scene(), self.error.as_deref(), &look);
        // The last line has no line break: the terminal would scroll.
        say(&format!("\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\r\n")))
    }
}

/// The columns and rows of the terminal.
fn size() -> (usize, usize) {
    let Ok(size) = rustix::termios::tcgetwinsize(io::stdout()) else { return SIZE };
    match (usize::from(size.ws_col), usize::from(size.ws_row)) {
        (0, _) | (_, 0) => SIZE,
        size => size,
    }
}

/// Asks the running process.
fn ask(address: &AdminAddress) -> Result<Value, String> {
    match ask_for(address, Method::GET, "/status", String::new(), PATIENCE) {
        Ok((StatusCode::OK, answer)) => serde_json::from_str(&answer).map_err(|error| error.to_string()),
        Ok((status, _)) => Err(format!("the running process answers {status}")),
        Err(error) => Err(error.to_string()),
    }
}
