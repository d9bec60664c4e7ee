//! YAML, for documents that are changed and written again. A scalar keeps its text and whether it was quoted, so what
//! another reader makes of it stays the same (`0644`, `yes`, `1.10`). Comments are not kept.

mod read;
mod write;

pub(crate) use read::{Document, YamlError, parse};

/// A node of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// The tag as written, such as `!reset`.
    pub tag: Option<String>,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Scalar(String, Style),
    Sequence(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
}

/// The style of a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes: a number, a boolean, null, or a string.
    Plain,
    /// In quotes: a string.
    Quoted,
    /// In lines of its own: a string.
    Block,
}

impl Node {
    /// Returns a scalar without quotes.
    pub(crate) fn plain(text: impl Into<String>) -> Node {
        Node { tag: None, value: Value::Scalar(text.into(), Style::Plain) }
    }

    /// Returns an empty sequence.
    pub(crate) fn sequence() -> Node {
        Node { tag: None, value: Value::Sequence(Vec::new()) }
    }

    /// Returns an empty mapping.
    pub(crate) fn mapping() -> Node {
        Node { tag: None, value: Value::Mapping(Vec::new()) }
    }

    /// Returns the text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// Returns a scalar as a number.
    pub(crate) fn number<T: std::str::FromStr>(&self) -> Option<T> {
        self.text().and_then(|text| text.parse().ok())
    }

    /// Returns the nodes of a sequence; none if this is no sequence.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// Returns the entries of a mapping; none if this is no mapping.
    pub(crate) fn entries(&self) -> &[(Node, Node)] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// Returns the value of a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    /// Returns the node at a path of keys.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// Returns the node at a path of keys, to be changed.
    pub(crate) fn at_mut(&mut self, path: &[&str]) -> Option<&mut Node> {
        path.iter().try_fold(self, |node, key| match &mut node.value {
            Value::Mapping(entries) => {
                entries.iter_mut().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
            }
            _ => None,
        })
    }

    /// Sets a key of a mapping, in its place if it is there, else at the end. Anything but a mapping becomes one.
    pub(crate) fn set(&mut self, key: &str, node: Node) {
        if let Some(value) = self.at_mut(&[key]) {
            *value = node;
            return;
        }
        let entry = (Node::plain(key), node);
        match &mut self.value {
            Value::Mapping(entries) => entries.push(entry),
            value => *value = Value::Mapping(vec![entry]),
        }
    }

    /// Adds an item to the sequence under a key, and creates the sequence if it is not there.
    pub(crate) fn push(&mut self, key: &str, item: Node) {
        if !matches!(self.get(key), Some(Node { value: Value::Sequence(_), .. })) {
            self.set(key, Node::sequence());
        }
        if let Some(Node { value: Value::Sequence(items), .. }) = self.at_mut(&[key]) {
            items.push(item);
        }
    }
}
