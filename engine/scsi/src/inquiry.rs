//! INQUIRY and the vital product data pages (SPC-4 6.6, 7.8; SBC-3 6.5).

use crate::commands::cut;
use crate::fields::{be16, padded, set_be16, set_be32, set_be64};
use crate::mode::THRESHOLD_SET_BYTES;
use crate::plan::{Cdb, Lun, MAX_COMPARE_BLOCKS, MAX_TRANSFER_BYTES, MAX_UNMAP_DESCRIPTORS, MAX_WRITE_SAME_BLOCKS, Plan};
use crate::sense::Sense;

type Page = fn(&Lun) -> Vec<u8>;

static PAGES: &[(u8, Page)] = &[
    (0x00, supported_pages),
    (0x80, serial_number),
    (0x83, identification),
    (0x86, extended_inquiry),
    (0x8f, crate::copy::third_party_copy_page),
    (0xb0, block_limits),
    (0xb1, block_characteristics),
    (0xb2, provisioning),
];

pub fn inquiry(cdb: &Cdb, lun: &Lun) -> Result<Plan, Sense> {
    let allocation_length = be16(cdb, 3).into();
    if cdb[1] & 0x01 == 0 {
        if cdb[2] != 0 {
            return Err(Sense::INVALID_FIELD_IN_CDB);
        }
        return Ok(cut(standard(lun, 0), allocation_length));
    }
    let (code, page) = PAGES.iter().find(|(code, _)| *code == cdb[2]).ok_or(Sense::INVALID_FIELD_IN_CDB)?;
    let body = page(lun);
    let mut bytes = vec![0, *code, 0, 0];
    set_be16(&mut bytes, 2, body.len() as u16);
    bytes.extend(body);
    Ok(cut(bytes, allocation_length))
}

/// Peripheral qualifier 3: nothing can ever be at this logical unit number.
pub fn absent(cdb: &Cdb) -> Plan {
    if cdb[1] & 0x01 != 0 || cdb[2] != 0 {
        return Plan::Refuse(Sense::INVALID_FIELD_IN_CDB);
    }
    let mut bytes = vec![0; 36];
    bytes[0] = 0x7f;
    bytes[2] = 6;
    bytes[3] = 2;
    bytes[4] = 31;
    bytes[8..36].fill(b' ');
    cut(bytes, be16(cdb, 3).into())
}

fn standard(lun: &Lun, peripheral: u8) -> Vec<u8> {
    let mut bytes = vec![0; 96];
    bytes[0] = peripheral;
    bytes[2] = 6; // SPC-4
    bytes[3] = 0x12; // HISUP, response data format 2
    bytes[4] = 96 - 5;
    bytes[5] = 0x08; // 3PC
    bytes[7] = 0x02; // CMDQUE
    bytes[8..16].copy_from_slice(&padded(&lun.vendor, 8));
    bytes[16..32].copy_from_slice(&padded(&lun.product, 16));
    bytes[32..36].copy_from_slice(&padded(&lun.revision, 4));
    for (index, standard) in [0x00a0, 0x0960, 0x0460, 0x04c0].into_iter().enumerate() {
        set_be16(&mut bytes, 58 + 2 * index, standard); // SAM-5, iSCSI, SPC-4, SBC-3
    }
    bytes
}

fn supported_pages(_lun: &Lun) -> Vec<u8> {
    PAGES.iter().map(|(code, _)| *code).collect()
}

fn naa_text(lun: &Lun) -> String {
    lun.naa.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn serial_number(lun: &Lun) -> Vec<u8> {
    naa_text(lun).into_bytes()
}

/// A designator: code set, association and type as SPC-4 7.8.6 packs them.
fn designator(bytes: &mut Vec<u8>, code_set: u8, association: u8, kind: u8, value: &[u8]) {
    const ISCSI: u8 = 0x50;
    let (protocol, protocol_valid) = if association == 0 { (0, 0) } else { (ISCSI, 0x80) };
    bytes.extend([protocol | code_set, protocol_valid | association << 4 | kind, 0, value.len() as u8]);
    bytes.extend(value);
}

/// SCSI name strings end in a zero byte and are filled up to four bytes.
fn name_string(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn identification(lun: &Lun) -> Vec<u8> {
    let (binary, ascii, utf8) = (1, 2, 3);
    let mut bytes = Vec::new();
    // Only a value that begins with 6 is an NAA IEEE Registered Extended designator.
    if lun.naa[0] >> 4 == 6 {
        designator(&mut bytes, binary, 0, 3, &lun.naa);
        designator(&mut bytes, utf8, 0, 8, &name_string(&format!("naa.{}", naa_text(lun).to_uppercase())));
    }
    let mut vendor_specific = padded(&lun.vendor, 8);
    vendor_specific.extend(naa_text(lun).into_bytes());
    designator(&mut bytes, ascii, 0, 1, &vendor_specific);
    designator(&mut bytes, binary, 1, 4, &[0, 0, 0, 1]); // relative target port
    designator(&mut bytes, binary, 1, 5, &[0, 0, 0, 1]); // target portal group
    designator(&mut bytes, utf8, 1, 8, &name_string(&format!("{},t,0x0001", lun.target_name)));
    designator(&mut bytes, utf8, 2, 8, &name_string(&lun.target_name));
    bytes
}

fn extended_inquiry(_lun: &Lun) -> Vec<u8> {
    let mut bytes = vec![0; 60];
    bytes[1] = 0x07; // simple, head of queue and ordered task attributes
    bytes[2] = 0x01; // a volatile cache
    bytes
}

/// UNMAP in pieces of the file system's 4 KiB gives space back; smaller ones only write zeroes.
fn block_limits(lun: &Lun) -> Vec<u8> {
    let blocks = |bytes: u64| bytes / u64::from(lun.block_size);
    let mut page = vec![0; 64];
    page[4] = u8::from(!lun.writes_same_to_end()); // WSNZ
    page[5] = MAX_COMPARE_BLOCKS;
    set_be16(&mut page, 6, blocks(4096).max(1) as u16);
    set_be32(&mut page, 8, blocks(MAX_TRANSFER_BYTES) as u32);
    set_be32(&mut page, 12, blocks(1 << 20) as u32);
    set_be32(&mut page, 20, u32::MAX);
    set_be32(&mut page, 24, MAX_UNMAP_DESCRIPTORS);
    set_be32(&mut page, 28, blocks(4096).max(1) as u32);
    set_be32(&mut page, 32, 0x8000_0000); // alignment valid: 0
    set_be64(&mut page, 36, MAX_WRITE_SAME_BLOCKS);
    set_be32(&mut page, 44, blocks(lun.atomic_bytes.into()) as u32); // at any address, in any number of blocks
    page.split_off(4)
}

fn block_characteristics(_lun: &Lun) -> Vec<u8> {
    let mut bytes = vec![0; 60];
    bytes[1] = 1; // not rotating
    bytes[3] = 0x50; // WABEREQ, WACEREQ: after an erase blocks may be read at once, as zeroes
    bytes
}

fn provisioning(lun: &Lun) -> Vec<u8> {
    const UNMAP_AND_WRITE_SAME_READ_ZEROES: u8 = 0xe4;
    let threshold_exponent = (THRESHOLD_SET_BYTES / u64::from(lun.block_size)).ilog2() as u8;
    let (exponent, kind) = if lun.thick { (0, 1) } else { (threshold_exponent, 2) };
    vec![exponent, UNMAP_AND_WRITE_SAME_READ_ZEROES, kind, 0]
}
