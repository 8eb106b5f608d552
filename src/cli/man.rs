//! The man pages: pintle(8), a page for each command, and pintle.toml(5).
//!
//! They come from the definitions of the command line and from the reference of the configuration
//! keys, so they cannot differ from either.

mod markdown;
mod roff;

use std::io;

use clap::Command;
use clap_mangen::Man;

use super::examples;
use crate::config::{DEFAULT_PATHS, REFERENCE};

/// The section of system administration commands.
const COMMANDS: &str = "8";
/// The section of file formats.
const FILES: &str = "5";
const MANUAL: &str = "pintle";

/// A man page.
pub(super) struct ManPage {
    /// The name without the section, such as `pintle-key`.
    pub(super) name: String,
    /// The section of the manual.
    pub(super) section: &'static str,
    /// The page, for groff or mandoc.
    pub(super) text: String,
}

/// Returns all pages.
///
/// # Errors
///
/// If a page cannot be rendered.
pub(super) fn pages(mut command: Command) -> io::Result<Vec<ManPage>> {
    command = command.disable_help_subcommand(true);
    command.build();
    let visible = |command: &&Command| !command.is_hide_set();
    let mut pages = vec![ManPage { name: "pintle".into(), section: COMMANDS, text: tidy(&overview(&command)?) }];
    for below in command.get_subcommands().filter(visible) {
        let name = format!("pintle-{}", below.get_name());
        pages.push(ManPage { text: tidy(&of_command(below, &name)?), name, section: COMMANDS });
    }
    pages.push(ManPage { name: "pintle.toml".into(), section: FILES, text: tidy(&of_file()) });
    Ok(pages)
}

/// The page of the program: what it is, its commands, files, signals and exit codes.
fn overview(command: &Command) -> io::Result<String> {
    let mut page = heading(command, "pintle")?;
    page += &roff::section("DESCRIPTION");
    page += &roff::paragraph(
        "pintle is an HTTPS edge proxy for a site that someone else hosts. It terminates TLS under the site's own name, \
         redirects plain HTTP to https, adds HSTS, and adds key pins that it computes from the operator's keys. A ledger \
         records every set of pins that clients may hold, so that no renewed certificate locks them out.",
    );
    page += &options(command, "OPTIONS")?;
    page += &roff::section("COMMANDS");
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        let about = below.get_about().map(ToString::to_string).unwrap_or_default();
        page += &roff::item(&format!("\\fBpintle\\-{}\\fR(8)", roff::escape(below.get_name())), &roff::escape(&about));
    }
    page += &of_examples("");
    page += &roff::section("FILES");
    for path in DEFAULT_PATHS {
        page += &roff::item(
            &format!("\\fI{}\\fR", roff::escape(path)),
            "the configuration, see \\fBpintle.toml\\fR(5); the first file that exists",
        );
    }
    page += &roff::item(
        "\\fI/var/lib/pintle\\fR",
        "the default of state.directory for a configuration in /etc/pintle: the ledger of promises",
    );
    page += &roff::section("EXIT STATUS");
    for (code, meaning) in [("0", "success"), ("1", "pintle found a problem and named it"), ("2", "wrong usage")] {
        page += &roff::item(code, meaning);
    }
    page += &roff::section("SIGNALS");
    for (signals, effect) in [
        ("TERM, INT, QUIT", "pintle stops accepting, and exits after the requests in progress; a second one: at once"),
        ("HUP", "pintle reloads the configuration, like \\fBpintle reload\\fR"),
        ("USR1", "pintle reopens the access log"),
        ("USR2", "pintle starts the new version of the program, like \\fBpintle upgrade\\fR"),
    ] {
        page += &roff::item(signals, effect);
    }
    page += &see_also("pintle");
    Ok(page)
}

/// The page of a command, with those below it.
fn of_command(command: &Command, name: &str) -> io::Result<String> {
    let mut page = heading(command, name)?;
    page += &roff::section("DESCRIPTION");
    page += &description(command);
    page += &options(command, "OPTIONS")?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        let full = format!("pintle {} {}", command.get_name(), below.get_name());
        page += &roff::section(&full.to_uppercase());
        page += &description(below);
        page += &synopsis(below)?;
        page += &options(below, "")?;
        page += &of_examples(&format!("{} {}", command.get_name(), below.get_name()));
    }
    if command.get_subcommands().all(Command::is_hide_set) {
        page += &of_examples(command.get_name());
    }
    page += &see_also(name);
    Ok(page)
}

/// The page of the configuration file.
fn of_file() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(".TH pintle.toml {FILES} \"\" \"pintle {version}\" \"{MANUAL}\"\n");
    page += ".SH NAME\npintle.toml \\- configuration file of pintle\n";
    page += &roff::section("DESCRIPTION");
    page += &markdown::convert(REFERENCE);
    page += ".SH \"SEE ALSO\"\n\\fBpintle\\fR(8), \\fBpintle\\-check\\fR(8), \\fBpintle\\-reload\\fR(8)\n";
    page
}

/// Title, name and synopsis.
fn heading(command: &Command, name: &str) -> io::Result<String> {
    let man = man(command.clone().display_name(name.to_owned()))
        .title(name)
        .section(COMMANDS)
        .manual(MANUAL)
        .source(concat!("pintle ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    Ok(text(&page))
}

/// The synopsis without its heading.
fn synopsis(command: &Command) -> io::Result<String> {
    let mut rendered = Vec::new();
    man(command.clone()).render_synopsis_section(&mut rendered)?;
    Ok(text(&rendered).replace(".SH SYNOPSIS\n", ".PP\n"))
}

/// The options under a heading; without one, under none.
fn options(command: &Command, heading: &str) -> io::Result<String> {
    let mut rendered = Vec::new();
    man(command.clone()).render_options_section(&mut rendered)?;
    let heading = if heading.is_empty() { String::new() } else { roff::section(heading) };
    Ok(text(&rendered).replace(".SH OPTIONS\n", &heading))
}

fn man(command: Command) -> Man {
    Man::new(command)
}

/// Rendered text without clap_mangen's preamble, which every part repeats, and without the string
/// that the preamble defines.
fn text(rendered: &[u8]) -> String {
    let text = String::from_utf8_lossy(rendered).replace("\\*(Aq", "\\(aq");
    let kept = text.lines().filter(|line| !line.starts_with(".ie ") && !line.starts_with(".el "));
    kept.map(|line| format!("{line}\n")).collect()
}

/// Leaves out the request for a paragraph behind a heading, which begins one anyway.
fn tidy(page: &str) -> String {
    let mut tidied = String::with_capacity(page.len());
    let mut after_heading = false;
    for line in page.lines() {
        if !(after_heading && line == ".PP") {
            tidied.push_str(line);
            tidied.push('\n');
        }
        after_heading = line.starts_with(".SH") || line.starts_with(".SS");
    }
    tidied
}

fn description(command: &Command) -> String {
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    about.split("\n\n").map(|paragraph| roff::paragraph(&ended(paragraph))).collect()
}

/// A text with a full stop.
fn ended(text: &str) -> String {
    let text = text.trim();
    if text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}

fn of_examples(path: &str) -> String {
    let examples = examples::of(path);
    if examples.is_empty() {
        return String::new();
    }
    let heading = if path.contains(' ') { ".PP\nExamples:\n".to_owned() } else { roff::section("EXAMPLES") };
    let each = |(purpose, line): &examples::Example| {
        format!("{}{}", roff::paragraph(&format!("{purpose}:")), roff::code(line))
    };
    heading + &examples.iter().map(each).collect::<String>()
}

fn see_also(name: &str) -> String {
    let main = if name == "pintle" { "" } else { "\\fBpintle\\fR(8), " };
    format!("{}{main}\\fBpintle.toml\\fR(5)\n", roff::section("SEE ALSO"))
}

#[cfg(test)]
mod tests {
    use super::super::command;
    use super::*;

    fn all() -> Vec<ManPage> {
        pages(command()).unwrap()
    }

    fn page(name: &str) -> String {
        all().into_iter().find(|page| page.name == name).unwrap_or_else(|| panic!("there is no page {name}")).text
    }

    /// A page's words as a reader sees them.
    fn plain(text: &str) -> String {
        let plain = ["\\fB", "\\fI", "\\fR", "\\&"].iter().fold(text.to_owned(), |text, mark| text.replace(mark, ""));
        let characters = [
            ("\\-", "-"),
            ("\\(aq", "'"),
            ("\\(ga", "`"),
            ("\\(ha", "^"),
            ("\\(ti", "~"),
            ("\\(dq", "\""),
            ("\\(bu", "*"),
        ];
        characters.iter().fold(plain, |text, (mark, character)| text.replace(mark, character))
    }

    fn options_of(command: &Command, path: &str, missing: &mut Vec<String>, page: &str) {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let named = argument.get_long().map(|long| format!("--{long}"));
            let named = named.or_else(|| argument.get_value_names()?.first().map(ToString::to_string));
            let named = named.expect("an argument has a name");
            if !page.contains(&named) {
                missing.push(format!("{path}: {named}"));
            }
        }
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            options_of(below, &format!("{path} {}", below.get_name()), missing, page);
        }
    }

    #[test]
    fn every_option_is_in_the_page_of_its_command() {
        let mut built = command().disable_help_subcommand(true);
        built.build();
        let mut missing = Vec::new();
        let mut seen = 0;
        for below in built.get_subcommands().filter(|below| !below.is_hide_set()) {
            let name = format!("pintle-{}", below.get_name());
            options_of(below, &name, &mut missing, &plain(&page(&name)));
            assert!(plain(&page("pintle")).contains(&format!("{name}(8)")), "pintle(8) does not name {name}");
            seen += 1;
        }
        assert!(missing.is_empty(), "not in the man pages: {missing:#?}");
        assert!(seen > 10, "{seen}");
    }

    #[test]
    fn every_key_is_in_the_page_of_the_file() {
        let page = plain(&page("pintle.toml"));
        let keys: Vec<_> = REFERENCE.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
        let missing: Vec<_> = keys.iter().filter(|key| !page.contains(&format!(".SS \"{key}\"\n"))).collect();
        assert!(missing.is_empty(), "not in pintle.toml(5): {missing:?}");
        assert!(keys.len() > 80, "{}", keys.len());
    }

    /// Every word of the reference is in the page, in the same order, but for the addresses of links.
    #[test]
    fn the_page_of_the_file_says_all_that_the_reference_says() {
        let words = |text: &str| -> Vec<String> {
            text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let page = page("pintle.toml");
        let page = words(&plain(&page).replace("\\e", "\\"));
        let mut rest = page.iter();
        let prose = markdown::without_addresses(REFERENCE);
        let body = prose.split_once('\n').unwrap().1;
        let is_said = |line: &&str| !line.starts_with('|') && !line.starts_with("```");
        for word in body.lines().filter(is_said).flat_map(words) {
            assert!(rest.any(|other| *other == word), "the word {word:?} is missing, or out of order");
        }
    }
}
