//! Whom an agent believes that it is the control plane, while roots are rotated: those of its file, and those that the CA
//! gave it, if they are of the same family.
//!
//! A node's file is a copy that somebody made once. While the mesh changes its root, the CA's answers, which came over a
//! connection that the file confirmed, hold the old root and the new one; so an agent that runs through a rotation needs no
//! new file. A file that has nothing in common with the CA's roots (public CAs before the server) is not widened.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls_pki_types::CertificateDer;

use crate::verify::Roots;

/// Roots of earlier bundles that are remembered to recognise the family: each rotation adds one, and takes two lives of
/// certificates at least.
const REMEMBERED: usize = 16;

/// The roots that the CA gave. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct LearntRoots {
    inner: Arc<Mutex<Family>>,
}

#[derive(Debug, Default)]
struct Family {
    /// What the CA gave last: believed.
    current: Vec<CertificateDer<'static>>,
    /// What it gave since there was a bundle that had nothing in common with the one before: only compared with.
    known: Vec<CertificateDer<'static>>,
}

impl LearntRoots {
    /// The CA gave these, over a connection that was believed.
    pub fn learn(&self, roots: &Roots) {
        let mut family = self.lock();
        let given = roots.certificates();
        if !given.iter().any(|root| family.known.contains(root)) {
            family.known.clear();
        }
        for root in given {
            if !family.known.contains(root) {
                family.known.push(root.clone());
            }
        }
        let surplus = family.known.len().saturating_sub(REMEMBERED);
        family.known.drain(..surplus);
        family.current = given.to_vec();
    }

    /// Whom to believe, given what the file holds.
    pub(crate) fn join(&self, mut file: Vec<CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
        let family = self.lock();
        if file.iter().any(|root| family.known.contains(root)) {
            file.extend(family.current.iter().cloned());
        }
        file
    }

    fn lock(&self) -> MutexGuard<'_, Family> {
        // Nothing under the lock panics half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::signer::RootMaterial;

    fn root() -> CertificateDer<'static> {
        let root = RootMaterial::create("td", Duration::from_secs(3600), SystemTime::now()).unwrap();
        Roots::from_pem(root.certificate_pem.as_bytes()).unwrap().certificates()[0].clone()
    }

    #[test]
    fn a_file_of_the_family_is_widened_over_every_rotation_and_no_other() {
        let [first, second, third, public] = [root(), root(), root(), root()];
        let learnt = LearntRoots::default();
        let bundle = |roots: &[&CertificateDer<'static>]| Roots::new(roots.iter().map(|root| (*root).clone())).unwrap();
        let believes = |file: &CertificateDer<'static>, root| learnt.join(vec![file.clone()]).contains(root);
        assert!(!believes(&first, &second), "nothing was learnt yet");
        for roots in [&[&first][..], &[&first, &second], &[&second], &[&second, &third], &[&third]] {
            learnt.learn(&bundle(roots));
        }
        assert!(believes(&first, &third), "over two rotations");
        assert!(!believes(&first, &second), "what the CA gave up is not believed");
        assert!(!believes(&public, &third), "public CAs stand before the server: they stay alone");
        // A CA that lost its state: its file is new, and the old family has no word any more.
        learnt.learn(&bundle(&[&public]));
        assert!(!believes(&first, &public) && believes(&public, &public));
    }
}
