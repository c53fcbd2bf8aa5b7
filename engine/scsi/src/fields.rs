//! Big-endian fields, and answers cut to their allocation length.

pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

/// Text of exactly `width` bytes, blanks behind it; what is not printable ASCII becomes a blank (SPC-4 4.4.1).
pub fn padded(text: &str, width: usize) -> Vec<u8> {
    let printable = text.bytes().map(|b| if (0x20..0x7f).contains(&b) { b } else { b' ' });
    printable.chain(std::iter::repeat(b' ')).take(width).collect()
}

/// Puts the length of what follows at `at` (two bytes).
pub fn set_be16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub fn set_be32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

pub fn set_be64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}
