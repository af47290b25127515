//! A directory of YAML files in which every change is a rename into place: a reader never sees half a file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The directory that `--source dir:PATH` names.
#[derive(Clone, Debug)]
pub struct MeshDirectory {
    root: PathBuf,
    /// Beside the root, on the same file system: readers of the root never meet an unfinished file.
    staging: PathBuf,
}

impl MeshDirectory {
    /// Makes `root` and, beside it, the place where files are prepared.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(root: &Path) -> Result<Self> {
        let name = root.file_name().context("a directory with a name")?.to_string_lossy();
        let staging = root.with_file_name(format!(".{name}-staging"));
        for directory in [root, &staging] {
            fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        }
        Ok(Self { root: root.to_owned(), staging })
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Puts `text` (any YAML documents) into `NAME.yaml`, replacing what was there at once.
    ///
    /// # Errors
    /// The file system's.
    pub fn apply_yaml(&self, name: &str, text: &str) -> Result<()> {
        let prepared = self.staging.join(name);
        fs::write(&prepared, text)?;
        fs::rename(&prepared, self.file(name)).with_context(|| format!("{name}.yaml"))
    }

    /// Removes `NAME.yaml`.
    ///
    /// # Errors
    /// There is no such file.
    pub fn delete(&self, name: &str) -> Result<()> {
        fs::remove_file(self.file(name)).with_context(|| format!("{name}.yaml"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.yaml"))
    }
}
