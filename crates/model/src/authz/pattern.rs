//! How a rule compares text: `istio.security.StringMatch`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StringMatch {
    /// The whole text.
    Exact(Arc<str>),
    /// How it begins.
    Prefix(Arc<str>),
    /// How it ends.
    Suffix(Arc<str>),
    /// There is a text at all.
    Presence,
}

impl StringMatch {
    /// Reads the notation of our YAML: `*` is presence, `abc*` a prefix, `*abc` a suffix, all else exact.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match (text, text.strip_suffix('*'), text.strip_prefix('*')) {
            ("*", ..) => Self::Presence,
            (_, Some(prefix), _) => Self::Prefix(prefix.into()),
            (_, _, Some(suffix)) => Self::Suffix(suffix.into()),
            _ => Self::Exact(text.into()),
        }
    }

    /// Whether `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => &**exact == text,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Suffix(suffix) => text.ends_with(&**suffix),
            Self::Presence => true,
        }
    }
}
