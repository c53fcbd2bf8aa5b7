//! Steps of a run as a seed makes them. A step is a verb and a number; what it is about is chosen by the number from what
//! there is when its turn comes, so that steps can be left out and the others still mean something.

use crate::operation::{Operation, Range};
use crate::sectors::SECTOR;
use crate::subject::Options;
use crate::world::{World, id_of};
use fastrand::Rng;
use gespann_store::VolumeId;
use gespann_store::disk::sim;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Create,
    Delete,
    Resize,
    SetThick,
    Snapshot,
    Clone,
    RollBack,
    CopyRange,
    Write,
    WriteAtomic,
    Zero,
    OrWrite,
    CompareAndWrite,
    Flush,
    Settle,
    Differences,
    Read,
    Usage,
    Background,
    /// The store is closed and opened again.
    Reopen,
    /// One of the next calls of the disk is the last one of this process.
    Crash,
    /// One of the next calls of the disk fails.
    Fault,
    /// The disk gets so small that little more fits.
    Fill,
    /// No more may be occupied than little more than is; or whatever is wanted, again.
    Limit,
    /// Everything is read and compared.
    Look,
}

#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub verb: Verb,
    pub number: u64,
}

/// Everything about a run but the steps.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub seed: u64,
    pub options: Options,
    /// The largest volume in chunks, but for the sparse ones.
    pub chunks: u64,
    /// Now and then a volume of 40 GiB.
    pub sparse: bool,
    pub faults: bool,
    pub full: bool,
}

const WEIGHTS: [(Verb, u32); 25] = [
    (Verb::Create, 4),
    (Verb::Delete, 4),
    (Verb::Resize, 4),
    (Verb::SetThick, 2),
    (Verb::Snapshot, 8),
    (Verb::Clone, 4),
    (Verb::RollBack, 4),
    (Verb::CopyRange, 4),
    (Verb::Write, 28),
    (Verb::WriteAtomic, 4),
    (Verb::Zero, 9),
    (Verb::OrWrite, 3),
    (Verb::CompareAndWrite, 4),
    (Verb::Flush, 9),
    (Verb::Settle, 5),
    (Verb::Differences, 3),
    (Verb::Read, 4),
    (Verb::Usage, 2),
    (Verb::Background, 8),
    (Verb::Reopen, 1),
    (Verb::Crash, 6),
    (Verb::Fault, 3),
    (Verb::Fill, 1),
    (Verb::Limit, 3),
    (Verb::Look, 2),
];
const MOST_VOLUMES: usize = 9;

/// Seeds below this make long runs.
const LONG_RUNS: u64 = 1000;

pub fn plan(seed: u64) -> (Config, Vec<Step>) {
    let mut chance = Rng::with_seed(seed);
    let chunk_bytes = [16 << 10, 16 << 10, 32 << 10, 64 << 10][chance.usize(0..4)];
    let options = Options { chunk_bytes, log_bytes: [256, 2 << 10, 64 << 10][chance.usize(0..3)] };
    let config = Config {
        seed,
        options,
        chunks: [2, 5, 12][chance.usize(0..3)],
        sparse: chance.u32(0..4) == 0,
        faults: chance.u32(0..3) == 0,
        full: chance.u32(0..6) == 0,
    };
    let total: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let verb = |chance: &mut Rng| {
        let mut left = chance.u32(0..total);
        let found = WEIGHTS.iter().find(|(_, weight)| {
            let hit = left < *weight;
            left = left.saturating_sub(*weight);
            hit
        });
        found.expect("the weights add up").0
    };
    // Many short runs see more beginnings and ends than few long ones in the same time.
    let count = if seed < LONG_RUNS { chance.usize(30..=150) } else { chance.usize(4..=40) };
    let first = [Verb::Create, Verb::Write, Verb::Create].map(|verb| Step { verb, number: chance.u64(..) });
    let steps = (0..count).map(|_| Step { verb: verb(&mut chance), number: chance.u64(..) });
    let allowed = |step: &Step| (step.verb != Verb::Fault || config.faults) && (step.verb != Verb::Fill || config.full);
    (config, first.into_iter().chain(steps).filter(allowed).collect())
}

/// Chooses what a step is about.
pub struct Choice<'a> {
    chance: Rng,
    world: &'a World,
    config: &'a Config,
}

impl<'a> Choice<'a> {
    pub fn new(step: Step, world: &'a World, config: &'a Config) -> Self {
        Self { chance: Rng::with_seed(step.number), world, config }
    }

    fn any(&mut self) -> Option<VolumeId> {
        self.chance.choice(self.world.volumes.keys().copied())
    }

    fn writable(&mut self) -> Option<VolumeId> {
        self.chance
            .choice(self.world.volumes.iter().filter(|(_, volume)| !volume.frozen).map(|(id, _)| *id).collect::<Vec<_>>())
    }

    fn new_ids(&mut self, count: usize) -> Vec<VolumeId> {
        let room = MOST_VOLUMES.saturating_sub(self.world.volumes.len());
        let mut free: Vec<VolumeId> = ('A'..='P').map(id_of).filter(|id| !self.world.volumes.contains_key(id)).collect();
        self.chance.shuffle(&mut free);
        free.truncate(count.min(room));
        free
    }

    fn size_bytes(&mut self) -> u64 {
        let chunk = self.config.options.chunk_bytes;
        let whole = self.chance.u64(1..=self.config.chunks) * chunk;
        match self.chance.u32(0..10) {
            0 if self.config.sparse => (40 << 30) + self.chance.u64(0..3) * SECTOR,
            1 if self.config.sparse => chunk * 512 * self.chance.u64(1..4) + self.chance.u64(0..2) * chunk,
            0..=5 => whole,
            _ => (whole - chunk) + self.chance.u64(1..=chunk / SECTOR) * SECTOR,
        }
    }

    /// A range of a volume, in sectors: near the borders of chunks and of the map's nodes more often than chance has it.
    fn range(&mut self, id: VolumeId, most_chunks: u64) -> Range {
        let chunk = self.config.options.chunk_bytes / SECTOR;
        let sectors = self.world.volumes[&id].size_bytes / SECTOR;
        let chunks = sectors.div_ceil(chunk);
        let border = match self.chance.u32(0..4) {
            0 => 512 * self.chance.u64(0..=chunks / 512),
            1 => 512 * 512 * self.chance.u64(0..=chunks / (512 * 512)),
            _ => self.chance.u64(0..chunks.min(20)),
        };
        let near = (border + self.chance.u64(0..4)).saturating_sub(self.chance.u64(0..4)).min(chunks - 1);
        let from = near * chunk + if self.chance.bool() { 0 } else { self.chance.u64(0..chunk) };
        let from = if from < sectors { from } else { near * chunk };
        let length = match self.chance.u32(0..8) {
            0 | 1 => chunk,
            2 => chunk * self.chance.u64(1..=most_chunks),
            3 => 8 * self.chance.u64(1..=chunk / 8),
            4 => self.chance.u64(1..=chunk * most_chunks),
            5 => sectors,
            _ => self.chance.u64(1..=8),
        };
        let most = chunk * (most_chunks + 1);
        Range { id, from, to: (from + length.min(most)).min(sectors) }
    }

    /// None: there is nothing that it could be about.
    pub fn operation(mut self, verb: Verb, step: u64) -> Option<Operation> {
        Some(match verb {
            Verb::Create => {
                let size_bytes = self.size_bytes();
                let thick = self.chance.u32(0..5) == 0 && size_bytes < 4 << 20;
                Operation::Create { id: *self.new_ids(1).first()?, size_bytes, thick }
            }
            Verb::Delete => Operation::Delete { id: self.any()? },
            Verb::Resize => {
                let id = self.writable()?;
                let size_bytes = self.size_bytes();
                Operation::Resize {
                    id,
                    size_bytes: if self.world.volumes[&id].thick { size_bytes.min(4 << 20) } else { size_bytes },
                }
            }
            Verb::SetThick => {
                let id = self.writable()?;
                let volume = &self.world.volumes[&id];
                Operation::SetThick { id, thick: !volume.thick && volume.size_bytes <= 4 << 20 }
            }
            Verb::Snapshot => {
                let mut sources: Vec<VolumeId> = self.world.volumes.keys().copied().collect();
                self.chance.shuffle(&mut sources);
                let count = [1, 1, 1, 2, 3][self.chance.usize(0..5)];
                let ids = self.new_ids(count);
                let pairs: Vec<_> = sources.into_iter().zip(ids).collect();
                (!pairs.is_empty()).then_some(Operation::Snapshot { pairs })?
            }
            Verb::Clone => {
                let source = self.any()?;
                let thick = self.chance.u32(0..4) == 0 && self.world.volumes[&source].size_bytes <= 4 << 20;
                Operation::Clone { source, id: *self.new_ids(1).first()?, thick }
            }
            Verb::RollBack => {
                let (id, from) = (self.writable()?, self.any()?);
                let fits = !self.world.volumes[&id].thick || self.world.volumes[&from].size_bytes <= 4 << 20;
                (id != from && fits).then_some(Operation::RollBack { id, from })?
            }
            Verb::CopyRange => self.copy_range()?,
            Verb::Flush => Operation::Flush { id: self.any()? },
            Verb::Settle => Operation::Settle { id: self.any()? },
            Verb::Differences => {
                let most = [1, 2, 1000][self.chance.usize(0..3)];
                Operation::Differences { older: self.any()?, newer: self.any()?, most }
            }
            Verb::Usage => Operation::Usage,
            Verb::Background => Operation::Background { pieces: [1, 2, 3, 50][self.chance.usize(0..4)] },
            _ => self.on_blocks(verb, step)?,
        })
    }

    fn on_blocks(&mut self, verb: Verb, step: u64) -> Option<Operation> {
        let id = if verb == Verb::Read { self.any()? } else { self.writable()? };
        let most_chunks = match verb {
            Verb::Zero => 1000,
            Verb::CompareAndWrite => 1,
            Verb::WriteAtomic => 3, // of the largest chunks: as long as it may be
            _ => 4,
        };
        let range = self.range(id, most_chunks);
        Some(match verb {
            Verb::Write => Operation::Write { range, step },
            Verb::WriteAtomic => Operation::WriteAtomic { range, step },
            Verb::Zero => Operation::Zero { range },
            Verb::OrWrite => Operation::OrWrite { range, step },
            Verb::Read => Operation::Read { range },
            Verb::CompareAndWrite => {
                let sectors = &self.world.volumes[&id].sectors;
                let mut expected: Vec<u64> = (range.from..range.to).map(|sector| sectors.now(sector)).collect();
                let wrong = (self.chance.u32(0..3) == 0).then(|| self.chance.u64(0..expected.len() as u64));
                if let Some(at) = wrong {
                    expected[at as usize] ^= 1 << 60;
                }
                Operation::CompareAndWrite { range, expected, wrong, step }
            }
            _ => return None,
        })
    }

    fn copy_range(&mut self) -> Option<Operation> {
        let (from, target) = (self.any()?, self.writable()?);
        let chunk = self.config.options.chunk_bytes / SECTOR;
        let mut source = self.range(from, 4);
        let to = self.range(target, 4);
        // Whole chunks can be shared; the same place in both is where that is likely.
        let at = if self.chance.bool() { source.from } else { to.from };
        let end = self.world.volumes[&target].size_bytes / SECTOR;
        if self.chance.bool() && source.to - source.from > chunk {
            source.to -= (source.to - source.from) % chunk;
        }
        source.to = source.to.min(source.from + end.saturating_sub(at));
        let length = source.to - source.from;
        (length > 0).then_some(Operation::CopyRange { source, target, at })
    }

    /// After how many calls, and the seed of the loss of power, if it is one.
    pub fn crash(mut self) -> (u64, Option<u64>) {
        let most = [3, 10, 40, 150][self.chance.usize(0..4)];
        (self.chance.u64(0..most), self.chance.bool().then(|| self.chance.u64(..)))
    }

    pub fn fault(mut self) -> sim::Fault {
        use sim::Operation::*;
        let (operation, errno) = [
            (Some(Read), libc::EIO),
            (Some(Write), libc::EIO),
            (Some(Sync), libc::EIO),
            (Some(Sync), libc::EIO),
            (Some(Write), libc::ENOSPC),
            (Some(Length), libc::EIO),
            (Some(Free), libc::EIO),
            (Some(Names), libc::EIO),
            (None, libc::EIO),
        ][self.chance.usize(0..9)];
        let most = [2, 8, 30][self.chance.usize(0..3)];
        sim::Fault { operation, after: self.chance.u64(0..most), errno }
    }

    /// How many bytes may be occupied more than are, if that is limited; and whether everything comes to rest before.
    pub fn limit(mut self) -> (Option<u64>, bool) {
        let room = (self.chance.u32(0..5) > 0).then(|| self.chance.u64(0..4) * 4096);
        (room, self.chance.bool())
    }

    /// How many bytes are left on the disk.
    pub fn room(mut self) -> u64 {
        self.chance.u64(0..8) * self.config.options.chunk_bytes + self.chance.u64(0..4) * 4096
    }
}
