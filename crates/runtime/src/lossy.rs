//! A writer of log lines that never waits: a line for which the reader has no room is lost and counted, and the next one that gets
//! through tells how many. Standard error of a service is a pipe or a socket, and whoever reads it may stand still
//! (a paused terminal, a stuck log collector); without this every thread that logs would then stand still, too.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing_subscriber::fmt::MakeWriter;

/// What may be written when the kernel says "writable" without waiting: one page is free then (pipe(7), PIPE_BUF).
const PIECE: usize = 4096;

/// Lines for one file descriptor, from all threads. Cheap to clone.
#[derive(Debug)]
pub(crate) struct LossyWriter<W> {
    state: Arc<Mutex<State<W>>>,
}

#[derive(Debug)]
struct State<W> {
    out: W,
    /// How a lost line is told of.
    note: fn(u64) -> String,
    lost: u64,
    /// The last line was cut.
    cut: bool,
}

impl<W: Write + AsFd> LossyWriter<W> {
    pub(crate) fn new(out: W, note: fn(u64) -> String) -> Self {
        Self { state: Arc::new(Mutex::new(State { out, note, lost: 0, cut: false })) }
    }
}

impl<W> Clone for LossyWriter<W> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone() }
    }
}

impl<'a, W: Write + AsFd> MakeWriter<'a> for LossyWriter<W>
where
    Self: 'a,
{
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl<W: Write + AsFd> Write for LossyWriter<W> {
    /// Takes a whole line, always.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Whole after every line: a panic in here would spoil one line.
        self.state.lock().unwrap_or_else(PoisonError::into_inner).line(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write + AsFd> State<W> {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.has_room() {
            self.lost += 1;
            return Ok(());
        }
        if std::mem::take(&mut self.cut) {
            self.out.write_all(b"\n")?;
        }
        if self.lost > 0 {
            let note = (self.note)(std::mem::take(&mut self.lost));
            self.out.write_all(note.as_bytes())?;
        }
        for piece in line.chunks(PIECE) {
            if !self.has_room() {
                self.lost += 1;
                self.cut = true;
                break;
            }
            self.out.write_all(piece)?;
        }
        self.out.flush()
    }

    fn has_room(&self) -> bool {
        let mut out = [PollFd::new(&self.out, PollFlags::OUT)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Where it cannot be asked, the write will say what is wrong.
        poll(&mut out, Some(&at_once)).map_or(true, |ready| ready > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::LossyWriter;

    fn note(lost: u64) -> String {
        format!("{lost} lost\n")
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_hears_how_many() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut lines = LossyWriter::new(writer, note);
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        // Nobody reads: a write that waited would hang this test.
        for _ in 0..1000 {
            lines.write_all(&line).unwrap();
        }
        let long = [b"y".repeat(200_000), b"\n".to_vec()].concat();
        lines.write_all(&long).unwrap();
        let lost = lines.state.lock().unwrap().lost;
        assert!(lost > 500, "{lost}");
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        while lines.state.lock().unwrap().lost > 0 {
            lines.write_all(b"last\n").unwrap();
        }
        drop(lines);
        let text = reading.join().unwrap();
        let told = text.lines().find_map(|line| line.strip_suffix(" lost")).unwrap();
        assert!(told.parse::<u64>().unwrap() >= lost);
        assert!(text.ends_with("lost\nlast\n"), "{}", &text[text.len() - 40..]);
        assert_eq!(text.lines().filter(|line| line.len() == 999).count() as u64, 1001 - lost);
    }

    #[test]
    fn a_long_line_that_is_read_arrives_whole() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut lines = LossyWriter::new(writer, note);
        let line = [b"z".repeat(50_000), b"\n".to_vec()].concat();
        lines.write_all(&line).unwrap();
        drop(lines);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read, line);
    }
}
