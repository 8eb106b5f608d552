//! Lines for people on standard output: in colour on a terminal, and wrapped to its width.

use std::io::{self, IsTerminal as _};

use super::Output;

/// The narrowest terminal that lines are wrapped for.
const WIDTH_MIN: usize = 40;
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
        lines.split('\n').for_each(|line| self.one(line));
    }

    fn one(&self, line: &str) {
        for (at, line) in wrapped(line, self.width).iter().enumerate() {
            println!("{}", if at == 0 && self.color { colored(line) } else { line.clone() });
        }
    }

    /// Prints a remedy below the line that it is about.
    pub(super) fn hint(&self, hint: &str) {
        let label = if self.color { "    \x1b[34mhint:\x1b[0m" } else { HINT };
        let lines = wrapped(&format!("{HINT} {hint}"), self.width).join("\n");
        println!("{label}{}", &lines[HINT.len()..]);
    }

    /// Prints the name of a site.
    pub(super) fn heading(&self, line: &str) {
        for line in wrapped(line, self.width) {
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

/// A line in parts of at most `width` characters. The further parts begin below the value.
fn wrapped(line: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width.filter(|width| line.chars().count() > *width) else { return vec![line.to_owned()] };
    let hang = hang(line).min(width / 2);
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

/// The column of the value: behind the label and its spaces.
fn hang(line: &str) -> usize {
    let indent = line.len() - line.trim_start().len();
    let Some(label) = line.get(indent..).and_then(|rest| rest.find("  ")) else { return indent + 2 };
    let value = line[indent + label..].len() - line[indent + label..].trim_start().len();
    indent + label + value
}

/// A line whose label in capitals is coloured.
fn colored(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let rest = &line[indent..];
    let is_loud = |word: &str| word.len() > 1 && word.bytes().all(|b| b.is_ascii_uppercase());
    let mut end = 0;
    for word in rest.split_inclusive(' ') {
        if !is_loud(word.trim_end().trim_end_matches(':')) {
            break;
        }
        end += word.len();
    }
    let label = rest[..end].trim_end();
    // HSTS is a name.
    if label.is_empty() || label == "HSTS" {
        return line.to_owned();
    }
    format!("{}\x1b[1;31m{label}\x1b[0m{}", &line[..indent], &rest[label.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_below_the_value() {
        let check = |line: &str, width: usize, want: &[&str]| assert_eq!(wrapped(line, Some(width)), want, "{width}");
        check("  upstream     http://a", 40, &["  upstream     http://a"]);
        check(
            "  certificate  one two three four five six",
            30,
            &["  certificate  one two three", "               four five six"],
        );
        check("  certificate  one", 10, &["  certificate", "     one"]);
        check("a.example, b.example, c.example", 20, &["a.example,", "  b.example,", "  c.example"]);
        let long = format!("    live       {} ECDSA", "x".repeat(50));
        check(&long, 40, &[&format!("    live       {}", "x".repeat(50)), "               ECDSA"]);
        assert_eq!(wrapped("  a  b c", None), ["  a  b c"]);
    }

    #[test]
    fn loud_labels_are_coloured() {
        let check = |line: &str, want: &str| assert_eq!(colored(line), want);
        check("  upstream     x", "  upstream     x");
        check("  HSTS         max-age=1", "  HSTS         max-age=1");
        check("  NO CERTIFICATE it waits", "  \x1b[1;31mNO CERTIFICATE\x1b[0m it waits");
        check("    CIRCUIT OPEN: requests", "    \x1b[1;31mCIRCUIT OPEN:\x1b[0m requests");
    }
}
