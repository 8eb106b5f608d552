//! The report as a table.

use std::fmt::Write as _;

use crate::keys::pin::Pin;
use crate::reason::counted;
use crate::tls::rule::day;
use crate::verify::chain::SeenChain;
use crate::verify::finding::{Group, Level, VerifyFinding, printable};
use crate::verify::{Options, VerifyReport};

/// The width of the marks; the name of the check follows, then the message.
const MARK: usize = 4;
/// The width at which lines are wrapped.
const LINE_MAX: usize = 110;

/// Renders the report, in colour or not.
pub(super) fn render(options: &Options, report: &VerifyReport, color: bool) -> String {
    let paint = Paint(color);
    let width = report.findings.iter().map(|f| f.check.len()).max().unwrap_or_default();
    let mut out = format!("{} at {}\n", paint.bold(&options.url.to_string()), report.address);
    for group in Group::ALL {
        let rows: Vec<&VerifyFinding> = report.findings.iter().filter(|f| f.group == group).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n{}", paint.bold(group.as_str()));
        for finding in rows {
            row(&mut out, finding, width, paint);
        }
        match group {
            Group::Certificate => report.chain.iter().for_each(|c| chain(&mut out, c, width)),
            Group::Pins => pins(&mut out, report, width),
            _ => {}
        }
    }
    let _ = writeln!(out, "\n{}", verdict(options, report));
    out
}

fn row(out: &mut String, finding: &VerifyFinding, width: usize, paint: Paint) {
    let (mark, color) = match finding.level {
        Level::Ok => ("ok", "32"),
        Level::Note => ("note", "36"),
        Level::Warning => ("warn", "33"),
        Level::Error => ("FAIL", "1;31"),
    };
    // Padded before it is coloured: escape sequences have no width.
    let mark = paint.color(&format!("{mark:MARK$}"), color);
    let margin = margin(width);
    let room = LINE_MAX.saturating_sub(margin.len());
    let mut lines = wrap(&finding.message, room).into_iter();
    let _ = writeln!(out, "  {mark}  {:width$}  {}", finding.check, lines.next().unwrap_or_default());
    let hint = finding.hint.iter().flat_map(|h| wrap(&format!("hint: {h}"), room));
    for line in lines.chain(hint) {
        let _ = writeln!(out, "{margin}{line}");
    }
}

/// Wraps a text at this many characters; longer words get lines of their own.
fn wrap(text: &str, max: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= max) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

fn margin(width: usize) -> String {
    " ".repeat(2 + MARK + 2 + width + 2)
}

/// Writes the keys of the chain, as pins.
fn chain(out: &mut String, chain: &SeenChain, width: usize) {
    let margin = margin(width);
    for certificate in &chain.served {
        let subject = printable(&certificate.subject);
        let until = day(certificate.facts.not_after);
        let _ = writeln!(out, "{margin}{}  {subject}, until {until}", certificate.pin);
    }
    let root = chain.root.as_ref().filter(|root| chain.served.iter().all(|c| c.pin != root.pin));
    if let Some(root) = root {
        let _ = writeln!(out, "{margin}{}  {}, the root, not sent", root.pin, printable(&root.subject));
    }
}

/// Writes the meaning of each noted pin.
fn pins(out: &mut String, report: &VerifyReport, width: usize) {
    let Some(noted) = &report.memory.pins else { return };
    let chains: Vec<Vec<Pin>> = report.chain.iter().chain(&report.other_chains).map(SeenChain::pins).collect();
    for pin in &noted.pins {
        let served = chains.iter().any(|chain| chain.contains(pin));
        let _ = writeln!(out, "{}{pin}  {}", margin(width), if served { "served" } else { "backup" });
    }
}

fn verdict(options: &Options, report: &VerifyReport) -> String {
    let warnings = counted(report.count(Level::Warning), "warning");
    match report.count(Level::Error) {
        0 if report.count(Level::Warning) == 0 => format!("{}: fine", options.url),
        0 => format!("{}: no fault, {warnings}", options.url),
        n => format!("{}: {}, {warnings}", options.url, counted(n, "fault")),
    }
}

/// Colours, if wanted.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn color(self, text: &str, color: &str) -> String {
        if self.0 { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.color(text, "1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |text: &str, want: &[&str]| assert_eq!(wrap(text, 10), want);
        check("", &[""]);
        check("one two", &["one two"]);
        check("one two three", &["one two", "three"]);
        check("a_very_long_word b", &["a_very_long_word", "b"]);
        check("1234567890 b c", &["1234567890", "b c"]);
    }
}
