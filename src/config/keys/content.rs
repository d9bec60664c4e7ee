//! `[compression]` and `[etag]`.

use super::declare::table;
use super::kind::{Texts, Value, Word, flag, size_within, texts};
use crate::config::table_reader::Size;
use crate::represent::coding::Effort;

/// The most of a response of unknown length that is gathered before it is known whether it is coded.
const MAX_JUDGED: u64 = 1 << 20;
/// The content of a response that gets a tag stays in memory until its client has taken it.
const MAX_TAGGED: u64 = 16 << 20;

table! {
    /// `[compression]`.
    compression, in content, requires [];
    ENABLED "enabled": Value<bool> = flag(true), Reload,
        "Whether responses are compressed.";
    CODINGS "codings": Texts = Texts { default: &CODINGS_IN_ORDER, known: &CODINGS_IN_ORDER }, Reload,
        "Content codings, in order of preference where the client likes several equally.";
    MIN_SIZE "min_size": Value<Size> = size_within(1024, 0..=MAX_JUDGED), Reload,
        "Minimum size of a response body that is compressed.";
    TYPES "types": Texts = texts(&TYPES_BY_DEFAULT), Reload,
        "Media types that are compressed; * stands for any subtype.";
    EFFORT "effort": Word<Effort> = Word { words: &EFFORTS, default: Effort::Balanced }, Reload,
        "How much CPU time a smaller body is worth.";
    ASK_APP "ask_app": Word<bool> = Word { words: &[("identity", true), ("client", false)], default: true }, Reload,
        "Which codings the upstream is asked for: none (\"identity\") or those of the client (\"client\").";
    BREACH_GUARD "breach_guard": Value<bool> = flag(true), Reload,
        "Whether a response that sets a cookie and repeats part of its request is left uncompressed.";
}

const EFFORTS: [(&str, Effort); 3] =
    [("fast", Effort::Fast), ("balanced", Effort::Balanced), ("best", Effort::Best)];

const CODINGS_IN_ORDER: [&str; 3] = ["zstd", "br", "gzip"];

const TYPES_BY_DEFAULT: [&str; 8] = [
    "text/*",
    "application/json",
    "application/*+json",
    "application/xml",
    "application/*+xml",
    "application/javascript",
    "application/wasm",
    "image/svg+xml",
];

table! {
    /// `[etag]`.
    etag, in content, requires [];
    GENERATE "generate": Value<bool> = flag(true), Reload,
        "Whether responses without a validator get a weak entity tag.";
    MAX_SIZE "max_size": Value<Size> = size_within(64 << 10, 0..=MAX_TAGGED), Reload,
        "Maximum size of a response body that is held until its end to be tagged.";
}

#[cfg(test)]
mod tests {
    use super::CODINGS_IN_ORDER;
    use crate::represent::coding::Coding;

    #[test]
    fn the_declared_codings_are_those_that_are_built() {
        assert_eq!(CODINGS_IN_ORDER, Coding::ALL.map(Coding::as_str));
    }
}
