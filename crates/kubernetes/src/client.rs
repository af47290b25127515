//! Finds the API server: by a kubeconfig, or as the account of the pod that this program runs in.

use std::path::Path;

pub use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

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
        cause: KubeconfigError,
    },
    /// The client cannot be made (certificates, proxy settings).
    #[error("the client of the Kubernetes API cannot be made: {0}")]
    Client(#[from] kube::Error),
}

/// An error in words: what the API server says of a refusal, without its codes and fields.
pub(crate) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

/// A client of a kubeconfig's current context: [`connect_in`].
///
/// # Errors
/// [`ClientError`].
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    connect_in(kubeconfig, None).await
}

/// A client: of a kubeconfig (the named one, else the user's) and one of its contexts (the named one, else its current one); where neither
/// is named and there is no kubeconfig, as the account of the pod that this program runs in. Does not connect yet. A process default of
/// rustls' crypto provider must be installed.
///
/// # Errors
/// [`ClientError`].
pub async fn connect_in(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Client, ClientError> {
    if kubeconfig.is_none() && context.is_none() {
        return Ok(Client::try_from(kube::Config::infer().await?)?);
    }
    let failed = |cause| ClientError::Kubeconfig {
        path: kubeconfig.map_or_else(|| "of the user".to_owned(), |path| path.display().to_string()),
        cause,
    };
    let file = kubeconfig.map_or_else(Kubeconfig::read, Kubeconfig::read_from).map_err(failed)?;
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = kube::Config::from_custom_kubeconfig(file, &options).await.map_err(failed)?;
    Ok(Client::try_from(config)?)
}

/// Whether the user has a kubeconfig ($KUBECONFIG or ~/.kube/config), be it a broken one.
#[must_use]
pub fn has_kubeconfig() -> bool {
    match Kubeconfig::read() {
        Err(KubeconfigError::ReadConfig(cause, _)) => cause.kind() != std::io::ErrorKind::NotFound,
        Err(KubeconfigError::FindPath) => false,
        Ok(_) | Err(_) => true,
    }
}
