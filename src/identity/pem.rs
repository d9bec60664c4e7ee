//! A parser for PEM files (RFC 7468) with any labels. Every BEGIN must have its END, and the base64 must be canonical;
//! text between sections is ignored (RFC 7468 5.2). The reader of rustls does not fit: it skips labels without a type
//! in rustls, so it would lose `RSA PUBLIC KEY` and not notice an `ENCRYPTED PRIVATE KEY`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The start of a section, before its label.
pub(crate) const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section<'a> {
    /// The text between BEGIN and the dashes.
    pub label: &'a str,
    /// The decoded base64; `None` if it is damaged.
    pub content: Option<Vec<u8>>,
}

/// Returns all sections; `None` if one of them has no end.
pub(crate) fn sections(text: &str) -> Option<Vec<Section<'_>>> {
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = boundary(line, BEGIN) else { continue };
        let mut base64 = String::new();
        loop {
            let line = lines.next()?;
            if let Some(end) = boundary(line, END) {
                if end != label {
                    return None;
                }
                break;
            }
            base64.push_str(line);
        }
        found.push(Section { label, content: STANDARD.decode(base64).ok() });
    }
    Some(found)
}

fn boundary<'a>(line: &'a str, opening: &str) -> Option<&'a str> {
    line.strip_prefix(opening)?.strip_suffix(DASHES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading() {
        let a = || Section { label: "A", content: Some(b"abcd".to_vec()) };
        let damaged = || Section { label: "A", content: None };
        for (text, wanted) in [
            ("", Some(vec![])),
            ("no section", Some(vec![])),
            ("-----BEGIN A-----\nYWJjZA==\n-----END A-----\n", Some(vec![a()])),
            ("said\n-----BEGIN A-----\r\nYWJj\r\nZA==\r\n-----END A-----\r\nbetween\n", Some(vec![a()])),
            ("-----BEGIN A-----\nYWJjZA==\n-----END A-----\n".repeat(2).as_str(), Some(vec![a(), a()])),
            ("-----BEGIN A-----\nYWJjZA==\n-----END B-----\n", None),
            ("-----BEGIN A-----\nYWJjZA==\n", None),
            ("-----BEGIN A-----\n", None),
            ("-----BEGIN A-----\nYWJjZA\n-----END A-----", Some(vec![damaged()])),
            ("-----BEGIN A-----\nYWJjZB==\n-----END A-----", Some(vec![damaged()])),
            ("-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n\nYWJj\n-----END A-----", Some(vec![damaged()])),
        ] {
            assert_eq!(sections(text), wanted, "{text}");
        }
    }
}
