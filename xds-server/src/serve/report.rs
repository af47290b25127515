//! The service that takes the nodes' reports of captured pods.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tonic::{Request, Response, Status};
use weft_model::{Reason, Uid};
use weft_runtime::quota::{Allowance, Quota};
use weft_wire::proto::node::node_service_server::NodeService;
use weft_wire::proto::node::{Refused, ReportRequest, ReportResponse};
use weft_wire::refusal::refuse;

use super::caller::caller_of;
use super::captured::CapturedStore;
use super::metrics::ServeMetrics;

/// Pods in one report: Kubernetes supports 110 per node and some raise it to 500; this is far beyond, and bounds the file.
const PODS_PER_REPORT: usize = 4096;
/// Bytes of a uid: cluster, namespace and name have at most 253 each.
const UID_LIMIT: usize = 1024;

/// Largest report: all of them.
pub(super) const REPORT_LIMIT: usize = PODS_PER_REPORT * (UID_LIMIT + 8);
/// Reports of one node: each that says something new costs an fsync, for which the others wait. An agent sends one at a time,
/// when pods come or go, and with every new stream.
const PER_NODE: Allowance = Allowance { burst: 100, per_second: 10.0 };

/// Where the source says that a pod runs.
type NodeOf = dyn Fn(&Uid) -> Option<Arc<str>> + Send + Sync;

/// Where reports are kept: what one says is in force when it is written down, for this and every later life of the server.
#[tonic::async_trait]
pub trait Keep: Send + Sync + 'static {
    /// Keeps the report of one node; gives how many pods all nodes claim now.
    ///
    /// # Errors
    /// It cannot be kept, and is not in force. Logged already.
    async fn keep(&self, node: &Arc<str>, uids: BTreeSet<Uid>) -> Result<usize, NotKept>;

    /// How many pods all nodes claim.
    fn count(&self) -> usize;
}

/// A report could not be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the control plane cannot keep the report now")]
pub struct NotKept;

#[tonic::async_trait]
impl Keep for Mutex<CapturedStore> {
    async fn keep(&self, node: &Arc<str>, uids: BTreeSet<Uid>) -> Result<usize, NotKept> {
        // A panic while reporting leaves the store as it was before or after; both are right.
        let mut store = self.lock().unwrap_or_else(PoisonError::into_inner);
        store.report(node, uids).map_err(|error| {
            tracing::error!(%error, "a report cannot be kept");
            NotKept
        })?;
        Ok(store.count())
    }

    fn count(&self) -> usize {
        self.lock().unwrap_or_else(PoisonError::into_inner).count()
    }
}

/// The service.
#[derive(Clone)]
pub struct Reports {
    keep: Arc<dyn Keep>,
    node_of: Arc<NodeOf>,
    quota: Arc<Quota<Arc<str>>>,
    metrics: ServeMetrics,
}

impl Reports {
    /// Writes into what keeps. `node_of` only serves to tell the node which of its words are not believed yet.
    pub fn new(
        keep: Arc<dyn Keep>,
        node_of: impl Fn(&Uid) -> Option<Arc<str>> + Send + Sync + 'static,
        metrics: ServeMetrics,
    ) -> Self {
        metrics.captured.set(i64::try_from(keep.count()).unwrap_or(i64::MAX));
        Self { keep, node_of: Arc::new(node_of), quota: Arc::new(Quota::new(PER_NODE)), metrics }
    }
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reports").finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl NodeService for Reports {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let caller = caller_of(request.extensions())?;
        let report = request.into_inner();
        if *report.node != *caller.node {
            let detail = format!("the report is for node '{}', but the token is of '{}'", report.node, caller.node);
            return Err(refuse(Reason::WrongNode, &detail));
        }
        if !self.quota.take(&caller.node, Instant::now()) {
            tracing::warn!(node = %caller.node, reason = Reason::Overloaded.code(), "a node reports without end");
            return Err(refuse(Reason::Overloaded, "the node reports too often"));
        }
        if report.captured.len() > PODS_PER_REPORT || report.captured.iter().any(|uid| uid.len() > UID_LIMIT) {
            return Err(Status::invalid_argument("the report has too many pods, or one with too long a uid"));
        }
        let uids: BTreeSet<Uid> = report.captured.into_iter().map(|uid| Uid(uid.into())).collect();
        let refused: Vec<Refused> = uids.iter().filter_map(|uid| self.doubt(&caller.node, uid)).collect();
        let pods = uids.len();
        let kept = self.keep.keep(&caller.node, uids).await.map_err(|error| Status::unavailable(error.to_string()))?;
        self.metrics.captured.set(i64::try_from(kept).unwrap_or(i64::MAX));
        self.metrics.reports.inc();
        tracing::debug!(node = %caller.node, pods, refused = refused.len(), version = report.agent_version, "report taken");
        Ok(Response::new(ReportResponse { refused }))
    }
}

impl Reports {
    fn doubt(&self, node: &Arc<str>, uid: &Uid) -> Option<Refused> {
        let why = match (self.node_of)(uid) {
            Some(at) if at == *node => return None,
            Some(at) => format!("{}: it runs on node '{at}'", Reason::WrongNode),
            None => format!("{}: the control plane does not know this pod (yet)", Reason::UnknownWorkload),
        };
        Some(Refused { uid: uid.to_string(), reason: why })
    }
}
