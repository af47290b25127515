//! The two lives of a connection: setting it up takes kilobytes for a moment, relaying should take as little as it can for as
//! long as the connection lives. One future for both would keep room for the larger one, and a compiler that moves values
//! between them keeps room for each place they were in: it was 2.3 KB a connection, of which the relay needs the half.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use super::turns::{Ticket, Turns};

/// The second life.
pub type Relaying = Pin<Box<dyn Future<Output = ()>>>;

/// Lives both, each in a box of its own; the first one is given back before the second one begins, and the second one takes turns
/// with others. `None`: there is no second.
pub fn in_two_steps(
    turns: Rc<Turns>,
    set_up: impl Future<Output = Option<Relaying>> + 'static,
) -> impl Future<Output = ()> {
    let mut step = Step::SetUp(Box::pin(set_up));
    poll_fn(move |cx| {
        if let Step::SetUp(set_up) = &mut step {
            match ready!(set_up.as_mut().poll(cx)) {
                Some(relaying) => step = Step::Relay(relaying, None),
                None => return Poll::Ready(()),
            }
        }
        let Step::Relay(relaying, ticket) = &mut step else { unreachable!("set above") };
        ready!(turns.poll_turn(cx, ticket));
        relaying.as_mut().poll(cx)
    })
}

enum Step<SetUp> {
    SetUp(Pin<Box<SetUp>>),
    /// With the memory of [`Turns::poll_turn`].
    Relay(Relaying, Option<Ticket>),
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::{Relaying, in_two_steps};
    use crate::worker::turns::{Company, Rounds};

    struct Large(Rc<Cell<bool>>, [u8; 4096]);

    impl Drop for Large {
        fn drop(&mut self) {
            assert_ne!(self.1.len(), 0);
            self.0.set(true);
        }
    }

    #[tokio::test]
    async fn what_setting_up_needs_is_gone_while_relaying() {
        let turns = Rounds::new(Company::default()).of("10.0.0.1".parse().unwrap());
        let gone = Rc::new(Cell::new(false));
        let large = Large(gone.clone(), [0; 4096]);
        let seen = gone.clone();
        let task = in_two_steps(turns.clone(), async move {
            let _large = large;
            tokio::task::yield_now().await;
            let relaying: Relaying = Box::pin(async move { assert!(seen.get()) });
            Some(relaying)
        });
        assert!(size_of_val(&task) <= 32);
        task.await;
        assert!(gone.get());
        in_two_steps(turns, async { None }).await;
    }
}
