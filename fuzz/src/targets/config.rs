//! Files that people write, and what the two halves of an agent say to each other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use weft_manifest::{Files, Store};
use weft_node_agent::handover::message::{self, Message};
use weft_node_agent::handover::{ToCapture, ToProxy};
use weft_xds_server::serve::NodeTokens;

use super::outcome::Outcome;

/// A file of the source: the same file gives the same objects, and its removal leaves nothing.
pub(super) fn yaml(bytes: &[u8]) -> Outcome {
    let files = |content: Option<&[u8]>| {
        let contents: BTreeMap<_, _> =
            content.map(|bytes| (Arc::from("a.yaml"), Ok(Arc::from(bytes)))).into_iter().collect();
        Files { contents, ..Files::default() }
    };
    let mut store = Store::default();
    let first = store.apply(&files(Some(bytes)));
    assert_eq!(store.apply(&files(Some(bytes))), first);
    assert_eq!(Store::default().apply(&files(Some(bytes))), first);
    // Not more than a finding for every byte, and none that grows with more than the input.
    assert!(first.findings.len() <= bytes.len() + 8, "{} findings", first.findings.len());
    let said: usize = first.findings.iter().map(|finding| finding.to_string().len()).sum();
    assert!(said <= 64 * bytes.len() + 65_536, "{said} bytes of findings");
    let outcome = Outcome::of(&first.objects).and(Outcome::of(&first.findings)).past(!first.objects.is_empty());
    // Whatever comes next in its place: a broken file keeps what was, an empty one does not.
    let _ = store.apply(&files(Some(b"\t: [")));
    let _ = store.apply(&files(Some(bytes)));
    let last = store.apply(&files(None));
    assert_eq!(last.objects.len(), 0);
    outcome
}

/// The server's file of tokens: what is in force was in the file.
pub(super) fn tokens(bytes: &[u8]) -> Outcome {
    thread_local! {
        static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
    }
    let path = FOLDER.with_borrow_mut(|folder| {
        folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder")).path().join("tokens")
    });
    fs::write(&path, bytes).expect("a file");
    let read = NodeTokens::open(&path);
    let Ok(tokens) = &read else { return Outcome::of(&"refused") };
    let lines = String::from_utf8_lossy(bytes).lines().count();
    let findings = tokens.findings();
    assert!(tokens.len() + findings.len() <= lines);
    Outcome::of(&(tokens.len().min(3), findings)).past(!tokens.is_empty())
}

/// A record between the halves, in both directions.
pub(super) fn handover(bytes: &[u8]) -> Outcome {
    record::<ToProxy>(bytes).and(record::<ToCapture>(bytes))
}

fn record<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Outcome {
    let read = message::decode::<M>(bytes);
    if let Ok(said) = &read {
        let written = message::encode(said).expect("what was read can be written");
        assert_eq!(message::decode::<M>(&written).as_ref(), Ok(said));
    }
    if let Err(error) = &read {
        assert!(error.to_string().len() <= bytes.len() + 512, "an error longer than what it is about");
    }
    Outcome::of(&read).past(read.is_ok())
}
