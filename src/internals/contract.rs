//! The words that users rely on, taken from the lists the code itself uses: `tests/contract.rs` freezes them.
//!
//! Metrics, admin documents, flags and exit codes are read from the running binary there; here stands only what no single
//! run of it shows.

use crate::admin::finding::State;
use crate::config::{self, ReadKey};
use crate::fields::cache_status::XCache;
use crate::layer::{self, problem_types};
use crate::message::error::Fault;
use crate::performance::judge::Slowness;
use crate::represent::coding::Coding;
use crate::represent::compression_decision::Reason;
use crate::upstream::FAILURE_KINDS;

/// Words by where users meet them.
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

/// The type and the title of every problem that Pillion answers a client with.
pub fn problems() -> Vec<(String, &'static str)> {
    problem_types::ALL.iter().map(|known| (known.uri(), known.title)).collect()
}

/// The keys of a configuration file, as far as `text` writes the tables they stand in.
pub fn configuration_keys(text: &str) -> Vec<ReadKey> {
    config::read_keys(text)
}

/// The keys of a file of API keys, as far as `text` writes the tables they stand in.
pub fn api_key_keys(text: &str) -> Vec<ReadKey> {
    config::read_keys_of_keys(text)
}
