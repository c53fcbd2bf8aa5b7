//! A volume's identity: the 128 bits of its NAA identifier.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct VolumeId(pub [u8; 16]);

impl FromStr for VolumeId {
    type Err = String;

    /// Exactly 32 lower-case hex digits: one volume has one spelling, which is also its file name.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.as_bytes();
        if digits.len() != 32 || !digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("a volume is named by 32 lower-case hex digits".to_owned());
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let value = |d: u8| if d <= b'9' { d - b'0' } else { d - b'a' + 10 };
            *byte = value(pair[0]) << 4 | value(pair[1]);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_only() {
        let id: VolumeId = "6090a028a030f846d8d6546fbd0130c5".parse().unwrap();
        assert_eq!(id.to_string(), "6090a028a030f846d8d6546fbd0130c5");
        for bad in ["", "6090A028a030f846d8d6546fbd0130c5", "6090a028", "../../../../../../../etc/passwd0", &"0".repeat(33)] {
            assert!(bad.parse::<VolumeId>().is_err(), "{bad}");
        }
    }
}
