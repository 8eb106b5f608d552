//! Reads the source: files, their modules, tokens without comments and strings, and functions with their length.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of src.
pub struct Source {
    /// Below src, as `server/http1/mod.rs`.
    pub path: PathBuf,
    /// The module that the file is, as `["server", "http1"]`. Empty for lib.rs and main.rs.
    pub module: Vec<String>,
    /// The whole text.
    pub text: String,
}

impl Source {
    /// Returns all files, sorted by path.
    pub fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut paths = Vec::new();
        find(&root, &mut paths);
        paths.sort();
        assert!(paths.len() > 40, "the sources were not found");
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(&root).unwrap().to_owned();
            let mut module: Vec<String> =
                path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
                module.pop();
            }
            Self { path, module, text }
        };
        paths.into_iter().map(read).collect()
    }

    /// Returns the file without its tests.
    pub fn program(&self) -> &str {
        let mut from = 0;
        while let Some(at) = self.text[from..].find("#[cfg(test)]\n") {
            let line = self.text[from + at..].lines().nth(1).unwrap_or_default();
            let is_module = line.split_whitespace().any(|word| word == "mod");
            if is_module && (line.ends_with('{') || line == "mod tests;") {
                return &self.text[..from + at];
            }
            from += at + 1;
        }
        &self.text
    }

    /// Returns `true` for a file that is compiled for tests only.
    pub fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs")
    }
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// A name, `::`, or a single other character, with its line. Comments, strings and lifetimes are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// Returns the tokens of a file.
pub fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut tokens, mut i, mut line) = (Vec::new(), 0, 1);
    while i < chars.len() {
        let begin = i;
        match at(i) {
            '/' if at(i + 1) == '/' => i += chars[i..].iter().take_while(|c| **c != '\n').count(),
            '/' if at(i + 1) == '*' => i = after_block_comment(&chars, i),
            '"' => i = after_string(&chars, i),
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => i = after_char(&chars, i),
            '\'' => i += 1 + chars[i + 1..].iter().take_while(|c| is_name(**c)).count(),
            ':' if at(i + 1) == ':' => {
                tokens.push(Token { text: "::".into(), line });
                i += 2;
            }
            c if is_name(c) => {
                i += chars[i..].iter().take_while(|c| is_name(**c)).count();
                let name: String = chars[begin..i].iter().collect();
                let hashes = chars[i..].iter().take_while(|c| **c == '#').count();
                match name.as_str() {
                    "r" | "br" | "cr" if at(i + hashes) == '"' => i = after_raw_string(&chars, i + hashes, hashes),
                    "b" | "c" if at(i) == '"' => i = after_string(&chars, i),
                    "b" if at(i) == '\'' => i = after_char(&chars, i),
                    _ => tokens.push(Token { text: name, line }),
                }
            }
            c if c.is_whitespace() => i += 1,
            c => {
                tokens.push(Token { text: c.to_string(), line });
                i += 1;
            }
        }
        line += chars[begin..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn after_block_comment(chars: &[char], mut i: usize) -> usize {
    let mut depth = 0;
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn after_string(chars: &[char], mut i: usize) -> usize {
    i += 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn after_raw_string(chars: &[char], mut i: usize, hashes: usize) -> usize {
    i += 1;
    while i < chars.len() {
        if chars[i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    i
}

fn after_char(chars: &[char], mut i: usize) -> usize {
    i += 1;
    while i < chars.len() && chars[i] != '\'' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    /// From the line of its name to that of its closing brace.
    pub lines: usize,
}

/// Returns the functions of a file, those within others, too.
pub fn functions(tokens: &[Token]) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Some(name) = tokens.get(at + 1).filter(|name| token.text == "fn" && name.text != "(") else { continue };
        let (mut braces, mut others) = (0_usize, 0_usize);
        for token in &tokens[at..] {
            match token.text.as_str() {
                "(" | "[" => others += 1,
                ")" | "]" => others -= 1,
                "{" => braces += 1,
                "}" => braces -= 1,
                ";" if braces == 0 && others == 0 => break,
                _ => continue,
            }
            if token.text == "}" && braces == 0 {
                found.push(Function { name: name.text.clone(), line: name.line, lines: token.line + 1 - name.line });
                break;
            }
        }
    }
    found
}

/// Returns the types that a file defines, each with its line: structs, enums, unions, traits and aliases. The types
/// that a trait or an implementation names (`type Error = ...`) are members, and have no name of their own.
pub fn types(tokens: &[Token]) -> Vec<(&str, usize)> {
    let mut found = Vec::new();
    // Per open brace: `true` if it belongs to a trait or an implementation.
    let mut braces = Vec::new();
    let mut opens_members = false;
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).map_or(";", |before| tokens[before].text.as_str());
        let begins_item = matches!(before, ";" | "{" | "}" | "]" | ")" | "pub" | "unsafe");
        match token.text.as_str() {
            "impl" | "trait" if begins_item => opens_members = true,
            "{" => braces.push(std::mem::take(&mut opens_members)),
            "}" => drop(braces.pop()),
            _ => {}
        }
        let is_definition = match token.text.as_str() {
            "struct" | "enum" | "union" | "trait" => begins_item,
            "type" => begins_item && braces.last() != Some(&true),
            _ => false,
        };
        let name = tokens.get(at + 1).filter(|name| is_definition && name.text.starts_with(char::is_uppercase));
        found.extend(name.map(|name| (name.text.as_str(), name.line)));
    }
    found
}

#[test]
fn types_are_found() {
    let text = "pub struct A(B);\nenum C<T> { D(E) }\n#[x]\npub(super) type F = G;\nimpl H for A {\n type I = J;\n \
                fn k(l: impl M) { struct N; }\n}\npub trait O { type P; }\nfn q() -> impl R {\n type S = T;\n}\n";
    assert_eq!(types(&tokens(text)), [("A", 1), ("C", 2), ("F", 4), ("N", 7), ("O", 9), ("S", 11)]);
}

#[test]
fn functions_are_counted() {
    let text = "impl A {\n  fn a(b: [u8; 2]) -> u8 {\n    // }\n    let c = '{'; let d: &'static str = \"}\\\"\";\n    \
                fn e() {}\n    r#\"}\"}\"#;\n    /* } /* } */ } */\n  }\n  fn f();\n}\n";
    let function = |name: &str, line, lines| Function { name: name.into(), line, lines };
    assert_eq!(functions(&tokens(text)), [function("a", 2, 7), function("e", 5, 1)]);
}
