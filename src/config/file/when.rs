//! `when` of a route, as it is written.

use crate::config::diagnostic::{Diagnostics, Span};
use crate::config::keys::when;
use crate::config::table_reader::{FromNode as _, Section, Spanned};
use crate::config::value::{Node, Table, Value};

/// A name, and the values that it may have; `None`: any.
pub(crate) type Named = (Spanned<String>, Option<Vec<Spanned<String>>>);

/// `when = { query, header, cookie, not_cookie }`.
pub(crate) struct When {
    pub span: Span,
    pub query: Vec<Named>,
    pub header: Vec<Named>,
    pub cookie: Vec<Spanned<String>>,
    pub not_cookie: Vec<Spanned<String>>,
}

pub(super) fn read_when(table: &Table, span: Span, p: &mut Diagnostics) -> When {
    let mut s = Section::new("routes.when", table);
    let when = When {
        span,
        query: read_named(&mut s, when::QUERY.name, p),
        header: read_named(&mut s, when::HEADER.name, p),
        cookie: s.read(&when::COOKIE, p),
        not_cookie: s.read(&when::NOT_COOKIE, p),
    };
    s.finish(p);
    when
}

/// Names in an array, or names with a value or an array of values.
fn read_named(s: &mut Section<'_>, key: &'static str, p: &mut Diagnostics) -> Vec<Named> {
    let expected = "names like [\"a\"], or names with values like { a = \"x\", b = [\"y\", \"z\"] }";
    s.list_key(key, p, || ("an array of strings, or a table of strings or arrays of them".to_owned(), None));
    let Some(node) = s.node(key) else { return Vec::new() };
    match &node.value {
        Value::Array(items) => match items.iter().map(text).collect::<Option<Vec<_>>>() {
            Some(names) => names.into_iter().map(|name| (name, None)).collect(),
            None => {
                s.mismatch(key, node, expected, p);
                Vec::new()
            }
        },
        Value::Table(table) => {
            let mut all = Vec::new();
            for (key, node) in &table.entries {
                let values = match &node.value {
                    Value::Array(items) => items.iter().map(text).collect::<Option<Vec<_>>>(),
                    _ => text(node).map(|value| vec![value]),
                };
                let name = Spanned { value: key.name.clone(), span: Some(key.span.clone()) };
                match values {
                    Some(values) => all.push((name, Some(values))),
                    None => {
                        let kind = node.value.kind();
                        p.at(&node.span, format!("{} is {kind}", key.name))
                            .help("expected a string, or an array of strings of which one is enough");
                    }
                }
            }
            all
        }
        _ => {
            s.mismatch(key, node, expected, p);
            Vec::new()
        }
    }
}

fn text(node: &Node) -> Option<Spanned<String>> {
    String::from_node(node).map(|value| Spanned { value, span: Some(node.span.clone()) })
}
