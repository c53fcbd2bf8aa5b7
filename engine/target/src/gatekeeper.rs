//! The engine's policy as the login phase asks for it.

use crate::engine::Engine;
use crate::sessions::SessionEntry;
use gespann_iscsi::chap::Secret;
use gespann_iscsi::login::Identity;
use gespann_iscsi::{Gatekeeper, LoginStatus};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;

/// Keeps the session that `establish` has entered until the connection takes it.
#[derive(Debug)]
pub struct Door<'a> {
    pub engine: &'a Engine,
    pub address: IpAddr,
    pub stream: &'a Arc<TcpStream>,
    pub entry: Option<Arc<SessionEntry>>,
}

impl Gatekeeper for Door<'_> {
    fn chap_required(&mut self, identity: &Identity) -> Result<bool, LoginStatus> {
        self.engine.may_try(identity, self.address)
    }

    fn secret(&mut self, user: &str) -> Option<Secret> {
        self.engine.policy().chap_users.get(user).cloned()
    }

    fn mutual(&mut self) -> Option<(String, Secret)> {
        self.engine.policy().usable_mutual()
    }

    fn fill_random(&mut self, bytes: &mut [u8]) {
        // Without random bytes there is no challenge: the thread ends, and with it this connection.
        getrandom::fill(bytes).expect("the kernel gives random bytes");
    }

    fn establish(&mut self, identity: &Identity) -> Result<u16, LoginStatus> {
        if identity.target.is_none() {
            return Ok(1); // discovery: nothing to enter
        }
        let entry = self.engine.establish(identity, self.address, self.stream)?;
        let tsih = entry.tsih;
        self.entry = Some(entry);
        Ok(tsih)
    }
}
