//! A root that is given by files (`--ca-cert`), and that others replace from one moment to the next: pure.
//!
//! One that agents have never heard of is handed out for an overlap before it signs, and the one before it for an overlap more, as in a
//! [rotation](super::rotate). One that has been handed out already (`--ca-roots`) signs at once. What is waited for is known to this process
//! alone: a server that is restarted signs with what the files have.

use std::time::Duration;

use super::pair::certificate_block;
use super::rotate::Phase;

/// The files.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Texts {
    /// The signing certificate, then its issuers, PEM.
    pub(super) chain: String,
    /// Its key, PEM.
    pub(super) key: String,
    /// More roots, PEM.
    pub(super) more: Option<String>,
}

/// See the [module](self). Times are since any fixed start.
#[derive(Clone)]
pub(super) struct Given {
    signs: Texts,
    next: Option<Texts>,
    old: Option<String>,
    since: Duration,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Given({:?})", self.phase())
    }
}

impl Given {
    /// As it is found at the start.
    pub(super) fn new(texts: Texts) -> Self {
        Self { signs: texts, next: None, old: None, since: Duration::ZERO }
    }

    /// The files have changed. `is_known`: the new root is one of those that are handed out.
    pub(super) fn change(&mut self, texts: Texts, is_known: bool, now: Duration) {
        let is_same = certificate_block(&texts.chain) == certificate_block(&self.signs.chain);
        if is_same {
            (self.signs, self.next) = (texts, None);
        } else if is_known && self.next.is_none() {
            self.sign(texts, now);
        } else if self.next.as_ref().is_none_or(|next| next.chain != texts.chain) {
            (self.next, self.since) = (Some(texts), now);
        }
    }

    /// Time passes; says whether anything has changed. `is_over`: the one that signs cannot any more.
    pub(super) fn pass(&mut self, overlap: Duration, is_over: bool, now: Duration) -> bool {
        let is_due = now.saturating_sub(self.since) >= overlap;
        if let Some(next) = self.next.take_if(|_| is_due || is_over) {
            self.sign(next, now);
            return true;
        }
        self.next.is_none() && self.old.take_if(|_| is_due).is_some()
    }

    fn sign(&mut self, next: Texts, now: Duration) {
        let before = std::mem::replace(&mut self.signs, next);
        (self.old, self.next, self.since) = (Some(certificate_block(&before.chain)), None, now);
    }

    /// What signs.
    pub(super) fn signs(&self) -> &Texts {
        &self.signs
    }

    /// All roots that are handed out beside its own, PEM.
    pub(super) fn more(&self) -> Option<String> {
        let next = self.next.iter().flat_map(|next| [Some(certificate_block(&next.chain)), next.more.clone()]);
        let more: String =
            [self.signs.more.clone()].into_iter().chain(next).chain([self.old.clone()]).flatten().collect();
        (!more.is_empty()).then_some(more)
    }

    /// In the words of a rotation.
    pub(super) fn phase(&self) -> Phase {
        match (&self.next, &self.old) {
            (Some(_), _) => Phase::Trust,
            (None, Some(_)) => Phase::Retire,
            (None, None) => Phase::Steady,
        }
    }
}
