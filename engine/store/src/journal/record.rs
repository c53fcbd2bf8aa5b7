//! What the log says: each change of the maps as one record.
//!
//! A record is applied to the state before it and gives the state after it, the same while the store runs and when the log
//! is read again. Names of volumes and files are numbers that are never used twice.

use crate::VolumeId;
use crate::map::{Part, Piece, Slot};
use serde::{Deserialize, Serialize};

pub type VolumeNumber = u32;

/// A slot as a file's number and an index; file 0 is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place(pub u32, pub u64);

impl Place {
    pub const HOLE: Self = Self(0, 0);

    pub fn of(slot: Option<Slot>) -> Self {
        slot.map_or(Self::HOLE, |slot| Self(slot.file, slot.index))
    }

    pub fn slot(self) -> Option<Slot> {
        (self.0 != 0).then_some(Slot { file: self.0, index: self.1 })
    }
}

/// As the first version of the log told of a chunk. `blocks` not 0: only these blocks of it, the others are at `base`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    pub chunk: u64,
    pub place: Place,
    pub base: Place,
    pub blocks: u64,
}

impl Mapped {
    /// `all`: the blocks of a chunk.
    pub fn part(&self, all: u64) -> Option<Part> {
        let base = self.base.slot().map(|base| Piece::new(base, all));
        base.and_then(|base| Part::over(self.blocks, [base]))
    }
}

/// One chunk of a volume is there from now on; but those of its blocks that `others` name are in these slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    pub chunk: u64,
    pub place: Place,
    pub others: Vec<(Place, u64)>,
}

impl Placed {
    pub fn new(chunk: u64, slot: Slot, part: Option<&Part>) -> Self {
        let other = |piece: &Piece| (Place::of(Some(piece.slot())), piece.blocks);
        let others = part.map_or_else(Vec::new, |part| part.others.iter().map(other).collect());
        Self { chunk, place: Place::of(Some(slot)), others }
    }

    pub fn part(&self, all: u64) -> Option<Part> {
        part_beside(all, self.others.iter().filter_map(|(place, blocks)| Some(Piece::new(place.slot()?, *blocks))))
    }
}

/// What a chunk is whose pieces besides the first are these; none if there are none. `all`: the blocks of a chunk.
pub fn part_beside(all: u64, others: impl Iterator<Item = Piece> + Clone) -> Option<Part> {
    let elsewhere = others.clone().fold(0, |blocks, piece| blocks | piece.blocks);
    Part::over(all & !elsewhere, others)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// Chunks that were never shared are here at their own places: for a volume without relatives, its raw image.
    Base,
    /// Chunks whose own place was taken.
    Spill,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAdded {
    pub number: u32,
    pub volume: VolumeNumber,
    pub kind: FileKind,
    pub name: String,
}

/// A new volume with the map of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sharing {
    pub source: VolumeNumber,
    pub number: VolumeNumber,
    pub id: VolumeId,
    pub thick: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The first of a log. `incarnation`: of the disk when the log was begun.
    Begin {
        version: u32,
        incarnation: String,
    },
    /// Everything that records of these volumes, up to these numbers, refer to was on stable storage before this record
    /// was written. `confirmed`: every record up to this number was there, too.
    Commit {
        volumes: Vec<(VolumeNumber, u64)>,
        confirmed: u64,
    },
    /// The disk has lost something that was written: what is in memory is not to be believed after the next start.
    LostWrites,
    /// The same of all records up to this one, of whatever volume: a start has made everything durable that it found.
    Settled {
        upto: u64,
    },
    Create {
        number: VolumeNumber,
        id: VolumeId,
        size_bytes: u64,
        thick: bool,
        base: FileAdded,
    },
    FileAdd(FileAdded),
    Share(Vec<Sharing>),
    /// Of the first version only.
    Map {
        volume: VolumeNumber,
        chunks: Vec<Mapped>,
    },
    /// Runs of chunks, as first chunk and how many, that read as zeroes from now on.
    Holes {
        volume: VolumeNumber,
        runs: Vec<(u64, u64)>,
    },
    Rollback {
        volume: VolumeNumber,
        source: VolumeNumber,
    },
    Resize {
        volume: VolumeNumber,
        size_bytes: u64,
    },
    Thick {
        volume: VolumeNumber,
        thick: bool,
    },
    Reservations {
        volume: VolumeNumber,
        text: Option<String>,
    },
    Delete {
        volume: VolumeNumber,
    },
    /// Others refer to slots of this volume from now on: it is no raw image any more.
    Shareable {
        volume: VolumeNumber,
    },
    /// Space is about to be reserved for a volume that is thin, or what was reserved for it is not all given back yet.
    Reserving {
        volume: VolumeNumber,
        under_way: bool,
    },
    Put {
        volume: VolumeNumber,
        chunks: Vec<Placed>,
    },
}

impl Record {
    /// The one volume that has to be there for the record to mean anything, besides those it relies on.
    pub fn concerns(&self) -> Option<VolumeNumber> {
        match self {
            Self::Map { volume, .. }
            | Self::Put { volume, .. }
            | Self::Holes { volume, .. }
            | Self::Rollback { volume, .. }
            | Self::Resize { volume, .. }
            | Self::Thick { volume, .. }
            | Self::Reservations { volume, .. }
            | Self::Delete { volume }
            | Self::Shareable { volume }
            | Self::Reserving { volume, .. } => Some(*volume),
            Self::FileAdd(file) => Some(file.volume),
            Self::Begin { .. }
            | Self::Commit { .. }
            | Self::Settled { .. }
            | Self::LostWrites
            | Self::Create { .. }
            | Self::Share(_) => None,
        }
    }

    /// Volumes whose data this record relies on. After a loss of power it counts only if a later commit names them all;
    /// a record without any is made durable before it is answered.
    pub fn relies_on(&self) -> Vec<VolumeNumber> {
        match self {
            Self::Map { volume, .. } | Self::Put { volume, .. } | Self::Holes { volume, .. } => vec![*volume],
            Self::Rollback { source, .. } => vec![*source],
            Self::Share(pairs) => pairs.iter().map(|pair| pair.source).collect(),
            _ => Vec::new(),
        }
    }
}
