//! The sections of a PEM file (RFC 7468), whatever their labels.
//!
//! Strict where it matters (every BEGIN has its END, the base64 is canonical) and deaf to the text between
//! sections (RFC 7468 5.2). Not rustls' reader, which passes over labels it has no type for: `RSA PUBLIC KEY`
//! would be lost, and an `ENCRYPTED PRIVATE KEY` would go unnoticed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What opens a section, before its label.
pub(crate) const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section<'a> {
    /// What stands between BEGIN and the dashes.
    pub label: &'a str,
    /// What its base64 stands for; `None` where that is damaged.
    pub content: Option<Vec<u8>>,
}

/// All sections; `None` where one does not end.
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
