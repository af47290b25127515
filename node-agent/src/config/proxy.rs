//! Settings of the proxy half.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::control_plane::ControlPlaneOptions;
use super::ejection::EjectionOptions;
use crate::handover::message::worker_count;
use crate::limits::Ceiling;
use crate::sandbox::{Mode, Readable};
use crate::telemetry::LogFormat;

/// Settings of the proxy half.
#[derive(Debug, Clone, Args)]
pub struct ProxyOptions {
    /// How to reach the control plane.
    #[command(flatten)]
    pub control_plane: ControlPlaneOptions,
    /// Data workers, 1 to 40. Default: as many as processors, at most 4: few workers batch better, and each more costs
    /// memory (`docs/performance.md`).
    #[arg(long, env = "WEFT_WORKERS", value_parser = worker_count, value_name = "COUNT")]
    pub workers: Option<usize>,
    /// Admin pages; this machine only.
    #[arg(long, default_value = "127.0.0.1:15000", value_name = "ADDRESS")]
    pub admin: SocketAddr,
    /// Metrics (`/metrics`), for Prometheus.
    #[arg(long, default_value = "[::]:15020", value_name = "ADDRESS")]
    pub metrics: SocketAddr,
    /// Health (`/healthz/ready`), for the kubelet.
    #[arg(long, default_value = "[::]:15021", value_name = "ADDRESS")]
    pub health: SocketAddr,
    /// One line per connection on standard output.
    #[arg(long, value_enum, default_value = "text")]
    pub access_log: LogFormat,
    /// How long live connections may go on after SIGTERM, once a successor serves the pods.
    #[arg(long, default_value = "25s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub drain_deadline: Duration,
    /// The same where no successor is there: new connections wait for one meanwhile, and Kubernetes begins it only when this one has
    /// ended. Default: --drain-deadline.
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub drain_deadline_alone: Option<Duration>,
    /// How long a TCP connection may take to be set up.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub connect_timeout: Duration,
    /// Live connections that one pod may have: calls of its own; twice as many may come to it. Default: five eighths of the
    /// limit of open files, at most 32768.
    #[arg(long, env = "WEFT_MAX_CONNECTIONS_PER_POD", value_name = "COUNT")]
    pub max_connections_per_pod: Option<u64>,
    /// Memory that this half may use, for example 512Mi: near to it new connections are shed and peers are slowed down.
    /// Default: the limit of its cgroup (memory.max), none where there is none. `none` asks for none.
    #[arg(long, env = "WEFT_MEMORY_LIMIT", value_parser = crate::limits::parse_ceiling, value_name = "BYTES")]
    pub memory_limit: Option<Ceiling>,
    /// When endpoints are left out, and for how long.
    #[command(flatten)]
    pub ejection: EjectionOptions,
    /// User to become when started as root. 65534 is nobody's; where that is impossible (a user namespace with one
    /// user), all capabilities are dropped instead.
    #[arg(long, default_value_t = 65534, value_name = "UID")]
    pub run_as: u32,
    /// Walls around this half: files it may read (Landlock), calls it may make (seccomp). `best-effort` takes what the
    /// kernel has and says so; `required` does not start without both.
    #[arg(long, env = "WEFT_SANDBOX", value_enum, default_value = "best-effort")]
    pub sandbox: Mode,
    /// Standard input is a pipe to the supervisor, which wants to know when this proxy is ready.
    #[arg(skip)]
    pub say_ready: bool,
}

impl ProxyOptions {
    /// Files that are read as long as the proxy runs.
    #[must_use]
    pub fn readable(&self) -> Readable {
        let plane = &self.control_plane;
        Readable::new(
            [Some(&plane.token_file), Some(&plane.roots), plane.ca_roots.as_ref()].into_iter().flatten().cloned(),
        )
    }

    /// How many workers to start.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        /// More than this many only divide batches (`docs/performance.md`).
        const DEFAULT_LIMIT: usize = 4;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        self.workers.unwrap_or(processors.clamp(1, DEFAULT_LIMIT))
    }
}
