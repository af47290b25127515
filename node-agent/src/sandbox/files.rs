//! What the proxy half may open, by Landlock: to read, and nothing else. It may create, write, rename, execute nothing, and
//! may signal no process but itself.
//!
//! A rule belongs to a file, not to a name, and the files that are read again (token, roots) are replaced: by a rename, or
//! by another target of a symbolic link in their directory, as kubelet does. So their directories are readable.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};
use thiserror::Error;

/// What the newest kernel that we know can refuse; an older one refuses what it knows (Landlock is best effort by itself).
const NEWEST: ABI = ABI::V6;

/// Files that every proxy reads, or that the libraries below it may read, and why. What is not there is left out.
const COMMON: [&str; 10] = [
    "/etc/resolv.conf",        // names of the control plane (hickory)
    "/etc/hosts",              // the same
    "/proc/self",              // its own figures: memory, descriptors, limits; /proc/self is this process's directory
    "/proc/self/exe",          // names of functions in a backtrace
    "/proc/sys/vm",            // overcommit_memory: the allocator
    "/sys/fs/cgroup",          // how many processors, how much memory it may have
    "/sys/devices/system/cpu", // how many processors there are
    "/dev/random",             // until it is ready no randomness is read below (getrandom 0.4 in a static program)
    "/dev/urandom",            // randomness where no getrandom(3) is found
    "/dev/null",
];

/// The files of the settings that are read again and again.
#[derive(Debug, Clone, Default)]
pub struct Readable {
    files: Vec<PathBuf>,
}

/// No wall around files.
#[derive(Debug, Error)]
pub enum FilesError {
    /// The kernel has no Landlock, or it is not among its security modules.
    #[error("this kernel has no Landlock in force (Linux 5.13, CONFIG_LSM): {0}")]
    Missing(&'static str),
    /// The kernel refused.
    #[error("Landlock: {0}")]
    Refused(#[from] RulesetError),
}

impl Readable {
    /// These files, whenever they are replaced.
    #[must_use]
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { files: files.into_iter().collect() }
    }

    /// What must be readable for that: the directory of each file and, if the file is a link elsewhere, the directory that
    /// it leads to. A directory that does not exist yet is replaced by what there is above it.
    fn places(&self) -> Vec<PathBuf> {
        let mut places: Vec<PathBuf> = Vec::new();
        for file in &self.files {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            let target = std::fs::canonicalize(&file).ok();
            for path in [Some(file), target].into_iter().flatten() {
                places.extend(path.ancestors().skip(1).find(|above| above.exists()).map(Path::to_path_buf));
            }
        }
        places.sort();
        places.dedup();
        places
    }
}

/// Walls the calling thread off. Returns what to say of it.
pub(super) fn restrict(readable: &Readable) -> Result<String, FilesError> {
    let mut ruleset =
        Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?.scope(Scope::from_all(NEWEST))?.create()?;
    let common = COMMON.iter().map(PathBuf::from);
    let mut rules = 0;
    for path in common.chain(readable.places()) {
        // Missing is not an error: nobody can read it then, and that is what is wanted.
        let Ok(place) = PathFd::new(&path) else { continue };
        ruleset = ruleset.add_rule(PathBeneath::new(place, reading(&path)))?;
        rules += 1;
    }
    let status = ruleset.restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(FilesError::Missing(match status.landlock {
            LandlockStatus::NotEnabled => "not enabled",
            _ => "not built in",
        }));
    }
    let version = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
        _ => 0,
    };
    Ok(format!("Landlock {version}, {rules} places readable, none writable"))
}

fn reading(path: &Path) -> BitFlags<AccessFs> {
    if path.is_dir() { AccessFs::ReadFile | AccessFs::ReadDir } else { AccessFs::ReadFile.into() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::Readable;

    #[test]
    fn directories_of_files_and_of_what_they_link_to() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(top.join("secrets")).unwrap();
        std::fs::create_dir_all(top.join("elsewhere")).unwrap();
        std::fs::write(top.join("elsewhere/token"), "x").unwrap();
        symlink(top.join("elsewhere/token"), top.join("secrets/token")).unwrap();
        let readable = Readable::new([top.join("secrets/token"), top.join("secrets/roots"), top.join("not/yet/there")]);
        assert_eq!(readable.places(), [top.clone(), top.join("elsewhere"), top.join("secrets")]);
    }
}
