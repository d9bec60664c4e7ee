//! What an endpoint reports: a document, or a status and the reason why it is refused.

use http::StatusCode;
use serde_json::Value;

/// What an operator is told, and why something was refused.
pub(super) type Report = Result<Value, (StatusCode, String)>;
