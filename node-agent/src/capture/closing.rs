//! A listener that is about to close and loses nobody: it takes no new handshake any more, so its queue can be emptied for good.
//!
//! Closing a listener resets whatever waits in its queue, and a client in the queue has long been told that it is connected.
//! A first packet that is thrown away instead is sent again, after a second (RFC 6298 section 2), to whoever listens then.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockFilter, SockRef};

/// How long handshakes that have begun may take until the queue counts as complete: round trips inside a cluster take a
/// millisecond or two, a packet that was lost is sent again after 200.
pub(super) const LAST_HANDSHAKES: Duration = Duration::from_millis(250);

/// The socket filter "no SYN without ACK", in classic BPF (bpf(4), linux/filter.h). What a filter of a TCP socket sees begins with the TCP
/// header, whose byte 13 holds the flags (RFC 9293 section 3.1). Accepted sockets inherit it, and none of them gets a SYN.
const NO_NEW: [(u16, u8, u8, u32); 5] = [
    (LOAD_BYTE, 0, 0, 13),
    (AND, 0, 0, (SYN | ACK)),
    (JUMP_IF_EQUAL, 0, 1, SYN),
    (RETURN, 0, 0, 0),
    (RETURN, 0, 0, u32::MAX),
];
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;
/// `BPF_LD | BPF_B | BPF_ABS`.
const LOAD_BYTE: u16 = 0x30;
/// `BPF_ALU | BPF_AND | BPF_K`.
const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
const JUMP_IF_EQUAL: u16 = 0x15;
/// `BPF_RET | BPF_K`: how many bytes of the packet are taken; none throws it away.
const RETURN: u16 = 0x06;

/// From now on the listener answers no first packet.
///
/// # Errors
/// Those of SO_ATTACH_FILTER (socket(7)).
pub(super) fn take_no_new(listener: &impl AsFd) -> io::Result<()> {
    let filter = NO_NEW.map(|(code, yes, no, value)| SockFilter::new(code, yes, no, value));
    SockRef::from(listener).attach_filter(&filter)
}

/// Undoes [`take_no_new`], which a proxy may have done that ended before us: the capture half may hold the very same socket.
pub(super) fn take_new_again(listener: &impl AsFd) {
    // An error, as a rule: there is no filter.
    let _none = SockRef::from(listener).detach_filter();
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::{take_new_again, take_no_new};

    const SHORT: Duration = Duration::from_millis(100);

    #[test]
    fn the_queue_is_complete_and_whoever_comes_later_waits() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let at = listener.local_addr().unwrap();
            let mut before = TcpStream::connect(at).unwrap();
            take_no_new(&listener).unwrap();
            let late = TcpStream::connect_timeout(&at, SHORT).unwrap_err();
            assert_eq!(late.kind(), std::io::ErrorKind::TimedOut, "neither refused nor connected");
            let (mut accepted, _) = listener.accept().unwrap();
            before.write_all(b"?").unwrap();
            accepted.read_exact(&mut [0]).unwrap();
            listener.set_nonblocking(true).unwrap();
            assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
            take_new_again(&listener);
            take_new_again(&listener);
            drop(TcpStream::connect_timeout(&at, SHORT).unwrap());
        }
    }
}
