//! MODE SENSE and MODE SELECT (SPC-4 6.11-6.14, SBC-3 6.4): two pages, of which software write protect can be changed.

use crate::commands::cut;
use crate::fields::{be16, set_be16, set_be32, set_be64};
use crate::plan::{Cdb, Lun, Plan};
use crate::sense::Sense;

/// In the control page: software write protect.
const SWP: u8 = 0x08;

const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;

/// WCE: writes are cached until SYNCHRONIZE CACHE or FUA.
fn caching_page() -> Vec<u8> {
    let mut page = vec![0; 20];
    page[..3].copy_from_slice(&[CACHING, 18, 0x04]);
    page
}

/// Commands may be reordered (queue algorithm modifier 1); busy time-out unlimited.
fn control_page(write_protected: bool) -> Vec<u8> {
    vec![CONTROL, 10, 0, 0x10, if write_protected { SWP } else { 0 }, 0, 0, 0, 0xff, 0xff, 0, 0]
}

/// What MODE SELECT may change of a page: one bit of the control page.
fn changeable(mut page: Vec<u8>) -> Vec<u8> {
    page[2..].fill(0);
    if page[0] == CONTROL {
        page[4] = SWP;
    }
    page
}

/// `control` as it is asked for: current, changeable or default values.
fn pages(wanted: u8, control: u8, lun: &Lun) -> Result<Vec<u8>, Sense> {
    let values = |page: Vec<u8>| if control == 1 { changeable(page) } else { page };
    let control_page = || values(control_page(lun.write_protected && control == 0));
    Ok(match wanted {
        CACHING => values(caching_page()),
        CONTROL => control_page(),
        0x3f => [values(caching_page()), control_page()].concat(),
        _ => return Err(Sense::INVALID_FIELD_IN_CDB),
    })
}

fn block_descriptor(lun: &Lun, long: bool) -> Vec<u8> {
    let mut bytes = vec![0; if long { 16 } else { 8 }];
    if long {
        set_be64(&mut bytes, 0, lun.blocks);
        set_be32(&mut bytes, 12, lun.block_size);
    } else {
        set_be32(&mut bytes, 0, u32::try_from(lun.blocks).unwrap_or(u32::MAX));
        set_be32(&mut bytes, 4, lun.block_size);
    }
    bytes
}

pub fn sense(cdb: &Cdb, lun: &Lun) -> Result<Plan, Sense> {
    let ten = cdb[0] == 0x5a;
    let (no_descriptor, long) = (cdb[1] & 0x08 != 0, ten && cdb[1] & 0x10 != 0);
    if cdb[2] >> 6 == 3 {
        return Err(Sense::SAVING_NOT_SUPPORTED);
    }
    if !matches!(cdb[3], 0 | 0xff) {
        return Err(Sense::INVALID_FIELD_IN_CDB); // no subpages
    }
    let pages = pages(cdb[2] & 0x3f, cdb[2] >> 6, lun)?;
    let descriptor = if no_descriptor { Vec::new() } else { block_descriptor(lun, long) };
    let device_specific = 0x10 | if lun.refuses_writes() { 0x80 } else { 0 }; // DPOFUA, WP
    let length = descriptor.len() + pages.len();
    let mut bytes = if ten {
        let mut header = vec![0, 0, 0, device_specific, u8::from(long && !no_descriptor), 0, 0, 0];
        set_be16(&mut header, 0, (length + 6) as u16);
        set_be16(&mut header, 6, descriptor.len() as u16);
        header
    } else {
        vec![(length + 3) as u8, 0, device_specific, descriptor.len() as u8]
    };
    bytes.extend(descriptor);
    bytes.extend(pages);
    Ok(cut(bytes, if ten { be16(cdb, 7).into() } else { cdb[4].into() }))
}

pub fn select(cdb: &Cdb, _lun: &Lun) -> Result<Plan, Sense> {
    let (page_format, save) = (cdb[1] & 0x10 != 0, cdb[1] & 0x01 != 0);
    if !page_format || save {
        return Err(Sense::INVALID_FIELD_IN_CDB);
    }
    let (parameter_bytes, header_bytes) = if cdb[0] == 0x55 { (be16(cdb, 7).into(), 8) } else { (cdb[4].into(), 4) };
    Ok(if parameter_bytes == 0 { Plan::Good } else { Plan::ModeSelect { parameter_bytes, header_bytes } })
}

/// Takes a parameter list that changes software write protect at most; refuses any other change. Gives the wanted state.
pub fn check_select(parameters: &[u8], header_bytes: usize, lun: &Lun) -> Result<bool, Sense> {
    let mut write_protected = lun.write_protected;
    let header = parameters.get(..header_bytes).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let (descriptor_bytes, long) =
        if header_bytes == 8 { (usize::from(be16(header, 6)), header[4] & 1 != 0) } else { (usize::from(header[3]), false) };
    let rest = &parameters[header_bytes..];
    let descriptor = rest.get(..descriptor_bytes).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    if !descriptor.is_empty() && descriptor != block_descriptor(lun, long) {
        return Err(Sense::INVALID_FIELD_IN_PARAMETERS);
    }
    let mut rest = &rest[descriptor_bytes..];
    while !rest.is_empty() {
        let page_bytes = usize::from(*rest.get(1).ok_or(Sense::PARAMETER_LIST_LENGTH)?) + 2;
        let page = rest.get(..page_bytes).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
        let present = match page[0] & 0x3f {
            CACHING => caching_page(),
            CONTROL => {
                write_protected = page.get(4).is_some_and(|byte| byte & SWP != 0);
                control_page(write_protected)
            }
            _ => return Err(Sense::INVALID_FIELD_IN_PARAMETERS),
        };
        if page.len() != present.len() || page[2..] != present[2..] {
            return Err(Sense::INVALID_FIELD_IN_PARAMETERS);
        }
        rest = &rest[page_bytes..];
    }
    Ok(write_protected)
}
