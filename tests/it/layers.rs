//! Rules about the source itself: imports run downward and in no circle, files and functions stay small.

mod circles;
mod code;
mod messages;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use code::{Source, functions, tokens, types};

/// Circles that stay, with the reason: the folder, and the modules that lead to each other.
const CIRCLES: &[(&str, &str)] = &[];

/// The longest function, in lines from its name to its closing brace.
const FUNCTION_MAX: usize = 60;

/// Longer functions: the file, the name, and the reason.
const LONG_FUNCTIONS: &[(&str, &str, &str)] =
    &[("limits.rs", "default", "one line for each limit, with the reasons for the numbers")];

/// Type names that several modules define: the name, the modules, and the reason.
const TYPES: &[(&str, &str, &str)] = &[
    ("Exchange", "server/http1 server/http2 upstream/http1 upstream/http2", "the module is the protocol"),
    ("Upload", "upstream/http1 upstream/http2", "the module is the protocol"),
    ("Options", "commands verify", "the parameter of the command that the module is named after: `check::Options`"),
    ("Grant", "upstream/pool", "`checkout` names the generic type with the pool's parameters"),
    ("Places", "upstream/pool", "`connection` names the generic type with the pool's parameters"),
    ("Slot", "upstream/pool", "`connection` names the generic type with the pool's parameters"),
    ("Waiter", "upstream/pool", "`checkout` names the generic type with the pool's parameters"),
];

/// The modules of the crate from top to bottom, in the order of lib.rs: a module imports from those below it only.
fn layers(sources: &[Source]) -> Vec<&str> {
    let lib = sources.iter().find(|source| source.path.ends_with("lib.rs")).unwrap();
    let layers: Vec<_> = lib.text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(layers.len() > 10, "lib.rs names no modules");
    layers
}

#[test]
fn imports_run_downward() {
    let sources = Source::all();
    let layers = layers(&sources);
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| !source.module.is_empty()) {
        let module = &source.module[0];
        let own = layers.iter().position(|l| l == module).unwrap_or_else(|| panic!("{module} is not in lib.rs"));
        for (number, line) in source.program().lines().enumerate() {
            for part in line.split("crate::").skip(1) {
                let name: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let other = layers.iter().position(|l| *l == name);
                if other.is_some_and(|other| other < own) {
                    wrong.push(format!("src/{}:{}: {module} is below {name}", source.path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rule of what makes an edge is written down in `circles`.
#[test]
fn no_circles_within_a_folder() {
    let mut wrong = String::new();
    let mut known: BTreeMap<_, bool> = CIRCLES.iter().map(|circle| (circle, false)).collect();
    for (folder, graph) in circles::graphs(&Source::all()) {
        for circle in circles::circles(&graph) {
            let is_known = |(at, members): &(&str, &str)| {
                *at == folder && circle.iter().all(|module| members.split(' ').any(|member| member == module))
            };
            if let Some((_, found)) = known.iter_mut().find(|(known, _)| is_known(known)) {
                *found = true;
                continue;
            }
            writeln!(wrong, "src/{folder}: circle of imports between {}", circle.join(", ")).unwrap();
            for from in &circle {
                for (to, place) in graph[from].iter().filter(|(to, _)| circle.contains(to)) {
                    writeln!(wrong, "    {from} -> {to}: {place}").unwrap();
                }
            }
        }
    }
    for ((folder, members), _) in known.iter().filter(|(_, found)| !**found) {
        writeln!(wrong, "src/{folder}: circle opened; remove it from CIRCLES: {}", members).unwrap();
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Code that has to react to a problem looks at its kind or its path, and remedies travel beside the fault:
/// `src/reason.rs`. The rule of what is a message is written down in `messages`.
#[test]
fn no_message_is_searched() {
    let mut wrong = String::new();
    let mut known: BTreeMap<_, bool> =
        messages::FOREIGN.iter().map(|(path, name, _)| ((*path, *name), false)).collect();
    for source in Source::all().iter().filter(|source| !source.is_test()) {
        let path = source.path.display().to_string();
        for decision in messages::decisions(&path, source.program()) {
            let name = decision.name.trim_end_matches("()");
            match known.iter_mut().find(|(known, _)| **known == (path.as_str(), name)) {
                Some((_, found)) => *found = true,
                None => writeln!(wrong, "src/{path}:{}: decides by the words of {name}", decision.line).unwrap(),
            }
        }
        for (number, line) in source.program().lines().enumerate() {
            // Remedies within a text: they are lost as data. The system's number: `os::words` leaves it out.
            let is_flat = line.contains("\\n  hint: ") || line.contains(" (hint: ") || line.contains(" (os error");
            if is_flat && !source.path.ends_with("reason.rs") {
                writeln!(wrong, "src/{path}:{}: {}", number + 1, line.trim()).unwrap();
            }
        }
    }
    for ((path, name), _) in known.iter().filter(|(_, found)| !**found) {
        writeln!(wrong, "src/{path}: {name} decides nothing any more; remove it from FOREIGN").unwrap();
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// A description begins with a verb or a noun: not `What a purge has done`, but `The result of a purge`.
#[test]
fn descriptions_begin_with_nouns_and_verbs() {
    let mut wrong = String::new();
    for source in Source::all() {
        let mut is_inside = false;
        for (number, line) in source.text.lines().enumerate() {
            let line = line.trim();
            let text = line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! "));
            let first = text.and_then(|text| text.split(' ').next()).unwrap_or_default();
            let is_question = line.ends_with('?');
            if !is_inside && !is_question && ["What", "Whether", "Who", "Those", "How", "Which"].contains(&first) {
                writeln!(wrong, "src/{}:{}: {line}", source.path.display(), number + 1).unwrap();
            }
            is_inside = line.starts_with("///") || line.starts_with("//!");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// A reader who searches for a type finds one definition.
#[test]
fn no_type_name_exists_twice() {
    let sources = Source::all();
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        for (name, line) in types(&tokens(source.program())) {
            places.entry(name.to_owned()).or_default().push(format!("{}:{line}", source.path.display()));
        }
    }
    assert!(places.len() > 500, "only {} types were found", places.len());
    places.retain(|_, places| places.len() > 1);
    let mut wrong = String::new();
    for (name, folders, _) in TYPES {
        let mut places = places.remove(*name).unwrap_or_default();
        for folder in folders.split(' ') {
            let before = places.len();
            places.retain(|place| !place.starts_with(&format!("{folder}/")));
            if places.len() == before {
                writeln!(wrong, "src/{folder}: {name} does not exist or exists once; mend its line in TYPES").unwrap();
            }
        }
        for place in places {
            writeln!(wrong, "src/{place}: {name} exists elsewhere, too; give it a name of its own").unwrap();
        }
    }
    for (name, places) in places {
        writeln!(wrong, "{name} exists {} times: src/{}", places.len(), places.join(", src/")).unwrap();
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn functions_are_short() {
    let mut wrong = String::new();
    let mut known: BTreeMap<_, bool> =
        LONG_FUNCTIONS.iter().map(|(path, name, _)| (((*path).to_owned(), (*name).to_owned()), false)).collect();
    for source in Source::all().iter().filter(|source| !source.is_test()) {
        for function in functions(&tokens(source.program())).into_iter().filter(|f| f.lines > FUNCTION_MAX) {
            let path = source.path.display().to_string();
            if let Some(found) = known.get_mut(&(path.clone(), function.name.clone())) {
                *found = true;
            } else {
                let (name, line, lines) = (&function.name, function.line, function.lines);
                writeln!(wrong, "src/{path}:{line}: {name} has {lines} lines; split it").unwrap();
            }
        }
    }
    for ((path, name), _) in known.iter().filter(|(_, found)| !**found) {
        writeln!(wrong, "src/{path}: {name} is short now; remove it from LONG_FUNCTIONS").unwrap();
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Rules about pins, redirects and headers are values in, values out.
#[test]
fn policies_do_no_io() {
    let pure = ["policy", "keys/pin.rs", "host.rs", "export"];
    let sources = Source::all();
    for part in pure {
        assert!(sources.iter().any(|source| source.path.starts_with(part)), "src/{part} does not exist");
    }
    for source in sources.iter().filter(|source| pure.iter().any(|part| source.path.starts_with(part))) {
        for forbidden in ["std::fs", "std::io", "tokio", "std::time::SystemTime", "Timestamp::now"] {
            assert!(!source.program().contains(forbidden), "src/{} uses {forbidden}", source.path.display());
        }
    }
}

#[test]
fn files_are_small() {
    for source in Source::all() {
        let lines = source.program().lines().count();
        assert!(lines <= 450, "src/{} has {lines} lines; split it by subject", source.path.display());
    }
}
