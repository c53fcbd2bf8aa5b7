//! EXTENDED COPY carried out: which volumes an initiator may name, and the copying, admitted piece by piece.
//!
//! An initiator may name the volume of this session, and any other that it could log in to at this moment: records,
//! online, one initiator at a time where that is set. That is asked again for each piece, under the policy's lock, and
//! each piece is admitted at the gates of both volumes. So after a change of policy has been answered and either volume
//! has been drained, no late piece can land on it.

use crate::access;
use crate::engine::{Engine, Policy};
use crate::execute::{Outcome, write_sense};
use crate::export::Export;
use crate::gate::{Permit, Refused, Ticket};
use crate::log;
use crate::sessions::SessionEntry;
use gespann_scsi::copy::{CopyList, CopyResult, Cscd, MAX_KEPT_RESULTS, Segment, report};
use gespann_scsi::persistent::Class;
use gespann_scsi::{Range, Sense};
use gespann_store::BlockError;
use std::sync::{Arc, PoisonError};

/// A drain waits for one piece at most. A multiple of any chunk size, so that chunks can be shared.
const PIECE_BYTES: u64 = 16 << 20;

/// Why a copy stops: the session's own command is refused, or the copy has failed.
enum Stop {
    Refused(Refused),
    Failed(Sense),
}

impl From<Sense> for Stop {
    fn from(sense: Sense) -> Self {
        Self::Failed(sense)
    }
}

pub fn extended_copy(
    engine: &Engine,
    entry: &SessionEntry,
    resets: u64,
    parameter_bytes: usize,
    data: &[u8],
) -> Result<Outcome, Refused> {
    // The command itself touches the unit it was sent to, whatever it names.
    drop(entry.export.gate.admit(&entry.ticket, resets, Class::Write)?);
    let list = match CopyList::parse(data, parameter_bytes) {
        Ok(list) => list,
        Err(sense) => return Ok(Outcome::Check(sense)),
    };
    let mut result = CopyResult { list_id: list.list_id.unwrap_or(0), segments: 0, bytes: 0, failed: None };
    let mut stopped = None;
    for segment in &list.segments {
        let copied = copy_segment(engine, entry, resets, &list, segment, &mut result.bytes);
        match copied {
            Ok(()) => result.segments += 1,
            Err(stop) => {
                stopped = Some(stop);
                break;
            }
        }
    }
    let outcome = match stopped {
        None => Ok(Outcome::Good),
        Some(Stop::Failed(sense)) => {
            result.failed = Some(sense);
            Ok(Outcome::Check(sense))
        }
        Some(Stop::Refused(refused)) => return Err(refused),
    };
    if list.list_id.is_some() {
        remember(entry, result);
    }
    outcome
}

fn remember(entry: &SessionEntry, result: CopyResult) {
    let mut copies = entry.copies.lock().unwrap_or_else(PoisonError::into_inner);
    copies.retain(|other| other.list_id != result.list_id);
    if copies.len() == MAX_KEPT_RESULTS {
        copies.remove(0);
    }
    copies.push(result);
}

/// RECEIVE COPY RESULTS, about copies of the same session.
pub fn copy_results(entry: &SessionEntry, list_id: u8, failed: bool, allocation_length: usize) -> Outcome {
    let copies = entry.copies.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(result) = copies.iter().find(|result| result.list_id == list_id) else {
        return Outcome::Check(Sense::INVALID_FIELD_IN_CDB.in_byte(2));
    };
    let mut bytes = report(result, failed);
    bytes.truncate(allocation_length);
    Outcome::Data(bytes)
}

fn copy_segment(
    engine: &Engine,
    entry: &SessionEntry,
    resets: u64,
    list: &CopyList,
    segment: &Segment,
    copied_bytes: &mut u64,
) -> Result<(), Stop> {
    let cscd = |index: usize| list.cscds.get(index).ok_or(Sense::COPY_UNREACHABLE);
    let (from, to) = (cscd(segment.from)?, cscd(segment.to)?);
    let (source, target) = {
        let policy = engine.policy();
        (engine.copyable(&policy, entry, from)?, engine.copyable(&policy, entry, to)?)
    };
    let (source_range, target_range) = segment.ranges(&source.lun(), &target.lun())?;
    let backwards = Arc::ptr_eq(&source, &target) && source_range.offset < target_range.offset;
    for (at, length) in pieces(target_range, backwards) {
        // The policy is held until the gates have admitted the piece: a change of it comes before or after, never between.
        let policy = engine.policy();
        let (source, target) = (engine.copyable(&policy, entry, from)?, engine.copyable(&policy, entry, to)?);
        if target.lun().refuses_writes() {
            return Err(Sense::COPY_DEVICE_FAILED.into());
        }
        let (reading, writing) = (side(entry, resets, &source), side(entry, resets, &target));
        let reading = reading.admit(&source, Class::Read)?;
        let writing = writing.admit_change(&target, Class::Write)?;
        drop(policy);
        let (from_offset, to_offset) = (source_range.offset + at, target_range.offset + at);
        let copied = engine.store.copy_range(source.id, from_offset, target.id, to_offset, length);
        let kept = copied.and_then(|()| keep(&target));
        kept.map_err(|error| failure(&error))?;
        drop((reading, writing));
        *copied_bytes += length;
    }
    Ok(())
}

/// What is answered survives the death of this process; without a write cache that of the machine too.
fn keep(target: &Export) -> Result<(), BlockError> {
    if target.lun().settings.write_cache { target.volume.settle() } else { target.volume.flush() }
}

/// Offsets within the range and lengths, cut at multiples of the piece's size on the target. From the end if asked.
fn pieces(target: Range, backwards: bool) -> Vec<(u64, u64)> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < target.length {
        let to_boundary = PIECE_BYTES - (target.offset + at) % PIECE_BYTES;
        let length = to_boundary.min(target.length - at);
        pieces.push((at, length));
        at += length;
    }
    if backwards {
        pieces.reverse();
    }
    pieces
}

/// What hosts understand of their own commands is told as such; the rest is the copy's failure.
fn failure(error: &BlockError) -> Sense {
    match error {
        BlockError::NoSpace => write_sense(error),
        BlockError::OutOfRange => Sense::COPY_OUT_OF_RANGE,
        BlockError::Io(_) => {
            log!(Error, "extended copy: {error}");
            Sense::COPY_DEVICE_FAILED
        }
    }
}

/// By which ticket the session touches one of the two volumes.
enum Side<'a> {
    Own(&'a Ticket, u64),
    /// Good for one piece: it has the generation of this moment.
    Other(Ticket),
}

fn side<'a>(entry: &'a SessionEntry, resets: u64, export: &Export) -> Side<'a> {
    if export.id == entry.export.id {
        Side::Own(&entry.ticket, resets)
    } else {
        Side::Other(export.gate.ticket(entry.ticket.session, entry.ticket.port.clone()))
    }
}

impl Side<'_> {
    fn admit<'g>(&self, export: &'g Export, class: Class) -> Result<Permit<'g>, Stop> {
        self.refusal(export, |ticket, resets| export.gate.admit(ticket, resets, class))
    }

    fn admit_change<'g>(&self, export: &'g Export, class: Class) -> Result<Permit<'g>, Stop> {
        self.refusal(export, |ticket, resets| export.gate.admit_change(ticket, resets, class))
    }

    fn refusal<T>(&self, export: &Export, admit: impl FnOnce(&Ticket, u64) -> Result<T, Refused>) -> Result<T, Stop> {
        match self {
            Self::Own(ticket, resets) => admit(ticket, *resets).map_err(Stop::Refused),
            Self::Other(ticket) => {
                let now = export.gate.resets(ticket);
                admit(ticket, now).map_err(|_| Stop::Failed(Sense::COPY_DEVICE_FAILED))
            }
        }
    }
}

impl Engine {
    /// The volume that the list names, if this session's initiator may use it now.
    fn copyable(&self, policy: &Policy, entry: &SessionEntry, cscd: &Cscd) -> Result<Arc<Export>, Sense> {
        let naa = cscd.naa.ok_or(Sense::COPY_UNREACHABLE)?;
        let shows = |export: &&Arc<Export>| export.lun().naa == naa;
        let export = if entry.export.lun().naa == naa { Some(&entry.export) } else { policy.exports.values().find(shows) };
        let export = export.ok_or(Sense::COPY_UNREACHABLE)?;
        if export.id != entry.export.id && !self.could_use(export, entry) {
            return Err(Sense::COPY_UNREACHABLE); // told apart from what is not there only to those who may know
        }
        if cscd.block_size != export.lun().block_size {
            return Err(Sense::COPY_INEXACT);
        }
        Ok(export.clone())
    }

    /// Could the initiator of this session log in there now?
    fn could_use(&self, export: &Export, entry: &SessionEntry) -> bool {
        let target = export.target();
        let user = Some(entry.chap_user.as_str()).filter(|user| !user.is_empty());
        let others = || self.sessions.of_volume(export.id);
        let taken =
            || others().iter().any(|other| other.ticket.alive() && !other.initiator.eq_ignore_ascii_case(&entry.initiator));
        target.online && access::admits(&target.access, &entry.initiator, entry.address, user) && (target.multihost || !taken())
    }
}
