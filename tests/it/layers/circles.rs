//! Finds circles of imports between the modules of one folder.
//!
//! The modules of a folder are its files and its folders; a folder counts as one, with all that is below it. The folder's
//! own file (`mod.rs`, or `x.rs` beside `x/`) counts as one more, written `mod`. Module a has an edge to module b where a's
//! program (not its tests, comments or strings) names a path into b: `super::b`, `crate::folder::b`, or `b::` in the
//! folder's own file. A name that the folder's own file imports or re-exports counts as the module that defines it. Two
//! things make no edge: `mod b;`, and `pub use b::…` in the folder's own file, since a face may show what is behind it.
//! So a child may use an item that its parent defines only if the parent does not use the child.

use std::collections::{BTreeMap, BTreeSet};

use super::code::{Source, Token, tokens};

/// The folder's own file among its modules.
const OWN: &str = "mod";

/// A path that a file names.
struct Named {
    path: Vec<String>,
    line: usize,
    /// `pub use`
    is_reexport: bool,
    /// The name that a `use` binds, and the module that it is in.
    binds: Option<(Vec<String>, String)>,
}

/// The modules of a folder, each with those that it uses, and where.
pub type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// Returns a graph for each folder, by its path.
pub fn graphs(sources: &[Source]) -> BTreeMap<String, Graph> {
    let modules: BTreeSet<Vec<String>> = sources.iter().map(|source| source.module.clone()).collect();
    let programs = sources.iter().filter(|source| !source.module.is_empty() && !source.is_test());
    let named: Vec<_> =
        programs.map(|source| (source, named(&tokens(source.program()), &source.module, &modules))).collect();
    let mut bound = BTreeMap::new();
    for (_, paths) in &named {
        for path in paths {
            if let Some(name) = &path.binds {
                bound.insert(name.clone(), path.path.clone());
            }
        }
    }
    let mut graphs = BTreeMap::<String, Graph>::new();
    for (source, paths) in &named {
        for path in paths {
            let target = resolved(&path.path, &modules, &bound);
            let own = &source.module;
            let common = own.iter().zip(&target).take_while(|(a, b)| a == b).count();
            let to = target.get(common).filter(|_| modules.contains(&target[..=common]));
            let (from, to) = (own.get(common).map_or(OWN, String::as_str), to.map_or(OWN, String::as_str));
            if common == 0 || from == to || (from == OWN && path.is_reexport) {
                continue;
            }
            let graph = graphs.entry(own[..common].join("/")).or_default();
            let place = || format!("src/{}:{} names {}", source.path.display(), path.line, path.path.join("::"));
            graph.entry(from.to_owned()).or_default().entry(to.to_owned()).or_insert_with(place);
        }
    }
    graphs
}

/// Replaces a name that a module imports by what it stands for.
fn resolved(
    path: &[String],
    modules: &BTreeSet<Vec<String>>,
    bound: &BTreeMap<(Vec<String>, String), Vec<String>>,
) -> Vec<String> {
    let mut path = path.to_vec();
    for _ in 0..8 {
        let Some(depth) = (0..path.len()).find(|depth| !modules.contains(&path[..=*depth])) else { break };
        let Some(real) = bound.get(&(path[..depth].to_vec(), path[depth].clone())) else { break };
        path = real.iter().chain(&path[depth + 1..]).cloned().collect();
    }
    path
}

fn named(tokens: &[Token], module: &[String], modules: &BTreeSet<Vec<String>>) -> Vec<Named> {
    let mut found = Vec::new();
    // Modules within the file, each with the number of braces around it.
    let (mut inner, mut braces): (Vec<(String, usize)>, usize) = (Vec::new(), 0);
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut at = 0;
    while at < tokens.len() {
        let here = || module.iter().cloned().chain(inner.iter().map(|(name, _)| name.clone())).collect::<Vec<_>>();
        match text(at) {
            "mod" if text(at + 2) == "{" => {
                inner.push((text(at + 1).to_owned(), braces));
                at += 2;
                continue;
            }
            "{" => braces += 1,
            "}" => {
                braces = braces.saturating_sub(1);
                inner.pop_if(|(_, outside)| *outside == braces);
            }
            "use" if text(at + 1) != "<" => {
                let is_reexport = at > 0 && matches!(text(at - 1), "pub" | ")");
                let here = here();
                let first = found.len();
                at = tree(tokens, at + 1, &[], &mut found);
                for path in &mut found[first..] {
                    path.is_reexport = is_reexport;
                    if let Some(name) = path.binds.take() {
                        path.binds = Some((here.clone(), name.1));
                    }
                    absolute(&mut path.path, &here, modules);
                }
                continue;
            }
            // pub(in crate::a) is no use of it.
            "in" if at > 0 && text(at - 1) == "(" => {
                at += 2;
                while text(at) == "::" {
                    at += 2;
                }
                continue;
            }
            name if text(at + 1) == "::" && (at == 0 || text(at - 1) != "::") && is_name(name) => {
                let line = tokens[at].line;
                let mut path = vec![name.to_owned()];
                while text(at + 1) == "::" && is_name(text(at + 2)) {
                    path.push(text(at + 2).to_owned());
                    at += 2;
                }
                absolute(&mut path, &here(), modules);
                found.push(Named { path, line, is_reexport: false, binds: None });
            }
            _ => {}
        }
        at += 1;
    }
    found.retain(|named| !named.path.is_empty());
    found
}

/// Reads the paths of a `use`, and returns where it ends.
fn tree(tokens: &[Token], mut at: usize, before: &[String], found: &mut Vec<Named>) -> usize {
    let mut path = before.to_vec();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    while is_name(text(at)) || text(at) == "*" || text(at) == "::" {
        if text(at) != "::" {
            path.push(text(at).to_owned());
        }
        at += 1;
        if text(at) == "as" {
            break;
        }
    }
    if text(at) == "{" {
        at += 1;
        while !matches!(text(at), "}" | "") {
            at = tree(tokens, at, &path, found);
            if text(at) == "," {
                at += 1;
            }
        }
        return at + 1;
    }
    let line = tokens[at - 1].line;
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if text(at) == "as" {
        text(at + 1).clone_into(&mut name);
        at += 2;
    }
    found.push(Named { path, line, is_reexport: false, binds: Some((Vec::new(), name)) });
    at
}

/// Makes a path one from the root of the crate; or empties it, if it leads out of the crate.
fn absolute(path: &mut Vec<String>, here: &[String], modules: &BTreeSet<Vec<String>>) {
    let mut base = here.to_vec();
    let mut rest = path.iter().peekable();
    match rest.peek().map(|first| first.as_str()) {
        Some("crate") => {
            base.clear();
            rest.next();
        }
        Some("self") => drop(rest.next()),
        Some("super") => {
            while rest.next_if(|part| *part == "super").is_some() {
                base.pop();
            }
        }
        Some(first) => {
            base.push(first.to_owned());
            let is_child = modules.contains(&base);
            base.pop();
            if !is_child {
                path.clear();
                return;
            }
        }
        None => return,
    }
    *path = base.into_iter().chain(rest.cloned()).collect();
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Returns the sets of modules that all lead to each other, each in alphabetical order.
pub fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let reached: BTreeMap<_, _> = graph.keys().map(|module| (module, reached(graph, module))).collect();
    let mut circles = BTreeSet::new();
    for (module, seen) in &reached {
        if seen.contains(module) {
            let back = |other: &&&String| reached.get(**other).is_some_and(|seen| seen.contains(module));
            circles.insert(seen.iter().filter(back).map(|other| (*other).clone()).collect::<Vec<_>>());
        }
    }
    circles.into_iter().collect()
}

fn reached<'a>(graph: &'a Graph, from: &'a String) -> BTreeSet<&'a String> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        next.extend(graph.get(module).into_iter().flat_map(BTreeMap::keys).filter(|to| seen.insert(*to)));
    }
    seen
}

#[test]
fn circles_are_found() {
    let source = |path: &str, module: &[&str], text: &str| Source {
        path: path.into(),
        module: module.iter().map(|part| (*part).to_owned()).collect(),
        text: text.into(),
    };
    let sources = [
        source("s/mod.rs", &["s"], "mod a; mod b; mod c; mod d;\npub use a::{A, B as E};\nuse d::D; fn f() { d::g() }"),
        source("s/a.rs", &["s", "a"], "use std::io; use super::{b::{self, C}, F};\n// super::c::C"),
        source("s/b.rs", &["s", "b"], "use crate::s::E;\n#[cfg(test)]\nmod tests {\nuse super::super::c;\n}\n"),
        source("s/c.rs", &["s", "c"], "fn x() { super::a::x(); \"super::c\"; crate::s::d::inner::deep() }"),
        source("s/d/mod.rs", &["s", "d"], "mod inner; pub use inner::deep;"),
        source(
            "s/d/inner.rs",
            &["s", "d", "inner"],
            "mod fuzz { use super::super::X; } use super::super::c; pub(in crate::s) fn f() {}",
        ),
        source("t.rs", &["t"], "use crate::s::A;"),
    ];
    let graphs = graphs(&sources);
    assert_eq!(graphs.keys().collect::<Vec<_>>(), ["s", "s/d"]);
    let edges: Vec<_> =
        graphs["s"].iter().map(|(from, to)| (from.as_str(), to.keys().map(String::as_str).collect())).collect();
    let expected: [(&str, Vec<&str>); 5] =
        [("a", vec!["b", "mod"]), ("b", vec!["a"]), ("c", vec!["a", "d"]), ("d", vec!["c"]), ("mod", vec!["d"])];
    assert_eq!(edges, expected);
    assert_eq!(graphs["s"]["b"]["a"], "src/s/b.rs:1 names s::E");
    // The parent uses d, d uses c, c uses a, and a uses an item of the parent.
    assert_eq!(circles(&graphs["s"]), [["a", "b", "c", "d", "mod"]]);
}
