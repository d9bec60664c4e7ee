//! A stale stored response in place of an error (RFC 5861 4).

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
    let candidate = candidate?;
    let failed = status.map_or(Failed::Unreachable, Failed::Status);
    let age =
        selection::in_place_of_error(candidate, &read.directives, failed, &cache.invalidation, clock::now())?;
    record.cache_counters().count(Event::IfError);
    record.cache.set_handling(CacheHandling::StaleIfError);
    let member = Member {
        forwarded: Some(FwdReason::Stale.as_str()),
        forwarded_status: status.map(|status| status.as_u16()),
        detail: Some(CacheHandling::StaleIfError.as_str()),
        used: Used::Stale,
        ..Member::default()
    };
    Some(stored_response::build(record, &candidate.stored, age, read.head, member))
}
