//! What a running agent or server shows of itself: the rows behind `weft pods`, `services`, `policies`, `connections`,
//! `certs` and `config`. One home for these shapes, because the program that writes them and the command that reads
//! them must not depend on each other. They are a contract for scripts (`-o json`): fields are added, never renamed.

mod mesh;
mod rows;
#[cfg(test)]
mod tests;

pub use mesh::{pods, policies, services};
pub use rows::{
    CertificateRow, ConfigView, ConnectionRow, ControlPlaneView, EjectionRow, EndpointRow, Finding, PodRow, PolicyRow,
    RejectedRow, ServiceRow, SubscriberRow, TypeRow,
};
