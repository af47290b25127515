//! The metrics registry, what every program says of itself, and the text for Prometheus. The metrics of a feature are structs
//! beside the code that they count; they come here only to be registered.
//!
//! `prometheus_client` writes OpenMetrics: it appends `_total` to every counter. **Register a counter without that ending**:
//! `istio_tcp_connections_opened` comes out as `istio_tcp_connections_opened_total`, which is the name dashboards ask for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;

/// The content type of [`Registry::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Kernel ticks per second in `/proc/PID/stat`. The kernel's interface fixes it at 100 on every architecture we build for
/// (USER_HZ, include/asm-generic/param.h), whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// The registry of one program. Cheap to clone; all clones are one registry.
#[derive(Debug, Clone)]
pub struct Registry {
    inner: Arc<Mutex<prometheus_client::registry::Registry>>,
}

impl Registry {
    /// A registry with `weft_build_info{program,version}` and the process metrics (open files, memory, CPU, start time).
    pub fn new(program: &str, version: &str) -> Self {
        let mut inner = prometheus_client::registry::Registry::default();
        let build = vec![("program", program.to_owned()), ("version", version.to_owned())];
        inner.register("weft_build", "What is running", Info::new(build));
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        inner.register_collector(Box::new(Process { started }));
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Lets a feature register its metrics: `registry.register(|registry| TcpMetrics::new(registry))`.
    pub fn register<R>(&self, add: impl FnOnce(&mut prometheus_client::registry::Registry) -> R) -> R {
        add(&mut self.lock())
    }

    /// Everything as OpenMetrics text; see [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.lock()) {
            Ok(()) => text,
            // Writing into a String cannot fail, so a collector did; the rest of the text is still worth having.
            Err(_) => {
                tracing::error!("a metrics collector failed; the metrics page is cut short");
                text + "# EOF\n"
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, prometheus_client::registry::Registry> {
        // A panic while registering leaves a shorter list, not a broken one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Read at scrape time from `/proc/self`: three small files, some microseconds. What cannot be read is left out.
#[derive(Debug)]
struct Process {
    /// Seconds since 1970.
    started: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        gauge(&mut encoder, "process_start_time_seconds", "Start of the process, seconds since 1970", self.started)?;
        if let Some(bytes) = std::fs::read_to_string("/proc/self/status").ok().and_then(|text| resident_bytes(&text)) {
            gauge(&mut encoder, "process_resident_memory_bytes", "Resident memory", bytes)?;
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the directory being read.
            let open = entries.count().saturating_sub(1);
            gauge(&mut encoder, "process_open_fds", "Open file descriptors", open as f64)?;
        }
        if let Some(limit) = std::fs::read_to_string("/proc/self/limits").ok().and_then(|text| open_files_limit(&text))
        {
            gauge(&mut encoder, "process_max_fds", "Limit of open file descriptors", limit)?;
        }
        if let Some(seconds) = std::fs::read_to_string("/proc/self/stat").ok().and_then(|text| cpu_seconds(&text)) {
            let counter = ConstCounter::new(seconds);
            let help = "User and system CPU time";
            let metric = encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> Result<(), std::fmt::Error> {
    let gauge = ConstGauge::new(value);
    let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    gauge.encode(metric)
}

/// `VmRSS:  1234 kB` of `/proc/PID/status` (proc_pid_status(5)); unlike `statm` it needs no page size.
fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// The soft limit in `Max open files  1024  4096  files` of `/proc/PID/limits`; none when unlimited.
fn open_files_limit(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 (utime, stime) of `/proc/PID/stat`, counted behind the program name, which may contain anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn says_what_runs_and_how_it_is() {
        let registry = Registry::new("weft-test", "1.2.3");
        let text = registry.encode();
        assert!(text.contains(r#"weft_build_info{program="weft-test",version="1.2.3"} 1"#), "{text}");
        for name in ["process_open_fds", "process_resident_memory_bytes", "process_cpu_seconds_total"] {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect(name);
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(value >= 0.0, "{line}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn counters_get_their_ending_here() {
        let registry = Registry::new("weft-test", "0");
        let opened = registry.register(|registry| {
            let counter = Counter::<u64>::default();
            registry.register("istio_tcp_connections_opened", "Connections", counter.clone());
            counter
        });
        opened.inc();
        assert!(registry.clone().encode().contains("\nistio_tcp_connections_opened_total 1\n"));
    }

    #[test]
    fn reads_proc_files() {
        assert_eq!(resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t     12 kB\n"), Some(12288.0));
        assert_eq!(resident_bytes("VmRSS: many"), None);
        assert_eq!(open_files_limit("Max open files            1024   4096   files\n"), Some(1024.0));
        assert_eq!(open_files_limit("Max open files            unlimited   unlimited   files\n"), None);
        let stat = "42 (we) ft (x) S 1 42 42 0 -1 4194304 10 0 0 0 150 50 0 0 20 0 1 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("42 (x"), None);
    }
}
