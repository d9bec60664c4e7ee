//! Reads the claims of a token as JSON has them.

use serde_json::{Map, Value as Json};

use crate::config::diagnostic::{Diagnostics, Span};
use crate::config::table_reader::Section;
use crate::config::value::{Node, Table, Value};

/// Claims, and their place in the file.
pub(super) type Read = (Map<String, Json>, Span);

/// Reads the key `claims`.
pub(super) fn read(section: &mut Section<'_>, problems: &mut Diagnostics) -> Option<Read> {
    let (table, span) = section.table("claims", problems)?;
    Some((members(table, section, problems), span))
}

fn members(table: &Table, section: &Section<'_>, problems: &mut Diagnostics) -> Map<String, Json> {
    let entries = table.entries.iter();
    entries.map(|(key, node)| (key.name.clone(), json(node, section, problems))).collect()
}

fn json(node: &Node, section: &Section<'_>, problems: &mut Diagnostics) -> Json {
    match &node.value {
        Value::String(text) => Json::from(text.as_str()),
        Value::Integer(integer) => Json::from(*integer),
        Value::Float(float) => Json::from(*float),
        Value::Boolean(boolean) => Json::from(*boolean),
        Value::Array(items) => items.iter().map(|item| json(item, section, problems)).collect(),
        Value::Table(table) => Json::Object(members(table, section, problems)),
        Value::Datetime => {
            section.mismatch("claims", node, "a number of seconds since 1970, as tokens have it", problems);
            Json::Null
        }
    }
}
