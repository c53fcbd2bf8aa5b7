//! Commands as initiators send them, and every opcode with random bytes behind it: never a range outside the volume.

use gespann_scsi::{Lun, Plan, Range, Sense, mode, opcodes, parameters, plan};

fn lun() -> Lun {
    Lun {
        block_size: 512,
        blocks: 2048,
        read_only: false,
        physical_block_size: 512,
        settings: mode::Settings::default(),
        atomic_bytes: 0,
        thick: false,
        vendor: "GESPANN".to_owned(),
        product: "VOLUME".to_owned(),
        revision: "1.0".to_owned(),
        naa: [0x60; 16],
        target_name: "iqn.2026-01.test:t".to_owned(),
    }
}

fn cdb(bytes: &[u8]) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[..bytes.len()].copy_from_slice(bytes);
    cdb
}

#[test]
fn all_lengths_of_read_and_write_name_the_same_blocks() {
    let range = Range { offset: 5 * 512, length: 3 * 512 };
    for bytes in [
        &[0x08, 0, 0, 5, 3, 0][..],
        &[0x28, 0, 0, 0, 0, 5, 0, 0, 3, 0],
        &[0xa8, 0, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0],
        &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0],
    ] {
        assert_eq!(plan(&cdb(bytes), &lun()), Plan::Read(range), "{bytes:x?}");
        let mut write = bytes.to_vec();
        write[0] += 2;
        assert_eq!(plan(&cdb(&write), &lun()), Plan::Write { range, through: false }, "{write:x?}");
        if write[0] != 0x0a {
            write[1] = 0x08;
            assert_eq!(plan(&cdb(&write), &lun()), Plan::Write { range, through: true }, "force unit access");
        }
    }
    let Plan::Read(range) = plan(&cdb(&[0x08, 0, 0, 0, 0, 0]), &lun()) else { panic!("READ(6)") };
    assert_eq!(range.length, 256 * 512, "zero means 256 in six bytes");
}

#[test]
fn the_end_of_the_volume_is_exact() {
    let read = |lba: u32, blocks: u8| {
        let lba = lba.to_be_bytes();
        plan(&cdb(&[0x28, 0, lba[0], lba[1], lba[2], lba[3], 0, 0, blocks, 0]), &lun())
    };
    assert!(matches!(read(2047, 1), Plan::Read(_)));
    assert!(matches!(read(2048, 0), Plan::Read(Range { length: 0, .. })));
    for (lba, blocks) in [(2047, 2), (2048, 1), (2049, 0), (u32::MAX, 255)] {
        assert_eq!(read(lba, blocks), Plan::Refuse(Sense::LBA_OUT_OF_RANGE), "{lba} {blocks}");
    }
}

#[test]
fn a_read_only_volume_refuses_every_change() {
    let lun = Lun { read_only: true, ..lun() };
    for opcode in [0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0x8e, 0xae, 0x41, 0x93, 0x42, 0x89] {
        // Eight bytes into a 10-byte CDB, four into a 12-byte one: one block, wherever the opcode has its length.
        let mut bytes = cdb(&[opcode]);
        match opcode >> 5 {
            0 => bytes[4] = 1,
            1 | 2 => bytes[8] = 1,
            5 => bytes[9] = 1,
            _ => bytes[13] = 1,
        }
        assert_eq!(plan(&bytes, &lun), Plan::Refuse(Sense::WRITE_PROTECTED), "{opcode:#x}");
    }
    assert!(matches!(plan(&cdb(&[0x28]), &lun), Plan::Read(_)));
}

#[test]
fn every_command_with_any_bytes_stays_inside_the_volume() {
    let (lun, mut state) = (lun(), 0x9e37_79b9_7f4a_7c15_u64);
    let mut ranges = 0;
    for round in 0..40_000_u32 {
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Mostly zeroes, so that lengths and addresses are often small enough to be accepted.
            *byte = if state >> 62 == 0 { (state >> 40) as u8 } else { 0 };
        }
        bytes[0] = opcodes::COMMANDS[round as usize % opcodes::COMMANDS.len()].opcode;
        let planned = plan(&bytes, &lun);
        assert!(planned.data_out_bytes(512) <= 16 << 20);
        if let Plan::Read(range)
        | Plan::Write { range, .. }
        | Plan::WriteSame { range, .. }
        | Plan::Verify { range, .. }
        | Plan::CompareAndWrite { range, .. } = planned
        {
            ranges += 1;
            assert!(range.offset + range.length <= 2048 * 512, "{bytes:x?}");
        }
    }
    assert!(ranges > 1000, "{ranges}");
}

#[test]
fn unmap_lists_are_checked_whole() {
    let mut list = vec![0, 38, 0, 32, 0, 0, 0, 0];
    list.extend([0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0]);
    list.extend([0, 0, 0, 0, 0, 0, 0x07, 0xff, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(parameters::unmap_ranges(&list, &lun()).unwrap().len(), 2);
    list[35] = 2;
    assert_eq!(parameters::unmap_ranges(&list, &lun()), Err(Sense::LBA_OUT_OF_RANGE));
    assert_eq!(parameters::unmap_ranges(&list[..7], &lun()), Err(Sense::PARAMETER_LIST_LENGTH));
}

#[test]
fn mode_select_accepts_what_is_so_and_refuses_a_change() {
    let Plan::Answer(mut pages) = plan(&cdb(&[0x1a, 0, 0x3f, 0, 255, 0]), &lun()) else { panic!("MODE SENSE") };
    pages[0] = 0;
    assert_eq!(mode::check_select(&pages, 4, &lun()), Ok(mode::Settings::default()));
    pages[4 + 8 + 2] ^= 0x04; // WCE
    let wanted = mode::Settings { write_cache: false, ..mode::Settings::default() };
    assert_eq!(mode::check_select(&pages, 4, &lun()), Ok(wanted));
    pages[4 + 8 + 2] ^= 0x01; // RCD
    assert!(mode::check_select(&pages, 4, &lun()).is_err_and(|sense| sense.same_kind(&Sense::INVALID_FIELD_IN_PARAMETERS)));
    for length in 0..pages.len() {
        let _ = mode::check_select(&pages[..length], 4, &lun());
    }
}
