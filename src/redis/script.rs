//! Scripts that run in Redis. A server gets a script whole once, and then by its name.

use std::sync::LazyLock;
use std::time::Duration;

use ring::digest;

use super::command::{Command, CommandError, Value};
use super::link::Link;

/// A script.
pub(crate) struct Script {
    text: &'static str,
    /// The name of the script on servers that have it: its SHA-1.
    name: LazyLock<String, Box<dyn FnOnce() -> String + Send>>,
}

impl Script {
    /// Creates a script.
    pub(crate) fn new(text: &'static str) -> Script {
        let name = move || {
            let name = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
            name.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        Script { text, name: LazyLock::new(Box::new(name)) }
    }

    /// Runs the script over a link. `with` adds its keys and arguments; each attempt takes at most `timeout`.
    pub(crate) async fn run(
        &self,
        link: &Link,
        timeout: Duration,
        with: impl Fn(Command) -> Command,
    ) -> Result<Value, CommandError> {
        let named = Command::new("EVALSHA").arg(self.name.as_bytes());
        match link.query(&with(named), timeout).await {
            Err(CommandError::NoScript) => {
                link.query(&with(Command::new("EVAL").arg(self.text)), timeout).await
            }
            ran => ran,
        }
    }
}
