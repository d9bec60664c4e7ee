//! The report of an endpoint: a document, or a status and the reason for a refusal.

use http::StatusCode;
use serde_json::Value;

/// The JSON document for the operator, or a status and the reason why the request was refused.
pub(super) type Report = Result<Value, (StatusCode, String)>;
