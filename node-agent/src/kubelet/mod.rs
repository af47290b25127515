//! Whether a plaintext connection to a captured pod is a probe of the kubelet: the proxy half asks ([`ask`]), the capture half
//! looks (`capture/probes`), and this is what they say to each other ([`talk`]). Decision 24.

pub mod ask;
pub mod talk;

pub use ask::{Kubelet, QuestionMetrics};
pub use talk::{Answer, Question, SOCKET_FILE, VERSION};
