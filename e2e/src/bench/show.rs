//! The only place that writes: progress to standard error, results to standard output and to the file.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

/// The screen.
#[derive(Debug)]
pub struct Show {
    start: Instant,
}

impl Default for Show {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Show {
    /// What happens now.
    pub fn progress(&self, text: &str) {
        // A closed standard error is no reason to stop measuring.
        let _ = writeln!(std::io::stderr(), "{:6.1}s  {text}", self.start.elapsed().as_secs_f64());
    }

    /// The results.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn results(&self, text: &str) -> Result<()> {
        Ok(writeln!(std::io::stdout(), "{}", text.trim_end())?)
    }

    /// Writes the file and the directories above it.
    ///
    /// # Errors
    /// The file system's.
    pub fn file(&self, path: &Path, text: &str) -> Result<()> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        }
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
        self.progress(&format!("all samples are in {}", path.display()));
        Ok(())
    }
}
