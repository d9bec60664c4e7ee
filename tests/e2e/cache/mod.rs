//! Tests of the cache on the real binary: reuse, fetches, invalidation, attacks, and the operator's view.

mod attacks;
mod fetches;
mod invalidation;
mod operations;
mod purge;
mod reuse;
mod tokens;
pub(crate) mod tools;
mod tripwire;
mod warm;
mod webdav;
mod writes;
