//! From a stream of bytes to PDUs: lengths, padding, digests. Memory is bounded by the longest PDU allowed.

use crate::out::padding;
use crate::pdu::{BHS_BYTES, Bhs, Pdu};

/// Room for a batch of small commands.
const USUAL_BYTES: usize = 64 * 1024;
/// Room for a batch of long PDUs: few system calls, and still within a processor's own cache.
const LONG_BATCH_BYTES: usize = 384 * 1024;
const LONG_PDU_BYTES: usize = 32 * 1024;
/// Beside data that goes elsewhere: what follows it is the next header.
const BESIDE_BYTES: usize = 4096;
const LONGEST_AHS_BYTES: usize = 255 * 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The announced data segment is longer than was agreed.
    TooLong,
    HeaderDigest,
    /// The header is sound: it can be named in a Reject.
    DataDigest(Bhs),
}

#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Length of the PDU that is incomplete, as far as it is known.
    needed: usize,
    /// The last PDU was long: so may the next be, and its data has a better place than this.
    after_long: bool,
    pub max_data_bytes: usize,
    pub header_digest: bool,
    pub data_digest: bool,
}

impl Decoder {
    pub fn new(max_data_bytes: usize) -> Self {
        let (buffer, header_digest, data_digest) = (Vec::new(), false, false);
        Self { buffer, start: 0, end: 0, needed: 0, after_long: false, max_data_bytes, header_digest, data_digest }
    }

    /// Where the next bytes of the stream go. Never empty after `next` has answered that more are needed.
    pub fn space(&mut self) -> &mut [u8] {
        self.make_room();
        let missing = self.needed.saturating_sub(self.end - self.start);
        let most = if self.after_long || self.needed > LONG_BATCH_BYTES / 2 { missing + BESIDE_BYTES } else { usize::MAX };
        let end = self.buffer.len().min(self.end.saturating_add(most));
        &mut self.buffer[self.end..end]
    }

    /// Where they go after data that has a place of its own.
    pub fn space_beside(&mut self) -> &mut [u8] {
        self.make_room();
        let end = self.buffer.len().min(self.end + BESIDE_BYTES);
        &mut self.buffer[self.end..end]
    }

    /// Bytes that are here and belong to no PDU yet.
    pub fn received(&self) -> usize {
        self.end - self.start
    }

    pub fn filled(&mut self, count: usize) {
        self.end += count;
    }

    /// Lets the buffer go while nothing is in it.
    pub fn shrink(&mut self) {
        if self.start == self.end {
            *self = Self { buffer: Vec::new(), start: 0, end: 0, ..*self };
        }
    }

    /// The next whole PDU, if it is there.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Pdu<'_>>, DecodeError> {
        let present = &self.buffer[self.start..self.end];
        if present.len() < BHS_BYTES {
            self.needed = BHS_BYTES + LONGEST_AHS_BYTES;
            return Ok(None);
        }
        let ahs_bytes = usize::from(present[4]) * 4;
        let data_bytes = u32::from_be_bytes([0, present[5], present[6], present[7]]) as usize;
        if data_bytes > self.max_data_bytes {
            return Err(DecodeError::TooLong);
        }
        let header_bytes = BHS_BYTES + ahs_bytes;
        let data_start = header_bytes + if self.header_digest { 4 } else { 0 };
        let padded_bytes = data_bytes + padding(data_bytes);
        let total = data_start + padded_bytes + if self.data_digest && data_bytes > 0 { 4 } else { 0 };
        if self.header_digest && present.len() >= data_start && !digest_matches(present, 0, header_bytes) {
            return Err(DecodeError::HeaderDigest);
        }
        if present.len() < total {
            self.needed = total;
            return Ok(None);
        }
        let bhs: &Bhs = present[..BHS_BYTES].try_into().expect("48 bytes");
        if self.data_digest && data_bytes > 0 && !digest_matches(present, data_start, padded_bytes) {
            return Err(DecodeError::DataDigest(*bhs));
        }
        let begin = self.start;
        self.start += total;
        self.after_long = total > LONG_BATCH_BYTES / 2;
        let pdu = &self.buffer[begin..begin + total];
        Ok(Some(Pdu {
            bhs: pdu[..BHS_BYTES].try_into().expect("48 bytes"),
            ahs: &pdu[BHS_BYTES..header_bytes],
            data: &pdu[data_start..data_start + data_bytes],
        }))
    }

    /// The PDU whose header is here, and checked, while its data is not; what is here of the data, and its length. None
    /// if it carries anything else that is to be looked at first.
    pub fn begun(&self) -> Option<(Pdu<'_>, usize)> {
        let present = &self.buffer[self.start..self.end];
        let data_start = BHS_BYTES + if self.header_digest { 4 } else { 0 };
        if self.data_digest || present.len() < data_start || present[4] != 0 {
            return None;
        }
        let data_bytes = u32::from_be_bytes([0, present[5], present[6], present[7]]) as usize;
        let data = &present[data_start..];
        let sound = !self.header_digest || digest_matches(present, 0, BHS_BYTES);
        if !sound || data_bytes > self.max_data_bytes || data.len() >= data_bytes {
            return None;
        }
        let bhs = present[..BHS_BYTES].try_into().expect("48 bytes");
        Some((Pdu { bhs, ahs: &[], data }, data_bytes))
    }

    /// The PDU of `begun` has been taken; its remaining data will not come here.
    pub fn take_begun(&mut self) {
        (self.start, self.end, self.needed, self.after_long) = (0, 0, 0, true);
    }

    /// Makes room for the incomplete PDU, if need be by moving what is here of it to the front.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let usual = if self.needed > LONG_PDU_BYTES { LONG_BATCH_BYTES } else { USUAL_BYTES };
        if self.start > 0 && self.buffer.len() - self.start < self.needed.max(usual / 2) {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let wanted = self.needed.max(usual);
        if self.buffer.len() < wanted {
            let mut longer = vec![0; wanted];
            longer[..self.end].copy_from_slice(&self.buffer[..self.end]);
            self.buffer = longer;
        }
    }
}

fn digest_matches(bytes: &[u8], start: usize, length: usize) -> bool {
    let digest = crc32c::crc32c(&bytes[start..start + length]);
    bytes[start + length..start + length + 4] == digest.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::Out;
    use crate::pdu::header;

    fn sender(digests: bool) -> Out {
        let mut out = Out::default();
        (out.header_digest, out.data_digest) = (digests, digests);
        out
    }

    fn decoder(max_data_bytes: usize, digests: bool) -> Decoder {
        let mut decoder = Decoder::new(max_data_bytes);
        (decoder.header_digest, decoder.data_digest) = (digests, digests);
        decoder
    }

    fn stream(digests: bool) -> Vec<u8> {
        let mut out = sender(digests);
        for (index, length) in [0, 1, 2, 3, 4, 5, 4096, 0, 70_000].into_iter().enumerate() {
            out.pdu(&header(0, 0x80, index as u32), &vec![index as u8; length]);
        }
        out.bytes().to_vec()
    }

    fn feed(decoder: &mut Decoder, mut bytes: &[u8], step: usize) -> Vec<(u32, Vec<u8>)> {
        let mut seen = Vec::new();
        while !bytes.is_empty() {
            let space = decoder.space();
            let count = step.min(bytes.len()).min(space.len());
            assert!(count > 0, "no space left although more is needed");
            space[..count].copy_from_slice(&bytes[..count]);
            decoder.filled(count);
            bytes = &bytes[count..];
            while let Some(pdu) = decoder.next().unwrap() {
                seen.push((pdu.initiator_task_tag(), pdu.data.to_vec()));
            }
        }
        seen
    }

    #[test]
    fn whole_or_in_pieces_the_same_pdus_come_out() {
        for digests in [false, true] {
            let bytes = stream(digests);
            for step in [1, 7, 48, 1000, bytes.len()] {
                let mut decoder = decoder(262_144, digests);
                let seen = feed(&mut decoder, &bytes, step);
                assert_eq!(seen.len(), 9);
                assert_eq!(seen[8].1, vec![8; 70_000]);
                assert_eq!(seen[3].1, vec![3; 3]);
            }
        }
    }

    #[test]
    fn a_tail_waits_for_its_rest() {
        let bytes = stream(false);
        let mut decoder = Decoder::new(262_144);
        assert_eq!(feed(&mut decoder, &bytes[..bytes.len() - 1], 100).len(), 8);
        assert_eq!(feed(&mut decoder, &bytes[bytes.len() - 1..], 1).len(), 1);
    }

    #[test]
    fn a_damaged_byte_is_noticed_by_the_digests() {
        let mut out = sender(true);
        out.pdu(&header(0, 0x80, 1), b"payload");
        for position in 0..out.len() {
            let mut bytes = out.bytes().to_vec();
            bytes[position] ^= 0x10;
            let mut decoder = decoder(8192, true);
            decoder.space()[..bytes.len()].copy_from_slice(&bytes);
            decoder.filled(bytes.len());
            assert!(!matches!(decoder.next(), Ok(Some(_))), "byte {position}");
        }
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let mut bytes = [0xff; 48];
        bytes[4] = 0;
        let mut decoder = Decoder::new(8192);
        decoder.space()[..48].copy_from_slice(&bytes);
        decoder.filled(48);
        assert!(matches!(decoder.next(), Err(DecodeError::TooLong)));
    }
}
