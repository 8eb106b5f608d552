//! docs/reference/openapi.json describes the API that the program has, and is sound in itself.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::admin::{Bed, get};
use crate::harness::{BLOG, Pintle};

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

fn document() -> Value {
    serde_json::from_str(include_str!("../../../docs/reference/openapi.json")).unwrap()
}

/// Each operation: path, method, description.
fn operations(document: &Value) -> Vec<(&String, &String, &Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().iter().filter(|(method, _)| METHODS.contains(&method.as_str()));
        all.extend(methods.map(|(method, operation)| (path, method, operation)));
    }
    all
}

/// A path of the program as OpenAPI writes it, and the other way round: `*` is a parameter.
fn shape(path: &str) -> String {
    let segment = |segment: &str| if segment.starts_with('{') { "*".to_owned() } else { segment.to_owned() };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[test]
fn the_document_and_the_program_have_the_same_paths() {
    let document = document();
    let described: BTreeSet<(String, String, String)> = operations(&document)
        .iter()
        .map(|(path, method, operation)| {
            let role = operation["x-role"].as_str().unwrap_or("none");
            (shape(path), method.to_uppercase(), role.to_owned())
        })
        .collect();
    let known = pintle::admin::api::PATHS.iter().flat_map(|path| {
        path.methods.iter().map(|(method, role)| (format!("/v1{}", path.path), method.to_string(), role.to_string()))
    });
    let known: BTreeSet<_> = known.collect();
    let missing: Vec<_> = known.difference(&described).collect();
    let needless: Vec<_> = described.difference(&known).collect();
    assert!(missing.is_empty() && needless.is_empty(), "not described: {missing:?}\nnot in the program: {needless:?}");
    for (path, method, operation) in operations(&document) {
        let known = pintle::admin::api::find(&shape(path).replace('*', "x")).unwrap();
        let reads = known.body > 0 && method != "get";
        assert_eq!(operation.get("requestBody").is_some(), reads, "{method} {path}: requestBody");
    }
}

#[test]
fn the_document_is_sound() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    for member in ["title", "version", "description", "license"] {
        assert!(!document["info"][member].is_null(), "info.{member}");
    }
    let tags: BTreeSet<&str> =
        document["tags"].as_array().unwrap().iter().filter_map(|tag| tag["name"].as_str()).collect();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let place = format!("{method} {path}");
        assert!(path.starts_with("/v1/") && !path.ends_with('/') && !path.contains('?'), "{place}");
        let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{place}: operationId"));
        assert!(ids.insert(id.to_owned()), "{place}: {id} exists twice");
        let summary = operation["summary"].as_str().unwrap_or_default();
        assert!(summary.len() > 10 && !summary.ends_with('.'), "{place}: summary");
        let tag = operation["tags"][0].as_str().unwrap_or_default();
        assert!(tags.contains(tag), "{place}: tag {tag:?}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|code| code.starts_with('2') || code == "101"), "{place}: success");
        assert!(responses.keys().any(|code| code.starts_with('4')), "{place}: failure");
        for (code, response) in responses {
            let response = resolved(&document, response);
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{place} {code}");
        }
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let mut names = BTreeSet::new();
        for parameter in &parameters {
            let name = parameter["name"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{place}: {name} exists twice");
            assert!(parameter["schema"].is_object() && parameter["description"].is_string(), "{place}: {name}");
        }
        let in_path: BTreeSet<String> =
            parameters.iter().filter(|p| p["in"] == "path").map(|p| p["name"].as_str().unwrap().to_owned()).collect();
        let named: BTreeSet<String> =
            path.split('/').filter_map(|s| Some(s.strip_prefix('{')?.strip_suffix('}')?.to_owned())).collect();
        assert_eq!(in_path, named, "{place}: parameters of the path");
    }
    check_references(&document, &document);
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference}: not in this document"));
            document.pointer(pointer).unwrap_or_else(|| panic!("{reference}: leads nowhere"))
        }
        None => value,
    }
}

fn check_references(document: &Value, value: &Value) {
    match value {
        Value::Object(members) => {
            if members.contains_key("$ref") {
                resolved(document, value);
            }
            members.values().for_each(|member| check_references(document, member));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(document, item)),
        _ => {}
    }
}

/// The required members of the described answers are in the answers.
#[test]
fn answers_have_the_members_that_the_document_requires() {
    let bed = Bed::new();
    let _pintle = Pintle::start(&bed.authority, &bed.config(""));
    let document = document();
    let mut checked = 0;
    for (path, _, operation) in operations(&document).iter().filter(|(_, method, _)| *method == "get") {
        let Some(schema) = operation.pointer("/responses/200/content/application~1json/schema") else { continue };
        let schema = resolved(&document, schema);
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let required: Vec<&Value> = parameters.filter(|p| p["required"] == true).map(|p| &p["name"]).collect();
        let question = match required[..] {
            [] => (*path).clone(),
            [name] if name == "host" => format!("{path}?host={BLOG}"),
            _ => continue,
        };
        let answer = get(&bed.socket(), &question);
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"));
        assert_eq!(answer.is_array(), schema["type"] == "array", "{path}: {answer}");
        has_required(&document, schema, &answer, path);
        checked += 1;
    }
    assert!(checked >= 5, "{checked}");
}

/// An answer has the required members, and so have the objects in it.
fn has_required(document: &Value, schema: &Value, answer: &Value, place: &str) {
    let schema = resolved(document, schema);
    if let Some(kind) = schema["type"].as_str() {
        assert_eq!(answer.is_array(), kind == "array", "{place}: {answer}");
    }
    for member in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        assert!(!answer[member].is_null(), "{place}: {member}: {answer}");
    }
    for (name, of) in schema["properties"].as_object().into_iter().flatten() {
        if answer[name].is_object() || answer[name].is_array() {
            has_required(document, of, &answer[name], &format!("{place}: {name}"));
        }
    }
    for item in answer.as_array().into_iter().flatten().filter(|item| item.is_object()) {
        has_required(document, &schema["items"], item, place);
    }
}
