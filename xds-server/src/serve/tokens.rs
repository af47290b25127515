//! Nodes by a file of tokens: lines `NODE TOKEN`, `#` comments. For bare metal, the demo and tests.
//!
//! The file is looked at with every call (one `stat`) and read again when it changed, so a token is added or revoked
//! without a restart. A line that cannot be used is a finding and counts for nobody; the others are in force. When the
//! file cannot be read any more, the tokens that were read last stay.

use std::collections::HashMap;
use std::fmt;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use weft_model::Reason;

use super::caller::{Authenticate, Caller};

/// What is wrong with one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenFinding {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and what is expected. Never contains a token.
    pub problem: String,
}

impl fmt::Display for TokenFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// The file cannot be used at start.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the node token file {}: {cause}; it has lines of the form NODE TOKEN", path.display())]
pub struct TokensError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub cause: io::Error,
}

/// The tokens in force.
#[derive(Debug)]
pub struct NodeTokens {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    stamp: Option<Stamp>,
    tokens: Vec<(Arc<str>, Vec<u8>)>,
    findings: Vec<TokenFinding>,
}

impl fmt::Debug for State {
    /// Without the tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("tokens", &self.tokens.len()).field("findings", &self.findings).finish()
    }
}

/// A file that has all of these in common with an earlier look was not changed since: inode, size, change time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl NodeTokens {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read. Bad lines are no error but [findings](Self::findings).
    pub fn open(path: &Path) -> Result<Self, TokensError> {
        let failed = |cause| TokensError { path: path.to_owned(), cause };
        let mut state = State { stamp: None, tokens: Vec::new(), findings: Vec::new() };
        read_again(path, &mut state).map_err(failed)?;
        Ok(Self { path: path.to_owned(), state: Mutex::new(state) })
    }

    /// What is wrong with the file now.
    #[must_use]
    pub fn findings(&self) -> Vec<TokenFinding> {
        self.fresh().findings.clone()
    }

    /// How many tokens are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fresh().tokens.len()
    }

    /// Whether nobody can be authenticated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn fresh(&self) -> MutexGuard<'_, State> {
        // A panic while reading leaves the tokens of before.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = read_again(&self.path, &mut state) {
            tracing::error!(path = %self.path.display(), %error, "the node token file cannot be read; the tokens read before stay in force");
        }
        state
    }
}

#[tonic::async_trait]
impl Authenticate for NodeTokens {
    async fn authenticate(&self, bearer: Option<&str>) -> Result<Caller, Reason> {
        self.caller(bearer)
    }
}

impl NodeTokens {
    fn caller(&self, bearer: Option<&str>) -> Result<Caller, Reason> {
        let given = bearer.ok_or(Reason::Unauthenticated)?.as_bytes();
        let state = self.fresh();
        // Every token is compared wholly, whichever fits: how long it takes tells nothing.
        let mut found = None;
        for (node, token) in &state.tokens {
            if equal(token, given) {
                found = Some(node);
            }
        }
        found.map(|node| Caller { node: node.clone() }).ok_or(Reason::Unauthenticated)
    }
}

/// In time that depends on the length of `given` only.
fn equal(token: &[u8], given: &[u8]) -> bool {
    let different = given.iter().enumerate().fold(0, |different, (at, byte)| {
        // Past its end the token is compared with itself, and the lengths decide.
        let other = token.get(at).or(token.first()).copied().unwrap_or_default();
        black_box(different | (other ^ byte))
    });
    black_box(different) == 0 && token.len() == given.len()
}

fn read_again(path: &Path, state: &mut State) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    let stamp = Stamp(metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec());
    if state.stamp == Some(stamp) {
        return Ok(());
    }
    let text = std::fs::read_to_string(path)?;
    let (tokens, findings) = parse(&text);
    for finding in &findings {
        tracing::error!(path = %path.display(), line = finding.line, problem = finding.problem, "a line of the node token file does not count");
    }
    *state = State { stamp: Some(stamp), tokens, findings };
    Ok(())
}

type Tokens = Vec<(Arc<str>, Vec<u8>)>;

fn parse(text: &str) -> (Tokens, Vec<TokenFinding>) {
    let mut tokens: Tokens = Vec::new();
    let mut findings = Vec::new();
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let problem = match (words.next(), words.next(), words.next()) {
            (Some(node), Some(token), None) => match owners.insert(token, node) {
                None => {
                    tokens.push((node.into(), token.as_bytes().to_vec()));
                    continue;
                }
                Some(owner) if owner == node => continue,
                Some(owner) => {
                    // Whoever has it could be either: it proves nothing.
                    tokens.retain(|(_, other)| other != token.as_bytes());
                    format!("'{node}' has the same token as '{owner}'; neither counts, give each node its own")
                }
            },
            (Some(node), None, _) => format!("'{node}' has no token; expected NODE TOKEN"),
            _ => "more than two words; expected NODE TOKEN".to_owned(),
        };
        findings.push(TokenFinding { line: index + 1, problem });
    }
    (tokens, findings)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn bad_lines_count_for_nobody_and_say_so() {
        let text =
            "# nodes\n\nnode-1 aaaa\n node-2\tbbbb \nnode-3\nnode-4 a b\nnode-1 cccc\nnode-5 aaaa\nnode-1 cccc\n";
        let (tokens, findings) = parse(text);
        let nodes: Vec<&str> = tokens.iter().map(|(node, _)| &**node).collect();
        assert_eq!(nodes, ["node-2", "node-1"]);
        let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [5, 6, 8]);
        assert!(!findings.iter().any(|finding| finding.problem.contains("aaaa")));
    }

    #[test]
    fn a_changed_file_is_in_force_at_once_and_a_lost_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        assert!(NodeTokens::open(&path).unwrap_err().to_string().contains("NODE TOKEN"));
        std::fs::write(&path, "node-1 first\n").unwrap();
        let tokens = NodeTokens::open(&path).unwrap();
        let node = |token| tokens.caller(Some(token)).map(|caller| caller.node.to_string());
        assert_eq!(node("first"), Ok("node-1".to_owned()));
        assert_eq!(node("firs"), Err(Reason::Unauthenticated));
        assert_eq!(node("first "), Err(Reason::Unauthenticated));
        assert_eq!(tokens.caller(None), Err(Reason::Unauthenticated));
        std::fs::write(&path, "node-1 second\nnode-2\n").unwrap();
        assert_eq!((node("second"), node("first")), (Ok("node-1".to_owned()), Err(Reason::Unauthenticated)));
        assert_eq!((tokens.findings().len(), tokens.len()), (1, 1));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(node("second"), Ok("node-1".to_owned()));
    }

    proptest! {
        #[test]
        fn equal_is_equality(token in "[ab]{0,4}", given in "[ab]{0,4}") {
            prop_assert_eq!(equal(token.as_bytes(), given.as_bytes()), token == given);
        }
    }
}
