//! What the kernel lets this process have: descriptors, and memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use weft_runtime::budget::Budget;
use weft_runtime::metrics::Registry;

/// Open files that nobody needs more of: what container runtimes give, and the kernel allows without being asked (`fs.nr_open`).
const OPEN_FILES: u64 = 1 << 20;

/// Raises the limit of open files as far as it may be, with CAP_SYS_RESOURCE beyond the hard one, and says what it is. The soft one is 1,024 nearly everywhere. In the
/// capture half each captured pod holds six descriptors for every worker, and as many are under way to a proxy; in the
/// proxy half each connection holds one or two.
pub fn raise_open_files() -> u64 {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| raise_to(hard.max(OPEN_FILES)).or_else(|_forbidden| raise_to(hard)));
    raised.unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of open files stays as it is");
        /// What a process has at least, nearly everywhere.
        const USUAL: u64 = 1024;
        getrlimit(Resource::RLIMIT_NOFILE).map_or(USUAL, |(soft, _)| soft)
    })
}

fn raise_to(limit: u64) -> nix::Result<u64> {
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit).map(|()| limit)
}

/// A memory limit as somebody asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceiling {
    /// None, whatever the cgroup says.
    None,
    /// This many bytes.
    Bytes(usize),
}

/// Reads `none`, a number of bytes, or one with Ki, Mi, Gi, K, M, G.
///
/// # Errors
/// Words for the person who wrote it.
pub fn parse_ceiling(text: &str) -> Result<Ceiling, String> {
    if text == "none" {
        return Ok(Ceiling::None);
    }
    let units =
        [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("K", 1000), ("M", 1_000_000), ("G", 1_000_000_000)];
    let unit = units.into_iter().find_map(|(name, factor)| Some((text.strip_suffix(name)?, factor)));
    let (number, factor) = unit.unwrap_or((text, 1));
    let bytes = number.trim().parse::<usize>().ok().and_then(|number| number.checked_mul(factor));
    let bytes = bytes.ok_or_else(|| format!("'{text}' is no size; expected for example 512Mi, or none"))?;
    if bytes < LEAST { Err(format!("{text} is too little; expected at least 32Mi")) } else { Ok(Ceiling::Bytes(bytes)) }
}

/// With less an agent cannot even hold a small mesh.
const LEAST: usize = 32 << 20;
/// Resident memory from which on the process is strained, and below which it is not any more, in sixteenths of the ceiling.
/// 14 and 13: the buffers of one second of bulk traffic fit above, and one sixteenth keeps it from flapping.
const STRAINED_ABOVE: usize = 14;
/// See [`STRAINED_ABOVE`].
const STRAINED_BELOW: usize = 13;
/// How often resident memory is looked at. 250 ms: at 10,000 new connections a second some 30 MB.
const LOOK: Duration = Duration::from_millis(250);

/// The memory ceiling of this process: bounds what connections may buffer, and watches all the rest.
#[derive(Debug, Clone)]
pub struct Memory {
    ceiling: Option<usize>,
    budget: Budget,
}

impl Memory {
    /// With the limit that was asked for, or the cgroup's. The connections' budget is what is left of it
    /// now, less a quarter for everything that is not counted; at least a quarter of it.
    #[must_use]
    pub fn new(asked: Option<Ceiling>, registry: &Registry) -> Self {
        let ceiling = match asked {
            Some(Ceiling::None) => None,
            Some(Ceiling::Bytes(bytes)) => Some(bytes),
            None => cgroup_limit(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")),
        };
        let budget = match ceiling {
            None => Budget::unlimited(),
            Some(ceiling) => Budget::new(budget_of(ceiling, resident().unwrap_or_default())),
        };
        let memory = Self { ceiling, budget };
        registry.register(|registry| registry.register_collector(Box::new(memory.clone())));
        memory
    }

    /// What connections may hold.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// Watches resident memory for ever: what is counted is not all that there is (the mesh, certificates, the allocator).
    pub async fn watch(self) {
        let Some(ceiling) = self.ceiling else { return std::future::pending().await };
        let mut strained = false;
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(resident) = resident() else { continue };
            let next = is_strained(strained, resident, ceiling);
            if next != strained {
                let word = if next {
                    "near to its memory limit: new connections are shed"
                } else {
                    "below its memory limit again"
                };
                tracing::warn!(resident, ceiling, "the agent is {word}");
                self.budget.set_strained(next);
            }
            strained = next;
        }
    }
}

fn budget_of(ceiling: usize, resident: usize) -> usize {
    (ceiling / 4 * 3).saturating_sub(resident).max(ceiling / 4)
}

fn is_strained(before: bool, resident: usize, ceiling: usize) -> bool {
    let sixteenths = if before { STRAINED_BELOW } else { STRAINED_ABOVE };
    resident > ceiling / 16 * sixteenths
}

impl Collector for Memory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let kind = <ConstGauge<i64> as TypedMetric>::TYPE;
        debug_assert!(matches!(kind, MetricType::Gauge));
        let mut gauge = |name, help, value: usize| {
            let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            value.encode(encoder.encode_descriptor(name, help, None, kind)?)
        };
        gauge(
            "weft_connection_bytes",
            "Bytes that connections hold, as counted for the memory limit",
            self.budget.used(),
        )?;
        match self.budget.limit() {
            Some(limit) => gauge("weft_connection_bytes_limit", "Bytes that connections may hold", limit),
            None => Ok(()),
        }
    }
}

/// Resident memory of this process, bytes.
fn resident() -> Option<usize> {
    /// Every architecture that we build for has pages of 4 KiB unless its kernel says otherwise; then the limit is only earlier or
    /// later than it should be by that factor, and the budget still binds.
    const PAGE: usize = 4096;
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<usize>().ok()? * PAGE)
}

/// The least `memory.max` on the way from this process's cgroup (v2) to the root.
fn cgroup_limit(own: &Path, root: &Path) -> Option<usize> {
    let own = fs::read_to_string(own).ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let leaf: PathBuf = root.join(path.trim_start_matches('/'));
    let groups = leaf.ancestors().take_while(|group| group.starts_with(root));
    let limits = groups.filter_map(|group| fs::read_to_string(group.join("memory.max")).ok()?.trim().parse().ok());
    limits.min().filter(|limit| *limit >= LEAST)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rstest::rstest;

    use super::{Ceiling, budget_of, cgroup_limit, is_strained, parse_ceiling};

    const MIB: usize = 1 << 20;

    #[rstest]
    #[case("none", Ok(Ceiling::None))]
    #[case("512Mi", Ok(Ceiling::Bytes(512 * MIB)))]
    #[case("1G", Ok(Ceiling::Bytes(1_000_000_000)))]
    #[case("67108864", Ok(Ceiling::Bytes(64 * MIB)))]
    #[case("1Mi", Err(()))]
    #[case("much", Err(()))]
    #[case("-5Mi", Err(()))]
    #[case("99999999999Gi", Err(()))]
    fn sizes(#[case] text: &str, #[case] expected: Result<Ceiling, ()>) {
        assert_eq!(parse_ceiling(text).map_err(|_| ()), expected);
    }

    #[test]
    fn the_nearest_limit_of_the_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("own");
        fs::write(&own, "1:name=x:/other\n0::/kubepods/pod1/c\n").unwrap();
        let leaf = root.path().join("kubepods/pod1/c");
        fs::create_dir_all(&leaf).unwrap();
        assert_eq!(cgroup_limit(&own, root.path()), None);
        fs::write(leaf.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("kubepods/pod1/memory.max"), "536870912\n").unwrap();
        fs::write(root.path().join("kubepods/memory.max"), "1073741824\n").unwrap();
        assert_eq!(cgroup_limit(&own, root.path()), Some(512 * MIB));
        fs::write(leaf.join("memory.max"), "134217728\n").unwrap();
        assert_eq!(cgroup_limit(&own, root.path()), Some(128 * MIB));
        assert_eq!(cgroup_limit(&root.path().join("none"), root.path()), None);
    }

    #[rstest]
    #[case::calm(false, 800, false)]
    #[case::near(false, 900, true)]
    #[case::still_near(true, 850, true)]
    #[case::calm_again(true, 800, false)]
    fn strain_does_not_flap(#[case] before: bool, #[case] resident: usize, #[case] expected: bool) {
        assert_eq!(is_strained(before, resident * MIB, 1000 * MIB), expected);
    }

    #[test]
    fn connections_get_what_is_left_and_never_nothing() {
        assert_eq!(budget_of(400, 100), 200);
        assert_eq!(budget_of(400, 390), 100);
    }
}
