//! Keys of the file of keys that are written as `pillion keys add` writes them, read without a tree of values: a hundred
//! thousand of them would take hundreds of megabytes as one.
//!
//! A file that is written in any other way, or is wrong, stays for the parser that knows all of TOML and all that can be
//! wrong; it finds every line where it was.

/// The header of a key's table.
const HEADER: &str = "[[keys]]";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SimpleKey<'a> {
    /// 64 hexadecimal digits, unless they are wrong.
    pub sha256: &'a str,
    /// The name of a tier, whether there is one or not.
    pub tier: &'a str,
    pub name: Option<&'a str>,
}

/// Takes the keys that `take` wants out of a file; gives the rest, blanks in place of what was taken. `None`: all was
/// taken.
pub(super) fn take<'a>(text: &'a str, mut take: impl FnMut(SimpleKey<'a>) -> bool) -> Option<String> {
    let mut rest: Option<String> = None;
    let mut blocks = Blocks { text, at: 0 };
    // Text before the first table is about the file; comments alone say nothing.
    let mut is_kept = |block: &'a str| !block.lines().all(is_nothing) && !parse(block).is_some_and(&mut take);
    // A string over several lines may hold what looks like a table: from the first one on, nothing is taken.
    let first = ["\"\"\"", "'''"].iter().filter_map(|quotes| text.find(quotes)).min().unwrap_or(text.len());
    while let Some((start, block)) = blocks.next() {
        if start + block.len() <= first && !is_kept(block) {
            continue;
        }
        // Bytes keep their places, so that what is wrong is shown where it stands.
        let rest = rest.get_or_insert_with(|| blank(text));
        rest.replace_range(start..start + block.len(), block);
    }
    rest
}

/// The file in parts of at most `count` tables. One that ends within a string is not TOML, so whoever reads the parts
/// sees it.
pub(super) fn parts(text: &str, count: usize) -> impl Iterator<Item = &str> {
    let mut blocks = Blocks { text, at: 0 };
    std::iter::from_fn(move || {
        let (start, _) = blocks.next()?;
        let end =
            (1..count).map_while(|_| blocks.next()).last().map_or(blocks.at, |(at, block)| at + block.len());
        Some(&text[start..end])
    })
}

/// The result has the same length, with its ends of lines where they were.
fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// From one header to the next.
struct Blocks<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Blocks<'a> {
    fn next(&mut self) -> Option<(usize, &'a str)> {
        let start = self.at;
        let rest = self.text.get(start..).filter(|rest| !rest.is_empty())?;
        let mut end = 0;
        for line in rest.split_inclusive('\n') {
            if end > 0 && line.trim_start().starts_with(HEADER) {
                break;
            }
            end += line.len();
        }
        self.at = start + end;
        Some((start, &rest[..end]))
    }
}

fn is_nothing(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// A table of nothing but plain strings; what a string may hold otherwise is for the parser.
fn parse(block: &str) -> Option<SimpleKey<'_>> {
    let mut lines = block.lines().map(str::trim).filter(|line| !is_nothing(line));
    if lines.next()? != HEADER {
        return None;
    }
    let (mut sha256, mut tier, mut name) = (None, None, None);
    for line in lines {
        let (key, value) = line.split_once('=')?;
        let (value, after) = value.trim().strip_prefix('"')?.split_once('"')?;
        if !is_nothing(after) || value.contains(['\\', '$']) || value.contains(char::is_control) {
            return None;
        }
        let place = match key.trim() {
            "sha256" => &mut sha256,
            "tier" => &mut tier,
            "name" => &mut name,
            _ => return None,
        };
        if place.replace(value).is_some() {
            return None;
        }
    }
    Some(SimpleKey { sha256: sha256?, tier: tier?, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_12_simple_keys_are_taken_and_the_rest_stays_where_it_is() {
        let simple = "# keys\n[[keys]]\nsha256 = \"a\"\ntier = \"free\"\n\n[[keys]]\n  name=\"x\"\n # y\n tier= \"pro\" # \"z\"\nsha256 = \"b\"\n";
        let mut found = Vec::new();
        assert_eq!(take(simple, |key| (found.push(key), true).1), None);
        let key = |sha256, tier, name| SimpleKey { sha256, tier, name };
        assert_eq!(found, [key("a", "free", None), key("b", "pro", Some("x"))]);
        assert_eq!(take("", |_| true), None);
        for odd in [
            "[[keys]]\nsha256 = \"a\"\n",
            "[[keys]]\nsha256 = \"a\"\ntier = \"b\"\nlimits = { a = { rate = \"1/s\" } }\n",
            "[[keys]]\nsha256 = \"a\"\ntier = \"b\" why\n",
            "[[keys]]\nsha256 = \"a\"\ntier = \"b\\\" # why\"\n",
            "[[keys]]\nsha256 = \"a\"\ntier = \"b\"\ntier = \"b\"\n",
            "[[keys]]\nsha256 = 'a'\ntier = \"b\"\n",
            "[[keys]]\nsha256 = \"${A}\"\ntier = \"b\"\n",
            "[[keys]]\nsha256 = \"\\u0061\"\ntier = \"b\"\n",
            "[[keys]]\nsha256 = \"a\"\ntier = \"b\"\n[keys.limits]\na = { rate = \"1/s\" }\n",
        ] {
            let text = format!("{simple}{odd}[[keys]]\nsha256 = \"c\"\ntier = \"d\"\n");
            let rest = take(&text, |_| true).unwrap();
            assert_eq!(rest.len(), text.len());
            assert_eq!(rest.find(odd.trim()), text.rfind(odd.trim()), "{odd}");
            assert_eq!(rest.matches('\n').count(), text.matches('\n').count());
            assert!(!rest.contains("\"c\""), "{odd}");
        }
        let first = format!("other = 1\n{simple}[other]\n");
        let rest = take(&first, |_| true).unwrap();
        assert!(rest.starts_with("other = 1") && rest.contains("[other]") && !rest.contains("\"a\""));
        let refused = take(simple, |key| key.tier == "pro").unwrap();
        assert!(refused.contains("\"a\"") && !refused.contains("\"b\""), "what is not wanted stays");
        let several = format!("{simple}[[keys]]\nname = \"\"\"\n[[keys]]\n\"\"\"\n");
        let rest = take(&several, |_| true).unwrap();
        assert!(rest.ends_with("[[keys]]\nname = \"\"\"\n[[keys]]\n\"\"\"\n") && !rest.contains("\"a\""));
        let quoted_first = format!("[[keys]]\nname = '''\n{simple}'''\n");
        assert_eq!(take(&quoted_first, |_| true), Some(quoted_first.clone()));
    }

    #[test]
    fn n3_12_parts_are_the_whole() {
        let text = "# a\n[[keys]]\na = 1\n[[keys]]\n[keys.limits]\n[[keys]]\n\n";
        for (count, wanted) in [(1, 4), (2, 2), (3, 2), (9, 1)] {
            let parts: Vec<&str> = parts(text, count).collect();
            assert_eq!((parts.len(), parts.concat().as_str()), (wanted, text), "{count}");
        }
        assert_eq!(parts("", 3).count(), 0);
    }
}
