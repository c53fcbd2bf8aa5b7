//! Everything at once on a real disk: writers that trim too, flushes, snapshots of two volumes, their deletion, clones that
//! are written, checkpoints and the background. Each writer's commands have numbers, and each block holds that of the last
//! one to it, so of any snapshot it can be told whether it is one instant: all of a writer's commands up to some number.

use gespann_store::disk::OsDisk;
use gespann_store::{MappedStore, Options, Share, Store, Volume, VolumeId};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 640;
const ROUNDS: u8 = 24;
const KEPT: usize = 5;

fn id(letter: u8, number: u8) -> VolumeId {
    VolumeId([letter, number, 0x6a, 0x6a, 0x6a, 0x6a, 0x6a, 0x6a, 0x6a, 0x6a, 0x6a, 0x6a, 0x6a, 0x6a, 0x6a, 0x6a])
}

/// One command: blocks from `first` on, zeroed or written.
#[derive(Debug, Clone, Copy)]
struct Command {
    first: u64,
    count: u64,
    zero: bool,
}

impl Command {
    fn apply(self, number: u64, blocks: &mut [u64]) {
        let range = self.first as usize..(self.first + self.count) as usize;
        blocks[range].fill(if self.zero { 0 } else { number });
    }
}

/// Who writes to one part of a volume.
#[derive(Debug)]
struct Writer {
    volume: VolumeId,
    start: u64,
    commands: Mutex<Vec<Command>>,
    answered: AtomicU64,
}

impl Writer {
    fn new(volume: VolumeId, start: u64) -> Self {
        Self { volume, start, commands: Mutex::default(), answered: AtomicU64::new(0) }
    }

    fn begun(&self) -> u64 {
        self.commands.lock().unwrap().len() as u64
    }

    fn run(&self, volume: &dyn Volume, chance: &mut fastrand::Rng) {
        let count = [1, 1, 1, 2, 5, 16][chance.usize(0..6)];
        let command = Command { first: chance.u64(0..BLOCKS - count), count, zero: chance.u32(0..12) == 0 };
        let number = {
            let mut commands = self.commands.lock().unwrap();
            commands.push(command);
            commands.len() as u64
        };
        let (offset, length) = ((self.start + command.first) * BLOCK, count * BLOCK);
        if command.zero {
            volume.zero(offset, length).unwrap();
        } else {
            volume.write_at(&number.to_le_bytes().repeat((length / 8) as usize), offset).unwrap();
        }
        if chance.u32(0..8) == 0 {
            volume.settle().unwrap();
        }
        if chance.u32(0..200) == 0 {
            volume.flush().unwrap();
        }
        self.answered.store(number, Ordering::Release);
    }

    /// What each block holds after so many commands.
    fn after(&self, count: u64) -> Vec<u64> {
        let mut blocks = vec![0; BLOCKS as usize];
        for (number, command) in (1..=count).zip(self.commands.lock().unwrap().iter()) {
            command.apply(number, &mut blocks);
        }
        blocks
    }

    /// What each block of the writer's part holds; a block holds one number over and over.
    fn seen(&self, volume: &dyn Volume) -> Vec<u64> {
        let mut bytes = vec![0; (BLOCKS * BLOCK) as usize];
        volume.read_at(&mut bytes, self.start * BLOCK).unwrap();
        let number_of = |block: &[u8]| {
            assert!(block.chunks(8).all(|word| word == &block[..8]), "a block is of one command");
            u64::from_le_bytes(block[..8].try_into().unwrap())
        };
        bytes.chunks(BLOCK as usize).map(number_of).collect()
    }

    /// The volume is what it was after some number of commands, no fewer than `least` and no more than `most`.
    fn check(&self, volume: &dyn Volume, least: u64, most: u64) -> Vec<u64> {
        let seen = self.seen(volume);
        let mut blocks = self.after(least);
        let commands = self.commands.lock().unwrap()[least as usize..most as usize].to_vec();
        let mut fits = blocks == seen;
        for (number, command) in (least + 1..).zip(commands) {
            let before = blocks.clone();
            command.apply(number, &mut blocks);
            // The one that was under way may be there in part.
            let old_or_new = |index: usize| seen[index] == before[index] || seen[index] == blocks[index];
            fits = fits || (0..seen.len()).all(old_or_new);
        }
        assert!(fits, "{least} to {most} commands were done, and the volume is after none of them");
        seen
    }
}

struct Taken {
    ids: [VolumeId; 2],
    seen: Vec<Vec<u64>>,
}

/// Snapshots of both volumes, checked at once; old ones are deleted, and clones come and go.
fn take_snapshots(store: &MappedStore, writers: &[Writer], kept: &Mutex<Vec<Taken>>) {
    for round in 0..ROUNDS {
        let least: Vec<u64> = writers.iter().map(|writer| writer.answered.load(Ordering::Acquire)).collect();
        let ids = [id(b's', round), id(b't', round)];
        let share = |(source, id): (u8, VolumeId)| Share { source: self::id(source, 0), id, thick: false };
        store.snapshot(&[share((b'a', ids[0])), share((b'b', ids[1]))]).unwrap();
        let of = |writer: &Writer| store.open(ids[usize::from(writer.volume == id(b'b', 0))]).unwrap();
        let checked = writers.iter().zip(least).map(|(one, least)| one.check(of(one).as_ref(), least, one.begun()));
        let taken = Taken { ids, seen: checked.collect() };
        let clone = id(b'c', round);
        store.clone_volume(ids[0], clone, round % 5 == 4).unwrap();
        let written = store.open(clone).unwrap();
        (0..40).for_each(|step| written.write_at(&[0xcc; 4096], step * 17 * BLOCK).unwrap());
        if round > 2 {
            store.delete(id(b'c', round - 2)).unwrap();
        }
        let mut kept = kept.lock().unwrap();
        kept.push(taken);
        if kept.len() > KEPT {
            let gone = kept.remove(usize::from(round) % KEPT);
            gone.ids.iter().for_each(|id| store.delete(*id).unwrap());
        }
    }
}

fn check_kept(store: &MappedStore, writers: &[Writer], kept: &[Taken]) {
    for taken in kept {
        for (writer, seen) in writers.iter().zip(&taken.seen) {
            let volume = store.open(taken.ids[usize::from(writer.volume == id(b'b', 0))]).unwrap();
            assert!(writer.seen(volume.as_ref()) == *seen, "a snapshot is not what it was");
        }
    }
}

fn finish(store: &MappedStore) {
    // What is put together in the background is made durable, and only then is more given back.
    for _ in 0..4 {
        for info in store.list().unwrap() {
            store.open(info.volume).unwrap().flush().unwrap();
        }
        while store.background() || store.background() {}
    }
    assert_eq!(store.background_failure(), None);
    assert_eq!(store.verify(), Vec::<String>::new());
}

fn open(path: &Path) -> MappedStore {
    // A short log, so that checkpoints come by themselves as well.
    MappedStore::open(Arc::new(OsDisk::open(path).unwrap()), Options { log_bytes: 64 << 10, ..Options::default() }).unwrap()
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn many_threads_at_once_on_a_real_disk() {
    let folder = Folder(std::env::temp_dir().join(format!("gespann-store-threads-{}", std::process::id())));
    let (a, b) = (id(b'a', 0), id(b'b', 0));
    let writers = [Writer::new(a, 0), Writer::new(a, BLOCKS), Writer::new(b, 0)];
    let kept: Mutex<Vec<Taken>> = Mutex::default();
    let store = open(&folder.0);
    store.create(a, 3 * BLOCKS * BLOCK, false).unwrap();
    store.create(b, BLOCKS * BLOCK, true).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (store, stop) = (&store, &stop);
        for (seed, writer) in (0..).zip(&writers) {
            scope.spawn(move || {
                let (volume, mut chance) = (store.open(writer.volume).unwrap(), fastrand::Rng::with_seed(seed));
                while !stop.load(Ordering::Acquire) {
                    writer.run(volume.as_ref(), &mut chance);
                }
            });
        }
        scope.spawn(move || {
            for step in 0_u64.. {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                store.background();
                if step % 100 == 0 {
                    store.checkpoint().unwrap();
                }
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| take_snapshots(store, &writers, &kept)));
        stop.store(true, Ordering::Release);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let kept = kept.into_inner().unwrap();
    let check_all = |store: &MappedStore| {
        check_kept(store, &writers, &kept);
        for writer in &writers {
            let volume = store.open(writer.volume).unwrap();
            assert!(writer.seen(volume.as_ref()) == writer.after(writer.begun()), "the volume holds what was last written");
        }
    };
    check_all(&store);
    finish(&store);
    check_all(&store);
    drop(store);
    assert_eq!(gespann_store::check::check(&OsDisk::open(&folder.0).unwrap()).unwrap().errors, Vec::<String>::new());
    let store = open(&folder.0);
    check_all(&store);
    finish(&store);
}
