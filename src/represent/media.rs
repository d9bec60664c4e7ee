//! Media type patterns of the configuration: `text/*`, `application/json`, `application/*+json`.

/// One pattern; `*` in the subtype matches any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MediaPattern {
    kind: String,
    before: String,
    /// The text after the `*`; `None` if the pattern has none.
    after: Option<String>,
}

impl MediaPattern {
    /// Parses a pattern; `None` if it is not valid.
    pub(crate) fn parse(text: &str) -> Option<MediaPattern> {
        let (kind, subtype) = text.split_once('/')?;
        let token =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b';');
        if kind.is_empty() || kind.contains('*') || subtype.is_empty() || !token(kind) || !token(subtype) {
            return None;
        }
        let (before, after) = match subtype.split_once('*') {
            Some((_, after)) if after.contains('*') => return None,
            Some((before, after)) => (before, Some(after.to_ascii_lowercase())),
            None => (subtype, None),
        };
        Some(MediaPattern { kind: kind.to_ascii_lowercase(), before: before.to_ascii_lowercase(), after })
    }

    /// Returns whether a type matches. The first octet of the subtype is compared first, because it differs for most
    /// types.
    fn matches(&self, kind: &[u8], subtype: &[u8]) -> bool {
        let differs = |(ours, theirs): (u8, &u8)| ours != theirs.to_ascii_lowercase();
        if self.before.bytes().next().zip(subtype.first()).is_some_and(differs) {
            return false;
        }
        let fits = match &self.after {
            None => is_same(subtype, &self.before),
            Some(after) => {
                subtype.len() >= self.before.len() + after.len()
                    && is_same(&subtype[..self.before.len()], &self.before)
                    && is_same(&subtype[subtype.len() - after.len()..], after)
            }
        };
        fits && is_same(kind, &self.kind)
    }
}

/// Without case. Nearly every type comes in lowercase, which is compared far more quickly.
fn is_same(text: &[u8], lowercase: &str) -> bool {
    text == lowercase.as_bytes() || text.eq_ignore_ascii_case(lowercase.as_bytes())
}

/// Returns whether a Content-Type matches one of the patterns; its parameters do not matter.
pub(crate) fn matches(patterns: &[MediaPattern], content_type: &[u8]) -> bool {
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    let essence = content_type[..end].trim_ascii();
    let Some(slash) = memchr::memchr(b'/', essence) else { return false };
    let (kind, subtype) = (&essence[..slash], &essence[slash + 1..]);
    patterns.iter().any(|pattern| pattern.matches(kind, subtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, fits, does_not) in [
            (
                "text/*",
                &["text/html", "TEXT/plain; charset=utf-8", "text/"][..],
                &["image/text", "text", ""][..],
            ),
            (
                "application/json",
                &["application/json", "application/JSON;x=y"],
                &["application/json5", "application/x"],
            ),
            ("application/*+json", &["application/problem+json", "application/+json"], &["application/json"]),
            ("image/svg+xml", &["image/svg+xml"], &["image/svg"]),
        ] {
            let patterns = [MediaPattern::parse(pattern).unwrap()];
            assert!(fits.iter().all(|fit| matches(&patterns, fit.as_bytes())), "{pattern:?}");
            assert!(!does_not.iter().any(|wrong| matches(&patterns, wrong.as_bytes())), "{pattern:?}");
        }
        for wrong in ["", "text", "*/*", "/x", "text/", "a/*b*", "a b/c", "text/html; charset=utf-8"] {
            assert_eq!(MediaPattern::parse(wrong), None, "{wrong}");
        }
    }
}
