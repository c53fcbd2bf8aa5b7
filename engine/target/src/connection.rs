//! One TCP connection, from its first byte to its end, on its own thread.
//!
//! All PDUs that one read brings are served before anything is sent, so many answers leave with one write. Files are read
//! and written here, in place: there is no hand-over to another thread.

pub mod busy_poll;
mod commands;
mod full_feature;
mod login;
pub mod pipe;
mod reads;
mod wire;
mod writes;

use crate::engine::Engine;
use crate::gatekeeper::Door;
use crate::log;
use crate::portal::Waiting;
use crate::sessions::SessionEntry;
use full_feature::FullFeature;
use gespann_iscsi::Decoder;
use login::log_in;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use wire::Wire;

const LOGIN_DATA_BYTES: usize = 8192;

#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub login: Duration,
    pub ping_after: Duration,
    pub missed_pings: u32,
    /// For the data of a command, while other sessions wait for the room that it takes.
    pub data: Duration,
    /// How long a session whose next command follows at once stays awake for it.
    pub busy_poll: Duration,
}

/// Why a connection ends, for the log. `None`: in order.
type End = Option<String>;

pub fn serve(engine: &Engine, stream: TcpStream, peer: SocketAddr, timing: Timing, logging_in: Waiting) {
    let stream = Arc::new(stream);
    let mut wire = Wire::new(stream.clone(), Decoder::new(LOGIN_DATA_BYTES));
    let mut door = Door { engine, address: peer.ip().to_canonical(), stream: &stream, entry: None };
    let result =
        wire.prepare().map_err(|error| Some(error.to_string())).and_then(|()| log_in(&mut wire, &mut door, peer, timing));
    // A discovery session has proved nothing: it stays among those that have yet to log in, and does not last.
    let _discovering = door.entry.is_none().then_some(logging_in);
    let entered = door.entry.take().map(|entry| Entered { engine, entry });
    let end = match result {
        Ok(established) => {
            let entry = entered.as_ref().map(|entered| entered.entry.clone());
            FullFeature::run(engine, wire, &established, entry, peer, timing)
        }
        Err(end) => end,
    };
    if let Some(Entered { entry, .. }) = &entered {
        log!(Info, "session {} of {} ended: {}", entry.ticket.session, entry.initiator, end.as_deref().unwrap_or("logged out"));
    } else if let Some(reason) = end {
        log!(Info, "{peer}: {reason}");
    }
}

/// A session that is entered with the engine; it leaves when this is dropped, should its thread panic as well: a volume
/// for one host must not stay taken by nobody.
struct Entered<'a> {
    engine: &'a Engine,
    entry: Arc<SessionEntry>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.engine.sessions.remove(&self.entry);
    }
}
