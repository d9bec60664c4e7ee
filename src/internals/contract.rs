//! The words that users rely on, taken from the lists that the code itself uses. `tests/house/contract` freezes them. It
//! reads metrics, admin documents, flags and exit codes from the running binary; this file has only the words that no
//! single run shows.

use crate::admin::finding::State;
use crate::config::{self, DeclaredKey, ReadKey};
use crate::fields::cache_status::XCache;
use crate::layer::{self, problem_types};
use crate::message::error::Fault;
use crate::performance::judge::Slowness;
use crate::represent::coding::Coding;
use crate::represent::compression_decision::Reason;
use crate::upstream::FAILURE_KINDS;

/// Returns the words, grouped by the place where users see them.
pub fn words() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut all = layer::words();
    all.extend([
        ("X-Cache", XCache::ALL.map(XCache::as_str).to_vec()),
        ("log fault", Fault::ALL.map(Fault::as_str).to_vec()),
        ("log coding", Coding::ALL.map(Coding::as_str).to_vec()),
        ("metrics content result (beside codings)", Reason::ALL.map(Reason::as_str).to_vec()),
        ("metrics upstream failure kind", FAILURE_KINDS.to_vec()),
        ("health state", State::ALL.map(State::as_str).to_vec()),
        ("performance state", Slowness::ALL.map(Slowness::as_str).to_vec()),
    ]);
    all
}

/// Returns the type and the title of every problem document that clients can get.
pub fn problems() -> Vec<(String, &'static str)> {
    problem_types::ALL.iter().map(|known| (known.uri(), known.title)).collect()
}

/// Returns the configuration keys that a file may contain, for the tables that `text` has.
pub fn configuration_keys(text: &str) -> Vec<ReadKey> {
    config::read_keys(text)
}

/// Returns the keys of a configuration file as they are declared.
pub fn declared_keys() -> Vec<DeclaredKey> {
    config::declared_keys()
}

/// Returns the keys that a file of API keys may contain, for the tables that `text` has.
pub fn api_key_keys(text: &str) -> Vec<ReadKey> {
    config::read_keys_of_keys(text)
}
