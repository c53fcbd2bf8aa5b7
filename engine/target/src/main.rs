//! The engine's process: takes the data directory, opens the doors, waits for the signal to end.

mod access;
mod api;
mod arguments;
mod background;
mod connection;
mod control_socket;
mod engine;
mod execute;
mod export;
mod gate;
mod gatekeeper;
#[cfg(test)]
mod lease_tests;
mod log;
mod offline;
mod patience;
mod persistent;
mod portal;
mod sanitize;
mod sessions;
mod sharing;
mod signals;
mod third_party_copy;
mod thresholds;

use arguments::{Arguments, Asked};
use engine::Engine;
use gespann_iscsi::Budget;
use gespann_store::disk::OsDisk;
use gespann_store::{MappedStore, Options, Store, StoreError, VolumeId};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What is still running at the end has this long to finish.
const LAST_DRAIN: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let result = match arguments::parse(std::env::args().skip(1)) {
        Ok(Asked::Run(arguments)) => run(&arguments),
        Ok(Asked::Offline(task)) => offline::run(task),
        Ok(Asked::Print(text)) => {
            print!("{text}");
            Ok(())
        }
        Err(reason) => Err(reason),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("gespann-engine: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    log::set_level(arguments.log_level);
    let signals = signals::block();
    raise_descriptor_limit();
    give_buffers_back();
    let usual = Options::default();
    let options = Options { log_bytes: arguments.checkpoint_after_bytes.unwrap_or(usual.log_bytes), ..usual };
    let store = OsDisk::open(&arguments.data).and_then(|disk| MappedStore::open(Arc::new(disk), options));
    let store = store.map_err(|error| error.to_string())?;
    store.notes.iter().for_each(|note| log!(Warning, "{note}"));
    let mut engine = Engine::new(Arc::new(store), new_boot_id()?);
    engine.write_data = Budget::new(arguments.write_data_bytes);
    engine.memory_volumes = arguments.memory_volumes;
    if engine.memory_volumes {
        log!(Warning, "--memory-volumes: nothing that is written is kept; this is for measuring only");
    }
    let engine = Arc::new(engine);
    open_portals(&engine, arguments)?;
    let tended = engine.clone();
    spawn("background", move || background::tend(tended.store.as_ref()))?;
    let watched = engine.clone();
    spawn("space", move || background::watch_space(watched.store.as_ref()))?;
    let listener = control_socket::listen(&arguments.socket);
    let listener =
        listener.map_err(|error| format!("cannot open the control socket {}: {error}", arguments.socket.display()))?;
    let serving = engine.clone();
    let watching = engine.clone();
    spawn("thresholds", move || thresholds::watch(&watching))?;
    spawn("control socket", move || control_socket::serve(&serving, &listener))?;
    log!(Info, "engine {} started, {:?}, boot {}", env!("CARGO_PKG_VERSION"), arguments.data, engine.boot_id);
    let signal = signals::wait(&signals);
    log!(Info, "{signal}: finishing");
    finish(&engine)
}

/// A session that falls silent lets its buffers go, and each goes back to the system: those of 64 KiB and more are
/// allocated for themselves, and stay so (by itself the C library would keep them among the small ones after the first).
fn give_buffers_back() {
    const OWN_MAPPING_BYTES: libc::c_int = 64 * 1024;
    // SAFETY: no other thread is there yet. If it is refused, memory is only kept for longer.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING_BYTES);
    }
}

/// A session takes a descriptor, and the usual soft limit is 1024. What cannot be had shows when it is needed.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls are given a valid structure of this stack.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map(drop).map_err(|error| format!("cannot start the thread of the {name}: {error}"))
}

fn open_portals(engine: &Arc<Engine>, arguments: &Arguments) -> Result<(), String> {
    let limits = portal::Limits::default();
    for address in &arguments.portals {
        let listener = portal::listen(*address).map_err(|error| format!("cannot listen at {address}: {error}"))?;
        log!(Info, "portal {}", listener.local_addr().map_or(*address, |bound| bound));
        let (engine, limits, timing) = (engine.clone(), limits.clone(), arguments.timing);
        spawn("portal", move || portal::accept_all(&engine, &listener, &limits, timing))?;
    }
    Ok(())
}

fn new_boot_id() -> Result<String, String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Nothing new is admitted, what was admitted finishes, all of it reaches stable storage.
fn finish(engine: &Engine) -> Result<(), String> {
    engine.close();
    let exports: Vec<_> = engine.policy().exports.values().cloned().collect();
    for export in &exports {
        engine.remove_target(export.id);
    }
    let mut unfinished = 0;
    for export in &exports {
        if !export.gate.drain(LAST_DRAIN) {
            unfinished += 1;
            log!(Error, "volume {}: commands did not finish", export.id);
        }
    }
    for info in engine.store.list().map_err(|error| error.to_string())? {
        if let Err(reason) = settle(engine.store.as_ref(), info.volume) {
            unfinished += 1;
            log!(Error, "volume {}: {reason}", info.volume);
        }
    }
    if unfinished > 0 { Err(format!("{unfinished} volumes could not be finished in order")) } else { Ok(()) }
}

/// What a volume was given reaches stable storage. One that has been deleted since it was listed needs nothing more:
/// requests that were admitted before the end are still at work.
fn settle(store: &dyn Store, volume: VolumeId) -> Result<(), String> {
    match store.open(volume) {
        Ok(volume) => volume.flush().map_err(|error| error.to_string()),
        Err(StoreError::NotFound(_)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_deleted_at_the_last_moment_is_no_failure_of_the_end() {
        let folder = std::env::temp_dir().join(format!("gespann-settle-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let store = MappedStore::open(Arc::new(OsDisk::open(&folder).unwrap()), Options::default()).unwrap();
        let volume = VolumeId([7; 16]);
        store.create(volume, 1 << 20, false).unwrap();
        settle(&store, volume).unwrap();
        store.delete(volume).unwrap();
        settle(&store, volume).unwrap();
        drop(store);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
