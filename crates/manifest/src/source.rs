//! Where a program reads its objects from: one word on its command line.

use std::path::PathBuf;
use std::str::FromStr;

/// Where the objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory of Kubernetes YAML.
    Directory(PathBuf),
    /// The Kubernetes API, by this kubeconfig or the usual ways.
    Kubernetes(Option<PathBuf>),
}

/// A text that names no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a source; expected kubernetes, kubernetes:KUBECONFIG, or dir:PATH, for example dir:/etc/weft/cluster"
)]
pub struct SourceError(String);

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Directory(path.into())),
            Some(("kubernetes", path)) if !path.is_empty() => Ok(Self::Kubernetes(Some(path.into()))),
            None if text == "kubernetes" => Ok(Self::Kubernetes(None)),
            _ => Err(SourceError(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
            Self::Kubernetes(None) => f.write_str("kubernetes"),
            Self::Kubernetes(Some(path)) => write!(f, "kubernetes:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn words_and_back() {
        for (word, source) in [
            ("dir:/x", Source::Directory("/x".into())),
            ("kubernetes", Source::Kubernetes(None)),
            ("kubernetes:/c", Source::Kubernetes(Some("/c".into()))),
        ] {
            assert_eq!((word.parse(), source.to_string()), (Ok(source), word.to_owned()));
        }
        for wrong in ["", "dir:", "kubernetes:", "/x", "other:/x"] {
            assert!(wrong.parse::<Source>().unwrap_err().to_string().contains("dir:PATH"), "{wrong}");
        }
    }
}
