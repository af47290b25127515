//! The last words of a program: why it ended, on standard error, each thing said once.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// The exit code of a program's outcome. A failure is written to standard error, whatever the log filter is: whoever
/// started the program by hand must see why it ended.
#[must_use]
pub fn exit_code<T>(outcome: Result<T, &(dyn Error + Send + Sync + 'static)>) -> ExitCode {
    match outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when even that fails.
            let _written = writeln!(std::io::stderr(), "error: {}", words(error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes in one line. A cause whose words the line has already is left out: many errors quote theirs.
#[must_use]
pub fn words(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::words;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the file: {source}; make one")]
    struct Quoting {
        source: std::io::Error,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("--tokens")]
    struct Naming(#[source] Quoting);

    #[test]
    fn nothing_is_said_twice() {
        let error = Naming(Quoting { source: std::io::Error::other("gone") });
        assert_eq!(words(&error), "--tokens: cannot read the file: gone; make one");
    }
}
