//! `[redis]`, as it is written.

use std::time::Duration;

use crate::cache::invalidation::OnLost;
use crate::config::diagnostic::{Diagnostics, Span};
use crate::config::keys::redis;
use crate::config::table_reader::{Section, Size, Spanned};
use crate::config::value::Table;
use crate::limit::shared::OnError;
use crate::policy::{Carrier, Copies};

/// `[redis]`.
pub(crate) struct Redis {
    pub span: Span,
    pub url: Option<Spanned<String>>,
    pub prefix: Option<Spanned<String>>,
    pub password_file: Spanned<String>,
    pub ca: Spanned<String>,
    pub soft_timeout: Spanned<Duration>,
    pub timeout: Spanned<Duration>,
    pub cache: Copies,
    pub cache_url: Option<Spanned<String>>,
    pub max_object_size: Spanned<Size>,
    pub read_your_writes: Option<Carrier>,
    pub on_lost: OnLost,
    pub rate_limit: bool,
    pub on_error: OnError,
    pub replicas: Spanned<u64>,
}

pub(super) fn read_redis(table: &Table, span: Span, p: &mut Diagnostics) -> Redis {
    let mut s = Section::new("redis", table);
    let redis = Redis {
        span,
        url: s.read(&redis::URL, p),
        prefix: s.read(&redis::PREFIX, p),
        password_file: s.read(&redis::PASSWORD_FILE, p),
        ca: s.read(&redis::CA, p),
        soft_timeout: s.read(&redis::SOFT_TIMEOUT, p),
        timeout: s.read(&redis::TIMEOUT, p),
        cache: s.read(&redis::CACHE, p),
        cache_url: s.read(&redis::CACHE_URL, p),
        max_object_size: s.read(&redis::MAX_OBJECT_SIZE, p),
        read_your_writes: s.read(&redis::READ_YOUR_WRITES, p),
        on_lost: s.read(&redis::ON_LOST, p),
        rate_limit: s.read(&redis::RATE_LIMIT, p).value,
        on_error: s.read(&redis::ON_ERROR, p),
        replicas: s.read(&redis::REPLICAS, p),
    };
    s.finish(p);
    redis
}
