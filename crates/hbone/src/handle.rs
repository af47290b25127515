//! One stream, held: let go of when dropped, which resets it unless it is complete.

use std::rc::Rc;

use crate::driver::Shared;
use crate::http2::{Connection, Key};

pub(crate) struct Handle {
    shared: Shared,
    key: Key,
}

impl Handle {
    pub(crate) fn new(shared: &Shared, key: Key) -> Self {
        Self { shared: Rc::clone(shared), key }
    }

    /// Calls `act` with the connection. It must not come back here, nor wake anything that does so at once.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Connection, Key) -> R) -> R {
        act(&mut self.shared.borrow_mut(), self.key)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.borrow_mut().let_go(self.key);
    }
}
