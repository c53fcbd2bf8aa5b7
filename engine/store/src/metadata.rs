//! The small file beside each volume: what the data file itself cannot say.
//!
//! One line: `gespann-volume 1 {json} crc32c=xxxxxxxx`. The checksum covers everything before the blank in front of it.

use serde::{Deserialize, Serialize};

const MAGIC: &str = "gespann-volume 1 ";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    pub volume: String,
    pub thick: bool,
    /// The volume this one was cloned from: tells a repeated clone request from a name that is taken.
    pub cloned_from: Option<String>,
    /// Persistent reservations that outlive the engine, as the target writes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservations: Option<String>,
}

impl Metadata {
    pub fn encode(&self) -> Vec<u8> {
        let body = format!("{MAGIC}{}", serde_json::to_string(self).expect("plain fields always encode"));
        format!("{body} crc32c={:08x}\n", crc32c::crc32c(body.as_bytes())).into_bytes()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "is not text")?;
        let (body, checksum) = text.trim_end_matches('\n').rsplit_once(" crc32c=").ok_or("has no checksum")?;
        if checksum != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
            return Err("does not match its checksum".to_owned());
        }
        let json = body.strip_prefix(MAGIC).ok_or("is of a version this engine does not know")?;
        serde_json::from_str(json).map_err(|error| format!("cannot be read: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let metadata =
            Metadata { volume: "ab".repeat(16), thick: true, cloned_from: Some("cd".repeat(16)), reservations: None };
        let bytes = metadata.encode();
        assert_eq!(Metadata::decode(&bytes).unwrap(), metadata);
        for position in 0..bytes.len() - 1 {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[position] ^= 1 << bit;
                assert!(Metadata::decode(&damaged).is_err(), "byte {position} bit {bit}");
            }
        }
        for length in 0..bytes.len() - 1 {
            assert!(Metadata::decode(&bytes[..length]).is_err());
        }
    }
}
