//! The settings of the link, from `[redis]`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::redis::url::RedisUrl;

/// Where Redis is, and how long it is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub url: RedisUrl,
    /// How its certificate is verified; `None` without TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// File with the password, read at each connect.
    pub password_file: Option<PathBuf>,
    /// Beginning of all names in Redis.
    pub prefix: String,
    /// How long one command may take.
    pub timeout: Duration,
}

/// Certificates are compared as the files they came from ([`crate::policy::Policy::sources`]).
impl PartialEq for Settings {
    fn eq(&self, other: &Settings) -> bool {
        let Settings { url, tls, password_file, prefix, timeout } = self;
        *url == other.url
            && tls.is_some() == other.tls.is_some()
            && *password_file == other.password_file
            && *prefix == other.prefix
            && *timeout == other.timeout
    }
}
