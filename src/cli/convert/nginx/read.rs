//! Reads nginx's configuration: directives, blocks, quotes, comments and includes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::fields::glob;

/// Maximum depth of includes and of blocks.
const MAX_DEPTH: usize = 32;
/// Maximum number of files.
const MAX_FILES: usize = 1000;
/// Maximum size of one file, in bytes.
const MAX_SIZE: u64 = 4 * 1024 * 1024;

/// A directive with its place.
#[derive(Clone, Debug)]
pub(super) struct Directive {
    pub name: String,
    pub args: Vec<String>,
    /// The directives of its block, if it has one.
    pub block: Option<Vec<Directive>>,
    pub place: Place,
}

/// The place of a directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub file: Rc<str>,
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Directive {
    /// Returns the directive as it is written, without its block.
    pub(super) fn shown(&self) -> String {
        let words: Vec<&str> =
            std::iter::once(self.name.as_str()).chain(self.args.iter().map(String::as_str)).collect();
        words.join(" ")
    }

    /// Returns an argument, or "" if it is not there.
    pub(super) fn arg(&self, at: usize) -> &str {
        self.args.get(at).map_or("", String::as_str)
    }

    /// Returns the directives of its block.
    pub(super) fn inner(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// The reason why a configuration is not read.
#[derive(Debug)]
pub(crate) enum ReadError {
    File(PathBuf, std::io::Error),
    Syntax(Place, &'static str),
    TooMany(Place, &'static str),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::File(path, error) => write!(f, "{}: {error}", path.display()),
            ReadError::Syntax(place, problem) | ReadError::TooMany(place, problem) => {
                write!(f, "{place}: {problem}")
            }
        }
    }
}

/// Reads a file and the files that it includes. Includes are relative to the folder of the first file, as in nginx.
pub(super) fn file(path: &Path) -> Result<Vec<Directive>, ReadError> {
    let root = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Reader { root, files: 0 }.file(path, 0)
}

struct Reader {
    root: PathBuf,
    files: usize,
}

impl Reader {
    fn file(&mut self, path: &Path, depth: usize) -> Result<Vec<Directive>, ReadError> {
        let name: Rc<str> =
            path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned().into();
        let start = Place { file: name.clone(), line: 1 };
        self.files += 1;
        if depth > MAX_DEPTH || self.files > MAX_FILES {
            return Err(ReadError::TooMany(start, "too many files are included, or they include each other"));
        }
        let io = |error| ReadError::File(path.to_path_buf(), error);
        if std::fs::metadata(path).map_err(io)?.len() > MAX_SIZE {
            return Err(ReadError::TooMany(start, "the file is longer than 4 MiB"));
        }
        let bytes = std::fs::read(path).map_err(io)?;
        let text = String::from_utf8_lossy(&bytes);
        let mut words = Words { rest: text.char_indices().peekable(), line: 1, file: name };
        let directives = block(&mut words, 0)?;
        self.with_includes(directives, depth)
    }

    /// Replaces each `include` by the directives of its files. Files that are not there leave the directive in place.
    fn with_includes(
        &mut self,
        directives: Vec<Directive>,
        depth: usize,
    ) -> Result<Vec<Directive>, ReadError> {
        let mut all = Vec::with_capacity(directives.len());
        for mut directive in directives {
            if let Some(inner) = directive.block.take() {
                directive.block = Some(self.with_includes(inner, depth)?);
            }
            if directive.name != "include" {
                all.push(directive);
                continue;
            }
            let paths = self.matching(directive.arg(0));
            if paths.is_empty() {
                all.push(directive);
            }
            for path in paths {
                all.extend(self.file(&path, depth + 1)?);
            }
        }
        Ok(all)
    }

    /// Returns the files of an include, sorted; the last part of the path may have `*`.
    fn matching(&self, pattern: &str) -> Vec<PathBuf> {
        let path = self.root.join(pattern);
        if !pattern.contains('*') {
            return if path.is_file() { vec![path] } else { Vec::new() };
        }
        let (Some(folder), Some(last)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Vec::new();
        };
        let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let mut found: Vec<PathBuf> = entries
            .filter(|entry| {
                entry.file_name().to_str().is_some_and(|name| glob::matches(last.as_bytes(), name.as_bytes()))
            })
            .map(|entry| entry.path())
            .filter(|path| path.is_file())
            .collect();
        found.sort();
        found
    }
}

/// A word, or one of the marks between words.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Semicolon,
    Open,
    Close,
}

struct Words<'a> {
    rest: std::iter::Peekable<std::str::CharIndices<'a>>,
    line: usize,
    file: Rc<str>,
}

impl Words<'_> {
    fn place(&self) -> Place {
        Place { file: self.file.clone(), line: self.line }
    }

    fn char(&mut self) -> Option<char> {
        let (_, c) = self.rest.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|(_, c)| *c)
    }

    /// Returns the next token and its place; `None` at the end.
    fn next(&mut self) -> Result<Option<(Token, Place)>, ReadError> {
        loop {
            match self.peek() {
                None => return Ok(None),
                Some(c) if c.is_whitespace() => drop(self.char()),
                Some('#') => while self.char().is_some_and(|c| c != '\n') {},
                Some(_) => break,
            }
        }
        let place = self.place();
        let mark = match self.peek() {
            Some(';') => Some(Token::Semicolon),
            Some('{') => Some(Token::Open),
            Some('}') => Some(Token::Close),
            _ => None,
        };
        if let Some(mark) = mark {
            self.char();
            return Ok(Some((mark, place)));
        }
        Ok(Some((Token::Word(self.word(&place)?), place)))
    }

    fn word(&mut self, place: &Place) -> Result<String, ReadError> {
        let mut word = String::new();
        if let Some(quote @ ('"' | '\'')) = self.peek() {
            self.char();
            loop {
                match self.char() {
                    None => return Err(ReadError::Syntax(place.clone(), "a quote is not closed")),
                    Some(c) if c == quote => return Ok(word),
                    Some('\\') => word.extend(self.escaped(Some(quote))),
                    Some(c) => word.push(c),
                }
            }
        }
        while let Some(c) = self.peek() {
            match c {
                // A brace in ${name} opens no block.
                '{' if word.ends_with('$') => {
                    while let Some(c) = self.char() {
                        word.push(c);
                        if c == '}' {
                            break;
                        }
                    }
                }
                ';' | '{' => break,
                c if c.is_whitespace() => break,
                '\\' => {
                    self.char();
                    word.extend(self.escaped(None));
                }
                c => {
                    self.char();
                    word.push(c);
                }
            }
        }
        Ok(word)
    }

    /// Returns the characters that stand for a backslash and the next character: the quote alone, else both.
    fn escaped(&mut self, quote: Option<char>) -> impl Iterator<Item = char> + use<> {
        let next = self.char();
        let slash = (next != quote || quote.is_none()).then_some('\\');
        slash.into_iter().chain(next)
    }
}

/// Reads the directives of a block, up to its brace; at `depth` 0 up to the end of the file.
fn block(words: &mut Words<'_>, depth: usize) -> Result<Vec<Directive>, ReadError> {
    if depth > MAX_DEPTH {
        return Err(ReadError::TooMany(words.place(), "blocks stand in too many others"));
    }
    let mut directives = Vec::new();
    let mut open: Option<Directive> = None;
    loop {
        let Some((token, place)) = words.next()? else {
            return match (open, depth) {
                (None, 0) => Ok(directives),
                (Some(directive), _) => {
                    Err(ReadError::Syntax(directive.place, "the directive has no ; at its end"))
                }
                (None, _) => Err(ReadError::Syntax(words.place(), "a block is not closed: } is missing")),
            };
        };
        match (token, open.take()) {
            (Token::Word(name), None) => {
                open = Some(Directive { name, args: Vec::new(), block: None, place })
            }
            (Token::Word(word), Some(mut directive)) => {
                directive.args.push(word);
                open = Some(directive);
            }
            (Token::Semicolon, Some(directive)) => directives.push(directive),
            (Token::Open, Some(mut directive)) => {
                directive.block = Some(block(words, depth + 1)?);
                directives.push(directive);
            }
            (Token::Close, None) if depth > 0 => return Ok(directives),
            (Token::Close, Some(directive)) => {
                return Err(ReadError::Syntax(directive.place, "the directive has no ; at its end"));
            }
            (Token::Semicolon | Token::Open | Token::Close, None) => {
                return Err(ReadError::Syntax(place, "a directive is missing before this"));
            }
        }
    }
}
