//! A command's output: line by line for people, as one JSON answer at the end for programs.

use std::fmt;
use std::process::ExitCode;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Output, check};
use crate::config::Problems;
use crate::reason::{Problem, Reason};

/// The collected output.
pub(super) struct Results {
    as_json: bool,
    answer: Map<String, Value>,
    notes: Vec<String>,
    problems: Vec<Value>,
}

impl Results {
    pub(super) fn new(as_json: bool) -> Self {
        Self { as_json, answer: Map::new(), notes: Vec::new(), problems: Vec::new() }
    }

    /// Prints a line, or adds a note to the answer.
    pub(super) fn say(&mut self, line: impl Into<String>) {
        let line = line.into();
        if !self.as_json {
            println!("{line}");
        }
        self.notes.push(line);
    }

    /// Sets a member of the JSON answer. People do not see it.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.answer.insert(name.to_owned(), value.into());
    }

    /// Adds a problem of the configuration.
    pub(super) fn problem(&mut self, problems: &Problems, problem: &Problem, output: &Output) {
        if !self.as_json {
            eprintln!("{}", problems.placed(problem).render(output.color));
        }
        self.problems.push(check::problem_json(problems, problem));
    }

    /// Adds problems found by another process.
    pub(super) fn found_elsewhere(&mut self, problems: &[Problem]) {
        for problem in problems {
            if !self.as_json {
                eprintln!("{}", problem.render(super::print::has_color()));
            }
            self.problems.push(super::print::placed_json(problem));
        }
    }

    /// Adds an error.
    pub(super) fn fail(&mut self, error: &dyn fmt::Display) -> bool {
        self.refuse(&Reason::new(error.to_string()))
    }

    /// Adds an error with a remedy.
    pub(super) fn fail_with_hint(&mut self, error: &dyn fmt::Display, hint: &dyn fmt::Display) -> bool {
        self.refuse(&Reason::new(error.to_string()).hint(hint.to_string()))
    }

    /// Adds an error.
    pub(super) fn refuse(&mut self, reason: &Reason) -> bool {
        if !self.as_json {
            super::refuse(reason);
        }
        self.set("error", reason.line());
        if let Some(hint) = reason.hint_line() {
            self.set("hint", hint);
            self.set("hints", reason.hints.clone());
        }
        false
    }

    /// Reads an answer of the running process. `None` if it is not the expected one, with an error.
    pub(super) fn understood<T: DeserializeOwned>(&mut self, answer: &str) -> Option<T> {
        match serde_json::from_str(answer) {
            Ok(read) => Some(read),
            Err(error) => {
                self.fail(&format!("the answer of the running process cannot be understood: {error}"));
                None
            }
        }
    }

    /// Prints the answer, and returns the exit code.
    pub(super) fn end(mut self, ok: bool) -> ExitCode {
        if self.as_json {
            self.set("ok", ok);
            let (notes, problems) = (std::mem::take(&mut self.notes), std::mem::take(&mut self.problems));
            self.set("notes", notes);
            self.set("problems", problems);
            println!("{:#}", Value::Object(self.answer));
        }
        if ok { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }
}
