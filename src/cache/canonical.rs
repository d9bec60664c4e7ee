//! The canonical form of JSON: members sorted by name and no white space between tokens. Numbers and strings stay as
//! written, because not every upstream treats `1` and `1.0`, or an escape and its character, as equal.

/// Maximum nesting depth; real requests stay far below it.
const MAX_DEPTH: usize = 64;

/// Returns whether a media type is JSON (RFC 6839 3.1).
pub(crate) fn is_json(kind: &[u8]) -> bool {
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    kind == b"application/json" || kind.ends_with(b"+json")
}

/// Returns the canonical form, or `None` if the text is not JSON or repeats a member name, which upstreams read
/// differently.
pub fn json(text: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader { text, at: 0 };
    let mut out = Vec::with_capacity(text.len());
    reader.value(&mut out, 0)?;
    reader.space();
    (reader.at == text.len()).then_some(out)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'{' => self.object(out, depth),
            b'[' => self.array(out, depth),
            b'"' => {
                out.extend_from_slice(self.string()?);
                Some(())
            }
            _ => {
                let token = self.scalar()?;
                // serde_json validates the grammar of numbers and literals.
                serde_json::from_slice::<serde::de::IgnoredAny>(token).ok()?;
                out.extend_from_slice(token);
                Some(())
            }
        }
    }

    fn scalar(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        while let Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.') = self.text.get(self.at)
        {
            self.at += 1;
        }
        self.text.get(start..self.at).filter(|token| !token.is_empty())
    }

    /// Reads a string including its quotes, with its escapes untouched.
    fn string(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.text.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.text.get(start..self.at)
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.at += 1;
        out.push(b'[');
        if !self.take(b']') {
            loop {
                self.value(out, depth + 1)?;
                if self.take(b']') {
                    break;
                }
                if !self.take(b',') {
                    return None;
                }
                out.push(b',');
            }
        }
        out.push(b']');
        Some(())
    }

    fn object(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.at += 1;
        // Names are unescaped, so that a name spelled in two ways is recognized as repeated.
        let mut members: Vec<(String, Vec<u8>)> = Vec::new();
        if !self.take(b'}') {
            loop {
                if self.peek()? != b'"' {
                    return None;
                }
                let written = self.string()?;
                let name: String = serde_json::from_slice(written).ok()?;
                if !self.take(b':') {
                    return None;
                }
                let mut member = written.to_vec();
                member.push(b':');
                self.value(&mut member, depth + 1)?;
                members.push((name, member));
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return None;
                }
            }
        }
        members.sort();
        if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        out.push(b'{');
        for (at, (_, member)) in members.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(member);
        }
        out.push(b'}');
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        for (text, wanted) in [
            (r#"{"b": [1, 2], "a" : {"d":null,"c":true}}"#, Some(r#"{"a":{"c":true,"d":null},"b":[1,2]}"#)),
            (r#" [ ] "#, Some("[]")),
            (r#"{"a":1.0}"#, Some(r#"{"a":1.0}"#)),
            (r#"{"a":123456789012345678901234567890}"#, Some(r#"{"a":123456789012345678901234567890}"#)),
            (r#"{"a":"x, }\" y"}"#, Some(r#"{"a":"x, }\" y"}"#)),
            (r#"{"a":1,"a":2}"#, None),
            (r#"{"a":1,"\u0061":2}"#, None),
            (r#"{"a":1,}"#, None),
            (r#"{"a" 1}"#, None),
            (r#"{"a":01}"#, None),
            (r#"{"a":tru}"#, None),
            (r#"{"a":1} x"#, None),
            (r#"{"a":"x"#, None),
            ("", None),
        ] {
            let found = json(text.as_bytes()).map(|form| String::from_utf8(form).unwrap());
            assert_eq!(found.as_deref(), wanted, "{text}");
        }
        assert_eq!(json("[".repeat(100_000).as_bytes()), None);
        assert!(
            is_json(b"application/json") && is_json(b"Application/LD+JSON; a=b") && !is_json(b"text/plain")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = json(&text);
        }

        /// The canonical form means the same as the text, and its own canonical form is itself.
        #[test]
        fn the_form_means_the_same(text in "[ \\[\\]{}:,\"ab01.e-]{0,24}") {
            if let Some(form) = json(text.as_bytes()) {
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&form).unwrap(), value);
                prop_assert_eq!(json(&form), Some(form.clone()));
            }
        }
    }
}
