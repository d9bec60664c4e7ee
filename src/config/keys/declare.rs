//! A declaration: what is said of a key and of a table, and the macro that declares the keys of a table.

use std::time::Duration;

use serde_json::Value as Json;

/// Least and greatest value, both accepted.
pub(crate) type Bounds = (u64, u64);

/// The form of a value, for the schema and for lists.
#[derive(Clone)]
pub(crate) enum Form {
    Text,
    /// An address: a string, or a port as a number.
    Address,
    /// One address, or an array of them.
    Addresses,
    /// A date like "2026-01-31".
    Date,
    /// Texts under names.
    Texts,
    Flag,
    Integer {
        bounds: Bounds,
        auto: bool,
    },
    /// One of a few whole numbers.
    Codes(&'static [u64]),
    /// A number from 0 to 1.
    Share,
    /// A number of seconds, above zero.
    Seconds,
    Duration {
        zero: bool,
        /// The longest that is accepted; `None`: any.
        max: Option<Duration>,
    },
    /// A size, its bounds in bytes.
    Size {
        bounds: Bounds,
        auto: bool,
    },
    Rate,
    Words(Vec<&'static str>),
    List(Box<Form>),
    /// A list of names, or names with a text or a list of texts each.
    NamesOrTexts,
    /// One word, or a list of texts.
    WordOrTexts(&'static str),
    /// A table whose keys are names.
    Map(Box<Form>),
    Table(&'static Table),
    /// An array of tables.
    Tables(&'static Table),
    /// A table of tables under names, and what each must have.
    Named(&'static Table, &'static [&'static str]),
}

impl Form {
    /// The least and the greatest value of numbers and sizes; of durations in milliseconds.
    pub(crate) fn bounds(&self) -> Bounds {
        match self {
            Form::Integer { bounds, .. } | Form::Size { bounds, .. } => *bounds,
            Form::Duration { zero, max } => {
                let max = max.map_or(u64::MAX, |max| u64::try_from(max.as_millis()).unwrap_or(u64::MAX));
                (u64::from(!zero), max)
            }
            _ => (0, u64::MAX),
        }
    }
}

/// Describes the values of a key without a file.
pub(crate) trait Describe {
    fn form(&self) -> Form;

    /// The default as JSON; `None` where there is none.
    fn default(&self) -> Option<Json> {
        None
    }

    /// The default as a file has it.
    fn written(&self) -> Option<String> {
        self.default().as_ref().map(toml)
    }

    /// Whether being written means something by itself: a file without the key is another than one with its default.
    fn matters_where_written(&self) -> bool {
        false
    }
}

/// A value as a file has it.
fn toml(value: &Json) -> String {
    match value {
        Json::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// How a change of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apply {
    /// A reload applies it.
    Reload,
    /// A reload refuses it.
    Restart,
}

/// One key, with the kind of its value.
pub(crate) struct Key<K> {
    pub name: &'static str,
    pub kind: K,
    pub apply: Apply,
    /// Meaning of the key, in one sentence.
    pub sentence: &'static str,
}

impl<K: Describe> Key<K> {
    /// The least and the greatest value that is accepted.
    pub(crate) fn bounds(&self) -> Bounds {
        self.kind.form().bounds()
    }
}

/// A key of any kind, for lists.
pub(crate) trait Declared: Sync {
    fn name(&self) -> &'static str;
    fn form(&self) -> Form;
    /// The default as JSON; `None` where there is none.
    fn default(&self) -> Option<serde_json::Value>;
    /// The default as a file has it.
    fn written(&self) -> Option<String>;
    fn apply(&self) -> Apply;
    fn sentence(&self) -> &'static str;
    /// Whether being written means something by itself: a file without the key is another than one with its default.
    fn matters_where_written(&self) -> bool;
}

impl<K: Describe + Sync> Declared for Key<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn form(&self) -> Form {
        self.kind.form()
    }

    fn default(&self) -> Option<serde_json::Value> {
        self.kind.default()
    }

    fn written(&self) -> Option<String> {
        self.kind.written()
    }

    fn apply(&self) -> Apply {
        self.apply
    }

    fn sentence(&self) -> &'static str {
        self.sentence
    }

    fn matters_where_written(&self) -> bool {
        self.kind.matters_where_written()
    }
}

/// The keys of one table.
pub(crate) struct Table {
    pub keys: &'static [&'static dyn Declared],
    /// Keys without which `check` refuses the table.
    pub required: &'static [&'static str],
}

/// Declares the keys of one table in a module of its own: a static for each key, and `TABLE` of all of them. The module
/// sees what `file`, in which it stands, has.
macro_rules! table {
    (
        $(#[$doc:meta])*
        $module:ident, in $file:ident, requires $required:expr;
        $($id:ident $name:literal: $kind:ty = $value:expr, $apply:ident, $sentence:literal;)*
    ) => {
        $(#[$doc])*
        pub(crate) mod $module {
            use crate::config::keys::$file::*;
            use crate::config::keys::declare::{Apply, Declared, Key, Table};
            $(
                pub(crate) static $id: Key<$kind> =
                    Key { name: $name, kind: $value, apply: Apply::$apply, sentence: $sentence };
            )*
            pub(crate) static TABLE: Table = Table {
                keys: &[$(&$id as &dyn Declared),*],
                required: &$required,
            };
        }
    };
}
pub(super) use table;
