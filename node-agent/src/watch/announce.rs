//! Announces pods that cannot be captured, as Events on them: where people look first.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use weft_kubernetes::{About, Events};

use super::trouble::{Said, Trouble, troubles};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long one Event may take; it is tried again.
const ANSWER: Duration = Duration::from_secs(5);

/// Follows the status file of the capture half for ever.
pub(super) async fn announce(events: Events, path: &Path) {
    let (mut said, begin) = (Said::default(), Instant::now());
    loop {
        // No file: a capture half that has not begun.
        let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
        for trouble in said.due(troubles(&text), begin.elapsed()) {
            let about = about(&trouble);
            let told = timeout(ANSWER, events.warn(&about, trouble.reason.word(), "Capture", &trouble.note)).await;
            let why = match told {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            tracing::warn!(why, pod = trouble.name, namespace = trouble.namespace, "an event was not taken");
            said.take_back(&trouble.uid);
        }
        sleep(LOOK).await;
    }
}

fn about(trouble: &Trouble) -> About {
    About {
        api_version: "v1",
        kind: "Pod",
        namespace: trouble.namespace.clone(),
        name: trouble.name.clone(),
        uid: Some(trouble.uid.clone()),
    }
}
