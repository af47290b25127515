//! Tells the control plane which pods of this node accept HBONE now. Level-triggered: always the full list.

use std::time::Duration;

use tokio::sync::OnceCell;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use weft_model::{Reason, Uid};

use crate::connect::{Connector, Credentials, CredentialsError, causes};
use crate::proto::node::ReportRequest;
use crate::proto::node::node_service_client::NodeServiceClient;
use crate::refusal::reason_of;

/// How long one report may take, connecting included.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a node reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The node's name.
    pub node: String,
    /// Every pod that accepts HBONE now.
    pub captured: Vec<Uid>,
    /// The agent's version.
    pub agent_version: String,
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reported {
    /// It is in force.
    Accepted {
        /// Pods that the control plane did not believe, with its words.
        refused: Vec<(Uid, String)>,
    },
    /// This control plane takes no reports (a stock istiod): do not report again on this connection.
    Unsupported,
}

/// Why a report did not arrive; it should be sent again later.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Our own credentials cannot be sent.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The control plane cannot be reached or refuses.
    #[error("the report did not arrive ({code:?}): {message}")]
    Failed {
        /// The gRPC status.
        code: Code,
        /// The reason, if the server gave one of ours.
        reason: Option<Reason>,
        /// What it says.
        message: String,
    },
}

/// A client of the control plane's node service.
#[derive(Debug)]
pub struct Reporter {
    connector: Connector,
    credentials: Credentials,
    channel: OnceCell<Channel>,
}

impl Reporter {
    /// Connects at the first report.
    #[must_use]
    pub fn new(connector: Connector, credentials: Credentials) -> Self {
        Self { connector, credentials, channel: OnceCell::new() }
    }

    /// Replaces what the control plane knows of this node.
    ///
    /// # Errors
    /// It did not arrive.
    pub async fn report(&self, report: &Report) -> Result<Reported, ReportError> {
        let channel = self.channel.get_or_init(async || self.connector.lazy_channel()).await.clone();
        let mut message = Request::new(ReportRequest {
            node: report.node.clone(),
            captured: report.captured.iter().map(ToString::to_string).collect(),
            agent_version: report.agent_version.clone(),
        });
        *message.metadata_mut() = self.credentials.metadata()?;
        message.set_timeout(DEADLINE);
        let mut client = NodeServiceClient::new(channel);
        let answer = tokio::time::timeout(DEADLINE, client.report(message)).await;
        match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
            Ok(answer) => {
                let refused = answer.into_inner().refused.into_iter();
                Ok(Reported::Accepted { refused: refused.map(|one| (Uid(one.uid.into()), one.reason)).collect() })
            }
            Err(status) if status.code() == Code::Unimplemented => Ok(Reported::Unsupported),
            Err(status) => {
                Err(ReportError::Failed { code: status.code(), reason: reason_of(&status), message: causes(&status) })
            }
        }
    }
}
