//! Values that no log, error or debug output shows.

use std::fmt;

/// A token, a key or a password. It is shown as `****`; [`Secret::expose`] is the one way to its value.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides a value.
    pub(crate) fn new(value: T) -> Secret<T> {
        Secret(value)
    }

    /// Returns the value, for the one place that needs it.
    pub(crate) fn expose(&self) -> &T {
        &self.0
    }
}

impl From<String> for Secret<String> {
    fn from(value: String) -> Secret<String> {
        Secret(value)
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_shows_it() {
        let secret = Secret::new("S3CRET".to_owned());
        let shown = format!("{secret} {secret:?} {secret:#?} {:?}", Some(&secret));
        assert_eq!(shown, "**** **** **** Some(****)");
        assert_eq!(secret.expose(), "S3CRET");
    }
}
