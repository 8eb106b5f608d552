//! The few requests of groff's man macros that the pages need.

/// Escapes a text: no character of it is a request or a mark.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if line.starts_with(['.', '\'']) {
            escaped.push_str("\\&");
        }
        for character in line.chars() {
            match character {
                '\\' => escaped.push_str("\\e"),
                '-' => escaped.push_str("\\-"),
                '^' => escaped.push_str("\\(ha"),
                '~' => escaped.push_str("\\(ti"),
                '`' => escaped.push_str("\\(ga"),
                '\'' => escaped.push_str("\\(aq"),
                _ => escaped.push(character),
            }
        }
    }
    escaped
}

/// A section's heading.
pub(super) fn section(title: &str) -> String {
    format!(".SH \"{}\"\n", escape(title).replace('"', "\\(dq"))
}

/// A subsection's heading.
pub(super) fn subsection(title: &str) -> String {
    format!(".SS \"{}\"\n", escape(title).replace('"', "\\(dq"))
}

/// A paragraph of plain text.
pub(super) fn paragraph(text: &str) -> String {
    marked(&escape(text))
}

/// A paragraph of escaped text.
pub(super) fn marked(text: &str) -> String {
    format!(".PP\n{text}\n")
}

/// A tagged item, of escaped text.
pub(super) fn item(tag: &str, text: &str) -> String {
    format!(".TP\n{tag}\n{text}\n")
}

/// Lines that keep their breaks and spaces.
pub(super) fn code(text: &str) -> String {
    format!(".PP\n.RS 4\n.EX\n{}\n.EE\n.RE\n", escape(text))
}
