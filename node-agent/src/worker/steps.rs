//! The two lives of a connection: setting it up takes kilobytes for a moment, relaying should take as little as it can for as
//! long as the connection lives. One future for both would keep room for the larger one, and a compiler that moves values
//! between them keeps room for each place they were in: it was 2.3 KB a connection, of which the relay needs the half.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::turns::{Ticket, Turns};

/// The second life.
pub type Relaying = Pin<Box<dyn Future<Output = ()>>>;

/// Lives both, each in a box of its own; the first one is given back before the second one begins. `None`: there is no second.
pub fn in_two_steps(set_up: impl Future<Output = Option<Relaying>> + 'static) -> impl Future<Output = ()> {
    let mut step = Step::SetUp(Box::pin(set_up));
    poll_fn(move |cx| {
        if let Step::SetUp(set_up) = &mut step {
            match ready!(set_up.as_mut().poll(cx)) {
                Some(relaying) => step = Step::Relay(relaying),
                None => return Poll::Ready(()),
            }
        }
        let Step::Relay(relaying) = &mut step else { unreachable!("set above") };
        relaying.as_mut().poll(cx)
    })
}

/// The second life of a connection of that caller: it takes turns with the others.
pub fn in_turns(turns: Rc<Turns>, relay: impl Future<Output = ()> + 'static) -> Relaying {
    Box::pin(InTurns { turns, ticket: None, relay })
}

enum Step<SetUp> {
    SetUp(Pin<Box<SetUp>>),
    Relay(Relaying),
}

pin_project! {
    /// In the relay's box, not in the task: tokio rounds a task up to 128 bytes, so 16 more are 128 more there.
    struct InTurns<Relay> {
        turns: Rc<Turns>,
        ticket: Option<Ticket>,
        #[pin]
        relay: Relay,
    }
}

impl<Relay: Future<Output = ()>> Future for InTurns<Relay> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        ready!(this.turns.poll_turn(cx, this.ticket));
        this.relay.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::{in_turns, in_two_steps};
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
        let task = in_two_steps(async move {
            let _large = large;
            tokio::task::yield_now().await;
            Some(in_turns(turns, async move { assert!(seen.get()) }))
        });
        assert!(size_of_val(&task) <= 16);
        task.await;
        assert!(gone.get());
        in_two_steps(async { None }).await;
    }
}
