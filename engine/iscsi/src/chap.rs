//! CHAP (RFC 1994, RFC 7143 12.1): who knows the secret.

use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use sha3::Sha3_256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret that is wiped when dropped and never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

/// Numbers from the IANA registry of PPP authentication algorithms, as iSCSI uses them in CHAP_A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Md5 = 5,
    Sha1 = 6,
    Sha256 = 7,
    Sha3 = 8,
}

impl Algorithm {
    /// The first known one of the initiator's list, which is in its order of preference.
    pub fn choose(list: &str) -> Option<Self> {
        list.split(',').find_map(|item| match item.trim() {
            "5" => Some(Self::Md5),
            "6" => Some(Self::Sha1),
            "7" => Some(Self::Sha256),
            "8" => Some(Self::Sha3),
            _ => None,
        })
    }

    pub fn challenge_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 | Self::Sha3 => 32,
        }
    }

    pub fn response(self, identifier: u8, secret: &Secret, challenge: &[u8]) -> Vec<u8> {
        fn hash<D: Digest>(parts: [&[u8]; 3]) -> Vec<u8> {
            parts.iter().fold(D::new(), |hash, part| hash.chain_update(part)).finalize().to_vec()
        }
        let parts = [&[identifier][..], &secret.0, challenge];
        match self {
            Self::Md5 => hash::<Md5>(parts),
            Self::Sha1 => hash::<Sha1>(parts),
            Self::Sha256 => hash::<Sha256>(parts),
            Self::Sha3 => hash::<Sha3_256>(parts),
        }
    }
}

/// One challenge, good for one answer.
#[derive(Debug)]
pub struct Challenge {
    pub algorithm: Algorithm,
    pub identifier: u8,
    pub bytes: Vec<u8>,
}

impl Challenge {
    /// Without a secret (unknown user) the same work is done, and the answer is no.
    pub fn accepts(&self, secret: Option<&Secret>, response: &[u8]) -> bool {
        let nobody = Secret::new(self.bytes.clone());
        let expected = self.algorithm.response(self.identifier, secret.unwrap_or(&nobody), &self.bytes);
        bool::from(expected.ct_eq(response)) && secret.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(algorithm: Algorithm) -> String {
        crate::text::hex(&algorithm.response(1, &Secret::new(b"secretsecret".to_vec()), b"0123456789abcdef"))
    }

    /// Expected values computed with Python's hashlib over the same bytes.
    #[test]
    fn responses_match_another_implementation() {
        assert_eq!(of(Algorithm::Md5), "0x3bfa6667b451d18b9818fc1b4fc8b5d2");
        assert_eq!(of(Algorithm::Sha1), "0x85220c11eb691daa709f189b3e15b625839fb8a0");
        assert_eq!(of(Algorithm::Sha256), "0xed8f3cdcfeae9e28b14af618b68155342b7a540f72789e7180ba0b6d528ea2e7");
        assert_eq!(of(Algorithm::Sha3), "0xa80af6d9e7ccfd729cf5c26035d2191d30ae4c94bd96ff93c12b39152480380a");
    }

    #[test]
    fn the_initiators_order_decides() {
        assert_eq!(Algorithm::choose("8,7,5"), Some(Algorithm::Sha3));
        assert_eq!(Algorithm::choose("99,5"), Some(Algorithm::Md5));
        assert_eq!(Algorithm::choose("4"), None);
    }

    #[test]
    fn nobody_is_never_accepted() {
        let challenge = Challenge { algorithm: Algorithm::Md5, identifier: 9, bytes: vec![7; 16] };
        let own = challenge.algorithm.response(9, &Secret::new(vec![7; 16]), &challenge.bytes);
        assert!(!challenge.accepts(None, &own));
        assert!(challenge.accepts(Some(&Secret::new(vec![7; 16])), &own));
        assert!(!challenge.accepts(Some(&Secret::new(vec![8; 16])), &own));
    }
}
