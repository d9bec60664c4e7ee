//! Maintenance mode: refuses requests while the upstream is left alone. Without stored responses the route layer does so,
//! else the innermost layer, so that the cache serves what it may serve while the upstream gives no response.

use std::fmt;

use http::{HeaderMap, HeaderValue, header};

use super::record::RequestRecord;
use crate::fields::host;
use crate::policy::maintenance::Document;
use crate::policy::path;

/// The refusal of a request.
#[derive(Debug)]
pub(super) struct UnderMaintenance {
    pub retry_after: HeaderValue,
    /// The configured content, if the client accepts it.
    pub document: Option<Document>,
}

impl fmt::Display for UnderMaintenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("maintenance is on")
    }
}

impl std::error::Error for UnderMaintenance {}

/// Returns the refusal of a request if maintenance is on and does not exempt it. `stored`: whether stored responses
/// were asked before.
#[inline(always)]
pub(super) fn refusal(record: &RequestRecord, headers: &HeaderMap, stored: bool) -> Option<UnderMaintenance> {
    if record.is_maintenance() { refuse(record, headers, stored) } else { None }
}

#[cold]
fn refuse(record: &RequestRecord, headers: &HeaderMap, stored: bool) -> Option<UnderMaintenance> {
    let policy = &record.info.snapshot.policy.maintenance;
    if policy.serve_stored && !stored {
        return None;
    }
    let normal = record.info.target.as_ref().and_then(|target| path::normalise(target.path()).ok());
    let path = normal.as_ref().map_or("", |path| &*path.normal);
    if policy.exempts(record.info.client, &record.info.method, host::text(headers), path) {
        return None;
    }
    let document = policy.document.as_ref();
    Some(UnderMaintenance {
        retry_after: policy.retry_after.clone(),
        document: document.filter(|document| document.is_accepted(headers.get(header::ACCEPT))).cloned(),
    })
}
