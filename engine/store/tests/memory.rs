//! What a mapped chunk costs in memory. Counted by the allocator: the same in every run, whatever else the machine does.

use gespann_store::check::Tally;
use gespann_store::disk::OsDisk;
use gespann_store::map::nodes::{Child, Counts, Entry, Leaf, Middle, Top};
use gespann_store::map::{LEAF_SLOTS, MIDDLE_SLOTS, Slot, walk};
use gespann_store::{MappedStore, Options, Store, VolumeId};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const CHUNK: u64 = 64 << 10;
/// 10 TB in 1.5 GB.
const MOST_BYTES_A_CHUNK: f64 = 1.5e9 / (10e12 / CHUNK as f64);

static HELD: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, and how much it has given out.
struct Counting;

/// As glibc rounds: a word beside each piece, and sixteen bytes the unit.
fn taken(layout: Layout) -> u64 {
    ((layout.size() + 8).next_multiple_of(16)).max(32) as u64
}

// SAFETY: all of it is the system's own work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(taken(layout), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many bytes more are held when `make` is done, for each of so many chunks.
fn bytes_a_chunk<T>(chunks: u64, make: impl FnOnce() -> T) -> f64 {
    let before = HELD.load(Ordering::Relaxed);
    let made = make();
    let more = HELD.load(Ordering::Relaxed) - before;
    drop(made);
    more as f64 / chunks as f64
}

/// As many as there are below one node, in an order in which no two neighbours are side by side.
fn mirrored(chunk: u64) -> u64 {
    chunk - chunk % LEAF_SLOTS + (chunk % LEAF_SLOTS).reverse_bits() / (1 << (64 - LEAF_SLOTS.trailing_zeros()))
}

/// The worst map, and the worst for the counts: every second slot is referred to once more.
fn worst(chunks: u64) -> (Arc<Top>, Tally) {
    let leaf = |first: u64| {
        let mut entries = [Entry::HOLE; LEAF_SLOTS as usize];
        entries.iter_mut().zip(first..).for_each(|(entry, chunk)| *entry = Entry::of(Slot { file: 1, index: mirrored(chunk) }));
        Child::Node(Arc::new(Leaf::new(entries, Vec::new())))
    };
    let middle = |first: u64| {
        let leaves = (first..first + MIDDLE_SLOTS).step_by(LEAF_SLOTS as usize).map(leaf).collect();
        Child::Node(Arc::new(Middle::new(leaves)))
    };
    let top = Arc::new(Top::new((0..chunks).step_by(MIDDLE_SLOTS as usize).map(middle).collect()));
    let tally = Tally::default();
    walk::count_all(std::iter::once(&top), &tally);
    (0..chunks).step_by(2).for_each(|slot| tally.add(1, slot..slot + 1, 1));
    (top, tally)
}

/// A store's directory, removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The same by what a store does: every second chunk of a volume is in another one as well, elsewhere. Nothing is written, so the
/// files take no space.
fn in_a_store(folder: &Folder, chunks: u64) -> MappedStore {
    let disk = OsDisk::open(&folder.0).unwrap();
    let store = MappedStore::open(Arc::new(disk), Options { chunk_bytes: CHUNK, ..Options::default() }).unwrap();
    let (source, target) = (VolumeId([0xaa; 16]), VolumeId([0xbb; 16]));
    [source, target].iter().for_each(|id| drop(store.create(*id, chunks * CHUNK, false).unwrap()));
    let blocks = store.open(target).unwrap();
    for chunk in (0..chunks).step_by(2) {
        store.copy_range(source, chunk * CHUNK, target, mirrored(chunk) * CHUNK, CHUNK).unwrap();
        blocks.settle().unwrap(); // as before every answer
        if chunk % LEAF_SLOTS == 0 {
            blocks.flush().unwrap();
            while store.background() {}
        }
    }
    blocks.flush().unwrap();
    while store.background() {}
    store
}

/// One test, because all that run in a process share its allocator.
#[test]
fn ten_terabytes_of_changed_chunks_fit_into_one_and_a_half_gigabytes() {
    let chunks = 4 * MIDDLE_SLOTS;
    let worst_bytes = bytes_a_chunk(chunks, || worst(chunks));
    assert!(worst_bytes < MOST_BYTES_A_CHUNK, "{worst_bytes:.2} bytes for each chunk, of {MOST_BYTES_A_CHUNK:.2}");
    // That is all there is to a map: eight bytes that say where the chunk is cannot be less.
    assert!(worst_bytes > 8.0, "{worst_bytes:.2} bytes for each chunk: not everything was counted");
    let folder = Folder(std::env::temp_dir().join(format!("gespann-memory-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    // Half of the one volume's own chunks are in use, and all of the other's.
    let chunks = MIDDLE_SLOTS;
    let store_bytes = bytes_a_chunk(chunks * 3 / 2, || in_a_store(&folder, chunks));
    assert!(store_bytes < MOST_BYTES_A_CHUNK, "in a store {store_bytes:.2} bytes for each chunk");
    println!("{worst_bytes:.2} and in a store {store_bytes:.2} bytes for each chunk");
}
