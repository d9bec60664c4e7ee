//! `[compression]` and `[etag]`, as they are written.

use crate::config::diagnostic::Diagnostics;
use crate::config::keys::{compression, etag};
use crate::config::table_reader::{Section, Size, Spanned};
use crate::config::value::{EMPTY, Table};
use crate::represent::coding::Effort;

/// `[compression]`.
pub(crate) struct Compression {
    pub enabled: Spanned<bool>,
    pub codings: Vec<Spanned<String>>,
    pub min_size: Spanned<Size>,
    pub types: Vec<Spanned<String>>,
    pub effort: Effort,
    pub ask_identity: bool,
    pub breach_guard: Spanned<bool>,
}

/// `[etag]`.
pub(crate) struct Etag {
    pub generate: Spanned<bool>,
    pub max_size: Spanned<Size>,
}

pub(super) fn read_compression(table: Option<&Table>, p: &mut Diagnostics) -> Compression {
    let mut s = Section::new("compression", table.unwrap_or(EMPTY));
    let compression = Compression {
        enabled: s.read(&compression::ENABLED, p),
        codings: s.read(&compression::CODINGS, p),
        min_size: s.read(&compression::MIN_SIZE, p),
        types: s.read(&compression::TYPES, p),
        effort: s.read(&compression::EFFORT, p),
        ask_identity: s.read(&compression::ASK_APP, p),
        breach_guard: s.read(&compression::BREACH_GUARD, p),
    };
    s.finish(p);
    compression
}

pub(super) fn read_etag(table: Option<&Table>, p: &mut Diagnostics) -> Etag {
    let mut s = Section::new("etag", table.unwrap_or(EMPTY));
    let etag = Etag { generate: s.read(&etag::GENERATE, p), max_size: s.read(&etag::MAX_SIZE, p) };
    s.finish(p);
    etag
}
