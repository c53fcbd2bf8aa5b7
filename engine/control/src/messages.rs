//! Every request and reply, with the units and promises of `gespann/seams/engine_socket.py`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroize;

pub const PROTOCOL: &str = "gespann-engine";
pub const VERSION: u64 = 1;

/// The closed list of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    BadRequest,
    BadVersion,
    NotFound,
    Exists,
    Busy,
    NoSpace,
    Io,
    Timeout,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, message)
    }
}

/// A secret on its way in: wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText")
    }
}

fn any_address() -> String {
    "*.*.*.*".to_owned()
}

fn first_generation() -> u64 {
    1
}

fn vendor() -> String {
    "GESPANN".to_owned()
}

fn product() -> String {
    "VOLUME".to_owned()
}

fn revision() -> String {
    "1.0".to_owned()
}

fn block_size() -> u32 {
    512
}

fn drain_timeout_ms() -> u64 {
    30_000
}

fn diff_limit() -> u64 {
    10_000
}

fn warn_percent() -> u8 {
    100
}

/// One volume to be made by `volume.snapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharePair {
    pub source: String,
    pub volume: String,
    #[serde(default)]
    pub thick: bool,
}

/// One storage pool; its volumes need not be there yet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpacePool {
    pub pool: String,
    #[serde(default)]
    pub capacity_bytes: Option<u64>,
    #[serde(default)]
    pub volumes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    #[serde(default)]
    pub initiator: String,
    #[serde(default)]
    pub chap_user: String,
    #[serde(default = "any_address")]
    pub address: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub volume: String,
    pub name: String,
    #[serde(default)]
    pub alias: String,
    #[serde(default)]
    pub online: bool,
    #[serde(default)]
    pub read_only: bool,
    #[serde(default)]
    pub multihost: bool,
    #[serde(default = "first_generation")]
    pub generation: u64,
    #[serde(default)]
    pub access: Vec<Access>,
    #[serde(default)]
    pub writer: String,
    #[serde(default = "vendor")]
    pub vendor: String,
    #[serde(default = "product")]
    pub product: String,
    #[serde(default = "revision")]
    pub revision: String,
    #[serde(default)]
    pub naa: String,
    #[serde(default = "block_size")]
    pub block_size: u32,
    #[serde(default)]
    pub physical_block_size: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChapUser {
    pub user: String,
    pub secret: SecretText,
}

macro_rules! arguments {
    ($($name:ident { $($(#[$meta:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$meta])* pub $field: $type),* }
    )*};
}

arguments! {
    Hello { version: u64 }
    Configure {
        targets: Vec<Target>,
        chap_users: Vec<ChapUser>,
        #[serde(default)]
        mutual: Option<ChapUser>,
        #[serde(default)]
        portal_address: String,
    }
    TargetPut { target: Target }
    ChapMutual { #[serde(default)] credential: Option<ChapUser> }
    ChapRemove { user: String }
    VolumeName { volume: String }
    VolumeCreate { volume: String, size_bytes: u64, #[serde(default)] thick: bool }
    VolumeResize { volume: String, size_bytes: u64 }
    VolumeClone { source: String, volume: String, #[serde(default)] thick: bool }
    VolumeThick { volume: String, thick: bool }
    VolumeSnapshot { pairs: Vec<SharePair> }
    VolumeRollback { volume: String, source: String }
    VolumeDiff {
        older: String,
        newer: String,
        #[serde(default)]
        offset: u64,
        #[serde(default = "diff_limit")]
        limit: u64,
    }
    VolumeAdded { volume: String, #[serde(default)] than: Vec<String> }
    VolumeLimit { volume: String, #[serde(default)] max_in_use_bytes: Option<u64> }
    SpaceLimit { #[serde(default)] limit_bytes: Option<u64>, #[serde(default = "warn_percent")] warn_percent: u8 }
    SpacePools { pools: Vec<SpacePool> }
    OptionalVolume { #[serde(default)] volume: Option<String> }
    SessionDrop {
        volume: String,
        #[serde(default)]
        initiator: Option<String>,
        #[serde(default)]
        below_generation: Option<u64>,
    }
    VolumeDrain { volume: String, #[serde(default = "drain_timeout_ms")] timeout_ms: u64 }
    Nothing {}
}

macro_rules! requests {
    ($($op:literal => $variant:ident($arguments:ty)),* $(,)?) => {
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Request { $($variant($arguments)),* }

        /// All operations, in the order of the seam.
        pub const OPERATIONS: &[&str] = &[$($op),*];

        impl Request {
            pub fn from_parts(op: &str, args: Value) -> Result<Self, Refusal> {
                match op {
                    $($op => serde_json::from_value(args)
                        .map(Self::$variant)
                        .map_err(|error| Refusal::bad_request(format!("{op}: {error}"))),)*
                    _ => Err(Refusal::bad_request("there is no such operation")),
                }
            }
        }
    };
}

requests! {
    "hello" => Hello(Hello),
    "configure" => Configure(Configure),
    "target.put" => TargetPut(TargetPut),
    "target.remove" => TargetRemove(VolumeName),
    "chap.put" => ChapPut(ChapUser),
    "chap.remove" => ChapRemove(ChapRemove),
    "chap.mutual" => ChapMutual(ChapMutual),
    "volume.create" => VolumeCreate(VolumeCreate),
    "volume.delete" => VolumeDelete(VolumeName),
    "volume.resize" => VolumeResize(VolumeResize),
    "volume.clone" => VolumeClone(VolumeClone),
    "volume.thick" => VolumeThick(VolumeThick),
    "volume.snapshot" => VolumeSnapshot(VolumeSnapshot),
    "volume.rollback" => VolumeRollback(VolumeRollback),
    "volume.diff" => VolumeDiff(VolumeDiff),
    "volume.usage" => VolumeUsage(VolumeName),
    "volume.added" => VolumeAdded(VolumeAdded),
    "volume.limit" => VolumeLimit(VolumeLimit),
    "volume.list" => VolumeList(OptionalVolume),
    "space" => Space(Nothing),
    "space.limit" => SpaceLimit(SpaceLimit),
    "space.pools" => SpacePools(SpacePools),
    "session.list" => SessionList(OptionalVolume),
    "session.drop" => SessionDrop(SessionDrop),
    "volume.drain" => VolumeDrain(VolumeDrain),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HelloReply {
    pub protocol: String,
    pub version: u64,
    pub engine_version: String,
    pub boot_id: String,
    pub configured: bool,
    pub pid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeInfo {
    pub volume: String,
    pub size_bytes: u64,
    pub allocated_bytes: u64,
    pub thick: bool,
    pub origin: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffExtent {
    pub offset: u64,
    pub length: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSpace {
    pub pool: String,
    pub used_bytes: u64,
    pub capacity_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceReply {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub used_bytes: u64,
    pub limit_bytes: Option<u64>,
    pub reclaiming_bytes: u64,
    pub pools: Vec<PoolSpace>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    pub session: u64,
    pub volume: String,
    pub initiator: String,
    pub chap_user: String,
    pub address: String,
    pub generation: u64,
    pub connected_ms: u64,
    pub idle_ms: u64,
    pub in_flight: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

/// Answers; each serializes as the object that stands in `ok`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    Hello(HelloReply),
    Volume(VolumeInfo),
    // Before `Volumes`, whose one field it has too: the first that fits is taken when an answer is read.
    Snapshot { volumes: Vec<VolumeInfo>, pause_us: u64 },
    Volumes { volumes: Vec<VolumeInfo> },
    Differences { extents: Vec<DiffExtent>, next_offset: Option<u64> },
    Usage { mapped_bytes: u64, exclusive_bytes: u64 },
    Added { added_bytes: u64 },
    Space(SpaceReply),
    Sessions { sessions: Vec<Session> },
    Dropped { dropped: u64 },
    Empty {},
}
