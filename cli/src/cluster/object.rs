//! Objects of Kubernetes as plain values.

use serde_json::Value;

/// A text, or nothing where there is none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
