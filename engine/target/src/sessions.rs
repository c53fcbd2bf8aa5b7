//! The sessions there are, as others see them: the control socket, resets, a drop.

use crate::export::Export;
use crate::gate::{Rule, Ticket};
use gespann_scsi::Sense;
use gespann_scsi::copy::CopyResult;
use gespann_store::VolumeId;
use std::collections::BTreeMap;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Unit attentions waiting for a session, one bit each.
pub mod attention {
    pub const CAPACITY: u32 = 1;
    pub const RESET: u32 = 2;
    pub const CLEARED: u32 = 4;
    pub const PARAMETERS: u32 = 8;
    pub const RESERVATIONS_PREEMPTED: u32 = 16;
    pub const RESERVATIONS_RELEASED: u32 = 32;
    pub const REGISTRATIONS_PREEMPTED: u32 = 64;
    pub const MODE: u32 = 128;
    pub const THRESHOLD: u32 = 256;
}

/// The shared side of one session; the rest belongs to its thread.
#[derive(Debug)]
pub struct SessionEntry {
    pub ticket: Ticket,
    pub export: Arc<Export>,
    pub initiator: String,
    pub chap_user: String,
    pub address: IpAddr,
    pub isid: [u8; 6],
    pub tsih: u16,
    pub stream: Arc<TcpStream>,
    pub connected: Instant,
    pub last_pdu_ms: AtomicU64,
    pub in_flight: AtomicU32,
    pub read_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub attentions: AtomicU32,
    /// How its latest copies went, the newest last.
    pub copies: Mutex<Vec<CopyResult>>,
    gone: AtomicBool,
}

impl SessionEntry {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        ticket: Ticket,
        export: Arc<Export>,
        identity: &gespann_iscsi::login::Identity,
        address: IpAddr,
        tsih: u16,
        stream: Arc<TcpStream>,
    ) -> Self {
        Self {
            ticket,
            export,
            initiator: identity.initiator.clone(),
            chap_user: identity.chap_user.clone().unwrap_or_default(),
            address,
            isid: identity.isid,
            tsih,
            stream,
            connected: Instant::now(),
            last_pdu_ms: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            read_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            attentions: AtomicU32::new(0),
            copies: Mutex::default(),
            gone: AtomicBool::new(false),
        }
    }

    pub fn age_ms(&self) -> u64 {
        self.connected.elapsed().as_millis() as u64
    }

    pub fn note_pdu(&self) {
        self.last_pdu_ms.store(self.age_ms(), Ordering::Relaxed);
    }

    pub fn attend(&self, bits: u32) {
        self.attentions.fetch_or(bits, Ordering::AcqRel);
    }

    /// The next unit attention to be told; it is told once.
    pub fn take_attention(&self) -> Option<Sense> {
        const ORDER: [(u32, Sense); 9] = [
            (attention::RESET, Sense::RESET),
            (attention::CLEARED, Sense::COMMANDS_CLEARED),
            (attention::CAPACITY, Sense::CAPACITY_CHANGED),
            (attention::RESERVATIONS_PREEMPTED, Sense::RESERVATIONS_PREEMPTED),
            (attention::REGISTRATIONS_PREEMPTED, Sense::REGISTRATIONS_PREEMPTED),
            (attention::RESERVATIONS_RELEASED, Sense::RESERVATIONS_RELEASED),
            (attention::MODE, Sense::MODE_CHANGED),
            (attention::PARAMETERS, Sense::PARAMETERS_CHANGED),
            (attention::THRESHOLD, Sense::THRESHOLD_REACHED),
        ];
        let taken = |bit: u32| self.attentions.fetch_and(!bit, Ordering::AcqRel) & bit != 0;
        ORDER.iter().find(|(bit, _)| taken(*bit)).map(|(_, sense)| *sense)
    }

    /// Nothing of this session is admitted after this call, and its thread will notice that the connection is over.
    /// True if it was not dropped before.
    pub fn drop_now(&self) -> bool {
        if !self.export.gate.keeps(Rule::Drop) {
            return true;
        }
        let first = self.export.gate.revoke(&self.ticket);
        // An error means that the connection is gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
        first
    }
}

#[derive(Debug, Default)]
pub struct Sessions {
    entries: Mutex<BTreeMap<u64, Arc<SessionEntry>>>,
}

impl Sessions {
    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<SessionEntry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn of_volume(&self, volume: VolumeId) -> Vec<Arc<SessionEntry>> {
        self.lock().values().filter(|entry| entry.export.id == volume).cloned().collect()
    }

    /// Drops those of a volume that `which` picks; how many.
    pub fn drop_where(&self, volume: VolumeId, which: impl Fn(&SessionEntry) -> bool) -> u64 {
        self.of_volume(volume).iter().filter(|entry| which(entry) && entry.drop_now()).count() as u64
    }

    pub fn remove(&self, entry: &SessionEntry) {
        if !entry.gone.swap(true, Ordering::AcqRel) {
            entry.export.gate.revoke(&entry.ticket);
            self.lock().remove(&entry.ticket.session);
        }
    }
}
