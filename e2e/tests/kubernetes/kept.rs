//! Load by connections that are kept: each asks again and again over the very same one.
//!
//! A failure is a question without its answer within 10 s, or a connection that ends without a word. None is the end of a connection
//! whose server said `bye` with its last answer: so a pod that is replaced lets its clients go (HTTP: `Connection: close`), and they
//! connect anew.

use anyhow::{Context, Result, ensure};
use weft_testkit::wait;

use crate::stage::{DEADLINE, Stage};

/// Connections at a time.
const CONNECTIONS: usize = 4;

/// One connection after the other, a question each tenth of a second. `read` waits 10 s at most.
const SCRIPT: &str = r#"
trap '' PIPE
rm -rf /tmp/kept; mkdir /tmp/kept; cd /tmp/kept
one() {
  mkfifo "in$1" "out$1"
  while [ ! -e stop ]; do
    nc "$2" "$3" < "in$1" > "out$1" 2>> errors &
    exec 3> "in$1" 4< "out$1"
    asked=0
    while [ ! -e stop ]; do
      asked=$((asked + 1)); answer=nothing
      echo "$asked" >&3 2>> errors
      read -r -t 10 answer <&4
      case "$answer" in
        "$asked") echo ok >> words;;
        "bye $asked") echo bye >> words; break;;
        *) echo "lost: question $asked of connection $1 had the answer '$answer' at $(date +%T)" >> words; break;;
      esac
      usleep 100000
    done
    exec 3>&- 4<&-
    wait
  done
  touch "done$1"
}
"#;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Questions that were answered.
    pub(crate) answered: usize,
    /// Connections that their server ended with a word.
    pub(crate) ended: usize,
    /// What was lost.
    pub(crate) lost: Vec<String>,
}

impl Outcome {
    /// # Errors
    /// Something was lost, or next to nothing was asked.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.lost.is_empty(),
            "{} of {} questions over kept connections were lost: {:#?}",
            self.lost.len(),
            self.answered,
            self.lost
        );
        ensure!(self.answered > 50, "{self:?}");
        Ok(())
    }
}

/// Kept connections of `client` to a server that gives every line back.
pub(crate) struct Kept<'s> {
    stage: &'s Stage,
}

impl<'s> Kept<'s> {
    pub(crate) fn start(stage: &'s Stage, host: &str, port: u16) -> Result<Self> {
        // A service that is a second old may be known at some nodes only.
        wait::eventually(DEADLINE, "an answer", || {
            let ask = format!("echo hello | nc -w 2 {host} {port} | grep -q hello");
            stage.exec("client", &["sh", "-c", &ask])
        })?;
        let numbers = (1..=CONNECTIONS).map(|number| number.to_string()).collect::<Vec<_>>().join(" ");
        let start = format!("for k in {numbers}; do (one $k {host} {port}) > /dev/null 2>&1 & done");
        stage.exec("client", &["sh", "-c", &format!("{SCRIPT}{start}")])?;
        let kept = Self { stage };
        kept.more(40)?;
        Ok(kept)
    }

    fn words(&self) -> Result<String> {
        self.stage.exec("client", &["cat", "/tmp/kept/words"])
    }

    /// Until this many more questions were answered, or lost.
    pub(crate) fn more(&self, questions: usize) -> Result<()> {
        let before = self.words().unwrap_or_default().lines().count();
        wait::eventually(DEADLINE, "answers over kept connections", || {
            let now = self.words()?.lines().count();
            ensure!(now >= before + questions, "{} of {questions}", now - before);
            Ok(())
        })
    }

    /// Ends it.
    pub(crate) fn end(self) -> Result<Outcome> {
        self.stage.exec("client", &["touch", "/tmp/kept/stop"])?;
        wait::eventually(DEADLINE, "the end of kept connections", || {
            let there = self.stage.exec("client", &["sh", "-c", "ls /tmp/kept/done* | wc -l"])?;
            let count: usize = there.trim().parse().context("a number")?;
            ensure!(count == CONNECTIONS, "{count} of {CONNECTIONS}");
            Ok(())
        })?;
        let text = self.words()?;
        let count = |word: &str| text.lines().filter(|line| *line == word).count();
        let lost = text.lines().filter(|line| !matches!(*line, "ok" | "bye")).map(str::to_owned).collect();
        Ok(Outcome { answered: count("ok") + count("bye"), ended: count("bye"), lost })
    }
}
