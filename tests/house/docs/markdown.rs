//! As much of Markdown as our documents use: fences, headings, links and anchors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::root;

/// A file of Markdown.
pub(crate) struct Document {
    /// Where it is, from the root of the repository.
    pub name: String,
    pub path: PathBuf,
    pub text: String,
}

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block {
    /// The document and the line of its fence.
    pub place: String,
    /// The words behind the fence: a language, and more.
    pub info: String,
    pub text: String,
}

impl Document {
    pub(crate) fn read(path: &Path) -> Document {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.strip_prefix(root("")).unwrap().to_str().unwrap().to_owned();
        Document { name, path: path.to_path_buf(), text }
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let (mut blocks, mut open): (Vec<Block>, bool) = (Vec::new(), false);
        for (number, line) in (1..).zip(self.text.lines()) {
            match line.trim_start().strip_prefix("```") {
                Some(info) if !open => {
                    let place = format!("{}:{number}", self.name);
                    blocks.push(Block { place, info: info.to_owned(), text: String::new() });
                    open = true;
                }
                Some(_) => open = false,
                None if open => blocks.last_mut().unwrap().text.extend([line, "\n"]),
                None => {}
            }
        }
        assert!(!open, "{}: a fence is not closed", self.name);
        blocks
    }

    /// The lines outside of fences, each with its number and without spans of code.
    pub(crate) fn prose(&self) -> Vec<(usize, String)> {
        let (mut lines, mut open) = (Vec::new(), false);
        for (number, line) in (1..).zip(self.text.lines()) {
            if line.trim_start().starts_with("```") {
                open = !open;
            } else if !open {
                let outside = line.split('`').step_by(2);
                lines.push((number, outside.collect::<Vec<_>>().join("`")));
            }
        }
        lines
    }

    /// The targets of its links, each with its line.
    pub(crate) fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            for rest in line.split("](").skip(1) {
                links.push((number, rest.split(')').next().unwrap().to_owned()));
            }
            if let Some((_, target)) = line.split_once("]: ").filter(|(name, _)| name.starts_with('[')) {
                links.push((number, target.trim().to_owned()));
            }
        }
        links
    }

    /// The anchors that stand in it as such: each with its line and what follows it there.
    pub(crate) fn written_anchors(&self) -> Vec<(usize, String, String)> {
        let mut anchors = Vec::new();
        for (number, line) in (1..).zip(self.text.lines()) {
            for rest in line.split("<a id=\"").skip(1) {
                let (id, rest) = rest.split_once("\"></a>").unwrap();
                anchors.push((number, id.to_owned(), rest.to_owned()));
            }
        }
        anchors
    }

    /// Every anchor that a link can name: those of headings as GitHub and mdBook make them, and those that are written.
    pub(crate) fn anchors(&self) -> BTreeSet<String> {
        let mut anchors: BTreeSet<String> = self.written_anchors().into_iter().map(|(_, id, _)| id).collect();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut open = false;
        for line in self.text.lines() {
            open ^= line.trim_start().starts_with("```");
            let heading = line.trim_start_matches('#').strip_prefix(' ');
            let Some(heading) = heading.filter(|_| line.starts_with('#') && !open) else { continue };
            let slug = slug(heading);
            let count = counts.entry(slug.clone()).or_default();
            anchors.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
            *count += 1;
        }
        anchors
    }
}

/// The anchor of a heading: its letters, digits, hyphens and underscores in lower case, spaces as hyphens.
fn slug(heading: &str) -> String {
    let heading = match heading.split_once("</a>") {
        Some((_, text)) => text,
        None => heading,
    };
    let lower = heading.trim().to_lowercase();
    let kept = lower.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn a_document_is_read_as_renderers_read_it() {
    let text = "# One: `two`, three?\n[a](b.md#c) and `[no](link)`\n```sh no-run\n# no heading\n[no](link)\n```\n# One two three\n<a id=\"x-y\"></a>`y`\n";
    let document = Document { name: "a.md".into(), path: "a.md".into(), text: text.into() };
    let blocks = document.blocks();
    assert_eq!((blocks.len(), &*blocks[0].info), (1, "sh no-run"));
    assert_eq!(document.links(), [(2, "b.md#c".to_owned())]);
    let anchors: Vec<String> = document.anchors().into_iter().collect();
    assert_eq!(anchors, ["one-two-three", "one-two-three-1", "x-y"]);
    assert_eq!(slug("What invalidated: `rule` in metrics"), "what-invalidated-rule-in-metrics");
}
