//! Two flushes of one volume that depends on data in another's file, at moments that chance would hardly bring: the syncs of the
//! disk are calls of the test.

mod hooked;

use gespann_store::disk::Disk;
use gespann_store::{BlockError, MappedStore, Options, Store, VolumeId};
use hooked::Hooked;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

const CHUNK: u64 = 64 << 10;
const A: VolumeId = VolumeId([0xaa; 16]);
const B: VolumeId = VolumeId([0xbb; 16]);

fn open(disk: Arc<dyn Disk>) -> Arc<MappedStore> {
    Arc::new(MappedStore::open(disk, Options::default()).unwrap())
}

/// Chunk 0 of `B` is a chunk of `A`, in the file of `A`, and none of it is durable.
fn prepare() -> (Hooked, Arc<MappedStore>) {
    let disk = Hooked::new();
    let store = open(Arc::new(disk.clone()));
    for id in [A, B] {
        store.create(id, 8 * CHUNK, false).unwrap();
    }
    share(&store, 0, 1);
    (disk, store)
}

fn share(store: &MappedStore, chunk: u64, byte: u8) {
    store.open(A).unwrap().write_at(&vec![byte; CHUNK as usize], chunk * CHUNK).unwrap();
    store.copy_range(A, chunk * CHUNK, B, chunk * CHUNK, CHUNK).unwrap();
}

fn is_of(path: &str, id: VolumeId) -> bool {
    path.contains(&id.to_string())
}

#[test]
fn a_flush_beside_another_one_waits_for_what_that_syncs() {
    let (disk, store) = prepare();
    let (at_other, other_goes) = channel();
    let (at_other, other_goes) = (Mutex::new(Some(at_other)), Mutex::new(Some(other_goes)));
    let beside: Arc<Mutex<Option<std::thread::JoinHandle<Result<(), BlockError>>>>> = Arc::default();
    let (from_hook, started) = (store.clone(), beside.clone());
    disk.set(move |path, sync| {
        if is_of(path, A) {
            // The first flush is here. Another one begins, and has something of its own to sync before it comes here too.
            if let Some(other_goes) = other_goes.lock().unwrap().take() {
                from_hook.open(B).unwrap().write_at(&[2; 4096], 4 * CHUNK).unwrap();
                let store = from_hook.clone();
                *started.lock().unwrap() = Some(std::thread::spawn(move || store.open(B).unwrap().flush()));
                other_goes.recv().unwrap();
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
        } else if is_of(path, B) && started.lock().is_ok_and(|started| started.is_some()) {
            if let Some(at_other) = at_other.lock().unwrap().take() {
                at_other.send(()).unwrap();
            }
        }
        sync()
    });
    let first = store.open(B).unwrap().flush();
    let second = beside.lock().unwrap().take().expect("the file of A was synced").join().unwrap();
    disk.clear();
    assert!(first.is_err(), "what it had to sync failed");
    assert!(second.is_err(), "it answered that what the other one had failed to sync is durable");
}

#[test]
fn what_comes_while_a_flush_syncs_is_synced_by_the_next_one() {
    let (disk, store) = prepare();
    let (from_hook, came) = (Arc::downgrade(&store), Arc::new(AtomicU32::new(0)));
    let counted = came.clone();
    disk.set(move |path, sync| {
        sync()?;
        // The sync is done, the flush is not: another chunk of the same file comes to the volume.
        if is_of(path, A) && counted.fetch_add(1, Ordering::Relaxed) == 0 {
            share(&from_hook.upgrade().unwrap(), 1, 3);
        }
        Ok(())
    });
    let volume = store.open(B).unwrap();
    volume.flush().unwrap();
    assert_eq!(came.load(Ordering::Relaxed), 1);
    volume.flush().unwrap();
    disk.clear();
    for seed in 0..20 {
        let after = open(Arc::new(disk.disk.after_power_loss(seed)));
        let mut bytes = vec![0; 2 * CHUNK as usize];
        after.open(B).unwrap().read_at(&mut bytes, 0).unwrap();
        let (one, other) = bytes.split_at(CHUNK as usize);
        assert!(one.iter().all(|byte| *byte == 1) && other.iter().all(|byte| *byte == 3), "seed {seed}: flushed, and lost");
    }
}
