//! Where a rotation of the shared root is: annotations of its Secret. The replica that leads writes them; `weft certs rotate` asks for a
//! rotation, and reads them, without reading a key.
//!
//! | annotation | says |
//! |---|---|
//! | `weft.dev/rotate` | somebody has asked for a new root; taken away when it is made |
//! | `weft.dev/rotation` | the step: `trust` or `retire` |
//! | `weft.dev/rotation-since`, `-until` | since when that is in force with every replica, and how long it lasts at least (RFC 3339) |
//! | `weft.dev/rotated` | when the last rotation was over |
//! | `weft.dev/root-source` | `tls`: the root is what stands in `tls.crt` and `tls.key`, and whoever writes these rotates it |

use std::collections::BTreeMap;
use std::time::SystemTime;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::client::{Client, words};

/// The Secret of the root.
pub const SECRET: &str = "weft-ca";

const REQUEST: &str = "weft.dev/rotate";
const STEP: &str = "weft.dev/rotation";
const SINCE: &str = "weft.dev/rotation-since";
const UNTIL: &str = "weft.dev/rotation-until";
const ENDED: &str = "weft.dev/rotated";
const SOURCE: &str = "weft.dev/root-source";
const TLS: &str = "tls";

/// One of the two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The next root is there, and given to everybody. The old one signs.
    Trust,
    /// The new root signs. The old one is still given to everybody.
    Retire,
}

impl Step {
    /// As it stands in the annotation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Retire => "retire",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Trust, Self::Retire].into_iter().find(|step| step.name() == name)
    }
}

/// A step that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which.
    pub step: Step,
    /// Since when it is in force with every replica and until when it lasts at least; none while replicas take it in.
    pub counted: Option<(SystemTime, SystemTime)>,
}

/// What the annotations say. One that cannot be read says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Somebody has asked for one: when, in that one's own words.
    pub requested: Option<String>,
    /// The step that is under way.
    pub mark: Option<Mark>,
    /// When the last one was over.
    pub ended: Option<SystemTime>,
    /// The root is somebody else's, in `tls.crt` and `tls.key`.
    pub given: bool,
}

impl Rotation {
    /// Out of an object's annotations.
    #[must_use]
    pub fn read(annotations: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| annotations.get(name).map(String::as_str).filter(|text| !text.is_empty());
        let time = |name: &str| text(name)?.parse::<Timestamp>().ok().map(SystemTime::from);
        let mark = text(STEP).and_then(Step::named).map(|step| Mark { step, counted: time(SINCE).zip(time(UNTIL)) });
        Self { requested: text(REQUEST).map(str::to_owned), mark, ended: time(ENDED), given: text(SOURCE) == Some(TLS) }
    }

    /// Into an object's annotations, in place of what they said before.
    pub fn write(&self, annotations: &mut BTreeMap<String, String>) {
        let counted = self.mark.and_then(|mark| mark.counted);
        let words = [
            (REQUEST, self.requested.clone()),
            (STEP, self.mark.map(|mark| mark.step.name().to_owned())),
            (SINCE, counted.map(|(since, _)| rfc3339(since))),
            (UNTIL, counted.map(|(_, until)| rfc3339(until))),
            (ENDED, self.ended.map(rfc3339)),
            (SOURCE, self.given.then(|| TLS.to_owned())),
        ];
        for (name, word) in words {
            match word {
                Some(word) => drop(annotations.insert(name.to_owned(), word)),
                None => drop(annotations.remove(name)),
            }
        }
    }
}

/// A moment in RFC 3339, to the second.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let stamp = Timestamp::try_from(time).unwrap_or_default();
    Timestamp::from_second(stamp.as_second()).unwrap_or(stamp).to_string()
}

/// The API server did not do it.
#[derive(Debug, thiserror::Error)]
#[error("Secret {namespace}/{SECRET}: {words}")]
pub struct RotationError {
    namespace: String,
    words: String,
}

/// The Secret of the root as whoever wants a rotation sees it: its annotations, never its keys.
#[derive(Clone)]
pub struct RootSecret {
    api: Api<Secret>,
    namespace: String,
}

impl std::fmt::Debug for RootSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RootSecret({})", self.namespace)
    }
}

impl RootSecret {
    /// That of the Weft in this namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned() }
    }

    /// What it says, and the version that says so; none if there is no such Secret.
    ///
    /// # Errors
    /// [`RotationError`].
    pub async fn look(&self) -> Result<Option<(Rotation, String)>, RotationError> {
        let found = self.api.get_metadata_opt(SECRET).await.map_err(|cause| self.failed(cause))?;
        let said = |metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
            (Rotation::read(&metadata.annotations.unwrap_or_default()), metadata.resource_version.unwrap_or_default())
        };
        Ok(found.map(|secret| said(secret.metadata)))
    }

    /// Asks for a new root, if the Secret still is of this version; says whether it was.
    ///
    /// # Errors
    /// [`RotationError`].
    pub async fn ask(&self, version: &str, now: SystemTime) -> Result<bool, RotationError> {
        let patch = json!({ "metadata": { "resourceVersion": version, "annotations": { REQUEST: rfc3339(now) } } });
        match self.api.patch_metadata(SECRET, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(cause) => Err(self.failed(cause)),
        }
    }

    fn failed(&self, cause: kube::Error) -> RotationError {
        RotationError { namespace: self.namespace.clone(), words: words(&cause) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::option;
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use super::*;

    /// Whole seconds up to the year 9999.
    fn time() -> impl Strategy<Value = SystemTime> {
        (0u64..253_402_300_799).prop_map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn mark() -> impl Strategy<Value = Mark> {
        (any::<bool>(), option::of((time(), time())))
            .prop_map(|(trust, counted)| Mark { step: if trust { Step::Trust } else { Step::Retire }, counted })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_of_others_is_touched(
            requested in option::of("[a-zA-Z0-9:-]{1,9}"), mark in option::of(mark()), ended in option::of(time()), given: bool,
        ) {
            let rotation = Rotation { requested, mark, ended, given };
            let mut annotations = BTreeMap::from([("other".to_owned(), "word".to_owned())]);
            let old = Mark { step: Step::Trust, counted: Some((UNIX_EPOCH, UNIX_EPOCH)) };
            Rotation { requested: Some("x".to_owned()), mark: Some(old), ..Rotation::default() }.write(&mut annotations);
            rotation.write(&mut annotations);
            prop_assert_eq!(Rotation::read(&annotations), rotation);
            prop_assert_eq!(annotations["other"].as_str(), "word");
        }
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        let annotations = |words: &[(&str, &str)]| {
            words.iter().map(|(name, word)| ((*name).to_owned(), (*word).to_owned())).collect()
        };
        let read = |words: &[(&str, &str)]| Rotation::read(&annotations(words));
        assert_eq!(read(&[(STEP, "sideways"), (REQUEST, ""), (ENDED, "soon"), (SOURCE, "moon")]), Rotation::default());
        let half = read(&[(STEP, "trust"), (SINCE, "2026-11-23T06:00:00Z"), (UNTIL, "never")]);
        assert_eq!(half.mark, Some(Mark { step: Step::Trust, counted: None }), "counted anew");
        assert_eq!(read(&[(REQUEST, "now")]).requested.as_deref(), Some("now"), "by hand");
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(1500)), "1970-01-01T00:00:01Z");
    }
}
