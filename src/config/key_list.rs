//! The declared keys as a list, and as tables in Markdown for the documents.

use super::keys::{Apply, Declared, Form, Table, api_key, root};
use super::schema;

/// A longer default is not repeated in a table.
const MAX_DEFAULT_LENGTH: usize = 80;

/// The heading of the keys of the other file.
const API_KEYS: &str = "The file of API keys: [[keys]]";

/// A key as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredKey {
    /// Its full name: `server.tls.listen`; `NAME` stands for names that users choose.
    pub path: String,
    /// Its default as the file would have it; `None`: it has none.
    pub default: Option<String>,
    /// Whether a change needs a restart.
    pub restart: bool,
    /// Meaning of the key, in one sentence.
    pub sentence: &'static str,
}

/// Every declared key, in the order of the declarations.
pub(crate) fn declared_keys() -> Vec<DeclaredKey> {
    let mut keys = Vec::new();
    visit("", &root::TABLE, &mut |path, key| {
        keys.push(DeclaredKey {
            path: path.to_owned(),
            default: key.written(),
            restart: key.apply() == Apply::Restart,
            sentence: key.sentence(),
        });
    });
    keys
}

/// Calls `each` with every key of a table and of the tables below it.
fn visit(path: &str, table: &'static Table, each: &mut dyn FnMut(&str, &dyn Declared)) {
    for key in table.keys {
        let path = if path.is_empty() { key.name().to_owned() } else { format!("{path}.{}", key.name()) };
        each(&path, *key);
        match key.form() {
            Form::Table(inner) | Form::Tables(inner) => visit(&path, inner, each),
            Form::Named(inner, _) => visit(&format!("{path}.NAME"), inner, each),
            _ => {}
        }
    }
}

/// One table for each section, under its heading.
pub(crate) fn markdown() -> String {
    let mut text = String::new();
    for section in root::TABLE.keys {
        let name = section.name();
        let (heading, table) = match section.form() {
            Form::Table(table) => (format!("[{name}]"), table),
            Form::Tables(table) => (format!("[[{name}]]"), table),
            // Its tables have the keys of [upstream], which stand above.
            _ => continue,
        };
        text += &section_text(&heading, table);
    }
    text + section_text(API_KEYS, &api_key::TABLE).trim_end()
}

fn section_text(heading: &str, table: &'static Table) -> String {
    let mut text = format!("## {heading}\n\n| Key | Default | Value | Meaning |\n|---|---|---|---|\n");
    visit("", table, &mut |path, key| text.push_str(&row(path, key)));
    text + "\n"
}

fn row(path: &str, key: &dyn Declared) -> String {
    let default = match key.written() {
        Some(long) if long.len() > MAX_DEFAULT_LENGTH => "a list, see the reference".to_owned(),
        Some(short) => format!("`{short}`"),
        None => String::new(),
    };
    let restart = if key.apply() == Apply::Restart { " A change needs a restart." } else { "" };
    let meaning = format!("{}{}{restart}", key.sentence(), schema::bounds(&key.form()));
    // A star or an angle bracket is not markup here, and a bar ends no cell.
    let meaning = meaning.replace('|', "\\|").replace('*', "\\*");
    format!("| `{path}` | {default} | {} | {meaning} |\n", value(&key.form()))
}

/// The values a key takes, in few words.
fn value(form: &Form) -> String {
    let quoted =
        |words: &[&str]| words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ");
    match form {
        Form::Text => "text".to_owned(),
        Form::Address => "address or port".to_owned(),
        Form::Addresses => "address or port, or array of them".to_owned(),
        Form::Date => "date".to_owned(),
        Form::Texts => "texts by names".to_owned(),
        Form::NamesOrTexts => "list: name, or text or list: text by names".to_owned(),
        Form::Flag => "`true`, `false`".to_owned(),
        Form::Integer { bounds: (min, max), auto } => {
            format!("number from {min} to {max}{}", if *auto { ", `\"auto\"`" } else { "" })
        }
        Form::Codes(known) => known.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
        Form::Share => "number from 0 to 1".to_owned(),
        Form::Seconds => "seconds".to_owned(),
        Form::Duration { zero: true, .. } => "duration".to_owned(),
        Form::Duration { zero: false, .. } => "duration above zero".to_owned(),
        Form::Size { auto, .. } => {
            format!("size{}", if *auto { ", `\"auto\"`, `\"unlimited\"`" } else { "" })
        }
        Form::Rate => "rate".to_owned(),
        Form::Words(words) => quoted(words),
        Form::List(item) => format!("list: {}", value(item)),
        Form::WordOrTexts(word) => format!("`\"{word}\"`, or list: text"),
        Form::Map(item) => format!("{} by names", value(item)),
        Form::Table(_) => "table".to_owned(),
        Form::Tables(_) => "list of tables".to_owned(),
        Form::Named(..) => "tables by names".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declared_key_has_one_plain_sentence() {
        let keys = declared_keys();
        assert!(keys.len() > 150, "{}", keys.len());
        for DeclaredKey { path, sentence, .. } in keys {
            assert!(sentence.ends_with('.') && !sentence.contains(". "), "{path}: {sentence}");
            assert!(sentence.starts_with(|c: char| c.is_uppercase()), "{path}: {sentence}");
            assert!(sentence.len() <= 150, "{path}: {} characters", sentence.len());
        }
    }

    #[test]
    fn no_table_declares_a_key_twice() {
        let mut paths: Vec<String> = declared_keys().into_iter().map(|key| key.path).collect();
        paths.sort();
        assert_eq!(paths.windows(2).find(|pair| pair[0] == pair[1]), None);
    }

    #[test]
    fn the_tables_have_every_key_but_those_that_stand_above() {
        let rows = markdown().lines().filter(|line| line.starts_with("| `")).count();
        let keys = declared_keys();
        let sections = keys.iter().filter(|key| !key.path.contains('.')).count();
        let repeated = keys.iter().filter(|key| key.path.starts_with("upstreams.")).count();
        let mut of_api_keys = 0;
        visit("", &api_key::TABLE, &mut |_, _| of_api_keys += 1);
        assert_eq!(rows, keys.len() - sections - repeated + of_api_keys);
    }
}
