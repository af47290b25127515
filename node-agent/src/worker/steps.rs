//! The two lives of a connection: setting it up takes kilobytes for a moment, relaying should take as little as it can for as
//! long as the connection lives. One future for both would keep room for the larger one, and a compiler that moves values
//! between them keeps room for each place they were in: it was 2.3 KB a connection, of which the relay needs the half.

use std::future::Future;
use std::pin::Pin;

/// The second life.
pub type Relaying = Pin<Box<dyn Future<Output = ()>>>;

/// Lives both, each in a box of its own; the first one is given back before the second one begins. `None`: there is no second.
pub fn in_two_steps(set_up: impl Future<Output = Option<Relaying>> + 'static) -> impl Future<Output = ()> {
    let mut step = Step::SetUp(Box::pin(set_up));
    std::future::poll_fn(move |cx| {
        if let Step::SetUp(set_up) = &mut step {
            match std::task::ready!(set_up.as_mut().poll(cx)) {
                Some(relaying) => step = Step::Relay(relaying),
                None => return std::task::Poll::Ready(()),
            }
        }
        let Step::Relay(relaying) = &mut step else { unreachable!("set above") };
        relaying.as_mut().poll(cx)
    })
}

enum Step<SetUp> {
    SetUp(Pin<Box<SetUp>>),
    Relay(Relaying),
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::{Relaying, in_two_steps};

    struct Large(Rc<Cell<bool>>, [u8; 4096]);

    impl Drop for Large {
        fn drop(&mut self) {
            assert_ne!(self.1.len(), 0);
            self.0.set(true);
        }
    }

    #[tokio::test]
    async fn what_setting_up_needs_is_gone_while_relaying() {
        let gone = Rc::new(Cell::new(false));
        let large = Large(gone.clone(), [0; 4096]);
        let seen = gone.clone();
        let task = in_two_steps(async move {
            let _large = large;
            tokio::task::yield_now().await;
            let relaying: Relaying = Box::pin(async move { assert!(seen.get()) });
            Some(relaying)
        });
        assert!(size_of_val(&task) <= 32);
        task.await;
        assert!(gone.get());
        in_two_steps(async { None }).await;
    }
}
