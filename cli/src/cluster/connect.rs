//! The way to the cluster: a runtime for one command, and the user's kubeconfig.

use std::future::Future;

use weft_kubernetes::{Cluster, connect};

use super::options::ClusterOptions;

/// Runs a command against the cluster.
///
/// # Errors
/// There is no way to it, or what the command says.
pub fn with<T, F: Future<Output = anyhow::Result<T>>>(
    options: &ClusterOptions,
    act: impl FnOnce(Cluster) -> F,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = connect(options.kubeconfig.as_deref()).await?;
        act(Cluster::new(client)).await
    })
}
