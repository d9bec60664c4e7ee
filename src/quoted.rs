//! Texts that stand in many lines of a log.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// A text and how JSON writes it, found out once: where the text is made and not wherever it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    text: Cow<'static, str>,
    /// Where that is something else.
    escaped: Option<Box<str>>,
}

impl Quoted {
    /// Of any text.
    pub fn new(text: impl Into<String>) -> Quoted {
        let text = text.into();
        let json = serde_json::Value::from(&*text).to_string();
        let escaped = json.get(1..json.len() - 1).filter(|escaped| *escaped != text);
        Quoted { escaped: escaped.map(Box::from), text: text.into() }
    }

    /// Of a text that is ASCII without control characters, quotes and backslashes.
    pub const fn plain(text: &'static str) -> Quoted {
        Quoted { text: Cow::Borrowed(text), escaped: None }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands between the quotes (RFC 8259 7).
    pub fn escaped(&self) -> &str {
        self.escaped.as_deref().unwrap_or(&self.text)
    }
}

impl Deref for Quoted {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_reads_what_was_written() {
        for text in ["", "/a/**", "Zoë", "a\"b", "a\\b\n", "\u{0}"] {
            let quoted = Quoted::new(text);
            assert_eq!(quoted.as_str(), text);
            assert_eq!(serde_json::from_str::<String>(&format!("\"{}\"", quoted.escaped())).unwrap(), text);
        }
        assert_eq!(Quoted::new("refused"), Quoted::plain("refused"));
    }
}
