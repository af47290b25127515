//! The same for many things, some at a time.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What is done at the same time: enough to hide the way, and no burden for an API server.
const AT_ONCE: usize = 16;

/// Does it for each, and gives the results in the order of the things.
pub async fn many<I, T, F>(things: impl IntoIterator<Item = I>, act: impl Fn(I) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (index, thing) in things.into_iter().enumerate() {
        let (act, places) = (act(thing), places.clone());
        tasks.spawn(async move {
            let _place = places.acquire().await;
            (index, act.await)
        });
    }
    let mut results = tasks.join_all().await;
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{AT_ONCE, many};

    #[tokio::test]
    async fn results_are_in_order_and_not_too_much_happens_at_once() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let results = many(0..100usize, |number| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Later ones end first.
                for _ in 0..(100 - number) {
                    tokio::task::yield_now().await;
                }
                now.fetch_sub(1, Ordering::SeqCst);
                number
            }
        });
        assert_eq!(results.await, (0..100).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
    }
}
