//! `pintle explain`: the decisions about a request, as a table or as JSON.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::remote::{ask_running, say_to_running};
use super::results::Results;
use super::sheet;
use super::status::{list, text};
use super::{Like, Output, fail, glance_at_book, print_problems, read, refuse, try_judge, warn};
use crate::config::Config;
use crate::control::explain::explained;
use crate::reason::Reason;
use crate::reason::pasted::option_for;
use crate::verify::finding::is_command;

pub use crate::control::explain::DescribedRequest;

/// Time limit for the running process: it may be busy with a reload.
const PATIENCE: Duration = Duration::from_secs(60);
/// The width of the labels.
const LABEL: usize = 14;
/// The width of the table where the terminal does not say it.
const WIDTH: usize = 80;

/// The options.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// `true` to ask the running process.
    pub live: bool,
    /// `true` for JSON.
    pub as_json: bool,
}

/// Explains a request. Exit code 0 if there is an explanation, whatever it is.
pub fn explain(path: &Path, asked: &DescribedRequest, options: Options, output: &Output) -> ExitCode {
    let report = if options.live { live(path, asked, options, output) } else { offline(path, asked) };
    let report = match report {
        Ok(report) => report,
        Err(code) => return code,
    };
    if options.as_json {
        println!("{report:#}");
    } else {
        table(&report, sheet::width().unwrap_or(WIDTH)).iter().for_each(|line| println!("{line}"));
    }
    ExitCode::SUCCESS
}

/// Explains the end of a request of the access log. Exit code 0 if its record is found.
pub fn explain_record(path: &Path, id: &str, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    let is_id = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if id.is_empty() || !id.chars().all(is_id) {
        results.fail_with_hint(&format!("{id:?}: not the id of a record"), &"an id looks like 5f3a09c1-0-42");
        return results.end(false);
    }
    let question = (Method::GET, &*format!("/records?id={id}"));
    let answers = [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::CONFLICT];
    let Some((status, answer)) = ask_running(path, question, PATIENCE, &answers, output, &mut results) else {
        return results.end(false);
    };
    let Some(answer) = results.understood::<Value>(&answer) else { return results.end(false) };
    if status != StatusCode::OK {
        let hints = list(&answer, "hints").iter().filter_map(Value::as_str);
        results.refuse(&Reason::new(text(&answer, "error")).hints(hints.map(str::to_owned)));
        return results.end(false);
    }
    if as_json {
        println!("{answer:#}");
    } else {
        record_table(&answer, sheet::width().unwrap_or(WIDTH)).iter().for_each(|line| println!("{line}"));
    }
    ExitCode::SUCCESS
}

/// Makes the table of a record.
fn record_table(explained: &Value, width: usize) -> Vec<String> {
    let record = &explained["record"];
    let head = format!("{} {} at {}", text(record, "kind"), text(record, "id"), text(record, "time"));
    let mut lines = wrapped("", &head, 2, width);
    lines.push(String::new());
    for step in list(explained, "steps") {
        let why = step["why"].as_str().filter(|why| !why.is_empty()).map(|why| format!("; {why}")).unwrap_or_default();
        let at = step["at"].as_str().map(|at| format!(" [{at}]")).unwrap_or_default();
        lines.extend(wrapped(text(step, "step"), &format!("{}{why}{at}", text(step, "what")), LABEL, width));
    }
    lines.extend(wrapped("verdict", text(explained, "verdict"), LABEL, width));
    for note in list(explained, "notes").iter().filter_map(Value::as_str) {
        lines.extend(wrapped("note", note, LABEL, width));
    }
    lines.push(String::new());
    if let Some(changed) = explained["config_changed"].as_str() {
        let text = format!(
            "The configuration has changed since, at {changed}: a limit's value and the decisions below are those of now."
        );
        lines.extend(wrapped("", &text, 0, width));
    }
    match explained["why_no_explanation"].as_str() {
        Some(why) => lines.extend(wrapped("", &format!("The decisions cannot be repeated: {why}."), 0, width)),
        None => {
            let text = "The decisions about such a request, by the configuration in use:";
            lines.extend(wrapped("", text, 0, width));
            lines.push(String::new());
            lines.extend(table(&explained["explanation"], width));
        }
    }
    lines
}

/// Asks the running process.
fn live(path: &Path, asked: &DescribedRequest, options: Options, output: &Output) -> Result<Value, ExitCode> {
    let mut results = Results::new(options.as_json);
    let request = (Method::POST, "/explain", json!(asked).to_string());
    let answer = say_to_running(path, request, PATIENCE, &[StatusCode::OK], output, &mut results);
    answer.and_then(|(_, answer)| results.understood(&answer)).ok_or_else(|| results.end(false))
}

/// Explains by the configuration, as a process would that starts now.
fn offline(path: &Path, asked: &DescribedRequest) -> Result<Value, ExitCode> {
    let draft = read(path).map_err(|reason| refuse(&reason))?;
    let loaded = try_judge(draft, glance_at_book, &Like::start(false)).map_err(|unfit| {
        if let Some(problems) = &unfit.problems {
            print_problems(problems);
        }
        refuse(&unfit.reason)
    })?;
    warn_of_lacks(path, &loaded.config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| fail(&error))?;
    let report = runtime.block_on(explained(&loaded.draft, &loaded.config, asked));
    report.map_err(|reason: Reason| refuse(&reason))
}

/// Warns of sites whose certificates this user cannot read, or nobody can serve: the running process may have others.
fn warn_of_lacks(path: &Path, config: &Config) {
    let Some((site, _)) = config.without_certificate().next() else { return };
    let more = match config.without_certificate().count() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let what = format!("{}{more}: no usable certificate for this user, so a new process would refuse TLS", site.name());
    let check = format!("`pintle check{}` names the reason", option_for(path));
    warn(&Reason::new(what).hint(check).hint("--live explains by the certificates in use"));
}

/// Makes the table of a report, with lines of at most `width` columns.
fn table(report: &Value, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let request = &report["request"];
    let method = request["method"].as_str().unwrap_or("a request for");
    let over = if request["http_version"] == "2" { " over HTTP/2" } else { "" };
    let head = format!("{method} {} from {}{over}", text(request, "url"), text(request, "from"));
    lines.extend(wrapped("", &head, 2, width));
    let by = match report["live"] == true {
        true => "by the running process",
        false => "by the configuration, as a process would that starts now",
    };
    lines.extend(wrapped("", &format!("{by}: {}", text(report, "config")), 2, width));
    lines.push(String::new());
    for step in list(report, "steps") {
        lines.extend(wrapped(text(step, "step"), &described(step), LABEL, width));
    }
    for (name, key) in [("HSTS", "hsts"), ("pins", "pins")] {
        lines.extend(wrapped(name, &policy(&report["policies"][key]), LABEL, width));
    }
    lines.extend(wrapped("verdict", text(report, "verdict"), LABEL, width));
    lines.extend(fields("Fields to the upstream", list(report, "request_fields"), width));
    lines.extend(fields("Fields to the client", list(report, "response_fields"), width));
    lines.extend([String::new(), "Limits".to_owned()]);
    for limit in list(report, "limits") {
        let line = format!("  {} = {}{}", text(limit, "name"), text(limit, "value"), place(limit, "default"));
        lines.extend(wrapped("", &line, 4, width));
    }
    lines
}

/// The words of a step, its reason, and the line behind it.
fn described(step: &Value) -> String {
    let why = step["why"].as_str().filter(|why| !why.is_empty()).map(|why| format!("; {why}")).unwrap_or_default();
    format!("{}{why}{}", text(step, "what"), place(step, "built in"))
}

/// The place of a key, or a word if the file lacks it.
fn place(row: &Value, without: &str) -> String {
    format!(" [{}]", row["at"].as_str().unwrap_or(without))
}

fn policy(policy: &Value) -> String {
    let notes: String =
        list(policy, "notes").iter().filter_map(Value::as_str).map(|note| format!("; {note}")).collect();
    let at = policy["at"].as_str().map(|at| format!(" [{at}]")).unwrap_or_default();
    match (policy["value"].as_str(), policy["why_not"].as_str()) {
        (Some(value), _) => format!("{}: {value}{notes}{at}", text(policy, "name")),
        (None, why) => format!("not sent: {}{notes}{at}", why.unwrap_or("-")),
    }
}

/// Fields that change, then the names of those that pass.
fn fields(title: &str, rows: &[Value], width: usize) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![String::new(), title.to_owned()];
    let values =
        |row: &Value, key: &str| list(row, key).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | ");
    for row in rows {
        let (before, after) = (values(row, "before"), values(row, "after"));
        let (sign, value) = match text(row, "change") {
            "added" => ("+", after),
            "removed" => ("-", before),
            "changed" => ("~", format!("{before} -> {after}")),
            "would_remove" => ("-", "(if it is sent)".to_owned()),
            _ => continue,
        };
        let line = format!("  {sign} {}: {value}; {}{}", text(row, "name"), text(row, "why"), place(row, "built in"));
        lines.extend(wrapped("", &line, 6, width));
    }
    let kept: Vec<&str> = rows.iter().filter(|row| row["change"] == "kept").map(|row| text(row, "name")).collect();
    if !kept.is_empty() {
        lines.extend(wrapped("", &format!("    unchanged: {}", kept.join(", ")), 6, width));
    }
    lines
}

/// A labelled text in lines of at most `width` columns, without bytes that a terminal obeys. Words that are longer than a
/// line are cut.
fn wrapped(label: &str, text: &str, hang: usize, width: usize) -> Vec<String> {
    let width = width.max(hang + 10);
    let mut lines = Vec::new();
    let mut line = if label.is_empty() { String::new() } else { format!("{label:hang$} ") };
    let indent = if label.is_empty() { hang } else { hang + 1 };
    let mut length = line.chars().count();
    let mut is_begun = false;
    for word in safe(text).split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if is_begun && length + 1 + word.len() > width {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            length = indent;
        } else if is_begun {
            line.push(' ');
            length += 1;
        }
        while length + word.len() > width {
            let rest = word.split_off(width - length);
            line.extend(word);
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            (word, length) = (rest, indent);
        }
        length += word.len();
        line.extend(word);
        is_begun = true;
    }
    lines.push(line);
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

/// Escapes what a terminal obeys, and characters whose width is uncertain.
fn safe(text: &str) -> String {
    let shown = |c: char| if is_command(c) || !c.is_ascii() { c.escape_default().collect() } else { vec![c] };
    text.chars().flat_map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_longer_than_the_terminal() {
        let long = format!("a {} b\u{1b}[31m {}", "x".repeat(200), "y ".repeat(90));
        for width in [40, 80, 200] {
            for line in wrapped("label", &long, LABEL, width) {
                assert!(line.chars().count() <= width && line.is_ascii() && !line.contains('\u{1b}'), "{line}");
            }
        }
        assert_eq!(wrapped("a", "b c", 4, 80), ["a    b c"]);
        assert_eq!(wrapped("", "one two three", 2, 12), ["one two", "  three"]);
    }
}
