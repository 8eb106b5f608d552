//! Lines for people on standard output: in colour on a terminal, and wrapped to its width.

use std::io::{self, IsTerminal as _};

use super::Output;

/// The narrowest terminal that lines are wrapped for.
const WIDTH_MIN: usize = 40;
/// The further parts of a line without a value begin so many columns after its first one.
const HANG: usize = 2;
/// The label of a remedy.
const HINT: &str = "    hint:";

/// The printed lines.
pub(super) struct Sheet {
    color: bool,
    /// The width of the terminal; `None` if standard output is none.
    width: Option<usize>,
}

impl Sheet {
    pub(super) fn new(output: &Output) -> Self {
        Self { color: output.color_of_stdout, width: width() }
    }

    /// Prints lines, wrapped.
    pub(super) fn line(&self, lines: &str) {
        for line in lines.split('\n') {
            wrapped(line, indent(line) + HANG, self.width).iter().for_each(|part| println!("{part}"));
        }
    }

    /// Prints a value behind its label, which includes the spaces around it. Further parts begin below the value.
    pub(super) fn row(&self, label: &str, value: &str) {
        self.labelled(label, value, false);
    }

    /// Prints a row about a problem: its label is coloured.
    pub(super) fn loud(&self, label: &str, value: &str) {
        self.labelled(label, value, self.color);
    }

    fn labelled(&self, label: &str, value: &str, in_color: bool) {
        let (first, others) = value.split_once('\n').map_or((value, None), |(first, others)| (first, Some(others)));
        let lines = wrapped(&format!("{label}{first}"), label.chars().count(), self.width);
        for (at, line) in lines.iter().enumerate() {
            println!("{}", if at == 0 && in_color { colored(label, line) } else { line.clone() });
        }
        if let Some(others) = others {
            self.line(others);
        }
    }

    /// Prints a remedy below the line that it is about.
    pub(super) fn hint(&self, hint: &str) {
        let label = if self.color { "    \x1b[34mhint:\x1b[0m" } else { HINT };
        let lines = wrapped(&format!("{HINT} {hint}"), indent(HINT) + HANG, self.width).join("\n");
        println!("{label}{}", &lines[HINT.len()..]);
    }

    /// Prints the name of a site.
    pub(super) fn heading(&self, line: &str) {
        for line in wrapped(line, HANG, self.width) {
            if self.color { println!("\x1b[1m{line}\x1b[0m") } else { println!("{line}") }
        }
    }
}

/// The width of the terminal on standard output; `None` if it is none.
pub(super) fn width() -> Option<usize> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(&out).map(|size| usize::from(size.ws_col)).ok();
    let columns = columns.filter(|columns| *columns > 0);
    columns.or_else(|| std::env::var("COLUMNS").ok()?.parse().ok()).map(|columns| columns.max(WIDTH_MIN))
}

/// The column of the first word.
fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// A line in parts of at most `width` characters. The further parts begin in the column `hang`.
fn wrapped(line: &str, hang: usize, width: Option<usize>) -> Vec<String> {
    let Some(width) = width.filter(|width| line.chars().count() > *width) else { return vec![line.to_owned()] };
    let hang = hang.min(width / 2);
    let mut lines = Vec::new();
    let mut current = String::new();
    for (at, part) in line.split(' ').enumerate() {
        let length = current.chars().count() + part.chars().count() + 1;
        let has_value = current.trim_end().chars().count() > hang;
        if has_value && !part.is_empty() && length > width {
            let full = std::mem::replace(&mut current, " ".repeat(hang));
            lines.push(full.trim_end().to_owned());
        } else if at > 0 {
            current.push(' ');
        }
        current.push_str(part);
    }
    lines.push(current);
    lines
}

/// A line whose label is coloured.
fn colored(label: &str, line: &str) -> String {
    let (indent, text) = (indent(label), label.trim());
    match line.split_at_checked(indent + text.len()) {
        Some((_, rest)) => format!("{}\x1b[1;31m{text}\x1b[0m{rest}", " ".repeat(indent)),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_below_the_value() {
        let check = |label: &str, value: &str, width: usize, want: &[&str]| {
            let line = format!("{label}{value}");
            assert_eq!(wrapped(&line, label.len(), Some(width)), want, "{width}");
        };
        check("  upstream     ", "http://a", 40, &["  upstream     http://a"]);
        check(
            "  certificate  ",
            "one two three four five six",
            30,
            &["  certificate  one two three", "               four five six"],
        );
        check("  certificate  ", "one", 10, &["  certificate", "     one"]);
        // Two spaces in a value do not make a column.
        check("    live       ", "one  two three four", 26, &["    live       one  two", "             three four"]);
        let long = format!("{} ECDSA", "x".repeat(50));
        check("    live       ", &long, 40, &[&format!("    live       {}", "x".repeat(50)), "               ECDSA"]);
        let names = "a.example, b.example, c.example";
        assert_eq!(wrapped(names, HANG, Some(20)), ["a.example,", "  b.example,", "  c.example"]);
        assert_eq!(wrapped("  a  b c", 4, None), ["  a  b c"]);
    }

    #[test]
    fn loud_labels_are_coloured() {
        let check = |label: &str, line: &str, want: &str| assert_eq!(colored(label, line), want);
        check("  NO CERTIFICATE ", "  NO CERTIFICATE it waits", "  \x1b[1;31mNO CERTIFICATE\x1b[0m it waits");
        check("    CIRCUIT OPEN: ", "    CIRCUIT OPEN: requests", "    \x1b[1;31mCIRCUIT OPEN:\x1b[0m requests");
        check("  HSTS         ", "  HSTS", "  \x1b[1;31mHSTS\x1b[0m");
    }
}
