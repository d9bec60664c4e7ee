//! A stale stored response in place of an error (RFC 5861 4).

use std::rc::Rc;

use http::Response;

use super::classify::Lookup;
use super::miss::Candidate;
use super::stored_response;
use crate::cache::Cache;
use crate::cache::counters::Event;
use crate::cache::rules::eligibility::FwdReason;
use crate::cache::rules::reuse;
use crate::cache::rules::reuse::{Age, Failed};
use crate::fields::cache_status::{Member, Used};
use crate::layer::record::{ByCache, RequestRecord};
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
    let candidate = candidate.filter(|candidate| !candidate.gone)?;
    let head = &candidate.stored.head;
    let failed = status.map_or(Failed::Unreachable, Failed::Status);
    // Looked up again: it may have been invalidated meanwhile.
    let age: Age = head.age_if_valid(&cache.invalidation, clock::now())?;
    if !reuse::may_replace_error(&head.freshness, age, &read.directives, failed) {
        return None;
    }
    record.cached().count(Event::IfError);
    record.set_cache_outcome(ByCache::StaleIfError);
    let member = Member {
        forwarded: Some(FwdReason::Stale.as_str()),
        forwarded_status: status.map(|status| status.as_u16()),
        detail: Some(ByCache::StaleIfError.as_str()),
        used: Used::Stale,
        ..Member::default()
    };
    Some(stored_response::build(record, &candidate.stored, age, read.head, member))
}
