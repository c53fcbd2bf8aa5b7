//! The login phase of a connection.

use super::wire::{Wait, Wire, is_timeout};
use super::{End, Timing};
use crate::gatekeeper::Door;
use gespann_iscsi::login::Identity;
use gespann_iscsi::{Established, Login, LoginStep};
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

pub fn log_in(wire: &mut Wire, door: &mut Door<'_>, peer: SocketAddr, timing: Timing) -> Result<Box<Established>, End> {
    let deadline = Instant::now() + timing.login;
    let mut login = Login::new();
    let failed = |error: io::Error| Some(format!("the connection was lost during login: {error}"));
    loop {
        match wire.decoder.next() {
            Err(_) => return Err(Some("bytes that are no login request".to_owned())),
            Ok(Some(pdu)) => {
                let step = login.receive(&pdu, door, &mut wire.out);
                wire.flush().map_err(failed)?;
                match step {
                    LoginStep::Continue => {}
                    LoginStep::Done(established) => return Ok(established),
                    LoginStep::Refused(status, reason) => {
                        let Identity { initiator, target, .. } = login.identity();
                        return Err(Some(format!(
                            "login of {initiator:?} to {target:?} refused with {:#06x}: {reason}",
                            status.0
                        )));
                    }
                }
            }
            Ok(None) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Some(format!("no login within {} s", timing.login.as_secs())));
                }
                wire.stream.set_read_timeout(Some(left)).map_err(failed)?;
                match wire.read(Wait::Asleep) {
                    Ok(1..) => {}
                    Ok(0) => return Err((wire.decoder.received() > 0).then(|| format!("{peer} left during login"))),
                    Err(error) if is_timeout(&error) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
    }
}
