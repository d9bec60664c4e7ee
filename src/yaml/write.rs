//! Writes nodes as YAML in block style.

use std::fmt;

use super::{Node, Style, Value};

impl fmt::Display for Node {
    /// Writes the node as one document without its marker.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_collection() {
            true => block(f, self, 0),
            false => {
                inline(f, self, 0)?;
                f.write_str("\n")
            }
        }
    }
}

impl Node {
    /// Returns whether the node takes lines of its own.
    fn is_collection(&self) -> bool {
        match &self.value {
            Value::Scalar(..) => false,
            Value::Sequence(items) => !items.is_empty(),
            Value::Mapping(entries) => !entries.is_empty(),
        }
    }
}

/// Writes a collection in lines that are indented by `indent` spaces.
fn block(f: &mut fmt::Formatter<'_>, node: &Node, indent: usize) -> fmt::Result {
    match &node.value {
        Value::Sequence(items) => {
            for item in items {
                write!(f, "{:indent$}-", "")?;
                beside(f, item, indent)?;
            }
        }
        Value::Mapping(entries) => {
            for (key, value) in entries {
                write!(f, "{:indent$}", "")?;
                entry(f, key, value, indent)?;
            }
        }
        Value::Scalar(..) => {}
    }
    Ok(())
}

/// Writes an entry of a mapping whose keys stand at `indent`.
fn entry(f: &mut fmt::Formatter<'_>, key: &Node, value: &Node, indent: usize) -> fmt::Result {
    match &key.value {
        Value::Scalar(text, Style::Plain) if !text.is_empty() && !text.contains('\n') => f.write_str(text)?,
        Value::Scalar(text, Style::Plain) if text.is_empty() => f.write_str("~")?,
        _ => quoted(f, key.text().unwrap_or_default())?,
    }
    f.write_str(":")?;
    if value.is_collection() {
        if let Some(tag) = &value.tag {
            write!(f, " {tag}")?;
        }
        f.write_str("\n")?;
        return block(f, value, indent + 2);
    }
    if !is_null(value) {
        f.write_str(" ")?;
        inline(f, value, indent + 2)?;
    }
    f.write_str("\n")
}

/// Writes an item beside the `-` of its sequence, which stands at `indent`.
fn beside(f: &mut fmt::Formatter<'_>, item: &Node, indent: usize) -> fmt::Result {
    match &item.value {
        // The first entry stands in the line of the dash.
        Value::Mapping(entries) if item.is_collection() && item.tag.is_none() => {
            for (at, (key, value)) in entries.iter().enumerate() {
                match at {
                    0 => f.write_str(" ")?,
                    _ => write!(f, "{:1$}", "", indent + 2)?,
                }
                entry(f, key, value, indent + 2)?;
            }
            Ok(())
        }
        _ if item.is_collection() => {
            if let Some(tag) = &item.tag {
                write!(f, " {tag}")?;
            }
            f.write_str("\n")?;
            block(f, item, indent + 2)
        }
        _ => {
            if !is_null(item) {
                f.write_str(" ")?;
                inline(f, item, indent + 2)?;
            }
            f.write_str("\n")
        }
    }
}

/// Returns whether the node is a null that nothing is written for.
fn is_null(node: &Node) -> bool {
    node.tag.is_none() && node.value == Value::Scalar(String::new(), Style::Plain)
}

/// Writes a scalar, or an empty collection. The lines of a block scalar are indented by `indent`.
fn inline(f: &mut fmt::Formatter<'_>, node: &Node, indent: usize) -> fmt::Result {
    if let Some(tag) = &node.tag {
        write!(f, "{tag} ")?;
    }
    match &node.value {
        Value::Sequence(_) => f.write_str("[]"),
        Value::Mapping(_) => f.write_str("{}"),
        Value::Scalar(text, Style::Plain) if !text.contains('\n') => f.write_str(text),
        Value::Scalar(text, Style::Block) if fits_block(text) => lines(f, text, indent),
        Value::Scalar(text, _) => quoted(f, text),
    }
}

/// Returns whether a text may stand in lines of its own, which have no escapes.
fn fits_block(text: &str) -> bool {
    let is_printable = |c: char| matches!(c, '\n' | '\t') || !(c.is_control() || c == '\u{feff}');
    text.lines().next().is_some_and(|first| !first.trim().is_empty()) && text.chars().all(is_printable)
}

/// Writes a literal block scalar (YAML 1.2 8.1.2).
fn lines(f: &mut fmt::Formatter<'_>, text: &str, indent: usize) -> fmt::Result {
    f.write_str("|")?;
    // The indentation is found by the first line, unless that begins with spaces of its own.
    if text.starts_with(' ') {
        f.write_str("2")?;
    }
    let content = text.trim_end_matches('\n');
    match text.len() - content.len() {
        0 => f.write_str("-")?,
        1 => {}
        _ => f.write_str("+")?,
    }
    for line in content.split('\n') {
        match line.is_empty() {
            true => f.write_str("\n")?,
            false => write!(f, "\n{:indent$}{line}", "")?,
        }
    }
    (1..text.len() - content.len()).try_for_each(|_| f.write_str("\n"))
}

/// Writes a double-quoted scalar (YAML 1.2 7.3.1); the escapes of JSON are among its own.
fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            '\r' => f.write_str("\\r")?,
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}') => {
                write!(f, "\\u{:04x}", u32::from(c))?;
            }
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use crate::yaml::parse;

    /// Reads a document and writes it again.
    fn again(text: &str) -> String {
        parse(text).unwrap().remove(0).root.to_string()
    }

    #[test]
    fn scalars_written_again_keep_what_others_read_in_them() {
        for text in [
            "mode: 0644\n",
            "on: yes\n",
            "version: 1.10\n",
            "version: \"1.10\"\n",
            "empty:\n",
            "empty: \"\"\n",
            "null: ~\n",
            "colon: a:b\n",
            "tagged: !!str 5\n",
            "ports: !reset []\n",
            "text: |\n  a\n\n  b\n",
            "text: |-\n  a\n",
            "text: |+\n  a\n\n",
            "text: |2\n    indented\n",
            "- a\n- b: 1\n  c:\n    - x\n    -\n",
            "-\n  - 1\n  - 2\n",
            "labels: {}\n",
        ] {
            assert_eq!(again(text), text);
        }
    }

    #[test]
    fn other_styles_written_again_are_equal_when_read_again() {
        for text in [
            "a: 'it''s'\n",
            "a: \"tab\\t\\u0007 \\u2028\"\n",
            "a: >\n  folded\n  text\n",
            "a: [1, {b: 'c'}, []]\n",
            "? quoted key\n: value\n",
            "a: plain\n  in two lines\n",
            "a: |\n\n  begins with an empty line\n",
            "base: &base {x: 1, y: 2}\nmerged:\n  <<: *base\n  y: 3\n",
        ] {
            let once = again(text);
            let values = |text: &str| format!("{:?}", parse(text).unwrap().remove(0).root);
            let plain = |text: String| text.replace("Block", "Quoted");
            assert_eq!(plain(values(&once)), plain(values(text)), "{once}");
            assert_eq!(again(&once), once);
        }
    }

    #[test]
    fn documents_know_their_lines() {
        let text = "# first\na: 1\n---\nb: 2\n# of b\n---\n# of c\nc: 3\n";
        let documents = parse(text).unwrap();
        let places: Vec<_> = documents.iter().map(|document| &text[document.place.clone()]).collect();
        assert_eq!(places, ["# first\na: 1\n", "---\nb: 2\n# of b\n", "---\n# of c\nc: 3\n"]);
    }

    #[test]
    fn a_fault_is_told_with_its_line() {
        let told = |text: &str| parse(text).unwrap_err().to_string();
        assert!(told("a: 1\nb: [\n").starts_with("line "), "{}", told("a: 1\nb: [\n"));
        assert!(told(&"[".repeat(200)).contains("100 levels"));
    }

    #[test]
    fn aliases_that_multiply_are_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let of = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", vec![of; 10].join(", "));
        }
        assert!(parse(&text).unwrap_err().problem.contains("1000000 values"));
    }
}
