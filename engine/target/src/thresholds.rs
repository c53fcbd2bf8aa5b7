//! Soft thresholds of thin volumes (SBC-4 4.7.3.7): once reached, every session of the volume is told, and again only after
//! the value was on the other side.

use crate::engine::Engine;
use crate::log;
use crate::sessions::attention;
use gespann_scsi::mode::THRESHOLD_SET_BYTES;
use gespann_store::VolumeId;
use std::collections::HashMap;
use std::thread;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(1);

/// For ever. Costs nothing while no initiator has enabled one.
pub fn watch(engine: &Engine) {
    let mut reached = HashMap::new();
    loop {
        thread::sleep(PERIOD);
        look(engine, &mut reached);
    }
}

fn look(engine: &Engine, reached: &mut HashMap<VolumeId, [bool; 2]>) {
    let exports: Vec<_> = engine.policy().exports.values().cloned().collect();
    for export in exports {
        let lun = export.lun();
        let (available, used) = (lun.settings.available, lun.settings.used);
        if lun.thick || !(available.enabled || used.enabled) {
            reached.remove(&export.id);
            continue;
        }
        let (Ok(space), Ok(info)) = (engine.store.space(), engine.store.info(export.id)) else { continue };
        let bytes = |count: u32| u64::from(count) * THRESHOLD_SET_BYTES;
        let now = [
            available.enabled && space.free_bytes <= bytes(available.count),
            used.enabled && info.allocated_bytes >= bytes(used.count),
        ];
        let before = reached.insert(export.id, now).unwrap_or_default();
        if (now[0] && !before[0]) || (now[1] && !before[1]) {
            log!(Warning, "volume {}: a threshold of its provisioning is reached", export.id);
            engine.attend(export.id, attention::THRESHOLD, None);
        }
    }
}
