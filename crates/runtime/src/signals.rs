//! SIGTERM and SIGINT as values, so that `main` decides what they mean: the first starts the drain, a second ends it at once.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Which signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: kubelet, systemd.
    Terminate,
    /// SIGINT: Ctrl-C.
    Interrupt,
}

impl std::fmt::Display for Signal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        })
    }
}

/// Listens for both from the moment it is made: from then on neither ends the process by itself.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
}

impl Signals {
    /// Takes both signals over.
    ///
    /// # Errors
    /// When the kernel refuses to register a handler.
    pub fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Completes with the next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends with the shell's own `kill`: no crate for one line.
    async fn send(signal: &str) {
        let status = tokio::process::Command::new("sh")
            .args(["-c", &format!("kill -s {signal} {}", std::process::id())])
            .status()
            .await
            .unwrap();
        assert!(status.success());
    }

    #[tokio::test]
    async fn both_are_told_apart_and_neither_kills() {
        let mut signals = Signals::new().unwrap();
        send("TERM").await;
        assert_eq!(signals.next().await, Signal::Terminate);
        send("INT").await;
        assert_eq!(signals.next().await.to_string(), "SIGINT");
    }
}
