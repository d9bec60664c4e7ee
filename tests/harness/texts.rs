//! Translates texts of another build: `PILLION_TEXTS` names its `tests/contract-texts.txt`, and its output is
//! translated to the texts that this suite knows.

use std::sync::OnceLock;

/// A text when the contract was frozen, and the current text. One of them is missing if the text is new or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub frozen: Option<String>,
    pub now: Option<String>,
}

impl Entry {
    /// Returns the text that entries are sorted by.
    pub(crate) fn key(&self) -> &str {
        self.frozen.as_deref().or(self.now.as_deref()).unwrap_or_default()
    }
}

/// Escapes a text to a single line.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

fn unescaped(line: &str) -> String {
    let (mut text, mut rest) = (String::new(), line.chars());
    while let Some(c) = rest.next() {
        match (c, c == '\\') {
            (_, true) => text.extend(rest.next().map(|c| match c {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                c => c,
            })),
            (c, false) => text.push(c),
        }
    }
    text
}

/// Parses the entries of each section of a list.
pub(crate) fn parse(list: &str) -> Vec<(String, Vec<Entry>)> {
    let mut sections: Vec<(String, Vec<Entry>)> = Vec::new();
    for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            sections.push((name.to_owned(), Vec::new()));
            continue;
        }
        let (mark, text) = line.split_at(2.min(line.len()));
        let (text, entries) = (unescaped(text), &mut sections.last_mut().unwrap().1);
        match (mark, entries.last_mut()) {
            ("- ", _) => entries.push(Entry { frozen: Some(text), now: None }),
            ("+ ", Some(last)) if last.frozen.is_some() && last.now.is_none() => last.now = Some(text),
            ("+ ", _) => entries.push(Entry { frozen: None, now: Some(text) }),
            _ => entries.push(Entry { frozen: Some(text.clone()), now: Some(text) }),
        }
    }
    sections
}

/// A text with placeholders for values.
struct Pattern {
    /// The text before the first value, between values, and after the last.
    fixed: Vec<String>,
    /// The names of the values, or their numbers if they have no names.
    names: Vec<String>,
}

impl Pattern {
    fn new(text: &str) -> Pattern {
        let (mut fixed, mut names) = (vec![String::new()], Vec::new());
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '{' | '}' if rest.next_if_eq(&c).is_some() => fixed.last_mut().unwrap().push(c),
                '{' => {
                    let inside: String = rest.by_ref().take_while(|c| *c != '}').collect();
                    let name = inside.split(':').next().unwrap_or_default();
                    names.push(if name.is_empty() { names.len().to_string() } else { name.to_owned() });
                    fixed.push(String::new());
                }
                c => fixed.last_mut().unwrap().push(c),
            }
        }
        Pattern { fixed, names }
    }

    /// Returns the first match at or after `from`, and its values.
    fn find<'t>(&self, text: &'t str, from: usize) -> Option<(usize, usize, Vec<&'t str>)> {
        let anchor = self.fixed.iter().position(|fixed| !fixed.is_empty()).filter(|anchor| *anchor <= 1)?;
        let places = text[from..].match_indices(&self.fixed[anchor]).map(|(at, _)| from + at);
        places.into_iter().find_map(|at| self.at(text, from, anchor, at))
    }

    /// Returns a match whose first fixed part is at `at`. A value does not cross a line end. At the start or end of a
    /// pattern, a value extends as far as the text does, or to a quote.
    fn at<'t>(
        &self,
        text: &'t str,
        from: usize,
        anchor: usize,
        at: usize,
    ) -> Option<(usize, usize, Vec<&'t str>)> {
        let ends = |c: char| matches!(c, '"' | '\n');
        let start =
            if anchor == 0 { at } else { text[from..at].rfind(ends).map_or(from, |end| from + end + 1) };
        let mut values = if anchor == 0 { Vec::new() } else { vec![&text[start..at]] };
        let mut end = at + self.fixed[anchor].len();
        for (number, fixed) in self.fixed.iter().enumerate().skip(anchor + 1) {
            let last = number + 1 == self.fixed.len();
            let length = match fixed.is_empty() && last {
                true => text[end..].find(ends).unwrap_or(text.len() - end),
                false => text[end..].find(fixed.as_str())?,
            };
            values.push(&text[end..end + length]);
            end += length + fixed.len();
        }
        values.iter().all(|value| !value.contains('\n')).then_some((start, end, values))
    }
}

/// Replaces every `new` in `text` by `old`.
pub(crate) fn replaced(text: &str, old: &str, new: &str) -> String {
    let (old, new) = (Pattern::new(old), Pattern::new(new));
    let (mut said, mut from) = (String::new(), 0);
    while let Some((start, end, values)) = new.find(text, from) {
        said += &text[from..start];
        for (number, fixed) in old.fixed.iter().enumerate() {
            if let Some(name) = number.checked_sub(1).map(|before| &old.names[before]) {
                let value = new.names.iter().position(|known| known == name).map(|at| values[at]);
                said += value.unwrap_or("?");
            }
            said += fixed;
        }
        // Ensures progress even on an empty match.
        from = end.max(start + 1);
    }
    said + text.get(from..).unwrap_or_default()
}

fn pairs() -> &'static [(String, String)] {
    static PAIRS: OnceLock<Vec<(String, String)>> = OnceLock::new();
    PAIRS.get_or_init(|| {
        let Some(path) = std::env::var_os("PILLION_TEXTS") else { return Vec::new() };
        let list = std::fs::read_to_string(path).unwrap();
        let entries = parse(&list).into_iter().flat_map(|(_, entries)| entries);
        let changed = entries.filter(|entry| entry.frozen != entry.now);
        let mut pairs: Vec<(String, String)> =
            changed.filter_map(|entry| Some((entry.frozen?, entry.now?))).collect();
        // A text that contains another one is replaced first.
        pairs.sort_by_key(|(_, now)| std::cmp::Reverse(now.len()));
        // The same texts, escaped for JSON.
        let json = |text: &str| serde_json::to_string(text).unwrap().trim_matches('"').to_owned();
        let in_json: Vec<_> = pairs.iter().map(|(old, now)| (json(old), json(now))).collect();
        pairs.extend(in_json.into_iter().filter(|(_, now)| now.contains('\\')));
        pairs
    })
}

/// Translates the output of a build to the texts that this suite knows.
pub(crate) fn known(text: String) -> String {
    pairs().iter().fold(text, |text, (old, now)| replaced(&text, old, now))
}

/// Translates bytes; invalid UTF-8 stays unchanged.
pub(crate) fn known_bytes(bytes: Vec<u8>) -> Vec<u8> {
    if pairs().is_empty() {
        return bytes;
    }
    String::from_utf8(bytes).map_or_else(|error| error.into_bytes(), |text| known(text).into_bytes())
}

/// Returns the translated output of a command.
pub(crate) fn printed(output: &[u8]) -> String {
    known(String::from_utf8_lossy(output).into_owned())
}
