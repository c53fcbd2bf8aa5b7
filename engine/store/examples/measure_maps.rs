//! Measures what the maps and their log cost, for docs/decisions/shared-map.md. One JSON line an answer.
//!
//! ```text
//! measure_maps memory TIB      a map of so many TiB in which no two neighbours lie side by side: memory, and the time of a share
//! measure_maps commits FOLDER  one change made durable, and written only: the log against redb, an embedded store
//! measure_maps chunks FOLDER   writes to a shared volume, by the size of the store's chunks
//! ```

use gespann_store::check::Tally;
use gespann_store::disk::{Disk, OsDisk};
use gespann_store::journal::Journal;
use gespann_store::journal::record::{Placed, Record};
use gespann_store::map::nodes::{Child, Counts, Entry, Leaf, Middle, Top, leaf_of, share};
use gespann_store::map::{LEAF_SLOTS, MIDDLE_SLOTS, Slot, walk};
use gespann_store::{MappedStore, Options, Store, VolumeId};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a VmRSS line");
    line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).expect("a number of KiB") << 10
}

/// Each chunk in the slot whose number is the chunk's with its low bits mirrored: no runs.
fn scattered(chunks: u64) -> Arc<Top> {
    let leaf = |first: u64| {
        let mut entries = [Entry::HOLE; LEAF_SLOTS as usize];
        for (offset, entry) in entries.iter_mut().enumerate() {
            let index = first + (offset as u64).reverse_bits() / (1 << 55);
            *entry = Entry::of(Slot { file: 1, index });
        }
        Child::Node(Arc::new(Leaf::new(entries, Vec::new())))
    };
    let middle = |first: u64| {
        let leaves = (first..first + MIDDLE_SLOTS).step_by(LEAF_SLOTS as usize).map(leaf).collect();
        Child::Node(Arc::new(Middle::new(leaves)))
    };
    Arc::new(Top::new((0..chunks).step_by(MIDDLE_SLOTS as usize).map(middle).collect()))
}

fn memory(tib: u64) {
    let before = resident_bytes();
    let chunks = (tib << 40) / (64 << 10);
    let mut top = scattered(chunks);
    let tally = Tally::default();
    walk::count_all(std::iter::once(&top), &tally);
    let map_bytes = walk::held_bytes(std::iter::once(&top));
    let resident_plain = resident_bytes() - before;
    // The worst for the counts: every second slot of the whole is referred to twice.
    (0..chunks).step_by(2).for_each(|slot| tally.add(1, slot..slot + 1, 1));
    let resident = resident_bytes() - before;
    let mut times: Vec<Duration> = Vec::new();
    let mut shares = Vec::new();
    for round in 0..1000 {
        let began = Instant::now();
        shares.push(share(&top));
        leaf_of(&mut top, (round * 7_919_993) % chunks, round + 1, &tally).entries[0] = Entry::HOLE;
        times.push(began.elapsed());
    }
    times.sort();
    println!(
        "{{\"tib\":{tib},\"map_bytes\":{map_bytes},\"resident_bytes\":{resident_plain},\"resident_worst_bytes\":{resident},\
         \"share_and_change_p50_us\":{:.1},\"share_and_change_max_us\":{:.1}}}",
        times[500].as_secs_f64() * 1e6,
        times[999].as_secs_f64() * 1e6
    );
}

fn record(number: u64) -> Record {
    let slot = Slot { file: 7, index: number * 31 % 1_000_000 };
    Record::Put { volume: 3, chunks: vec![Placed::new(number * 17 % 1_000_000, slot, None)] }
}

/// Median and 99th percentile, microseconds.
fn spread(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    (at(0.5), at(0.99))
}

fn timed(count: u64, mut one: impl FnMut(u64)) -> (f64, f64) {
    spread(
        (0..count)
            .map(|number| {
                let began = Instant::now();
                one(number);
                began.elapsed()
            })
            .collect(),
    )
}

const PAIRS: redb::TableDefinition<'_, (u32, u64), (u32, u64)> = redb::TableDefinition::new("map");

fn commits(folder: &Path) {
    let disk = OsDisk::open(folder).expect("a folder of its own");
    disk.make_folder("map").expect("a folder");
    let journal = Journal::begin(&disk, 1, 0).expect("a log");
    let append = |number: u64| {
        journal.make_room().expect("room");
        journal.append(&record(number))
    };
    let log_durable = timed(1000, |number| journal.sync(append(number)).expect("synced"));
    let log_written = timed(100_000, |number| journal.write(append(number)).expect("written"));
    let database = redb::Database::create(folder.join("redb")).expect("a database");
    let put = |number: u64, durability: redb::Durability| {
        let mut change = database.begin_write().expect("a transaction");
        change.set_durability(durability);
        {
            let mut table = change.open_table(PAIRS).expect("a table");
            table.insert((3, number * 17 % 1_000_000), (7, number * 31 % 1_000_000)).expect("inserted");
        }
        change.commit().expect("committed");
    };
    put(0, redb::Durability::Immediate);
    let redb_durable = timed(1000, |number| put(number, redb::Durability::Immediate));
    let redb_memory = timed(10_000, |number| put(number, redb::Durability::None));
    let line = |name: &str, (median, high): (f64, f64)| format!("\"{name}_p50_us\":{median:.1},\"{name}_p99_us\":{high:.1}");
    println!(
        "{{{},{},{},{}}}",
        line("log_durable", log_durable),
        line("log_written", log_written),
        line("redb_durable", redb_durable),
        line("redb_in_memory_only", redb_memory)
    );
}

const SPAN_BYTES: u64 = 256 << 20;

/// Overwrites of a volume of which a snapshot was taken a moment ago: time of each, memory of the map, space.
fn chunks(folder: &Path) {
    for chunk_bytes in [16_u64 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10] {
        let folder = folder.join(format!("{}", chunk_bytes >> 10));
        let disk = Arc::new(OsDisk::open(&folder).expect("a folder of its own"));
        let store = MappedStore::open(disk, Options { chunk_bytes, ..Options::default() }).expect("a store");
        let (volume, snapshot) = (VolumeId([6; 16]), VolumeId([7; 16]));
        store.create(volume, SPAN_BYTES, false).expect("a volume");
        let disk = store.open(volume).expect("the volume");
        let fill = vec![1; 1 << 20];
        (0..SPAN_BYTES >> 20).for_each(|at| disk.write_at(&fill, at << 20).expect("filled"));
        disk.flush().expect("flushed");
        store.clone_volume(volume, snapshot, false).expect("a snapshot");
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut write = |bytes: usize, count: u64| {
            let data = vec![2; bytes];
            timed(count, |number| {
                let places = SPAN_BYTES / bytes as u64;
                disk.write_at(&data, random(places) * bytes as u64).expect("written");
                if number % 16 == 15 {
                    disk.settle().expect("in the log");
                }
            })
        };
        let aligned = write(4096, 20_000);
        let before = store.space().expect("space").used_bytes;
        let small = write(512, 5000);
        let long = write(65536, 1000);
        println!(
            "{{\"chunk_kib\":{},\"write_4k_p50_us\":{:.1},\"write_4k_p99_us\":{:.1},\"write_512_p50_us\":{:.1},\
             \"write_64k_p50_us\":{:.1},\"map_bytes\":{},\"space_bytes\":{}}}",
            chunk_bytes >> 10,
            aligned.0,
            aligned.1,
            small.0,
            long.0,
            store.held_bytes(),
            before - SPAN_BYTES
        );
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["memory", tib] => memory(tib.parse().expect("a number of TiB")),
        ["commits", folder] => commits(Path::new(folder)),
        ["chunks", folder] => chunks(Path::new(folder)),
        _ => panic!("usage: measure_maps memory TIB | commits FOLDER | chunks FOLDER"),
    }
}
