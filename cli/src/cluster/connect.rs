//! The way to the cluster: a runtime for one command, and the user's kubeconfig.

use std::future::Future;

use weft_kubernetes::{Cluster, connect_in};

use super::options::ClusterOptions;

/// Runs a command against the cluster.
///
/// # Errors
/// There is no way to it, or what the command says.
pub fn with<T, F: Future<Output = anyhow::Result<T>>>(
    options: &ClusterOptions,
    act: impl FnOnce(Cluster) -> F,
) -> anyhow::Result<T> {
    run(async {
        let client = connect_in(options.kubeconfig.as_deref(), options.context.as_deref()).await?;
        act(Cluster::new(client)).await
    })
}

/// Runs a command that needs no cluster, or finds its own way.
///
/// # Errors
/// What the command says.
pub fn run<T>(act: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(act)
}
