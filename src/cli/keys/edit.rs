//! Edits of the text of a key file. Comments and the order of entries stay. Each edit is of whole lines or of one string;
//! the caller reads the result and compares it with what it should say, so a form that is not foreseen here is an error
//! and not a damaged file.

/// The header of a key's table.
const HEADER: &str = "[[keys]]";

/// The edit that a command makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Edit<'a> {
    Remove,
    /// The entry takes another hash.
    Rehash {
        before: &'a str,
        after: &'a str,
    },
    /// The entry is repeated with another hash; the present one takes the name `old`.
    Duplicate {
        before: &'a str,
        after: &'a str,
        name: &'a str,
        old: &'a str,
    },
}

/// Applies an edit to the entry at `index` of `count`. `None`: the entry is not written in a form that can be edited.
pub(super) fn apply(file: &str, index: usize, count: usize, edit: &Edit<'_>) -> Option<String> {
    let starts = starts(file);
    if starts.len() != count {
        return None;
    }
    let start = *starts.get(index)?;
    let next = starts.get(index + 1).copied().unwrap_or(file.len());
    let end = end(file, start, next);
    let (head, entry, tail) = (&file[..start], &file[start..end], &file[end..]);
    match edit {
        Edit::Remove => {
            // The blank line that parted the entry from the next one goes with it.
            let tail = match tail.strip_prefix('\n') {
                Some(rest) if head.is_empty() || head.ends_with("\n\n") => rest,
                _ => tail,
            };
            Some(format!("{head}{tail}"))
        }
        Edit::Rehash { before, after } => {
            Some(format!("{head}{}{tail}", replaced_once(entry, before, after)?))
        }
        Edit::Duplicate { before, after, name, old } => {
            let new = replaced_once(entry, before, after)?;
            let kept = renamed(entry, name, old)?;
            let gap = if kept.ends_with('\n') { "" } else { "\n" };
            Some(format!("{head}{kept}{gap}\n{new}{tail}"))
        }
    }
}

/// The places of the lines that begin an entry.
fn starts(file: &str) -> Vec<usize> {
    let mut at = 0;
    let mut starts = Vec::new();
    for line in file.split_inclusive('\n') {
        if line.trim_start().starts_with(HEADER) {
            starts.push(at);
        }
        at += line.len();
    }
    starts
}

/// The end of an entry: comments and blank lines after its last line are not its own.
fn end(file: &str, start: usize, next: usize) -> usize {
    let mut at = start;
    let mut end = start;
    for line in file[start..next].split_inclusive('\n') {
        at += line.len();
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            end = at;
        }
    }
    end
}

/// Replaces the only place where `before` stands.
fn replaced_once(text: &str, before: &str, after: &str) -> Option<String> {
    (!before.is_empty() && text.matches(before).count() == 1).then(|| text.replacen(before, after, 1))
}

/// Gives an entry another name in the line where its name stands.
fn renamed(entry: &str, name: &str, new: &str) -> Option<String> {
    let mut at = 0;
    for line in entry.split_inclusive('\n') {
        let is_name = line.split_once('=').is_some_and(|(key, _)| key.trim() == "name");
        if is_name {
            let double = text(name);
            let written = [double, format!("'{name}'")].into_iter().find(|written| line.contains(written))?;
            let line = (at, at + line.len());
            let changed = entry[line.0..line.1].replacen(&written, &text(new), 1);
            return Some(format!("{}{changed}{}", &entry[..line.0], &entry[line.1..]));
        }
        at += line.len();
    }
    None
}

/// Formats a string as a TOML basic string (TOML 1.0).
pub(super) fn text(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    });
    // Escapes text that looks like a reference to an environment variable.
    format!("\"{}\"", escaped.collect::<String>().replace("${", "$${"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# ours\n[[keys]]\nsha256 = \"aa\"\ntier = \"pro\" # paid\nname = \"acme\" # the first\n\
        [keys.limits]\nrequests = { rate = \"1/s\" }\n\n# partners\n[[keys]]\nsha256 = 'bb'\ntier = \"free\"\n\n\
        [[keys]]\nsha256 = \"cc\"\ntier = \"free\"\nname = 'x'\n# the end\n";

    #[test]
    fn edit_changes_one_entry_and_keeps_comments() {
        let first = "[[keys]]\nsha256 = \"aa\"\ntier = \"pro\" # paid\nname = \"acme\" # the first\n\
            [keys.limits]\nrequests = { rate = \"1/s\" }\n";
        let rehash = |before, after| Edit::Rehash { before, after };
        let cases = [
            (0, Edit::Remove, FILE.replace(first, "")),
            (1, Edit::Remove, FILE.replace("[[keys]]\nsha256 = 'bb'\ntier = \"free\"\n", "")),
            (2, Edit::Remove, FILE.replace("[[keys]]\nsha256 = \"cc\"\ntier = \"free\"\nname = 'x'\n", "")),
            (0, rehash("aa", "dd"), FILE.replace("aa", "dd")),
            (1, rehash("bb", "dd"), FILE.replace("bb", "dd")),
            (
                0,
                Edit::Duplicate { before: "aa", after: "dd", name: "acme", old: "acme-old" },
                FILE.replace(
                    first,
                    &format!("{}\n{}", first.replace("\"acme\"", "\"acme-old\""), first.replace("aa", "dd")),
                ),
            ),
            (
                2,
                Edit::Duplicate { before: "cc", after: "dd", name: "x", old: "x-old" },
                FILE.replace(
                    "[[keys]]\nsha256 = \"cc\"\ntier = \"free\"\nname = 'x'\n",
                    "[[keys]]\nsha256 = \"cc\"\ntier = \"free\"\nname = \"x-old\"\n\n\
                     [[keys]]\nsha256 = \"dd\"\ntier = \"free\"\nname = 'x'\n",
                ),
            ),
        ];
        for (index, edit, expected) in cases {
            assert_eq!(apply(FILE, index, 3, &edit).as_deref(), Some(&*expected), "{index} {edit:?}");
        }
    }

    #[test]
    fn only_entry_is_removed_with_nothing_left() {
        assert_eq!(apply("[[keys]]\nsha256 = \"aa\"\n", 0, 1, &Edit::Remove).as_deref(), Some(""));
    }

    #[test]
    fn entry_in_another_form_is_not_edited() {
        for file in [
            "keys = [{ sha256 = \"aa\", tier = \"pro\" }]\n",
            "[[ keys ]]\nsha256 = \"aa\"\n",
            "[[keys]]\nsha256 = \"\\u0061a\"\n",
            "[[keys]]\nname = \"aa\"\nsha256 = \"aa\"\n",
        ] {
            let edit = Edit::Rehash { before: "aa", after: "dd" };
            assert_eq!(apply(file, 0, 1, &edit), None, "{file}");
        }
    }
}
