//! The JSON Schema (draft 2020-12) of the configuration file, made from the declared keys.
//!
//! It has no `$ref`: editors that know only older drafts then show every description. It does not know what only
//! `check` knows: whether names that keys mention exist, and which keys contradict each other.

use serde_json::{Map, Value as Json, json};

use super::keys::{Apply, Declared, Form, Table, root};
use super::units;

/// A string that is one reference to a variable and nothing else: it may become a number or a boolean.
const VARIABLE: &str = r"^\$\{[^}]+\}$";
/// A string with a reference to a variable in it.
const HOLDS_VARIABLE: &str = r"(^|[^$])\$\{[^}]+\}";
/// The words that stand for what Pillion finds by itself.
const AUTO: [&str; 2] = ["auto", "unlimited"];

/// The schema of the whole file.
pub(crate) fn schema() -> Json {
    let mut schema = table("", &root::TABLE, &[]);
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Configuration of Pillion"));
    schema.insert("description".to_owned(), json!("What `pillion check` reads; made by `pillion schema`."));
    Json::Object(schema)
}

fn table(path: &str, table: &Table, also_required: &[&str]) -> Map<String, Json> {
    let properties: Map<String, Json> = table
        .keys
        .iter()
        .map(|key| {
            let path = if path.is_empty() { key.name().to_owned() } else { format!("{path}.{}", key.name()) };
            (key.name().to_owned(), property(&path, *key))
        })
        .collect();
    let mut required: Vec<&str> = table.required.to_vec();
    required.extend(also_required.iter().filter(|name| !table.required.contains(name)));
    let mut schema = Map::from_iter([
        ("type".to_owned(), json!("object")),
        ("properties".to_owned(), Json::Object(properties)),
        ("additionalProperties".to_owned(), json!(false)),
    ]);
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    schema
}

fn property(path: &str, key: &dyn Declared) -> Json {
    let mut schema = form(path, &key.form());
    let restart = if key.apply() == Apply::Restart { " A change needs a restart." } else { "" };
    let description = format!("{}{}{restart}", key.sentence(), bounds(&key.form()));
    schema.insert("title".to_owned(), json!(path));
    schema.insert("description".to_owned(), json!(description));
    if let Some(default) = key.default() {
        schema.insert("default".to_owned(), default);
    }
    Json::Object(schema)
}

/// The bounds of a size or of a duration as a sentence of its own; a schema has no keyword for them.
pub(super) fn bounds(form: &Form) -> String {
    match form {
        Form::Size { bounds: (0, u64::MAX), .. } | Form::Duration { max: None, .. } => String::new(),
        Form::Size { bounds: (min, u64::MAX), .. } => format!(" At least {}.", units::size_text(*min)),
        Form::Size { bounds: (0, max), .. } => format!(" At most {}.", units::size_text(*max)),
        Form::Size { bounds: (min, max), .. } => {
            format!(" From {} to {}.", units::size_text(*min), units::size_text(*max))
        }
        Form::Duration { max: Some(max), .. } => format!(" At most {}.", units::duration_text(*max)),
        _ => String::new(),
    }
}

fn form(path: &str, of: &Form) -> Map<String, Json> {
    let schema = match of {
        Form::Text => json!({ "type": "string" }),
        Form::Address => json!({ "anyOf": address() }),
        Form::Addresses => {
            let mut forms = address();
            forms.push(json!({ "type": "array", "items": { "anyOf": address() } }));
            json!({ "anyOf": forms })
        }
        Form::Date => or_variable(vec![text_of(r"^\d{4}-\d{2}-\d{2}$")], HOLDS_VARIABLE),
        Form::Texts => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Form::NamesOrTexts => {
            let texts = json!({ "type": "array", "items": { "type": "string" } });
            let value = json!({ "anyOf": [{ "type": "string" }, texts] });
            json!({ "anyOf": [texts, { "type": "object", "additionalProperties": value }] })
        }
        Form::Flag => or_variable(vec![json!({ "type": "boolean" })], VARIABLE),
        Form::Integer { bounds: (min, max), auto } => {
            let mut number = json!({ "type": "integer", "minimum": min });
            if *max < u64::MAX {
                number["maximum"] = json!(max);
            }
            or_variable(or_auto(number, *auto), VARIABLE)
        }
        Form::Codes(known) => or_variable(vec![json!({ "enum": known })], VARIABLE),
        Form::Share => or_variable(vec![json!({ "type": "number", "minimum": 0, "maximum": 1 })], VARIABLE),
        Form::Seconds => or_variable(vec![json!({ "type": "number", "exclusiveMinimum": 0 })], VARIABLE),
        Form::Duration { zero, .. } => {
            let digits = if *zero { "_*[0-9][0-9_]*" } else { "[0-9_]*[1-9][0-9_]*" };
            or_variable(vec![text_of(&format!(r"^{digits}\s*(ms|s|m|h|d)$"))], HOLDS_VARIABLE)
        }
        Form::Size { auto, .. } => {
            let size = text_of(r"^_*[0-9][0-9_]*\s*(B|KiB|MiB|GiB)$");
            or_variable(or_auto(size, *auto), HOLDS_VARIABLE)
        }
        Form::Rate => or_variable(vec![text_of(r"^[0-9_]*[1-9][0-9_]*/(s|min|h|d)$")], HOLDS_VARIABLE),
        Form::Words(words) => or_variable(vec![json!({ "enum": words })], HOLDS_VARIABLE),
        Form::List(item) => json!({ "type": "array", "items": form(path, item) }),
        Form::WordOrTexts(word) => {
            let texts = json!({ "type": "array", "items": { "type": "string" } });
            or_variable(vec![json!({ "enum": [word] }), texts], HOLDS_VARIABLE)
        }
        Form::Map(item) => json!({ "type": "object", "additionalProperties": form(path, item) }),
        Form::Table(inner) => Json::Object(table(path, inner, &[])),
        Form::Tables(inner) => json!({ "type": "array", "items": table(path, inner, &[]) }),
        Form::Named(inner, required) => {
            let path = format!("{path}.NAME");
            json!({ "type": "object", "additionalProperties": table(&path, inner, required) })
        }
    };
    match schema {
        Json::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn text_of(pattern: &str) -> Json {
    json!({ "type": "string", "pattern": pattern })
}

fn address() -> Vec<Json> {
    let port = json!({ "type": "integer", "minimum": 0, "maximum": u16::MAX });
    vec![json!({ "type": "string" }), port]
}

fn or_auto(value: Json, auto: bool) -> Vec<Json> {
    let words = auto.then(|| json!({ "enum": AUTO }));
    std::iter::once(value).chain(words).collect()
}

fn or_variable(mut forms: Vec<Json>, pattern: &str) -> Json {
    forms.push(text_of(pattern));
    json!({ "anyOf": forms })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn bounds_that_a_schema_cannot_say_are_sentences() {
        let size = |bounds| Form::Size { bounds, auto: false };
        for (form, said) in [
            (size((0, u64::MAX)), ""),
            (size((1024, u64::MAX)), " At least 1KiB."),
            (size((0, 1 << 20)), " At most 1MiB."),
            (size((1024, 1 << 20)), " From 1KiB to 1MiB."),
            (Form::Duration { zero: true, max: Some(Duration::from_secs(3600)) }, " At most 1h."),
            (Form::Text, ""),
        ] {
            assert_eq!(bounds(&form), said);
        }
    }
}
