//! The sources as the tests read them: each file with its module path, its text, and its code alone.

use std::path::{Path, PathBuf};

pub(crate) struct Source {
    /// Path below `src`.
    pub path: PathBuf,
    /// Module path without `crate`; empty for `lib.rs`.
    pub module: Vec<String>,
    pub text: String,
    /// The text with comments and the content of literals blanked; lines keep their numbers.
    pub code: String,
}

impl Source {
    pub(crate) fn room(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source but `main.rs`.
pub(crate) fn all() -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    find(&root, &mut paths);
    paths.sort();
    let source = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(&root).unwrap().to_path_buf();
        let mut module: Vec<String> =
            path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if matches!(module.last().unwrap().as_str(), "mod" | "lib") {
            module.pop();
        }
        Source { path, module, code: code(&text), text }
    };
    paths.into_iter().filter(|path| !path.ends_with("main.rs")).map(source).collect()
}

/// Every Rust file below a folder.
pub(crate) fn find(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Blanks comments and what stands in literals.
pub(crate) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal(bytes, at);
        if end > at {
            out.extend(bytes[at..end].iter().map(|&byte| if byte == b'\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(if bytes[at].is_ascii() { char::from(bytes[at]) } else { '?' });
            at += 1;
        }
    }
    out
}

/// The end of the comment or literal that begins at `at`; `at` where none does.
fn literal(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let find = |from: usize, what: &[u8]| {
        let found = rest[from..].windows(what.len()).position(|window| window == what);
        found.map_or(bytes.len(), |found| at + from + found + what.len())
    };
    let is_word = |at: usize| bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_';
    let before = if at > 0 && bytes[at - 1] == b'b' { at - 1 } else { at };
    let after_word = before > 0 && is_word(before - 1);
    match rest {
        [b'/', b'/', ..] => find(0, b"\n") - 1,
        [b'r', b'"' | b'#', ..] if !after_word => {
            let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
            if rest.get(1 + hashes) == Some(&b'"') {
                find(2 + hashes, &[b"\"", "#".repeat(hashes).as_bytes()].concat())
            } else {
                at
            }
        }
        [b'"', ..] => {
            let mut end = 1;
            while rest[end] != b'"' {
                end += if rest[end] == b'\\' { 2 } else { 1 };
            }
            at + end + 1
        }
        [b'\'', b'\\', ..] => find(3, b"'"),
        [b'\'', _, b'\'', ..] => at + 3,
        _ => at,
    }
}

/// The words of a text, with the line each stands on.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().flat_map(|(number, line)| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '_'))
            .map(move |word| (number + 1, word))
    })
}
