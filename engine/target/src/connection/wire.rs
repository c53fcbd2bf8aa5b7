//! The socket of a connection: what was read, and what is to be sent.

use gespann_iscsi::{Decoder, Out};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

pub const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// The socket with what was read and what is to be sent.
#[derive(Debug)]
pub struct Wire {
    pub stream: Arc<TcpStream>,
    pub decoder: Decoder,
    pub out: Out,
}

impl Wire {
    pub fn prepare(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        self.stream.set_write_timeout(Some(SEND_TIMEOUT))
    }

    pub fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            (&*self.stream).write_all(self.out.bytes())?;
            self.out.clear();
        }
        Ok(())
    }

    /// False at the end of the stream.
    pub fn read(&mut self) -> io::Result<bool> {
        loop {
            match (&*self.stream).read(self.decoder.space()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    self.decoder.filled(count);
                    return Ok(count > 0);
                }
            }
        }
    }
}

pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
