//! `baggage`: who the other end is, for telemetry only. Nothing may be decided from it: the peer writes what it likes.
//!
//! `k=v` joined by commas, absent values left out, keys in the order of [`Baggage`]'s fields.

use std::fmt;

/// The kind of object that owns a workload, as the baggage key spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkloadKind {
    /// `k8s.deployment.name`
    Deployment,
    /// `k8s.cronjob.name`
    CronJob,
    /// `k8s.pod.name`
    Pod,
    /// `k8s.job.name`
    Job,
}

impl WorkloadKind {
    const ALL: [Self; 4] = [Self::Deployment, Self::CronJob, Self::Pod, Self::Job];

    fn key(self) -> &'static str {
        match self {
            Self::Deployment => "k8s.deployment.name",
            Self::CronJob => "k8s.cronjob.name",
            Self::Pod => "k8s.pod.name",
            Self::Job => "k8s.job.name",
        }
    }
}

/// What one end says of itself. Values that could not be told apart again (a comma, a semicolon, a quote, a backslash, a
/// space or anything outside visible ASCII in them) are left out when written: a pod label must not be able to write a second key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Baggage {
    /// `k8s.cluster.name`
    pub cluster: Option<String>,
    /// `k8s.namespace.name`
    pub namespace: Option<String>,
    /// `k8s.<kind>.name`
    pub workload: Option<(WorkloadKind, String)>,
    /// `service.name`
    pub service_name: Option<String>,
    /// `service.version`
    pub service_version: Option<String>,
    /// `cloud.region`
    pub region: Option<String>,
    /// `cloud.availability_zone`
    pub zone: Option<String>,
}

impl Baggage {
    /// Reads what can be read: unknown keys and empty values are ignored, of a repeated key the last counts. Never fails.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut baggage = Self::default();
        for entry in text.split(',') {
            let Some((key, value)) = entry.split_once('=') else { continue };
            // W3C baggage lets properties follow a value.
            let value = value.split(';').next().unwrap_or_default().trim();
            if !value.is_empty() {
                baggage.set(key.trim(), value);
            }
        }
        baggage
    }

    fn set(&mut self, key: &str, value: &str) {
        let field = match key {
            "k8s.cluster.name" => &mut self.cluster,
            "k8s.namespace.name" => &mut self.namespace,
            "service.name" => &mut self.service_name,
            "service.version" => &mut self.service_version,
            "cloud.region" => &mut self.region,
            "cloud.availability_zone" => &mut self.zone,
            _ => {
                if let Some(kind) = WorkloadKind::ALL.into_iter().find(|kind| kind.key() == key) {
                    self.workload = Some((kind, value.to_owned()));
                }
                return;
            }
        };
        *field = Some(value.to_owned());
    }
}

impl fmt::Display for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workload = self.workload.as_ref();
        let entries = [
            ("k8s.cluster.name", self.cluster.as_ref()),
            ("k8s.namespace.name", self.namespace.as_ref()),
            (workload.map_or("", |(kind, _)| kind.key()), workload.map(|(_, name)| name)),
            ("service.name", self.service_name.as_ref()),
            ("service.version", self.service_version.as_ref()),
            ("cloud.region", self.region.as_ref()),
            ("cloud.availability_zone", self.zone.as_ref()),
        ];
        let mut separator = "";
        for (key, value) in entries {
            if let Some(value) = value.filter(|value| is_plain(value)) {
                write!(f, "{separator}{key}={value}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}

fn is_plain(value: &str) -> bool {
    !value.is_empty()
        && value.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b';' | b'"' | b'\\'))
}
