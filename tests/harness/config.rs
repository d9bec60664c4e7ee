//! The text of a configuration from its parts, for tests that change a key or two of what all of them share. Tests of the
//! configuration itself write it out.

use std::fmt::{Display, Write as _};
use std::sync::Arc;

use super::{Folder, Pillion};

/// A value as it stands in TOML.
pub(crate) trait Value {
    fn toml(&self) -> String;
}

impl Value for &str {
    fn toml(&self) -> String {
        format!("{self:?}")
    }
}

impl Value for i64 {
    fn toml(&self) -> String {
        self.to_string()
    }
}

impl Value for bool {
    fn toml(&self) -> String {
        self.to_string()
    }
}

impl<const N: usize> Value for [&str; N] {
    fn toml(&self) -> String {
        format!("{self:?}")
    }
}

/// A configuration on free ports. Every method adds to a section, in any order.
#[must_use]
#[derive(Clone)]
pub(crate) struct Config {
    server: String,
    upstream: String,
    cache: String,
    /// Tables and arrays of tables, which come last.
    tables: String,
}

impl Config {
    /// In front of an app that speaks HTTP/1.
    pub(crate) fn new(app: impl Display) -> Config {
        Config::in_front_of(&format!("http://{app}"))
    }

    /// In front of an app at a URL such as `h2c://127.0.0.1:1`.
    pub(crate) fn in_front_of(url: &str) -> Config {
        let [cache, tables] = [(); 2].map(|()| String::new());
        let server = "listen = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n".to_owned();
        Config { server, upstream: format!("url = {url:?}\n"), cache, tables }
    }

    pub(crate) fn server(mut self, key: &str, value: impl Value) -> Config {
        let _ = writeln!(self.server, "{key} = {}", value.toml());
        self
    }

    pub(crate) fn upstream(mut self, key: &str, value: impl Value) -> Config {
        let _ = writeln!(self.upstream, "{key} = {}", value.toml());
        self
    }

    pub(crate) fn cache(mut self, key: &str, value: impl Value) -> Config {
        let _ = writeln!(self.cache, "{key} = {}", value.toml());
        self
    }

    /// Adds a route with its other keys in TOML.
    pub(crate) fn route(self, matching: &str, keys: &str) -> Config {
        self.table("[[routes]]", &format!("match = {matching:?}\n{keys}"))
    }

    /// Adds a limit of a tier with its keys in TOML, such as `rate = "1/s", burst = 2`.
    pub(crate) fn limit(self, tier: &str, name: &str, keys: &str) -> Config {
        self.table(&format!("[rate_limit.tiers.{tier}.limits.{name}]"), &keys.replace(", ", "\n"))
    }

    /// Adds any other table with its keys in TOML.
    pub(crate) fn table(mut self, head: &str, keys: &str) -> Config {
        let _ = writeln!(self.tables, "{head}\n{keys}");
        self
    }

    pub(crate) fn text(&self) -> String {
        let Config { server, upstream, cache, tables } = self;
        let mut text = format!("[server]\n{server}[upstream]\n{upstream}");
        if !cache.is_empty() {
            let _ = write!(text, "[cache]\n{cache}");
        }
        text + tables
    }

    pub(crate) fn start(&self) -> Pillion {
        Pillion::with(&self.text())
    }

    /// Starts Pillion in a folder with the files that the configuration names.
    pub(crate) fn start_in(&self, folder: Arc<Folder>) -> Pillion {
        Pillion::in_folder(folder, &self.text())
    }
}
