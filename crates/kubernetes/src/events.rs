//! Events of Kubernetes about an object: what `kubectl describe` and `kubectl events` show.
//!
//! The same thing said again within six minutes is one Event with a count (kube's recorder).

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::client::Client;

/// The API's limit of an Event's note, bytes.
const NOTE: usize = 1024;

/// The API server did not take it.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not take the event: {0}")]
pub struct EventError(#[source] Box<kube::Error>);

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct About {
    /// `v1`, `weft.dev/v1alpha1`.
    pub api_version: &'static str,
    /// `Pod`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which life of that name.
    pub uid: Option<String>,
}

/// Says things about objects.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// As this program, on this node or in this pod.
    #[must_use]
    pub fn new(client: Client, program: &str, place: &str) -> Self {
        let reporter = Reporter { controller: program.to_owned(), instance: Some(place.to_owned()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Warns: `reason` is a stable code, `action` what was tried, `note` what is wrong and what to do.
    ///
    /// # Errors
    /// [`EventError`].
    pub async fn warn(&self, about: &About, reason: &str, action: &str, note: &str) -> Result<(), EventError> {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(shortened(note).to_owned()),
            action: action.to_owned(),
            secondary: None,
        };
        let reference = ObjectReference {
            api_version: Some(about.api_version.to_owned()),
            kind: Some(about.kind.to_owned()),
            namespace: Some(about.namespace.clone()),
            name: Some(about.name.clone()),
            uid: about.uid.clone(),
            ..ObjectReference::default()
        };
        self.recorder.publish(&event, &reference).await.map_err(|error| EventError(Box::new(error)))
    }
}

fn shortened(note: &str) -> &str {
    let end = (0..=NOTE.min(note.len())).rev().find(|end| note.is_char_boundary(*end));
    note.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn a_note_has_the_room_that_the_api_gives_it() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"é".repeat(600)).len(), 1024);
        assert_eq!(shortened(&format!("a{}", "é".repeat(600))).len(), 1023);
    }
}
