//! Markdown as our documents use it, converted for a man page: headings, paragraphs, lists, tables,
//! code. A test compares the words of both.

use super::roff;

/// Converts a document. Its title is left out: the page has its own.
pub(super) fn convert(text: &str) -> String {
    let mut page = String::new();
    let lines: Vec<&str> = text.lines().collect();
    let mut rest = &lines[..];
    while let Some((line, after)) = rest.split_first() {
        let taken = match line {
            line if line.trim().is_empty() || line.starts_with("# ") => 1,
            line if line.starts_with("```") => {
                let code: Vec<&str> = after.iter().take_while(|line| !line.starts_with("```")).copied().collect();
                page += &roff::code(&code.join("\n"));
                code.len() + 2
            }
            line if line.starts_with("    ") => {
                let code: Vec<&str> = rest.iter().map_while(|line| line.strip_prefix("    ")).collect();
                page += &roff::code(&code.join("\n"));
                code.len()
            }
            line if line.starts_with('|') => {
                let table: Vec<&str> = rest.iter().take_while(|line| line.starts_with('|')).copied().collect();
                page += &of_table(&table);
                table.len()
            }
            line => match line
                .strip_prefix("### ")
                .map(|title| (title, true))
                .or_else(|| line.strip_prefix("## ").map(|title| (title, false)))
            {
                Some((title, true)) => {
                    page += &roff::subsection(&title.replace('`', ""));
                    1
                }
                Some((title, false)) => {
                    page += &roff::section(&title.replace('`', ""));
                    1
                }
                None => {
                    let (block, taken) = of_text(rest);
                    page += &block;
                    taken
                }
            },
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    page
}

/// Converts a paragraph or a list item. Returns the number of its lines, too.
fn of_text(lines: &[&str]) -> (String, usize) {
    let marker = lines.first().and_then(|line| marker(line));
    let ends = |line: &&&str| line.trim().is_empty() || line.starts_with(['#', '|']) || self::marker(line).is_some();
    let taken = 1 + lines.iter().skip(1).take_while(|line| !ends(line)).count();
    let text: Vec<&str> = lines.iter().take(taken).map(|line| line.trim()).collect();
    let text = text.join("\n");
    match marker {
        None => (roff::marked(&inline(&text)), taken),
        Some(marker) => {
            let tag = if marker == "*" { ".IP \\(bu 2".to_owned() } else { format!(".IP {marker} 4") };
            let text = text.get(marker.len()..).unwrap_or_default().trim();
            (format!("{tag}\n{}\n", inline(text)), taken)
        }
    }
}

/// The marker of a list item: `*` or `1.`
fn marker(line: &str) -> Option<&str> {
    let (first, _) = line.split_once(' ')?;
    let numbered = first.strip_suffix('.').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    (first == "*" || numbered).then_some(first)
}

/// A row becomes an item: its first cell is the tag, and the others have their column's name.
fn of_table(lines: &[&str]) -> String {
    let cells = |line: &&str| -> Vec<String> {
        line.trim_matches(['|', ' ']).split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    let mut rows = lines.iter().map(cells);
    let names = rows.next().unwrap_or_default();
    let mut list = String::new();
    for row in rows.skip(1) {
        let tag = row.first().map(|cell| inline(cell)).unwrap_or_default();
        let rest: Vec<String> = row
            .iter()
            .zip(&names)
            .skip(1)
            .map(|(cell, name)| format!("{}: {}", roff::escape(name), inline(cell)))
            .collect();
        list += &roff::item(&tag, &rest.join("\n.br\n"));
    }
    list
}

/// Code and emphasis become bold; of a link, the text is left.
fn inline(text: &str) -> String {
    let text = without_addresses(text);
    let mut converted = String::new();
    for (n, part) in text.split('`').enumerate() {
        if n % 2 == 1 {
            converted += &format!("\\fB{}\\fR", roff::escape(part));
            continue;
        }
        for (n, part) in part.split("**").enumerate() {
            let part = roff::escape(part);
            converted += &if n % 2 == 1 { format!("\\fB{part}\\fR") } else { part };
        }
    }
    // A part that begins a line may begin like a request.
    let safe = |line: &str| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() };
    converted.lines().map(safe).collect::<Vec<_>>().join("\n")
}

/// Returns the text with `[text](address)` replaced by `text`.
pub(super) fn without_addresses(text: &str) -> String {
    let mut left = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let (Some((start, name)), Some((_, end))) = (before.rsplit_once('['), after.split_once(')')) else { break };
        left += start;
        left += name;
        rest = end;
    }
    left + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (markdown, roff) in [
            ("# Title\n", ""),
            ("## [listen]\n", ".SH \"[listen]\"\n"),
            ("### `listen.https`\n", ".SS \"listen.https\"\n"),
            ("one\ntwo\n\nthree\n", ".PP\none\ntwo\n.PP\nthree\n"),
            ("`a-b` and **c**: [d](../e.md#f)", ".PP\n\\fBa\\-b\\fR and \\fBc\\fR: d\n"),
            ("* one\n  more\n* two\n", ".IP \\(bu 2\none\nmore\n.IP \\(bu 2\ntwo\n"),
            ("1. one\n2. two\n", ".IP 1. 4\none\n.IP 2. 4\ntwo\n"),
            ("    a = 1\n    b = \"\\\\\"\n", ".PP\n.RS 4\n.EX\na = 1\nb = \"\\e\\e\"\n.EE\n.RE\n"),
            ("```toml\n[a]\n.b\n```\nend", ".PP\n.RS 4\n.EX\n[a]\n\\&.b\n.EE\n.RE\n.PP\nend\n"),
            ("| a | b |\n| --- | --- |\n| `x` | y |\n", ".TP\n\\fBx\\fR\nb: y\n"),
            (".so /etc/passwd\n'x\n", ".PP\n\\&.so /etc/passwd\n\\&\\(aqx\n"),
        ] {
            assert_eq!(convert(markdown), roff, "{markdown}");
        }
    }
}
