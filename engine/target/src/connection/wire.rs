//! The socket of a connection: what was read, and what is to be sent.

use super::pipe::Pipe;
use gespann_iscsi::{Decoder, Out};
use gespann_store::Volume;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

pub const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// The socket with what was read and what is to be sent.
#[derive(Debug)]
pub struct Wire {
    pub stream: Arc<TcpStream>,
    pub decoder: Decoder,
    pub out: Out,
    /// Settles before anything leaves, reads as well: they may tell of what another session has written.
    pub volume: Option<Arc<dyn Volume>>,
}

impl Wire {
    pub fn new(stream: Arc<TcpStream>, decoder: Decoder) -> Self {
        Self { stream, decoder, out: Out::default(), volume: None }
    }

    pub fn prepare(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        self.stream.set_write_timeout(Some(SEND_TIMEOUT))
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.send(0)
    }

    fn send(&mut self, flags: libc::c_int) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        if let Some(volume) = &self.volume {
            let settled = volume.settle();
            settled.map_err(|error| io::Error::other(format!("what was written could not be kept: {error}")))?;
        }
        let mut rest = self.out.bytes();
        while !rest.is_empty() {
            // SAFETY: the address and the length are those of `rest`.
            let sent =
                unsafe { libc::send(self.stream.as_raw_fd(), rest.as_ptr().cast(), rest.len(), libc::MSG_NOSIGNAL | flags) };
            match usize::try_from(sent) {
                Ok(count) => rest = &rest[count..],
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
        self.out.clear();
        Ok(())
    }

    /// Sends everything in `out`, whose last header announces what is in the pipe, and then that.
    pub fn flush_with(&mut self, pipe: &mut Pipe) -> io::Result<()> {
        self.send(libc::MSG_MORE)?;
        pipe.empty_into(self.stream.as_fd())
    }

    /// How many bytes have come; 0 at the end of the stream.
    pub fn read(&mut self, how: Wait) -> io::Result<usize> {
        let count = receive(&self.stream, &mut [IoSliceMut::new(self.decoder.space())], how)?;
        self.decoder.filled(count);
        Ok(count)
    }

    /// Reads into `place` first and, when that is full, for the decoder; how much in all, and how much into `place`.
    pub fn read_to(&mut self, place: &mut [u8], how: Wait) -> io::Result<(usize, usize)> {
        let wanted = place.len();
        let count = receive(&self.stream, &mut [IoSliceMut::new(place), IoSliceMut::new(self.decoder.space_beside())], how)?;
        self.decoder.filled(count.saturating_sub(wanted));
        Ok((count, count.min(wanted)))
    }
}

/// What to do when nothing has come yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until something comes, or the socket's time is over.
    Asleep,
    /// Not at all: `WouldBlock`.
    Never,
}

fn receive(stream: &TcpStream, slices: &mut [IoSliceMut<'_>], how: Wait) -> io::Result<usize> {
    let flags = if how == Wait::Never { libc::MSG_DONTWAIT } else { 0 };
    // SAFETY: all zeroes is a message of no parts.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (slices.as_mut_ptr().cast(), slices.len());
    loop {
        // SAFETY: an IoSliceMut is an iovec, and these outlive the call.
        let count = unsafe { libc::recvmsg(stream.as_raw_fd(), &mut message, flags) };
        match usize::try_from(count) {
            Ok(count) => return Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::super::pipe::Pipes;
    use super::*;
    use gespann_iscsi::pdu::header;
    use gespann_store::faulty::{Faults, FaultyVolume};
    use gespann_store::memory::MemoryVolume;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn connected() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Wire::new(Arc::new(listener.accept().unwrap().0), Decoder::new(8192)), peer)
    }

    fn everything_from(mut peer: TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_has_not_settled_is_not_answered() {
        let faults = Arc::new(Faults::default());
        let volume: Arc<dyn Volume> =
            Arc::new(FaultyVolume { inner: Arc::new(MemoryVolume::new(512)), faults: faults.clone() });
        let (mut wire, peer) = connected();
        faults.fail_settling(Some(libc::EIO));
        wire.out.pdu(&header(0x21, 0x80, 1), &[]);
        wire.flush().unwrap(); // of the login
        wire.volume = Some(volume);
        wire.flush().unwrap(); // nothing is to be sent
        wire.out.pdu(&header(0x21, 0x80, 2), &[]);
        assert!(wire.flush().is_err());
        assert!(wire.flush_with(&mut Pipes::default().take().unwrap()).is_err(), "by no way");
        drop(wire);
        assert_eq!(everything_from(peer).len(), 48, "only the answer to the login");
    }

    #[test]
    fn pages_follow_what_was_laid_out_before_them() {
        let path = std::env::temp_dir().join(format!("gespann-pages-{}", std::process::id()));
        let content: Vec<u8> = (0..400_000_u32).map(|index| (index / 3) as u8).collect();
        File::create(&path).unwrap().write_all(&content).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (mut wire, peer) = connected();
        let reader = std::thread::spawn(|| everything_from(peer));
        let pipes = Pipes::default();
        assert!(pipes.take().unwrap().fill(file.as_fd(), 300_000, 200_000).is_err(), "beyond the end of the file");
        let mut expected = Vec::new();
        for (offset, length) in [(0, 65_536), (512, 262_144), (137_856, 262_144)] {
            let mut pipe = pipes.take().unwrap();
            pipe.fill(file.as_fd(), offset, length).unwrap();
            wire.out.header_alone(&header(0x25, 0x80, 1), length);
            expected.extend_from_slice(wire.out.bytes());
            expected.extend_from_slice(&content[offset as usize..][..length]);
            wire.flush_with(&mut pipe).unwrap();
            pipes.give_back(pipe);
        }
        drop(wire);
        assert!(reader.join().unwrap() == expected);
    }
}
