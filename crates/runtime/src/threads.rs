//! Named OS threads, each with a single-threaded runtime of its own: one control thread and N data workers per agent.
//!
//! On such a thread `tokio::task::spawn_local` takes futures that are not `Send`, so everything that a connection touches can
//! stay on the worker that accepted it. A panic of the thread's main future is logged and handed to whoever joins; a panic of
//! a task that it spawned is that task's `JoinError` and is logged by the hook that `logging::init` sets.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::oneshot;

/// The kernel cuts thread names after this many bytes (TASK_COMM_LEN without its final zero; prctl(2), PR_SET_NAME).
pub const NAME_LIMIT: usize = 15;

/// Starts a thread that runs `main` to its end. The closure runs on the new thread, so that what the future owns need not
/// be `Send`. Names longer than [`NAME_LIMIT`] are refused rather than cut into twins.
///
/// # Errors
/// [`SpawnError`] when the name is too long or the system has no thread, or no event queue, to give.
pub fn spawn<F, Fut, T>(name: &str, main: F) -> Result<Worker<T>, SpawnError>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T>,
    T: Send + 'static,
{
    if name.len() > NAME_LIMIT {
        return Err(SpawnError::NameTooLong { name: name.to_owned() });
    }
    let failed = |source| SpawnError::System { name: name.to_owned(), source };
    let (started, starts) = std::sync::mpsc::sync_channel(1);
    let (report, outcome) = oneshot::channel();
    let thread_name = name.to_owned();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // The runtime is not Send, so it is made here and its failure handed back.
            let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => {
                    // The spawner waits for this answer, so it is there to take it.
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let _ = started.send(Ok(()));
            // Nobody need be waiting for the outcome.
            let _ = report.send(run(&runtime, &thread_name, main));
        })
        .map_err(failed)?;
    match starts.recv() {
        Ok(Ok(())) => Ok(Worker { name: name.to_owned(), outcome }),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed(io::Error::other("the thread ended before it began"))),
    }
}

fn run<F, Fut, T>(runtime: &LocalRuntime, name: &str, main: F) -> Result<T, Panicked>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = T>,
{
    // Nothing of the closure is looked at after a panic, so no broken invariant can be seen.
    catch_unwind(AssertUnwindSafe(|| runtime.block_on(async move { main().await }))).map_err(|payload| {
        let message = panic_message(payload.as_ref());
        tracing::error!(thread = name, panic = message, "thread panicked");
        Panicked { thread: name.to_owned(), message }
    })
}

/// The text of a panic, as far as it has one.
pub fn panic_message(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without text".to_owned(),
    }
}

/// A running thread. Dropping it leaves the thread to itself; end it through its own drain and then join.
#[derive(Debug)]
#[must_use = "join the thread, or nobody learns how it ended"]
pub struct Worker<T> {
    name: String,
    outcome: oneshot::Receiver<Result<T, Panicked>>,
}

impl<T> Worker<T> {
    /// The thread's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the end of the thread's main future, without blocking the caller's thread. May be called again after it
    /// was cancelled, so it can stand in a `select!` beside the signals.
    ///
    /// # Errors
    /// [`Panicked`] with the panic's text.
    pub async fn join(&mut self) -> Result<T, Panicked> {
        if self.outcome.is_terminated() {
            return Err(self.lost());
        }
        match (&mut self.outcome).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.lost()),
        }
    }

    /// As [`join`](Self::join), from a thread without a runtime (blocks it).
    ///
    /// # Errors
    /// [`Panicked`] with the panic's text.
    pub fn join_blocking(self) -> Result<T, Panicked> {
        let lost = self.lost();
        self.outcome.blocking_recv().unwrap_or(Err(lost))
    }

    fn lost(&self) -> Panicked {
        Panicked { thread: self.name.clone(), message: "ended without an outcome, or was joined before".to_owned() }
    }
}

/// A thread ended by a panic.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("thread {thread} panicked: {message}")]
pub struct Panicked {
    /// Its name.
    pub thread: String,
    /// The panic's text.
    pub message: String,
}

/// A thread could not be started.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The kernel would cut the name.
    #[error("thread name {name:?} is longer than {NAME_LIMIT} bytes, which is all that the kernel keeps")]
    NameTooLong {
        /// The name.
        name: String,
    },
    /// The system has no thread or no event queue to give.
    #[error("cannot start thread {name}: {source} (see the limits of processes and open files: ulimit -u, ulimit -n)")]
    System {
        /// The thread's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[tokio::test]
    async fn runs_futures_that_are_not_send_on_a_thread_of_that_name() {
        let mut worker = spawn("worker-7", || async {
            let local = Rc::new(6);
            let twin = local.clone();
            let spawned = tokio::task::spawn_local(async move { *twin * 7 });
            (std::thread::current().name().map(str::to_owned), spawned.await.unwrap())
        })
        .unwrap();
        assert_eq!(worker.name(), "worker-7");
        assert_eq!(worker.join().await, Ok((Some("worker-7".to_owned()), 42)));
    }

    #[tokio::test]
    async fn a_second_join_is_an_error_not_a_panic() {
        let mut worker = spawn("brief", || async { 1 }).unwrap();
        assert_eq!(worker.join().await, Ok(1));
        assert!(worker.join().await.unwrap_err().message.contains("joined before"));
    }

    #[test]
    fn a_panic_is_handed_to_whoever_joins() {
        let number = 3;
        let worker = spawn("doomed", move || async move { panic!("invariant {number} broken") }).unwrap();
        let error: Panicked = worker.join_blocking().map(|(): ()| ()).unwrap_err();
        assert_eq!(error.to_string(), "thread doomed panicked: invariant 3 broken");
    }

    #[tokio::test]
    async fn a_cancelled_join_can_be_repeated() {
        let (release, released) = oneshot::channel::<()>();
        let mut worker = spawn("slow", || async move { released.await.is_ok() }).unwrap();
        let early = tokio::time::timeout(std::time::Duration::from_millis(1), worker.join()).await;
        assert!(early.is_err());
        release.send(()).unwrap();
        assert_eq!(worker.join().await, Ok(true));
    }

    #[test]
    fn a_name_that_the_kernel_would_cut_is_refused() {
        let error = spawn("a-very-long-thread-name", || async {}).unwrap_err();
        assert!(error.to_string().contains("longer than 15 bytes"), "{error}");
    }
}
