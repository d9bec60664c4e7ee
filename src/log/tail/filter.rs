//! The filter of one reader: which requests it is shown.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::Method;

use super::super::line::{Decision, Line};
use super::super::mask::masked;
use crate::fields::glob;

/// Conditions on a request. All that are given have to hold; of several values for one condition, one has to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Ranges of statuses.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// Labels of routes, in which `*` stands for any text.
    pub routes: Vec<String>,
    pub methods: Vec<Method>,
    /// Paths without a query, in which `*` stands for any text. They are compared with the masked path, so that a filter
    /// cannot be used to guess a secret.
    pub paths: Vec<String>,
    /// Keyed hashes of users or of callers.
    pub users: Vec<u128>,
    /// Minimum duration.
    pub slow: Option<Duration>,
    /// Words for how the cache handled the request.
    pub cache: Vec<String>,
    /// Words for why the response was not stored, for the decision of the limits, or for whose fault a failure is.
    pub reasons: Vec<String>,
}

/// Returns whether a condition holds: none of its values is given, or one of them fits.
fn holds<T>(values: &[T], fits: impl Fn(&T) -> bool) -> bool {
    values.is_empty() || values.iter().any(fits)
}

impl Filter {
    /// Returns whether a request is shown. The cheapest conditions come first.
    pub(super) fn takes(&self, line: &Line<'_>) -> bool {
        holds(&self.statuses, |range| range.contains(&line.status.as_u16()))
            && self.slow.is_none_or(|slow| line.duration >= slow)
            && holds(&self.methods, |method| method == line.method)
            && holds(&self.cache, |word| line.cache == Some(word))
            && holds(&self.reasons, |word| is_reason(line, word))
            && holds(&self.users, |user| is_user(line, *user))
            && holds(&self.routes, |route| glob::matches(route.as_bytes(), line.route.as_str().as_bytes()))
            && self.takes_path(line)
    }

    fn takes_path(&self, line: &Line<'_>) -> bool {
        if self.paths.is_empty() {
            return true;
        }
        let target = masked(line.target, line.secrets);
        let path = target.split('?').next().unwrap_or("");
        self.paths.iter().any(|pattern| glob::matches(pattern.as_bytes(), path.as_bytes()))
    }
}

fn is_reason(line: &Line<'_>, word: &str) -> bool {
    line.not_stored == Some(word)
        || line.limited.is_some_and(|limited| limited.word == word)
        || line.error.is_some_and(|(fault, _)| fault == word)
}

fn is_user(line: &Line<'_>, user: u128) -> bool {
    let caller = line.limited.map(|Decision { caller: (_, hash), .. }| hash);
    line.principal == Some(user) || caller == Some(user)
}
