//! Tests of limits on the real binary: identification of callers, fields in responses, reloads, and the operator's
//! view.

mod callers;
mod concurrency;
mod key_files;
mod quotas;
mod told;
mod tools;
