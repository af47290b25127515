//! What nodes meet: one gRPC server with discovery, reports and (from `ca`) certificates. Every call is authenticated
//! before anything of it is read, and a node is served as the node that its token says, never as the one that it claims.
//!
//! | file | does |
//! |---|---|
//! | `router`, `gate`, `caller` | the server; authentication before every service; who calls |
//! | `tokens`, `reviewed` | nodes by a file of tokens, or by TokenReview |
//! | `ads`, `conversation`, `interest` | discovery over gRPC; what a stream is told, in which order; who gets what (the last two pure) |
//! | `report`, `captured`, `conditions` | reports of captured pods; kept in a file, or as conditions of pods |
//! | `nodes`, `metrics` | what each connected node has; what is counted |

mod ads;
mod caller;
mod captured;
mod conditions;
mod conversation;
mod gate;
mod interest;
mod metrics;
mod nodes;
mod report;
mod reviewed;
mod router;
mod tokens;

pub use ads::{Ads, AdsSettings, REPORTS_TIME};
pub use caller::{Authenticate, Caller, caller_of};
pub use captured::{Captured, CapturedError, CapturedStore};
pub use conditions::Conditions;
pub use conversation::Conversation;
pub use interest::View;
pub use metrics::ServeMetrics;
pub use nodes::{NodeStatus, Nodes, Settled, StreamView};
pub use report::{Keep, NotKept, Reports};
pub use reviewed::ReviewedTokens;
pub use router::{ServeError, serve};
pub use tokens::{NodeTokens, TokenFinding, TokensError};
