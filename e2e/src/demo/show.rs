//! What the person at the terminal sees: titles, progress, claims. Colours and a spinner on a terminal; plain lines, in
//! the same words, everywhere else.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::claim::Claim;

/// The screen.
#[derive(Debug)]
pub(crate) struct Show {
    terminal: bool,
    start: Instant,
}

/// Something that takes a moment; the spinner goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Option<ProgressBar>);

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Show {
    /// Looks at what standard output is. NO_COLOR (no-color.org) is obeyed.
    #[must_use]
    pub(crate) fn new() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { terminal: std::io::stdout().is_terminal() && !plain, start: Instant::now() }
    }

    /// The head of a step.
    pub(crate) fn title(&self, number: usize, of: usize, text: &str) {
        self.line("");
        self.line(&self.paint("1;36", &format!("[{number}/{of}] {text}")));
    }

    /// A line of the story.
    pub(crate) fn say(&self, text: &str) {
        let since = self.paint("2", &format!("{:5.1}s", self.start.elapsed().as_secs_f64()));
        self.line(&format!(" {since}  {text}"));
    }

    /// Output of a program, indented.
    pub(crate) fn quote(&self, text: &str) {
        for line in text.trim_end().lines() {
            self.line(&self.paint("2", &format!("        | {line}")));
        }
    }

    /// A claim with its mark.
    pub(crate) fn claim(&self, claim: &Claim) {
        let (colour, mark) = if claim.held { ("32", "held") } else { ("1;31", "NOT HELD") };
        let figure = claim.figure.replace('\n', "\n          ");
        self.line(&format!("        {}  {} ({figure})", self.paint(colour, mark), claim.text));
    }

    /// Says what begins now, with a spinner while it lasts.
    #[must_use]
    pub(crate) fn busy(&self, text: &str) -> Busy {
        self.say(text);
        if !self.terminal {
            return Busy(None);
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("        {spinner:.cyan} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(80));
        Busy(Some(bar))
    }

    /// The last words: the table, and the verdict.
    pub(crate) fn end(&self, table: &str, failed: usize, claims: usize) {
        self.line("");
        self.line(table.trim_end());
        self.line("");
        let seconds = self.start.elapsed().as_secs_f64();
        let verdict = match failed {
            0 => self.paint("1;32", &format!("All {claims} claims held, in {seconds:.0} s.")),
            _ => self.paint("1;31", &format!("{failed} of {claims} claims did not hold ({seconds:.0} s).")),
        };
        self.line(&verdict);
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.terminal { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn line(&self, text: &str) {
        // A closed standard output (`| head`) is no reason to stop: the claims are still counted.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

impl Default for Show {
    fn default() -> Self {
        Self::new()
    }
}
