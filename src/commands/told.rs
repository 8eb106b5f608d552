//! What a command says on its way: to people line by line, to programs in one answer at its end.

use std::fmt;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::{Output, check};
use crate::config::{Problem, Problems};

/// What was said.
pub(super) struct Told {
    as_json: bool,
    answer: Map<String, Value>,
    notes: Vec<String>,
    problems: Vec<Value>,
}

impl Told {
    pub(super) fn new(as_json: bool) -> Self {
        Self { as_json, answer: Map::new(), notes: Vec::new(), problems: Vec::new() }
    }

    /// A line on standard output, or one of the answer's notes.
    pub(super) fn say(&mut self, line: impl Into<String>) {
        let line = line.into();
        if !self.as_json {
            println!("{line}");
        }
        self.notes.push(line);
    }

    /// Something that people read in the lines.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.answer.insert(name.to_owned(), value.into());
    }

    /// Something about the configuration.
    pub(super) fn problem(&mut self, problems: &Problems, problem: &Problem, output: &Output) {
        if !self.as_json {
            eprint!("{}", problems.render(problem, output.color));
        }
        self.problems.push(check::problem_json(problems, problem));
    }

    /// Problems that another process has found, in its words.
    pub(super) fn found_elsewhere(&mut self, problems: &[String]) {
        for problem in problems {
            if !self.as_json {
                eprintln!("{}", problem.trim_end());
            }
            self.problems.push(json!({ "severity": "error", "message": problem }));
        }
    }

    /// Why it did not come to pass.
    pub(super) fn fail(&mut self, error: &dyn fmt::Display) -> bool {
        if !self.as_json {
            eprintln!("pintle: {error}");
        }
        self.set("error", error.to_string());
        false
    }

    /// The same, and what to do about it.
    pub(super) fn fail_with_hint(&mut self, error: &dyn fmt::Display, hint: &dyn fmt::Display) -> bool {
        self.fail(error);
        if !self.as_json {
            eprintln!("  hint: {hint}");
        }
        self.set("hint", hint.to_string());
        false
    }

    /// The answer, and the exit code.
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
