//! Checksummed frames, of which logs and checkpoints are made.
//!
//! ```text
//! length of the payload u32 │ CRC32C of what follows u32 │ number u64 │ payload │ zeroes up to a multiple of 8
//! ```
//! Numbers are little-endian. The payload is one value in postcard's encoding. A length of 0 is no frame.

use serde::Serialize;
use serde::de::DeserializeOwned;

const HEAD_BYTES: usize = 16;
/// Longer ones are not written, and not believed.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;

pub fn put<T: Serialize>(out: &mut Vec<u8>, number: u64, value: &T) {
    let start = out.len();
    out.extend([0; HEAD_BYTES]);
    let taken = std::mem::take(out);
    *out = postcard::to_extend(value, taken).expect("plain values always encode");
    let length = (out.len() - start - HEAD_BYTES) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 8..start + 16].copy_from_slice(&number.to_le_bytes());
    let checksum = crc32c::crc32c(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    out.resize(start + (out.len() - start).next_multiple_of(8), 0);
}

/// One frame at the beginning of `bytes`: its number, its payload, and how many bytes it takes.
pub fn take(bytes: &[u8]) -> Option<(u64, &[u8], usize)> {
    let head = bytes.get(..HEAD_BYTES)?;
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    let length = word(0) as usize;
    if length == 0 || length > MAX_PAYLOAD_BYTES {
        return None;
    }
    let whole = bytes.get(8..HEAD_BYTES + length)?;
    if crc32c::crc32c(whole) != word(4) {
        return None;
    }
    let number = u64::from_le_bytes(head[8..16].try_into().expect("8 bytes"));
    Some((number, &whole[8..], (HEAD_BYTES + length).next_multiple_of(8)))
}

pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Option<T> {
    postcard::from_bytes(payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        put(&mut bytes, 77, &("a record", 5_u64));
        assert_eq!(bytes.len() % 8, 0);
        let (number, payload, length) = take(&bytes).unwrap();
        assert_eq!((number, length, decode::<(String, u64)>(payload)), (77, bytes.len(), Some(("a record".to_owned(), 5))));
        for position in 0..HEAD_BYTES + payload.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[position] ^= 1 << bit;
                assert!(take(&damaged).is_none(), "byte {position} bit {bit}");
            }
        }
        assert!((0..HEAD_BYTES + payload.len()).all(|length| take(&bytes[..length]).is_none()));
    }
}
