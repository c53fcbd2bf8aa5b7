//! One thing that is asked of a store: how it is done, what it should have changed, how it is printed.

use crate::sectors::{SECTOR, bytes_of, name, stamp, value_of};
use crate::subject::Running;
use crate::usage;
use crate::world::{World, letter};
use gespann_store::{BlockError, Share, StoreError, Volume, VolumeId};
use std::fmt;
use std::sync::Arc;

/// A range of sectors of a volume.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    pub id: VolumeId,
    pub from: u64,
    pub to: u64,
}

#[derive(Debug, Clone)]
pub enum Operation {
    Create {
        id: VolumeId,
        size_bytes: u64,
        thick: bool,
    },
    Delete {
        id: VolumeId,
    },
    Resize {
        id: VolumeId,
        size_bytes: u64,
    },
    SetThick {
        id: VolumeId,
        thick: bool,
    },
    Snapshot {
        pairs: Vec<(VolumeId, VolumeId)>,
    },
    Clone {
        source: VolumeId,
        id: VolumeId,
        thick: bool,
    },
    RollBack {
        id: VolumeId,
        from: VolumeId,
    },
    CopyRange {
        source: Range,
        target: VolumeId,
        at: u64,
    },
    Write {
        range: Range,
        step: u64,
    },
    /// All of it or nothing, over every crash.
    WriteAtomic {
        range: Range,
        step: u64,
    },
    Zero {
        range: Range,
    },
    OrWrite {
        range: Range,
        step: u64,
    },
    /// `wrong`: so many sectors into the range something else is expected than is there.
    CompareAndWrite {
        range: Range,
        expected: Vec<u64>,
        wrong: Option<u64>,
        step: u64,
    },
    Flush {
        id: VolumeId,
    },
    Settle {
        id: VolumeId,
    },
    Differences {
        older: VolumeId,
        newer: VolumeId,
        most: usize,
    },
    Read {
        range: Range,
    },
    /// What the volumes are said to occupy.
    Usage,
    Background {
        pieces: u32,
    },
}

/// Why an operation was not done.
#[derive(Debug)]
pub enum Failure {
    /// No room on the disk.
    Full,
    #[expect(dead_code, reason = "printed")]
    Refused(String),
    /// It did what it must not do: found at once.
    Wrong(String),
}

impl From<BlockError> for Failure {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::NoSpace => Self::Full,
            error => Self::Refused(error.to_string()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace(_) => Self::Full,
            error => Self::Refused(error.to_string()),
        }
    }
}

impl Range {
    fn offset(&self) -> u64 {
        self.from * SECTOR
    }

    fn length(&self) -> u64 {
        (self.to - self.from) * SECTOR
    }

    fn stamps(&self, step: u64) -> Vec<u64> {
        (0..self.to - self.from).map(|index| stamp(step, index)).collect()
    }

    fn now(&self, world: &World) -> Vec<u64> {
        let sectors = &world.volumes[&self.id].sectors;
        (self.from..self.to).map(|sector| sectors.now(sector)).collect()
    }
}

impl Operation {
    /// Control requests are done or not done; block commands may be done in part.
    pub fn is_control(&self) -> bool {
        use Operation::*;
        matches!(
            self,
            Create { .. } | Delete { .. } | Resize { .. } | SetThick { .. } | Snapshot { .. } | Clone { .. } | RollBack { .. }
        )
    }

    /// Are the volumes there that it is about, and those not that it makes?
    pub fn fits(&self, world: &World) -> bool {
        let there = |id: &VolumeId| world.volumes.contains_key(id);
        let inside = |range: &Range| world.volumes.get(&range.id).is_some_and(|volume| range.to * SECTOR <= volume.size_bytes);
        match self {
            Self::Create { id, .. } => !there(id),
            Self::Snapshot { pairs } => pairs.iter().all(|(source, id)| there(source) && !there(id)),
            Self::Clone { source, id, .. } => there(source) && !there(id),
            Self::RollBack { id, from } => there(id) && there(from),
            Self::CopyRange { source, .. } => inside(source) && self.target().is_some_and(|target| inside(&target)),
            Self::Differences { older, newer, .. } => there(older) && there(newer),
            Self::Delete { id } | Self::Resize { id, .. } | Self::SetThick { id, .. } => there(id),
            Self::Flush { id } | Self::Settle { id } => there(id),
            Self::Write { range, .. } | Self::WriteAtomic { range, .. } | Self::Zero { range } => inside(range),
            Self::OrWrite { range, .. } | Self::CompareAndWrite { range, .. } | Self::Read { range } => inside(range),
            Self::Usage | Self::Background { .. } => true,
        }
    }

    /// The sectors that it changes, if it is a block command.
    pub fn target(&self) -> Option<Range> {
        match self {
            Self::Write { range, .. } | Self::WriteAtomic { range, .. } => Some(*range),
            Self::Zero { range } | Self::OrWrite { range, .. } => Some(*range),
            Self::CompareAndWrite { range, wrong: None, .. } => Some(*range),
            Self::CopyRange { source, target, at } => Some(Range { id: *target, from: *at, to: at + source.to - source.from }),
            _ => None,
        }
    }

    /// The volume that it copies from.
    pub fn source(&self) -> Option<VolumeId> {
        if let Self::CopyRange { source, .. } = self { Some(source.id) } else { None }
    }

    pub fn run(&self, running: &dyn Running, world: &World) -> Result<(), Failure> {
        let store = running.store();
        match self {
            Self::Create { id, size_bytes, thick } => drop(store.create(*id, *size_bytes, *thick)?),
            Self::Delete { id } => store.delete(*id)?,
            Self::Resize { id, size_bytes } => drop(store.resize(*id, *size_bytes)?),
            Self::SetThick { id, thick } => drop(store.set_thick(*id, *thick)?),
            Self::Snapshot { pairs } => {
                let shares: Vec<Share> =
                    pairs.iter().map(|(source, id)| Share { source: *source, id: *id, thick: false }).collect();
                store.snapshot(&shares)?;
            }
            Self::Clone { source, id, thick } => drop(store.clone_volume(*source, *id, *thick)?),
            Self::RollBack { id, from } => drop(store.roll_back(*id, *from)?),
            Self::CopyRange { source, target, at } => {
                running.copy_range((source.id, source.offset()), (*target, at * SECTOR), source.length())?;
            }
            Self::Settle { id } => running.settle(*id)?,
            Self::Background { pieces } => drop((0..*pieces).take_while(|_| running.background()).count()),
            Self::Differences { older, newer, most } => compare(running, world, *older, *newer, *most)?,
            Self::Usage => usage::compare(store, world)?,
            _ => self.run_on_blocks(running, world)?,
        }
        Ok(())
    }

    fn run_on_blocks(&self, running: &dyn Running, world: &World) -> Result<(), Failure> {
        let open = |id: VolumeId| -> Result<Arc<dyn Volume>, Failure> { Ok(running.store().open(id)?) };
        match self {
            Self::Write { range, step } => open(range.id)?.write_at(&bytes_of(&range.stamps(*step)), range.offset())?,
            Self::WriteAtomic { range, step } => {
                open(range.id)?.write_atomic(&bytes_of(&range.stamps(*step)), range.offset())?;
            }
            Self::Zero { range } => open(range.id)?.zero(range.offset(), range.length())?,
            Self::OrWrite { range, step } => open(range.id)?.or_write(&bytes_of(&range.stamps(*step)), range.offset())?,
            Self::CompareAndWrite { range, expected, wrong, step } => {
                let new = bytes_of(&range.stamps(*step));
                let answer = open(range.id)?.compare_and_write(range.offset(), &bytes_of(expected), &new)?;
                let right = match wrong {
                    Some(at) => answer.is_some_and(|byte| byte as u64 / SECTOR == *at),
                    None => answer.is_none(),
                };
                if !right {
                    return Err(Failure::Wrong(format!("compared wrongly: {answer:?}")));
                }
            }
            Self::Flush { id } => open(*id)?.flush()?,
            Self::Read { range } => {
                let mut bytes = vec![0xa5; range.length() as usize];
                open(range.id)?.read_at(&mut bytes, range.offset())?;
                for ((sector, wanted), found) in (range.from..).zip(range.now(world)).zip(bytes.chunks(SECTOR as usize)) {
                    if found != bytes_of(&[wanted]) {
                        let found = value_of(found).map_or_else(|torn| torn, name);
                        return Err(Failure::Wrong(format!("sector {sector} holds {found}, not {}", name(wanted))));
                    }
                }
            }
            _ => unreachable!("`run` does the others"),
        }
        Ok(())
    }

    /// What is so when it was done. A block command that was only tried: what may be so.
    pub fn apply(&self, world: &mut World, chunk_bytes: u64) {
        match self {
            Self::Create { id, size_bytes, thick } => world.insert(*id, *size_bytes, *thick),
            Self::Delete { id } => world.delete(*id),
            Self::Resize { id, size_bytes } => world.resize(*id, *size_bytes, chunk_bytes),
            Self::SetThick { id, thick } => world.set_thick(*id, *thick),
            Self::Snapshot { pairs } => pairs.iter().for_each(|(source, id)| world.share(*source, *id, false, true)),
            Self::Clone { source, id, thick } => world.share(*source, *id, *thick, false),
            Self::RollBack { id, from } => world.roll_back(*id, *from),
            Self::CopyRange { source, target, at } => {
                world.copied(source.id, *target);
                let values = source.now(world);
                world.write(*target, *at, values, chunk_bytes);
            }
            Self::Write { range, step } => world.write(range.id, range.from, range.stamps(*step), chunk_bytes),
            Self::WriteAtomic { range, step } => {
                let sectors = &world.volumes[&range.id].sectors;
                // Bits that were or'ed together may have come to the same number.
                let new = |(sector, value): &(u64, u64)| !sectors.has_had(*sector, *value);
                let whole = (range.from..).zip(range.stamps(*step)).filter(new).collect();
                world.write(range.id, range.from, range.stamps(*step), chunk_bytes);
                world.volume(range.id).whole.written(whole);
                world.moved(range.id);
            }
            Self::Zero { range } => world.zero(range.id, range.from, range.to, chunk_bytes),
            Self::OrWrite { range, step } => {
                let values = range.now(world).iter().zip(range.stamps(*step)).map(|(old, new)| old | new).collect();
                world.write(range.id, range.from, values, chunk_bytes);
            }
            Self::CompareAndWrite { range, wrong: None, step, .. } => {
                world.write(range.id, range.from, range.stamps(*step), chunk_bytes);
            }
            Self::Flush { .. } | Self::Settle { .. } | Self::CompareAndWrite { .. } => {}
            Self::Differences { .. } | Self::Read { .. } | Self::Usage | Self::Background { .. } => {}
        }
    }

    /// What its answer promises, besides what `apply` says.
    pub fn promise(&self, world: &mut World) {
        match self {
            Self::Flush { id } => world.volume(*id).sectors.flush(),
            Self::Settle { id } => world.volume(*id).sectors.settle(),
            _ => {}
        }
    }
}

/// Every sector that differs must be in the ranges, and these in order.
fn compare(running: &dyn Running, world: &World, older: VolumeId, newer: VolumeId, most: usize) -> Result<(), Failure> {
    let wrong = |text: String| Err(Failure::Wrong(text));
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut offset = Some(0);
    while let Some(from) = offset {
        let found = running.store().differences(older, newer, from, most)?;
        if found.ranges.len() > most || found.next.is_some_and(|next| next <= from) {
            return wrong(format!("asked for {most} differences from {from} on: {found:?}"));
        }
        ranges.extend(found.ranges);
        offset = found.next;
    }
    let (one, other) = (&world.volumes[&older], &world.volumes[&newer]);
    if ranges.windows(2).any(|pair| pair[0].0 + pair[0].1 > pair[1].0) || ranges.iter().any(|(_, length)| *length == 0) {
        return wrong(format!("differences out of order: {ranges:?}"));
    }
    let covered = |sector: u64| {
        let after = ranges.partition_point(|(start, _)| *start <= sector * SECTOR);
        after > 0 && sector * SECTOR < ranges[after - 1].0 + ranges[after - 1].1
    };
    let differs = |sector: &u64| *sector < other.size_bytes / SECTOR && one.sectors.now(*sector) != other.sectors.now(*sector);
    match one.sectors.touched().chain(other.sectors.touched()).filter(differs).find(|sector| !covered(*sector)) {
        Some(sector) => wrong(format!("sector {sector} differs and is in none of {ranges:?}")),
        None => Ok(()),
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sectors {}+{}", letter(self.id), self.from, self.to - self.from)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = |thick: &bool| if *thick { "thick" } else { "thin" };
        match self {
            Self::Create { id, size_bytes, thick } => write!(f, "create {} of {size_bytes}, {}", letter(*id), kind(thick)),
            Self::Delete { id } => write!(f, "delete {}", letter(*id)),
            Self::Resize { id, size_bytes } => write!(f, "resize {} to {size_bytes}", letter(*id)),
            Self::SetThick { id, thick } => write!(f, "make {} {}", letter(*id), kind(thick)),
            Self::Snapshot { pairs } => {
                let names: Vec<_> =
                    pairs.iter().map(|(source, id)| format!("{} as {}", letter(*source), letter(*id))).collect();
                write!(f, "snapshot {}", names.join(", "))
            }
            Self::Clone { source, id, thick } => write!(f, "clone {} as {}, {}", letter(*source), letter(*id), kind(thick)),
            Self::RollBack { id, from } => write!(f, "roll back {} to {}", letter(*id), letter(*from)),
            Self::CopyRange { source, target, at } => write!(f, "copy {source} to {} at {at}", letter(*target)),
            Self::Write { range, .. } => write!(f, "write {range}"),
            Self::WriteAtomic { range, .. } => write!(f, "write atomically {range}"),
            Self::Zero { range } => write!(f, "zero {range}"),
            Self::OrWrite { range, .. } => write!(f, "or {range}"),
            Self::CompareAndWrite { range, wrong: None, .. } => write!(f, "compare and write {range}"),
            Self::CompareAndWrite { range, wrong: Some(at), .. } => write!(f, "compare wrongly at {at} and write {range}"),
            Self::Flush { id } => write!(f, "flush {}", letter(*id)),
            Self::Settle { id } => write!(f, "settle {}", letter(*id)),
            Self::Differences { older, newer, .. } => write!(f, "differences of {} and {}", letter(*older), letter(*newer)),
            Self::Usage => write!(f, "compare what is said to be occupied"),
            Self::Read { range } => write!(f, "read {range}"),
            Self::Background { pieces } => write!(f, "{pieces} pieces of background work"),
        }
    }
}
