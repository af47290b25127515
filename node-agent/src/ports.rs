//! The ports that belong to the mesh (`docs/ports.md`), in one place for both directions.

/// A captured pod's own calls arrive here.
pub const OUTBOUND: u16 = 15001;
/// Plaintext calls to a captured pod arrive here.
pub const INBOUND: u16 = 15006;
/// HBONE arrives here.
pub const HBONE: u16 = weft_model::workload::HBONE_PORT;

/// Whether nobody may ask the agent to connect there: behind these ports stands the agent itself.
#[must_use]
pub fn is_reserved(port: u16) -> bool {
    matches!(port, OUTBOUND | INBOUND | HBONE)
}
