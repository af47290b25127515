//! What processes cost: processor time and memory, from /proc. Reading is pure.

use std::fs;

use anyhow::{Context, Result};

/// Clock ticks per second in /proc: fixed at 100 for programs on every Linux (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Processor seconds at a moment, as they can be compared with a later moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Of the agents asked about.
    pub agents: f64,
    /// Of the load generator itself.
    pub own: f64,
    /// Of everything on the machine.
    pub machine: f64,
}

impl Spent {
    /// Now, with the agents of these process ids.
    ///
    /// # Errors
    /// One of them has ended.
    pub fn now(agents: &[u32]) -> Result<Self> {
        let mut sum = 0.0;
        for pid in agents {
            sum += process_seconds(&read(&format!("/proc/{pid}/stat"))?).context("the times of a process")?;
        }
        let own = process_seconds(&read("/proc/self/stat")?).context("our own times")?;
        let machine = machine_seconds(&read("/proc/stat")?).context("the times of the machine")?;
        Ok(Self { agents: sum, own, machine })
    }

    /// Seconds of the agents from `earlier` to now.
    #[must_use]
    pub fn agents_since(&self, earlier: &Self) -> f64 {
        self.agents - earlier.agents
    }

    /// Processors that somebody else kept busy meanwhile (0.5: half of one).
    #[must_use]
    pub fn others_since(&self, earlier: &Self, seconds: f64) -> f64 {
        let ours = self.agents - earlier.agents + self.own - earlier.own;
        ((self.machine - earlier.machine - ours) / seconds).max(0.0)
    }
}

/// Resident memory of these processes together, bytes. Pages that two halves share (the program's text) count in both.
///
/// # Errors
/// One of them has ended.
pub fn resident(pids: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        sum += resident_bytes(&read(&format!("/proc/{pid}/status"))?).context("the memory of a process")?;
    }
    Ok(sum)
}

/// Their proportional shares together, bytes: a page counts for each process by how many have it. `None` where the kernel does not say.
pub fn proportional(pids: &[u32]) -> Option<u64> {
    let of = |pid: &u32| bytes_of(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:");
    pids.iter().map(of).sum()
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.to_owned())
}

/// utime and stime: the 14th and 15th field, counted behind the name, which may hold spaces.
fn process_seconds(stat: &str) -> Option<f64> {
    let (_, behind) = stat.rsplit_once(") ")?;
    let mut fields = behind.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

/// Everything but idle and waiting for disks; time of guests is contained in user time.
fn machine_seconds(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu")?;
    let fields: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let busy = fields.iter().take(8).enumerate().filter(|(index, _)| !matches!(index, 3 | 4)).map(|(_, ticks)| ticks);
    Some(busy.sum::<f64>() / TICKS)
}

fn resident_bytes(status: &str) -> Option<u64> {
    bytes_of(status, "VmRSS:")
}

fn bytes_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_proc_says() {
        let stat = "42 (a name) x) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 7 8 20 0 3 0 100 200 300";
        assert_eq!(process_seconds(stat), Some(2.0));
        assert_eq!(process_seconds("nothing"), None);
        assert_eq!(machine_seconds("cpu  100 20 30 999 888 4 5 6 0 0\ncpu0 1 1 1 1\n"), Some(1.65));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(bytes_of("00400000-7ffd00000000 [rollup]\nRss: 9 kB\nPss:   5 kB\n", "Pss:"), Some(5 << 10));
        assert!(Spent::now(&[std::process::id()]).is_ok() && resident(&[std::process::id()]).is_ok());
    }

    #[test]
    fn others_are_what_is_left() {
        let before = Spent::default();
        let after = Spent { agents: 1.0, own: 0.5, machine: 2.5 };
        assert_eq!((after.agents_since(&before), after.others_since(&before, 2.0)), (1.0, 0.5));
    }
}
