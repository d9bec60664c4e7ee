//! Text that appears in many log lines, escaped for JSON once.

use std::fmt;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

/// A text and its JSON form, computed when the text is created and not at every write. Clones share both.
#[derive(Clone)]
pub(crate) struct EscapedText {
    text: Text,
    /// The escaped text, if it differs from the text.
    escaped: Option<Arc<str>>,
}

#[derive(Clone)]
enum Text {
    Ours(&'static str),
    Made(Arc<str>),
}

impl EscapedText {
    pub(crate) fn new(text: &str) -> EscapedText {
        let json = serde_json::Value::from(text).to_string();
        let escaped = json.get(1..json.len() - 1).filter(|escaped| *escaped != text);
        EscapedText { escaped: escaped.map(Arc::from), text: Text::Made(text.into()) }
    }

    /// Wraps an ASCII text without control characters, quotes and backslashes.
    pub(crate) const fn plain(text: &'static str) -> EscapedText {
        EscapedText { text: Text::Ours(text), escaped: None }
    }

    #[inline(always)]
    pub(crate) fn as_str(&self) -> &str {
        match &self.text {
            Text::Ours(text) => text,
            Text::Made(text) => text,
        }
    }

    /// Returns the text as it stands between the quotes of a JSON string (RFC 8259 7).
    pub(crate) fn escaped(&self) -> &str {
        self.escaped.as_deref().unwrap_or(self.as_str())
    }

    /// Returns whether both are copies of one text, without reading it. Equal texts from different origins may give
    /// `false`.
    #[inline(always)]
    pub(crate) fn is(&self, other: &EscapedText) -> bool {
        ptr::eq(self.as_str(), other.as_str())
    }
}

impl PartialEq for EscapedText {
    fn eq(&self, other: &EscapedText) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for EscapedText {}

impl Deref for EscapedText {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for EscapedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for EscapedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_reads_what_was_written() {
        for text in ["", "/a/**", "Zoë", "a\"b", "a\\b\n", "\u{0}"] {
            let quoted = EscapedText::new(text);
            assert_eq!(quoted.as_str(), text);
            assert_eq!(serde_json::from_str::<String>(&format!("\"{}\"", quoted.escaped())).unwrap(), text);
        }
        assert_eq!(EscapedText::new("refused"), EscapedText::plain("refused"));
        assert_eq!(format!("{0} {0:?} {0:>3}", EscapedText::new("a")), "a \"a\"   a");
    }

    #[test]
    fn only_copies_are_one_and_the_same() {
        static REFUSED: EscapedText = EscapedText::plain("refused");
        let made = EscapedText::new("refused");
        assert!(made.is(&made.clone()) && REFUSED.is(&REFUSED.clone()));
        assert!(!made.is(&EscapedText::new("refused")) && !made.is(&REFUSED));
    }
}
