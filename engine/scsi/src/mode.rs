//! MODE SENSE and MODE SELECT (SPC-4 6.11-6.14, SBC-4 6.4): three pages, and what initiators may change in them.
//!
//! Nothing is saved: a reset of the unit brings the defaults back.

use crate::commands::cut;
use crate::fields::{be16, be32, set_be16, set_be32, set_be64};
use crate::plan::{Cdb, Lun, Plan};
use crate::sense::Sense;

/// In the control page: software write protect.
const SWP: u8 = 0x08;
/// In the caching page: write cache enabled.
const WCE: u8 = 0x04;
/// In a threshold descriptor.
const ENABLED: u8 = 0x80;

const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
/// With subpage 2: logical block provisioning.
const PROVISIONING: u8 = 0x1c;
/// Thresholds are counted in this.
pub const THRESHOLD_SET_BYTES: u64 = 1 << 20;

/// A soft threshold (SBC-4 4.7.3.7): whoever uses the unit is told once when it is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Threshold {
    pub enabled: bool,
    /// In [`THRESHOLD_SET_BYTES`].
    pub count: u32,
}

/// What initiators have set, for all of them alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Software write protect.
    pub write_protected: bool,
    /// Off: a write is on stable storage before it is answered.
    pub write_cache: bool,
    /// Reached when no more than this is left for the volume to take.
    pub available: Threshold,
    /// Reached when the volume takes this much.
    pub used: Threshold,
}

impl Default for Settings {
    fn default() -> Self {
        Self { write_protected: false, write_cache: true, available: Threshold::default(), used: Threshold::default() }
    }
}

/// A mode page and, bit by bit, what MODE SELECT may change of it.
struct Page {
    values: Vec<u8>,
    changeable: Vec<u8>,
}

impl Page {
    fn new(values: Vec<u8>, changeable: &[(usize, u8)]) -> Self {
        let mut mask = vec![0; values.len()];
        changeable.iter().for_each(|(at, bits)| mask[*at] = *bits);
        Self { values, changeable: mask }
    }

    /// Length of the part that names the page.
    fn head_bytes(&self) -> usize {
        if self.values[0] & 0x40 != 0 { 4 } else { 2 }
    }

    /// As it is asked for: current, changeable or default values.
    fn shown(mut self, control: u8) -> Vec<u8> {
        if control == 1 {
            let head = self.head_bytes();
            self.values[head..].copy_from_slice(&self.changeable[head..]);
        }
        self.values
    }

    fn permits(&self, wanted: &[u8]) -> bool {
        let head = self.head_bytes();
        let bits = || wanted.iter().zip(&self.values).zip(&self.changeable).skip(head);
        wanted.len() == self.values.len() && bits().all(|((wanted, present), mask)| (wanted ^ present) & !mask == 0)
    }
}

fn caching_page(settings: &Settings) -> Page {
    let mut values = vec![0; 20];
    values[..3].copy_from_slice(&[CACHING, 18, if settings.write_cache { WCE } else { 0 }]);
    Page::new(values, &[(2, WCE)])
}

/// Commands may be reordered (queue algorithm modifier 1); busy time-out unlimited.
fn control_page(settings: &Settings) -> Page {
    let protected = if settings.write_protected { SWP } else { 0 };
    Page::new(vec![CONTROL, 10, 0, 0x10, protected, 0, 0, 0, 0xff, 0xff, 0, 0], &[(4, SWP)])
}

/// Two soft thresholds: what is available, armed decreasing; what is used, armed increasing.
fn provisioning_page(settings: &Settings) -> Page {
    let mut values = vec![0; 32];
    values[..4].copy_from_slice(&[0x40 | PROVISIONING, 2, 0, 28]);
    let mut describe = |at: usize, threshold: Threshold, arming: u8, resource: u8| {
        values[at] = if threshold.enabled { ENABLED | arming } else { arming };
        values[at + 1] = resource;
        set_be32(&mut values, at + 4, threshold.count);
    };
    describe(16, settings.available, 0, 1);
    describe(24, settings.used, 1, 2);
    let count = |at: usize| (at..at + 4).map(|at| (at, 0xff));
    let changeable: Vec<_> = [(16, ENABLED), (24, ENABLED)].into_iter().chain(count(20)).chain(count(28)).collect();
    Page::new(values, &changeable)
}

fn pages(wanted: u8, subpage: u8, settings: &Settings, lun: &Lun) -> Result<Vec<Page>, Sense> {
    let provisioning = || if lun.thick { Vec::new() } else { vec![provisioning_page(settings)] };
    let found = match (wanted, subpage) {
        (CACHING, 0 | 0xff) => vec![caching_page(settings)],
        (CONTROL, 0 | 0xff) => vec![control_page(settings)],
        (PROVISIONING, 2 | 0xff) => provisioning(),
        (0x3f, 0) => vec![caching_page(settings), control_page(settings)],
        (0x3f, 0xff) => [vec![caching_page(settings), control_page(settings)], provisioning()].into_iter().flatten().collect(),
        _ => Vec::new(),
    };
    if found.is_empty() { Err(Sense::INVALID_FIELD_IN_CDB.in_byte(2)) } else { Ok(found) }
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
    let (ten, control) = (cdb[0] == 0x5a, cdb[2] >> 6);
    let (no_descriptor, long) = (cdb[1] & 0x08 != 0, ten && cdb[1] & 0x10 != 0);
    if control == 3 {
        return Err(Sense::SAVING_NOT_SUPPORTED);
    }
    let settings = if control == 2 { Settings::default() } else { lun.settings };
    let pages = pages(cdb[2] & 0x3f, cdb[3], &settings, lun)?;
    let pages: Vec<u8> = pages.into_iter().flat_map(|page| page.shown(control)).collect();
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
        return Err(Sense::INVALID_FIELD_IN_CDB.in_byte(1));
    }
    let (parameter_bytes, header_bytes) = if cdb[0] == 0x55 { (be16(cdb, 7).into(), 8) } else { (cdb[4].into(), 4) };
    Ok(if parameter_bytes == 0 { Plan::Good } else { Plan::ModeSelect { parameter_bytes, header_bytes } })
}

/// What a parameter list asks for, if it changes only what may be changed.
pub fn check_select(parameters: &[u8], header_bytes: usize, lun: &Lun) -> Result<Settings, Sense> {
    let mut settings = lun.settings;
    let header = parameters.get(..header_bytes).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let (descriptor_bytes, long) =
        if header_bytes == 8 { (usize::from(be16(header, 6)), header[4] & 1 != 0) } else { (usize::from(header[3]), false) };
    let rest = &parameters[header_bytes..];
    let descriptor = rest.get(..descriptor_bytes).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    if !descriptor.is_empty() && descriptor != block_descriptor(lun, long) {
        return Err(Sense::INVALID_FIELD_IN_PARAMETERS.in_parameter(header_bytes as u16));
    }
    let mut at = header_bytes + descriptor_bytes;
    while at < parameters.len() {
        let wrong = Sense::INVALID_FIELD_IN_PARAMETERS.in_parameter(at as u16);
        let head = parameters.get(at..at + 2).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
        let (subpage, page_bytes) = if head[0] & 0x40 == 0 {
            (0, usize::from(head[1]) + 2)
        } else {
            let head = parameters.get(at..at + 4).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
            (head[1], usize::from(be16(head, 2)) + 4)
        };
        let page = parameters.get(at..at + page_bytes).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
        let code = head[0] & 0x3f;
        let named_whole = matches!((code, subpage), (CACHING | CONTROL, 0) | (PROVISIONING, 2));
        let present = if named_whole { pages(code, subpage, &settings, lun).map_err(|_| wrong)? } else { Vec::new() };
        if !present.first().is_some_and(|present| present.permits(page)) {
            return Err(wrong);
        }
        apply(&mut settings, code, page);
        at += page_bytes;
    }
    Ok(settings)
}

fn apply(settings: &mut Settings, code: u8, page: &[u8]) {
    let threshold = |at: usize| Threshold { enabled: page[at] & ENABLED != 0, count: be32(page, at + 4) };
    match code {
        CACHING => settings.write_cache = page[2] & WCE != 0,
        CONTROL => settings.write_protected = page[4] & SWP != 0,
        _ => (settings.available, settings.used) = (threshold(16), threshold(24)),
    }
}
