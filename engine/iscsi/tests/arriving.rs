//! Data that goes straight to its place is the same data, wherever the stream is cut; what is not expected goes the usual way.

use gespann_iscsi::login::Identity;
use gespann_iscsi::parts::PART_BYTES;
use gespann_iscsi::pdu::{header, opcode, put};
use gespann_iscsi::session::Begun;
use gespann_iscsi::{Budget, Decoder, Established, Out, Parameters, Session, Step};
use std::collections::HashMap;

const WRITE_BYTES: usize = 300_000;
const BURST_BYTES: usize = 130_000;
const SEGMENT_BYTES: usize = 65_536;

struct Target {
    session: Session<()>,
    decoder: Decoder,
    out: Out,
    written: Vec<Vec<u8>>,
    /// What has been taken of writes that go on, by tag; none if they are taken whole.
    parts: Option<HashMap<u32, Vec<u8>>>,
    closed: Option<&'static str>,
    straight_bytes: usize,
}

impl Target {
    fn new(digests: (bool, bool)) -> Self {
        let parameters = Parameters {
            header_digest: digests.0,
            data_digest: digests.1,
            max_burst_bytes: BURST_BYTES as u32,
            target_max_recv_bytes: 262_144,
            ..Parameters::default()
        };
        let identity = Identity { target: Some("iqn.2026-01.test:t".to_owned()), ..Identity::default() };
        let established = Established { identity, parameters, exp_cmd_sn: 1, stat_sn: 1 };
        let mut decoder = Decoder::new(262_144);
        (decoder.header_digest, decoder.data_digest) = digests;
        let session = Session::new(&established, Budget::new(1 << 24));
        Self { session, decoder, out: Out::default(), written: Vec::new(), parts: None, closed: None, straight_bytes: 0 }
    }

    fn take(&mut self, step: Step<'_, ()>) {
        match step {
            Step::Command(command) => {
                let (tag, wanted, out) = (command.initiator_task_tag, WRITE_BYTES as u32, &mut self.out);
                let begun = match &mut self.parts {
                    None => self.session.begin_write(&command, wanted, (), out),
                    Some(parts) => {
                        // Not all of it, so that some is collected together with what comes later.
                        let taken = command.immediate.len() / 3;
                        parts.insert(tag, command.immediate[..taken].to_vec());
                        self.session.begin_write_in_parts(&command, wanted, taken as u32, (), out)
                    }
                };
                assert!(matches!(begun, Begun::Waiting));
            }
            Step::Part { initiator_task_tag } => {
                let so_far = self.parts.as_mut().and_then(|parts| parts.get_mut(&initiator_task_tag)).expect("begun so");
                let (_, at, data) = self.session.part(initiator_task_tag).expect("it waits");
                assert_eq!(at as usize, so_far.len());
                assert!(data.len() >= PART_BYTES);
                let taken = data.len() - 1000;
                so_far.extend_from_slice(&data[..taken]);
                self.session.part_taken(initiator_task_tag, taken);
            }
            Step::DataComplete(transfer) => {
                let parts = self.parts.as_mut().and_then(|parts| parts.remove(&transfer.initiator_task_tag));
                let mut whole = parts.unwrap_or_default();
                assert_eq!(transfer.taken_bytes() as usize, whole.len());
                whole.extend_from_slice(transfer.data());
                self.written.push(whole);
            }
            Step::Close(reason) => self.closed = Some(reason),
            Step::Nothing => {}
            other => panic!("{other:?}"),
        }
    }

    /// As a connection does: what has been received, at most `most` bytes at a time.
    fn receive(&mut self, mut bytes: &[u8], most: usize) {
        while !bytes.is_empty() && self.closed.is_none() {
            let count = match self.session.place() {
                Some(place) => {
                    let count = most.min(bytes.len());
                    let straight = count.min(place.len());
                    place[..straight].copy_from_slice(&bytes[..straight]);
                    let beside = self.decoder.space_beside();
                    let rest = (count - straight).min(beside.len());
                    beside[..rest].copy_from_slice(&bytes[straight..straight + rest]);
                    self.decoder.filled(rest);
                    self.straight_bytes += straight;
                    let step = self.session.placed(straight, &mut self.out);
                    self.take(step);
                    straight + rest
                }
                None => {
                    let space = self.decoder.space();
                    let count = most.min(bytes.len()).min(space.len());
                    space[..count].copy_from_slice(&bytes[..count]);
                    self.decoder.filled(count);
                    count
                }
            };
            bytes = &bytes[count..];
            if self.session.place().is_none() {
                self.decode();
            }
        }
    }

    fn decode(&mut self) {
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(0));
        while let Some(pdu) = decoder.next().expect("a sound stream") {
            let step = self.session.receive(pdu, &mut self.out);
            self.take(step);
        }
        self.session.arrive(&mut decoder);
        self.decoder = decoder;
    }
}

fn payload(seed: usize) -> Vec<u8> {
    (0..WRITE_BYTES).map(|index| (index * 7 + index / 251 + seed * 31) as u8).collect()
}

fn sender(digests: (bool, bool)) -> Out {
    let mut stream = Out::default();
    (stream.header_digest, stream.data_digest) = digests;
    stream
}

fn command(stream: &mut Out, tag: u32, immediate: &[u8]) {
    let mut bhs = header(opcode::SCSI_COMMAND, 0xa1, tag);
    put(&mut bhs, 20, WRITE_BYTES as u32);
    put(&mut bhs, 24, tag);
    stream.pdu(&bhs, immediate);
}

/// One burst as it was asked for, in segments; the transfer tags count up from `transfer_tag`.
fn burst(stream: &mut Out, tag: u32, transfer_tag: u32, data: &[u8], offset: usize) {
    let end = data.len().min(offset + BURST_BYTES);
    for (sn, at) in (offset..end).step_by(SEGMENT_BYTES).enumerate() {
        let stop = end.min(at + SEGMENT_BYTES);
        let mut bhs = header(opcode::DATA_OUT, if stop == end { 0x80 } else { 0 }, tag);
        put(&mut bhs, 20, transfer_tag);
        put(&mut bhs, 36, sn as u32);
        put(&mut bhs, 40, at as u32);
        stream.pdu(&bhs, &data[at..stop]);
    }
}

fn two_writes(digests: (bool, bool)) -> Vec<u8> {
    let mut stream = sender(digests);
    command(&mut stream, 1, &[]);
    command(&mut stream, 2, &[]);
    // R2Ts are answered in the order in which a target that asks for one burst at a time sends them.
    for (tag, transfer_tag, offset) in
        [(1, 0, 0), (2, 1, 0), (1, 2, 130_000), (2, 3, 130_000), (1, 4, 260_000), (2, 5, 260_000)]
    {
        burst(&mut stream, tag, transfer_tag, &payload(tag as usize), offset);
    }
    stream.bytes().to_vec()
}

#[test]
fn the_data_is_the_same_wherever_the_stream_is_cut() {
    for digests in [(false, false), (true, false), (false, true), (true, true)] {
        let stream = two_writes(digests);
        for most in [5000, 16_384, 70_001, 131_072, 400_000, usize::MAX] {
            let mut target = Target::new(digests);
            target.receive(&stream, most);
            assert_eq!(target.closed, None, "{digests:?}, {most} at a time");
            assert_eq!(target.written.len(), 2, "{digests:?}, {most} at a time");
            assert!(target.written[0] == payload(1) && target.written[1] == payload(2), "{digests:?}, {most} at a time");
            if digests.1 {
                assert_eq!(target.straight_bytes, 0, "a digest is to be checked before the data is believed");
            } else if most <= 131_072 {
                assert!(target.straight_bytes > WRITE_BYTES / 2, "{most} at a time: {}", target.straight_bytes);
            }
        }
    }
}

#[test]
fn taken_in_parts_it_is_the_same_data() {
    for digests in [(false, false), (true, true)] {
        let mut stream = sender(digests);
        let immediate_bytes = 30_000;
        for tag in [1, 2] {
            command(&mut stream, tag, &payload(tag as usize)[..immediate_bytes]);
        }
        for (transfer_tag, bursts) in [(0, 0), (2, 1), (4, 2)] {
            for tag in [1, 2] {
                let data = payload(tag as usize);
                burst(&mut stream, tag, transfer_tag + tag - 1, &data, immediate_bytes + bursts * BURST_BYTES);
            }
        }
        for most in [5000, 70_001, 131_072, usize::MAX] {
            let mut target = Target::new(digests);
            target.parts = Some(HashMap::new());
            target.receive(stream.bytes(), most);
            assert_eq!(target.closed, None, "{digests:?}, {most} at a time");
            assert!(target.written == [payload(1), payload(2)], "{digests:?}, {most} at a time");
        }
    }
}

#[test]
fn what_is_not_expected_is_refused_as_ever() {
    let gap = |bhs: &mut [u8; 48]| put(bhs, 40, 8);
    let sequence = |bhs: &mut [u8; 48]| put(bhs, 36, 3);
    let stranger = |bhs: &mut [u8; 48]| put(bhs, 20, 77);
    for (name, damage, closes) in
        [("gap", gap as fn(&mut [u8; 48]), false), ("sequence", sequence, false), ("tag", stranger, true)]
    {
        let mut stream = sender((false, false));
        command(&mut stream, 1, &[]);
        let mut bhs = header(opcode::DATA_OUT, 0, 1);
        damage(&mut bhs);
        stream.pdu(&bhs, &payload(1)[..SEGMENT_BYTES]);
        let mut target = Target::new((false, false));
        let bytes = stream.bytes();
        // Cut inside of the data, where a sound piece would go straight.
        for piece in [&bytes[..48], &bytes[48..1000]] {
            target.receive(piece, usize::MAX);
        }
        assert!(target.session.place().is_none(), "{name}");
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target.receive(&bytes[1000..], usize::MAX)));
        // A bad piece of data fails its command (`Step::DataBad`, which this target does not take) or the connection.
        assert_eq!((refused.is_err(), target.closed.is_some()), (!closes, closes), "{name}");
        assert!(target.written.is_empty(), "{name}");
    }
}
