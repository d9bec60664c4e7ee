//! A stale stored response in place of an error, or of a response that does not come in time (RFC 5861 4).

use std::rc::Rc;

use http::Response;

use super::classify::Lookup;
use super::stored_response;
use crate::cache::Cache;
use crate::cache::counters::Event;
use crate::cache::rules::eligibility::FwdReason;
use crate::cache::rules::reuse::Failed;
use crate::cache::selection;
use crate::cache::selection::Candidate;
use crate::fields::cache_status::{Member, Used};
use crate::layer::record::{CacheHandling, RequestRecord};
use crate::message::body::Body;
use crate::runtime::clock;

/// Returns a stale response in place of an error, if that is allowed.
pub(super) fn in_place_of_error(
    cache: &Cache,
    record: &Rc<RequestRecord>,
    read: &Lookup,
    candidate: Option<&Candidate>,
    status: Option<http::StatusCode>,
) -> Option<Response<Body>> {
    let failed = status.map_or(Failed::Unreachable, Failed::Status);
    instead(cache, record, read, candidate?, failed, CacheHandling::StaleIfError)
}

/// Returns a stale response because the upstream has not responded in time, if one could be used if it did not respond
/// at all.
pub(super) fn in_place_of_waiting(
    cache: &Cache,
    record: &Rc<RequestRecord>,
    read: &Lookup,
    candidate: Option<&Candidate>,
) -> Option<Response<Body>> {
    instead(cache, record, read, candidate?, Failed::Unreachable, CacheHandling::StaleIfSlow)
}

fn instead(
    cache: &Cache,
    record: &Rc<RequestRecord>,
    read: &Lookup,
    candidate: &Candidate,
    failed: Failed,
    handling: CacheHandling,
) -> Option<Response<Body>> {
    let age =
        selection::in_place_of_error(candidate, &read.directives, failed, &cache.invalidation, clock::now())?;
    let event = if handling == CacheHandling::StaleIfSlow { Event::IfSlow } else { Event::IfError };
    record.cache_counters().count(event);
    record.cache.set_handling(handling);
    let status = match failed {
        Failed::Unreachable => None,
        Failed::Status(status) => Some(status.as_u16()),
    };
    let member = Member {
        forwarded: Some(FwdReason::Stale.as_str()),
        forwarded_status: status,
        detail: Some(handling.as_str()),
        used: Used::Stale,
        ..Member::default()
    };
    Some(stored_response::build(record, &candidate.stored, age, read.head, member))
}
