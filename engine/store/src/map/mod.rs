//! The shared map: which slot of which data file holds each chunk of a volume.
//!
//! ```text
//! Top ──► Middle ──► Leaf ──► slot of a data file      a child may also be a hole, or "the slots of file F at the same
//!  16 GiB   32 MiB   64 KiB                            places" (identity), as in every volume that was never shared
//! ```
//! Spans are those of 64 KiB chunks; a leaf has 512 entries, a middle node 512 children, a top node as many as its volume
//! needs. Sharing a volume is one more reference to its top node; whoever changes a shared node first copies it, and the
//! copy refers to the same children once more. So the cost of sharing does not depend on size, age or fragmentation.

pub mod change;
pub mod nodes;
pub mod slot_refs;
pub mod walk;

pub use nodes::{Child, Entry, Leaf, Middle, Node, Part, Piece, Slot, Top};
pub use slot_refs::SlotRefs;

/// Slots of one leaf.
pub const LEAF_SLOTS: u64 = 512;
/// Slots below one middle node.
pub const MIDDLE_SLOTS: u64 = LEAF_SLOTS * 512;
