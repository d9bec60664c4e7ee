//! Finds texts and log events in the sources, with a reader of Rust that understands literals, comments and tests.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::str::Chars;

use super::{Facts, root};

/// A token of a source file, without comments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A name, a keyword or a number.
    Word(String),
    /// The value of a string literal.
    Text(String),
    /// Any other character, such as a bracket.
    Sign(char),
}

/// Splits a source file into tokens.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let (mut tokens, mut rest) = (Vec::new(), source.chars().peekable());
    while let Some(c) = rest.next() {
        match c {
            '/' if rest.peek() == Some(&'/') => while rest.next_if(|c| *c != '\n').is_some() {},
            '/' if rest.peek() == Some(&'*') => {
                let mut before = ' ';
                rest.by_ref().find(|c| std::mem::replace(&mut before, *c) == '*' && *c == '/');
            }
            '"' => tokens.push(Token::Text(literal(&mut rest))),
            '\'' => quote(&mut rest),
            c if c.is_alphanumeric() || c == '_' => {
                let mut word = c.to_string();
                while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    word.push(c);
                }
                let is_prefix = matches!(word.as_str(), "r" | "b" | "br" | "c" | "cr");
                match rest.peek() {
                    Some('"' | '#') if is_prefix && word.contains('r') => {
                        let text = raw(&mut rest);
                        // Byte strings are not for people.
                        tokens.extend(text.filter(|_| word == "r").map(Token::Text));
                    }
                    Some('"') if is_prefix => {
                        rest.next();
                        literal(&mut rest);
                    }
                    Some('\'') if word == "b" => {
                        rest.next();
                        quote(&mut rest);
                    }
                    _ => tokens.push(Token::Word(word)),
                }
            }
            c if c.is_whitespace() => {}
            c => tokens.push(Token::Sign(c)),
        }
    }
    tokens
}

/// Skips a character literal or the quote of a lifetime, after the first quote.
fn quote(rest: &mut Peekable<Chars<'_>>) {
    let mut ahead = rest.clone();
    match (ahead.next(), ahead.next()) {
        (Some('\\'), _) => {
            rest.next();
            rest.next();
            rest.find(|c| *c == '\'');
        }
        (Some(_), Some('\'')) => {
            rest.next();
            rest.next();
        }
        _ => {}
    }
}

/// Returns the value of a string literal, after its first quote.
fn literal(rest: &mut Peekable<Chars<'_>>) -> String {
    let mut text = String::new();
    while let Some(c) = rest.next() {
        match c {
            '"' => break,
            '\\' => match rest.next() {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some('t') => text.push('\t'),
                Some('0') => text.push('\0'),
                Some('\n') => while rest.next_if(|c| c.is_whitespace()).is_some() {},
                Some('x') => {
                    let digits: String = rest.by_ref().take(2).collect();
                    text.extend(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32));
                }
                Some('u') => {
                    let digits: String = rest.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    text.extend(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32));
                }
                Some(c) => text.push(c),
                None => {}
            },
            c => text.push(c),
        }
    }
    text
}

/// Returns the value of a raw string literal after its `r`; `None` if it is a raw identifier.
fn raw(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut hashes = 0;
    while rest.next_if_eq(&'#').is_some() {
        hashes += 1;
    }
    rest.next_if_eq(&'"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let mut text = String::new();
    while !text.ends_with(&end) {
        text.push(rest.next()?);
    }
    text.truncate(text.len() - end.len());
    Some(text)
}

/// Returns every source file of the binary, without its tests.
pub(crate) fn sources() -> Vec<Vec<Token>> {
    let mut files = Vec::new();
    walk(&root("src"), &mut files);
    // These files serve only benchmarks, fuzz targets and this test.
    files.retain(|file| !file.starts_with(root("src/internals")));
    let of_tests: Vec<PathBuf> = files.iter().flat_map(|file| test_modules(file)).collect();
    let is_of_tests = |file: &PathBuf| {
        of_tests.iter().any(|test| file.starts_with(test) || { file.with_extension("") == *test })
    };
    files.sort();
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(file).unwrap();
        tokens(without_tests(&text))
    };
    files.into_iter().filter(|file| !is_of_tests(file)).map(read).collect()
}

/// Returns the text before the module of unit tests.
fn without_tests(text: &str) -> &str {
    let begins = |at: &usize| {
        text[*at..].lines().nth(1).is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
    };
    let tests = text.match_indices("#[cfg(test)]\n").map(|(at, _)| at).find(begins);
    tests.map_or(text, |at| &text[..at])
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Returns the modules of a file that exist only for tests, as paths without `.rs`.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(file).unwrap();
    let folder = match file.file_stem().unwrap().to_str().unwrap() {
        "mod" | "lib" | "main" => file.parent().unwrap().to_path_buf(),
        _ => file.with_extension(""),
    };
    let declared = text.split("#[cfg(test)]\n").skip(1).filter_map(|rest| rest.lines().next());
    let names = declared.filter_map(|line| line.split("mod ").nth(1)?.strip_suffix(';'));
    names.map(|name| folder.join(name)).collect()
}

/// Returns the texts in the sources that people read: those of several words, except in attributes.
pub(crate) fn sentences() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for tokens in sources() {
        let (mut before, mut attribute) = (None, 0usize);
        for token in tokens {
            match &token {
                Token::Sign('[') if attribute > 0 || before == Some(Token::Sign('#')) => attribute += 1,
                Token::Sign(']') if attribute > 0 => attribute -= 1,
                Token::Text(text) if attribute == 0 && is_sentence(text) => {
                    found.insert(text.clone());
                }
                _ => {}
            }
            before = Some(token);
        }
    }
    found
}

fn is_sentence(text: &str) -> bool {
    let is_word = |word: &&str| word.chars().filter(|c| c.is_alphabetic()).count() >= 2;
    text.split_whitespace().filter(is_word).count() >= 2
}

/// Returns the members of log events, which the tracing macros name.
fn event_members(tokens: &[Token]) -> Vec<String> {
    let mut members = Vec::new();
    let levels = ["error", "warn", "info", "debug", "trace"];
    for (at, window) in tokens.windows(6).enumerate() {
        let [
            Token::Word(room),
            Token::Sign(':'),
            Token::Sign(':'),
            Token::Word(level),
            Token::Sign('!'),
            Token::Sign('('),
        ] = window
        else {
            continue;
        };
        if room != "tracing" || !levels.contains(&level.as_str()) {
            continue;
        }
        let (mut depth, mut begins) = (0usize, true);
        for token in &tokens[at + 6..] {
            match token {
                Token::Sign('(' | '[' | '{') => depth += 1,
                Token::Sign(')') if depth == 0 => break,
                Token::Sign(')' | ']' | '}') => depth -= 1,
                Token::Sign(',') if depth == 0 => begins = true,
                Token::Sign('%' | '?') if begins => {}
                Token::Word(name) if begins => {
                    members.push(name.clone());
                    begins = false;
                }
                Token::Text(_) if begins && depth == 0 => break,
                _ => begins = false,
            }
        }
    }
    members
}

pub(crate) fn gather(facts: &mut Facts) {
    for tokens in sources() {
        for member in event_members(&tokens) {
            facts.add("log members", format!("event .{member}"));
        }
    }
    alerts(facts);
}

/// Adds the names and the severity of alerts, which routes and silences of an Alertmanager refer to.
fn alerts(facts: &mut Facts) {
    let rules = std::fs::read_to_string(root("deploy/prometheus/pillion.rules.yml")).unwrap();
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        let labels = rule.lines().find_map(|line| line.trim().strip_prefix("labels: "));
        facts.add("alerts", format!("{name} {}", labels.unwrap_or_default()));
    }
}

#[test]
fn a_source_is_read_as_rust_reads_it() {
    let source = r##"
        // "not this"
        #[expect(unused, reason = "nor this")]
        fn f<'a>(c: char) -> &'a str { let _ = ('"', '\'', b"nor bytes of words", 'x'); /* "nor this" */
            tracing::warn!(%error, count = all.len(), name, "so \
                it goes \u{e9} \"{}\"", x); r#"a "raw" one"# }
    "##;
    let tokens = tokens(source);
    let texts: Vec<&str> = tokens
        .iter()
        .filter_map(|token| match token {
            Token::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(texts, ["nor this", "so it goes é \"{}\"", "a \"raw\" one"]);
    assert_eq!(event_members(&tokens), ["error", "count", "name"]);
}
