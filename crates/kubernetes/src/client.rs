//! Finds the API server: by a kubeconfig, or as the account of the pod that this program runs in.

use std::path::Path;

pub use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// There is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither in a pod nor with a kubeconfig, or one that cannot be used.
    #[error(
        "no way to a Kubernetes API server: {0}; expected to run in a pod with a service account, or a kubeconfig ($KUBECONFIG)"
    )]
    Infer(#[from] kube::config::InferConfigError),
    /// The named kubeconfig cannot be used.
    #[error("the kubeconfig {path} cannot be used: {cause}")]
    Kubeconfig {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        cause: kube::config::KubeconfigError,
    },
    /// The client cannot be made (certificates, proxy settings).
    #[error("the client of the Kubernetes API cannot be made: {0}")]
    Client(#[from] kube::Error),
}

/// A client. Does not connect yet. A process default of rustls' crypto provider must be installed.
///
/// # Errors
/// [`ClientError`].
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let config = match kubeconfig {
        None => kube::Config::infer().await?,
        Some(path) => {
            let failed = |cause| ClientError::Kubeconfig { path: path.display().to_string(), cause };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?
        }
    };
    Ok(Client::try_from(config)?)
}
