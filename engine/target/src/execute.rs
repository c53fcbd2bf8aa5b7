//! Carries out SCSI plans on a volume.

use crate::export::Export;
use crate::gate::{Refused, Ticket};
use crate::patience::wait_for_space;
use crate::sanitize;
use crate::sessions::SessionEntry;
use gespann_scsi::mode::Settings;
use gespann_scsi::parameters::LbaRun;
use gespann_scsi::persistent::Class;
use gespann_scsi::{Compare, Lun, Plan, Range, Sense, mode, parameters};
use gespann_store::{BlockError, Volume};
use std::sync::Arc;

const PIECE_BYTES: usize = 1 << 20;
/// For one GET LBA STATUS: it holds up its session, and the initiator asks on from where the answer ends.
const MAX_EXTENTS_LOOKED_AT: usize = 4096;

/// How a command without read data ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Good,
    Check(Sense),
    /// Answer data.
    Data(Vec<u8>),
    /// Good, and this is to be in force.
    Settings(Settings),
    /// Under way; how it ends is answered when it does.
    Later(Arc<sanitize::Outcome>),
}

pub fn write_sense(error: &BlockError) -> Sense {
    match error {
        BlockError::OutOfRange => Sense::LBA_OUT_OF_RANGE,
        BlockError::NoSpace => Sense::NO_SPACE,
        BlockError::Io(_) => Sense::WRITE_ERROR,
    }
}

pub fn read_sense(error: &BlockError) -> Sense {
    match error {
        BlockError::OutOfRange => Sense::LBA_OUT_OF_RANGE,
        _ => Sense::READ_ERROR,
    }
}

/// Admits and runs everything but reads. `data` is what arrived, possibly less than is wanted. What finds no space is admitted and
/// tried again while some is on its way back; not COMPARE AND WRITE, which may have written a part of what it would look for, nor WRITE
/// SAME, which may take long each time.
pub fn carry_out(
    entry: &SessionEntry,
    resets: u64,
    class: Class,
    plan: &Plan,
    lun: &Lun,
    data: &[u8],
) -> Result<Outcome, Refused> {
    let gate = &entry.export.gate;
    let repeated = matches!(plan, Plan::Write { .. } | Plan::OrWrite { .. } | Plan::WriteAtomic { .. });
    loop {
        let permit = match plan.changes() {
            true => gate.admit_change(&entry.ticket, resets, class)?,
            false => gate.admit(&entry.ticket, resets, class)?,
        };
        let outcome = execute(&entry.export, &entry.ticket, plan, lun, data);
        drop(permit); // nobody who drains waits for space
        let full = matches!(&outcome, Outcome::Check(sense) if *sense == Sense::NO_SPACE);
        if !(full && repeated && wait_for_space(&entry.export)) {
            return Ok(outcome);
        }
    }
}

/// Admits and writes a part of a WRITE. What it promises beyond that it keeps when its last part is carried out.
pub fn carry_out_part(
    entry: &SessionEntry,
    resets: u64,
    class: Class,
    offset: u64,
    part: &[u8],
) -> Result<Result<(), Sense>, Refused> {
    loop {
        let permit = entry.export.gate.admit_change(&entry.ticket, resets, class)?;
        let written = entry.export.volume.write_at(part, offset);
        drop(permit);
        if !(matches!(written, Err(BlockError::NoSpace)) && wait_for_space(&entry.export)) {
            return Ok(written.map_err(|error| write_sense(&error)));
        }
    }
}

fn execute(export: &Export, ticket: &Ticket, plan: &Plan, lun: &Lun, data: &[u8]) -> Outcome {
    match plan {
        Plan::Reserve => export.gate.reserve(ticket),
        Plan::Release => export.gate.release(ticket.session),
        Plan::PersistentIn { action, allocation_length } => {
            let mut bytes = export.gate.persistent().report(*action);
            bytes.truncate(*allocation_length);
            return Outcome::Data(bytes);
        }
        _ => return on_volume(export.volume.as_ref(), plan, lun, data).unwrap_or_else(Outcome::Check),
    }
    Outcome::Good
}

fn on_volume(volume: &dyn Volume, plan: &Plan, lun: &Lun, data: &[u8]) -> Result<Outcome, Sense> {
    let outcome = run_plan(volume, plan, lun, data)?;
    // Without a write cache nothing is answered before it is on stable storage.
    flush_if(volume, plan.changes() && !lun.settings.write_cache)?;
    Ok(outcome)
}

fn run_plan(volume: &dyn Volume, plan: &Plan, lun: &Lun, data: &[u8]) -> Result<Outcome, Sense> {
    let failed = |error: BlockError| write_sense(&error);
    match plan {
        Plan::Write { range, through } => {
            // Fewer bytes than the CDB says: whole blocks of what came are written, the rest is residual.
            let whole = data.len() - data.len() % lun.block_size as usize;
            volume.write_at(&data[..whole.min(range.length as usize)], range.offset).map_err(failed)?;
            flush_if(volume, *through)?;
        }
        Plan::OrWrite { range, through } => {
            let whole = data.len() - data.len() % lun.block_size as usize;
            volume.or_write(&data[..whole.min(range.length as usize)], range.offset).map_err(failed)?;
            flush_if(volume, *through)?;
        }
        Plan::WriteAtomic { range, through } => {
            if data.len() < range.length as usize {
                return Err(Sense::INVALID_FIELD_IN_CDB);
            }
            if !data.is_empty() {
                volume.write_atomic(&data[..range.length as usize], range.offset).map_err(failed)?;
            }
            flush_if(volume, *through)?;
        }
        Plan::Flush => volume.flush().map_err(failed)?,
        Plan::Unmap { parameter_bytes } => {
            if data.len() < *parameter_bytes {
                return Err(Sense::PARAMETER_LIST_LENGTH);
            }
            for range in parameters::unmap_ranges(data, lun)? {
                volume.zero(range.offset, range.length).map_err(failed)?;
            }
        }
        Plan::WriteSame { range, unmap, has_data } => write_same(volume, *range, *unmap, *has_data, lun, data)?,
        Plan::Verify { range, compare } => verify(volume, *range, *compare, lun, data)?,
        Plan::CompareAndWrite { range, through } => {
            compare_and_write(volume, *range, data)?;
            flush_if(volume, *through)?;
        }
        Plan::LbaStatus { lba, allocation_length } => {
            let runs = lba_runs(volume, lun, *lba, parameters::most_lba_runs(*allocation_length))?;
            return Ok(Outcome::Data(parameters::lba_status(&runs, *allocation_length)));
        }
        Plan::ModeSelect { parameter_bytes, header_bytes } => {
            if data.len() < *parameter_bytes {
                return Err(Sense::PARAMETER_LIST_LENGTH);
            }
            return mode::check_select(data, *header_bytes, lun).map(Outcome::Settings);
        }
        _ => {}
    }
    Ok(Outcome::Good)
}

fn flush_if(volume: &dyn Volume, through: bool) -> Result<(), Sense> {
    if through { volume.flush().map_err(|error| write_sense(&error)) } else { Ok(()) }
}

/// What is mapped from `lba` on, in at most `most` runs.
fn lba_runs(volume: &dyn Volume, lun: &Lun, lba: u64, most: usize) -> Result<Vec<LbaRun>, Sense> {
    let block_size = u64::from(lun.block_size);
    let mut runs: Vec<LbaRun> = Vec::new();
    let mut lba = lba;
    for _ in 0..MAX_EXTENTS_LOOKED_AT {
        if lba >= lun.blocks {
            break;
        }
        let extent = volume.extent(lba * block_size).map_err(|error| read_sense(&error))?;
        // A block of which any part is data is mapped.
        let whole_holes = if extent.mapped { 0 } else { extent.length_bytes / block_size };
        let mapped = whole_holes == 0;
        let blocks = if mapped { extent.length_bytes.div_ceil(block_size) } else { whole_holes }.min(lun.blocks - lba);
        // A descriptor has 32 bits for the number.
        let blocks = blocks.min(u32::MAX.into());
        let full = runs.len() == most;
        match runs.last_mut().filter(|last| last.mapped == mapped && last.blocks + blocks <= u32::MAX.into()) {
            Some(last) => last.blocks += blocks,
            None if full => break,
            None => runs.push(LbaRun { lba, blocks, mapped }),
        }
        lba += blocks;
    }
    Ok(runs)
}

fn write_same(volume: &dyn Volume, range: Range, unmap: bool, has_data: bool, lun: &Lun, data: &[u8]) -> Result<(), Sense> {
    let failed = |error: BlockError| write_sense(&error);
    let block_size = lun.block_size as usize;
    if has_data && data.len() < block_size {
        return Err(Sense::INVALID_FIELD_IN_CDB);
    }
    let zeroes = vec![0; block_size];
    let block = if has_data { &data[..block_size] } else { &zeroes };
    // Unmapped blocks read as zeroes, so only a block of zeroes may be unmapped (SBC-3 4.7.3.4.3).
    if unmap && block.iter().all(|byte| *byte == 0) {
        return volume.zero(range.offset, range.length).map_err(failed);
    }
    let piece = block.repeat((PIECE_BYTES / block_size).min(range.length as usize / block_size));
    let (mut offset, end) = (range.offset, range.offset + range.length);
    while offset < end {
        let step = piece.len().min((end - offset) as usize);
        volume.write_at(&piece[..step], offset).map_err(failed)?;
        offset += step as u64;
    }
    Ok(())
}

fn verify(volume: &dyn Volume, range: Range, compare: Compare, lun: &Lun, data: &[u8]) -> Result<(), Sense> {
    let block_size = lun.block_size as usize;
    let needed = match compare {
        Compare::Nothing => 0,
        Compare::All => range.length as usize,
        Compare::OneBlock => block_size.min(range.length as usize),
    };
    if data.len() < needed {
        return Err(Sense::INVALID_FIELD_IN_CDB);
    }
    let mut present = vec![0; PIECE_BYTES.min(range.length as usize)];
    let mut done = 0;
    while done < range.length as usize {
        let step = present.len().min(range.length as usize - done);
        volume.read_at(&mut present[..step], range.offset + done as u64).map_err(|error| read_sense(&error))?;
        let expected = |index: usize| match compare {
            Compare::OneBlock => data[(done + index) % block_size],
            _ => data[done + index],
        };
        if compare != Compare::Nothing {
            if let Some(index) = (0..step).find(|index| present[*index] != expected(*index)) {
                return Err(Sense::MISCOMPARE.at((done + index) as u32));
            }
        }
        done += step;
    }
    Ok(())
}

fn compare_and_write(volume: &dyn Volume, range: Range, data: &[u8]) -> Result<(), Sense> {
    let half = range.length as usize;
    if data.len() < 2 * half {
        return Err(Sense::INVALID_FIELD_IN_CDB);
    }
    match volume.compare_and_write(range.offset, &data[..half], &data[half..2 * half]) {
        Ok(None) => Ok(()),
        Ok(Some(position)) => Err(Sense::MISCOMPARE.at(position as u32)),
        Err(error) => Err(write_sense(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gespann_store::faulty::{Faults, FaultyVolume};
    use gespann_store::memory::MemoryVolume;
    use std::sync::Arc;

    fn run(volume: &FaultyVolume, cdb: &[u8], data: &[u8]) -> Result<Outcome, Sense> {
        run_with(volume, Settings::default(), cdb, data)
    }

    fn run_with(volume: &FaultyVolume, settings: Settings, cdb: &[u8], data: &[u8]) -> Result<Outcome, Sense> {
        let lun = Lun {
            block_size: 512,
            blocks: 8,
            read_only: false,
            physical_block_size: 512,
            settings,
            atomic_bytes: 4096,
            thick: false,
            vendor: String::new(),
            product: String::new(),
            revision: String::new(),
            naa: [0; 16],
            target_name: String::new(),
        };
        let mut whole = [0; 16];
        whole[..cdb.len()].copy_from_slice(cdb);
        on_volume(volume, &gespann_scsi::plan(&whole, &lun), &lun, data)
    }

    /// Each command that promises stable storage is answered with the flush's result; the others do not flush.
    #[test]
    fn what_promises_stable_storage_flushes() {
        let faults = Arc::new(Faults::default());
        let volume = FaultyVolume { inner: Arc::new(MemoryVolume::new(4096)), faults: faults.clone() };
        faults.fail_flushes(Some(5));
        let block = [7; 512];
        let pair = [[0; 512], [7; 512]].concat();
        let promising: [(&[u8], &[u8]); 9] = [
            (&[0x9c, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], &block),
            (&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]),
            (&[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]),
            (&[0x1b, 0, 0, 0, 0, 0], &[]),
            (&[0x2a, 8, 0, 0, 0, 0, 0, 0, 1, 0], &block),
            (&[0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], &block),
            (&[0xaa, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], &block),
            (&[0x2e, 0, 0, 0, 0, 0, 0, 0, 1, 0], &block),
            (&[0x89, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0], &pair),
        ];
        for (cdb, data) in promising {
            assert_eq!(run(&volume, cdb, data), Err(Sense::WRITE_ERROR), "{:#04x}", cdb[0]);
        }
        assert_eq!(run(&volume, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], &block), Ok(Outcome::Good));
        assert_eq!(run(&volume, &[0x41, 8, 0, 0, 0, 0, 0, 0, 1, 0], &[0; 512]), Ok(Outcome::Good));
        let uncached = Settings { write_cache: false, ..Settings::default() };
        for (cdb, data) in [
            (&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0][..], &block[..]),
            (&[0x93, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], &[0; 512]),
            (&[0x42, 0, 0, 0, 0, 0, 0, 0, 8, 0], &[0, 6, 0, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(run_with(&volume, uncached, cdb, data), Err(Sense::WRITE_ERROR), "{:#04x} without a cache", cdb[0]);
        }
        assert_eq!(run_with(&volume, uncached, &[0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[]), Ok(Outcome::Good));
        faults.fail_flushes(None);
        assert_eq!(run(&volume, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]), Ok(Outcome::Good));
        faults.fail_writes(Some(28));
        assert_eq!(run(&volume, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], &block), Err(Sense::NO_SPACE));
    }
}
