//! The streams of one connection: small records in slots, found by handle in one step and by identifier in few.

use std::task::Waker;

use crate::error::StreamError;

use super::flow::{ReceiveWindow, SendWindow};
use super::hpack::HeaderList;
use super::queue::Queue;

/// Where a stream's record is. The identifier makes sure that it is not somebody else's by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    slot: u32,
    id: u32,
}

impl Key {
    /// The stream's identifier on the wire.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }
}

/// How far one direction has come.
///
/// ```text
/// Nothing --request or answer--> Head --END_STREAM--> End
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    Nothing,
    Head,
    End,
}

/// One stream. While it rests it owns no memory but this.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    /// What this side has said.
    pub(super) sent: Progress,
    /// What the peer has said.
    pub(super) received: Progress,
    /// Frames of it still count: not both ends are said, and nobody has reset it.
    pub(super) live: bool,
    /// Somebody has its [`Key`] and will let go of it.
    pub(super) handled: bool,
    /// It stands in line for room in the output.
    pub(super) in_line: bool,
    /// It has been called from the line, and is served before those who stand there.
    pub(super) called: bool,
    pub(super) error: Option<StreamError>,
    pub(super) send_window: SendWindow,
    pub(super) receive_window: ReceiveWindow,
    /// What the receive window is to be: grows with the reader.
    pub(super) receive_size: u32,
    pub(super) queue: Queue,
    /// A head that came and was not asked for yet.
    pub(super) head: Option<Box<HeaderList>>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl Stream {
    pub(super) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    pub(super) fn wake(&mut self) {
        self.wake_reader();
        self.wake_writer();
    }
}

/// Remembers whom to wake, without cloning the same waker again.
pub(super) fn remember(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(known) if known.will_wake(waker) => {}
        _ => *place = Some(waker.clone()),
    }
}

/// All streams of a connection.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Option<Stream>>,
    free: Vec<u32>,
    /// The live ones by identifier, which only grows: new ones go to the end, and looking up is a binary search. Two hundred at most,
    /// so that taking one out moves less than two kilobytes; a peer that chooses identifiers cannot make it slower.
    live: Vec<(u32, u32)>,
}

impl Streams {
    /// Live streams.
    pub(super) fn live(&self) -> usize {
        self.live.len()
    }

    /// Records, those included that only wait for their handle to be let go.
    pub(super) fn records(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds a live stream; its identifier is larger than all before.
    pub(super) fn insert(&mut self, stream: Stream) -> Key {
        let id = stream.id;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(stream);
                slot
            }
            None => {
                self.slots.push(Some(stream));
                (self.slots.len() - 1) as u32
            }
        };
        self.live.push((id, slot));
        Key { slot, id }
    }

    /// The live stream of an identifier.
    pub(super) fn find(&self, id: u32) -> Option<Key> {
        let place = self.live.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(Key { slot: self.live[place].1, id })
    }

    pub(super) fn get(&self, key: Key) -> Option<&Stream> {
        self.slots.get(key.slot as usize)?.as_ref().filter(|stream| stream.id == key.id)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Stream> {
        self.slots.get_mut(key.slot as usize)?.as_mut().filter(|stream| stream.id == key.id)
    }

    /// The stream is live no more; its record stays.
    pub(super) fn retire(&mut self, id: u32) {
        if let Ok(place) = self.live.binary_search_by_key(&id, |(id, _)| *id) {
            self.live.remove(place);
        }
    }

    /// Takes a record out.
    pub(super) fn remove(&mut self, key: Key) -> Option<Stream> {
        self.get(key)?;
        self.retire(key.id);
        let stream = self.slots[key.slot as usize].take();
        self.free.push(key.slot);
        if self.free.len() == self.slots.len() {
            // A connection at rest keeps nothing of its busiest moment.
            (self.slots, self.free, self.live) = (Vec::new(), Vec::new(), Vec::new());
        }
        stream
    }

    /// The live ones, oldest first.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.live.iter().map(|&(id, slot)| Key { slot, id }).collect()
    }

    /// Every record.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slots.iter_mut().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::Stream;

    /// 10,000 idle streams are 2 MB.
    #[test]
    fn a_stream_at_rest_is_small() {
        assert!(size_of::<Option<Stream>>() <= 176, "{}", size_of::<Option<Stream>>());
    }
}
