//! Reads a stream of YAML documents.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::{Node, Style, Value};

/// Maximum depth of a document; deeper ones are refused.
const MAX_DEPTH: usize = 100;
/// Maximum number of nodes in all documents, with those that aliases repeat.
const MAX_NODES: usize = 1_000_000;
/// The tags of YAML itself, which are written as `!!`.
const CORE: &str = "tag:yaml.org,2002:";

/// One document of a stream.
#[derive(Debug)]
pub(crate) struct Document {
    pub root: Node,
    /// The place of its lines in the text, with the comments that follow it.
    pub place: Range<usize>,
}

/// The reason why a text is not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct YamlError {
    pub line: usize,
    pub problem: String,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// A collection that is being read.
struct Open {
    node: Node,
    anchor: usize,
    /// The key of a mapping whose value is read next.
    key: Option<Node>,
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
}

/// Parses all documents of a text. Aliases and merge keys (`<<`) are replaced by what they stand for.
pub(crate) fn parse(text: &str) -> Result<Vec<Document>, YamlError> {
    let lines: Vec<usize> =
        std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut documents: Vec<Document> = Vec::new();
    let mut reader = Reader::default();
    let mut start = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event
            .map_err(|error| YamlError { line: error.marker().line(), problem: error.info().to_owned() })?;
        let line = span.start.line();
        match event {
            Event::DocumentStart(_) if !documents.is_empty() => {
                start = lines.get(line.saturating_sub(1)).copied().unwrap_or(text.len());
                if let Some(last) = documents.last_mut() {
                    last.place.end = start;
                }
            }
            Event::DocumentEnd => {
                let root = reader.root.take().unwrap_or_else(|| Node::plain(""));
                documents.push(Document { root, place: start..text.len() });
                reader.anchors.clear();
            }
            event => reader.take(event).map_err(|problem| YamlError { line, problem })?,
        }
    }
    Ok(documents)
}

impl Reader {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                };
                let value = Value::Scalar(text.into_owned(), style);
                self.complete(Node { tag: tag.as_deref().map(shown), value }, anchor, 1)
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or("an alias of a node that contains it")?;
                let count = size(&node);
                self.complete(node, 0, count)
            }
            Event::SequenceStart(anchor, tag) => self.begin(Node::sequence(), anchor, tag.as_deref()),
            Event::MappingStart(anchor, tag) => self.begin(Node::mapping(), anchor, tag.as_deref()),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let mut node = open.node;
                merge(&mut node);
                self.complete(node, open.anchor, 1)
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, mut node: Node, anchor: usize, tag: Option<&Tag>) -> Result<(), String> {
        if self.open.len() == MAX_DEPTH {
            return Err(format!("a document may be {MAX_DEPTH} levels deep"));
        }
        node.tag = tag.map(shown);
        self.open.push(Open { node, anchor, key: None });
        Ok(())
    }

    /// Puts a complete node where it belongs. `count` is the number of nodes in it that were not counted yet.
    fn complete(&mut self, node: Node, anchor: usize, count: usize) -> Result<(), String> {
        self.nodes += count;
        if self.nodes > MAX_NODES {
            return Err(format!("more than {MAX_NODES} values, with those that aliases repeat"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.node.value {
            Value::Sequence(items) => items.push(node),
            Value::Mapping(entries) => match open.key.take() {
                None if node.text().is_none() => return Err("a key that is no scalar".to_owned()),
                None => open.key = Some(node),
                Some(key) => entries.push((key, node)),
            },
            Value::Scalar(..) => {}
        }
        Ok(())
    }
}

/// Returns the number of nodes in a node, itself included.
fn size(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(..) => 1,
        Value::Sequence(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Mapping(entries) => 1 + entries.iter().map(|(_, value)| 1 + size(value)).sum::<usize>(),
    }
}

/// Replaces the merge keys of a mapping by the entries that they stand for (YAML 1.1; Kubernetes and Compose read them).
/// A key of the mapping itself counts before a merged one.
fn merge(node: &mut Node) {
    let Value::Mapping(entries) = &mut node.value else { return };
    let is_merge = |(key, _): &(Node, Node)| key.value == Value::Scalar("<<".to_owned(), Style::Plain);
    if !entries.iter().any(is_merge) {
        return;
    }
    let (merged, own): (Vec<_>, Vec<_>) = std::mem::take(entries).into_iter().partition(is_merge);
    *entries = own;
    for (_, source) in merged {
        let sources = match source.value {
            Value::Sequence(items) => items,
            _ => vec![source],
        };
        for (key, value) in sources.iter().flat_map(Node::entries) {
            if !entries.iter().any(|(own, _)| own.text() == key.text()) {
                entries.push((key.clone(), value.clone()));
            }
        }
    }
}

/// Returns a tag as it is written.
fn shown(tag: &Tag) -> String {
    match tag.handle == CORE {
        true => format!("!!{}", tag.suffix),
        false => format!("{}{}", tag.handle, tag.suffix),
    }
}
