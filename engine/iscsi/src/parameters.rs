//! What both sides agreed on at login.

/// Longest data segment this side takes, as it declares at login.
pub const OUR_MAX_RECV_BYTES: u32 = 262_144;
/// What both sides may send before and unless something else is declared (RFC 7143 13.12).
pub const DEFAULT_MAX_RECV_BYTES: u32 = 8192;
pub const OUR_MAX_BURST_BYTES: u32 = 1 << 20;
pub const OUR_FIRST_BURST_BYTES: u32 = 262_144;
pub const OUR_MAX_OUTSTANDING_R2T: u32 = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    pub header_digest: bool,
    pub data_digest: bool,
    pub initial_r2t: bool,
    pub immediate_data: bool,
    /// Longest data segment the initiator takes.
    pub initiator_max_recv_bytes: u32,
    /// Longest data segment this side has declared to take.
    pub target_max_recv_bytes: u32,
    pub max_burst_bytes: u32,
    pub first_burst_bytes: u32,
    pub max_outstanding_r2t: u32,
}

impl Default for Parameters {
    /// The values in force when nothing is negotiated (section 13).
    fn default() -> Self {
        Self {
            header_digest: false,
            data_digest: false,
            initial_r2t: true,
            immediate_data: true,
            initiator_max_recv_bytes: DEFAULT_MAX_RECV_BYTES,
            target_max_recv_bytes: DEFAULT_MAX_RECV_BYTES,
            max_burst_bytes: 262_144,
            first_burst_bytes: 65_536,
            max_outstanding_r2t: 1,
        }
    }
}
