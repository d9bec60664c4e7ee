//! The report of an endpoint: a document, or a status and the reason for a refusal.

use http::StatusCode;
use serde_json::Value;

/// What an operator is told, and why something was refused.
pub(super) type Report = Result<Value, (StatusCode, String)>;
