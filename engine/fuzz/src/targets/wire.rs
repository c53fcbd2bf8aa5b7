//! PDUs as an initiator sends and receives them.

use gespann_iscsi::pdu::Bhs;
use gespann_iscsi::{Decoder, Out};

/// One PDU with correct lengths, padding and digests.
pub fn encode(bhs: &Bhs, ahs: &[u8], data: &[u8], header_digest: bool, data_digest: bool) -> Vec<u8> {
    let mut out = Out::default();
    (out.header_digest, out.data_digest) = (header_digest && ahs.is_empty(), data_digest);
    let mut bhs = *bhs;
    bhs[4] = 0;
    out.pdu(&bhs, data);
    let mut bytes = out.bytes().to_vec();
    if !ahs.is_empty() {
        // With an additional header there is no digest that could be right: it is refused before that matters.
        bytes[4] = (ahs.len() / 4) as u8;
        bytes.splice(48..48, ahs.iter().copied());
    }
    bytes
}

/// All PDUs that were laid into `out`, which is empty afterwards. Panics if they do not decode.
pub fn sent(out: &mut Out) -> Vec<(Bhs, Vec<u8>)> {
    let mut decoder = Decoder::new(0xff_ffff);
    (decoder.header_digest, decoder.data_digest) = (out.header_digest, out.data_digest);
    let (mut pdus, mut rest) = (Vec::new(), out.bytes());
    while !rest.is_empty() {
        let space = decoder.space();
        let count = rest.len().min(space.len());
        space[..count].copy_from_slice(&rest[..count]);
        decoder.filled(count);
        rest = &rest[count..];
        while let Some(pdu) = decoder.next().expect("an answer that decodes") {
            assert!(pdu.ahs.is_empty(), "an answer with an additional header");
            pdus.push((*pdu.bhs, pdu.data.to_vec()));
        }
    }
    assert_eq!(decoder.received(), 0, "half an answer");
    out.clear();
    pdus
}

pub fn word(bhs: &Bhs, at: usize) -> u32 {
    u32::from_be_bytes([bhs[at], bhs[at + 1], bhs[at + 2], bhs[at + 3]])
}
