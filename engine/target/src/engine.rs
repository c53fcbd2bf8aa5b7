//! The engine's state: what the group has pushed, and who is logged in. Everything here is in memory; the volumes are in
//! the store.
//!
//! Locks are taken in this order: `policy`, `sessions`, a gate. A login is decided and entered under `policy` (shared), a
//! change of policy under `policy` (exclusive): so after a change has been answered no login that was decided before it
//! is still about to appear.

use crate::access;
use crate::connection::busy_poll::Pollers;
use crate::connection::pipe::Pipes;
use crate::export::Export;
use crate::gate::Gate;
use crate::log;
use crate::persistent;
use crate::sanitize;
use crate::sessions::{SessionEntry, Sessions, attention};
use gespann_control::messages::{ChapUser, Code, Configure, Refusal, Target};
use gespann_iscsi::chap::Secret;
use gespann_iscsi::login::Identity;
use gespann_iscsi::{Budget, LoginStatus, text};
use gespann_scsi::mode::Settings;
use gespann_store::memory::MemoryVolume;
use gespann_store::{Store, Volume, VolumeId};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

pub const MAX_SESSIONS: usize = 8192;
/// Of one address: a host with a disk for each of a few thousand machines, and not all there are.
const MAX_SESSIONS_OF_ADDRESS: usize = 6144;
/// Of one initiator name on one target: enough for many paths, too few to keep others out.
const MAX_SESSIONS_OF_INITIATOR: usize = 32;
/// Write data on its way, in all sessions together.
pub const WRITE_DATA_BYTES: u64 = 256 << 20;
/// A login that takes the place of a session waits this long for that session's last command.
const REPLACED_DRAIN: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Policy {
    pub configured: bool,
    pub exports: BTreeMap<VolumeId, Arc<Export>>,
    by_name: HashMap<String, VolumeId>,
    pub chap_users: HashMap<String, Secret>,
    pub mutual: Option<(String, Secret)>,
    pub portal_address: String,
}

impl Policy {
    pub fn find(&self, target_name: &str) -> Option<&Arc<Export>> {
        self.by_name.get(&target_name.to_ascii_lowercase()).and_then(|id| self.exports.get(id))
    }

    fn forget_name(&mut self, target_name: &str, owner: VolumeId) {
        let name = target_name.to_ascii_lowercase();
        if self.by_name.get(&name) == Some(&owner) {
            self.by_name.remove(&name);
        }
    }

    /// Not if a CHAP user has the same secret: our response to an initiator's challenge would let that initiator log in
    /// as this user, with our challenge of another connection (RFC 7143 12.1.3: different secrets in both directions).
    pub fn usable_mutual(&self) -> Option<(String, Secret)> {
        let (name, secret) = self.mutual.as_ref()?;
        if self.chap_users.values().any(|other| other == secret) {
            log!(Warning, "mutual CHAP is refused: a CHAP user has the same secret");
            return None;
        }
        Some((name.clone(), secret.clone()))
    }
}

/// How many sessions there may be.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    pub in_all: usize,
    pub of_address: usize,
    pub of_initiator: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        let (of_address, of_initiator) = (MAX_SESSIONS_OF_ADDRESS, MAX_SESSIONS_OF_INITIATOR);
        Self { in_all: MAX_SESSIONS, of_address, of_initiator }
    }
}

#[derive(Debug)]
pub struct Engine {
    pub store: Arc<dyn Store>,
    pub boot_id: String,
    pub sessions: Sessions,
    pub session_limits: SessionLimits,
    pub write_data: Arc<Budget>,
    pub pollers: Pollers,
    pub pipes: Pipes,
    /// For measuring only: what is written is in memory, and lost with the target.
    pub memory_volumes: bool,
    policy: RwLock<Policy>,
    /// A gate outlives its target: what was admitted before a target went away is still drained.
    gates: Mutex<HashMap<VolumeId, Arc<Gate>>>,
    next_session: AtomicU64,
}

fn checked_target(target: &Target) -> Result<VolumeId, Refusal> {
    let wrong = |what: &str| Err(Refusal::bad_request(format!("target {:?}: {what}", target.name)));
    if !text::is_iscsi_name(&target.name) {
        return wrong("the name is no iSCSI name");
    }
    if !target.naa.is_empty() && target.naa.parse::<VolumeId>().is_err() {
        return wrong("naa must be 32 lower-case hex digits");
    }
    if !matches!(target.block_size, 512 | 4096) {
        return wrong("block_size must be 512 or 4096");
    }
    if !matches!(target.physical_block_size, 0 | 512 | 4096) || (1..target.block_size).contains(&target.physical_block_size) {
        return wrong("physical_block_size must be 512 or 4096, not below block_size, or 0");
    }
    if target.vendor.len() > 8 || target.product.len() > 16 || target.revision.len() > 4 {
        return wrong("vendor, product or revision is too long (8, 16, 4 bytes)");
    }
    if !target.writer.is_empty() && !text::is_iscsi_name(&target.writer) {
        return wrong("the writer is no iSCSI name");
    }
    if let Some(record) = target.access.iter().find(|record| !access::address_is_valid(&record.address)) {
        return wrong(&format!("{:?} is no address pattern", record.address));
    }
    target.volume.parse().map_err(|reason: String| Refusal::bad_request(reason))
}

fn checked_user(user: &ChapUser) -> Result<(String, Secret), Refusal> {
    if user.user.is_empty() || user.user.len() > 255 || user.secret.bytes().is_empty() || user.secret.bytes().len() > 255 {
        return Err(Refusal::bad_request("a CHAP user and its secret have 1 to 255 bytes each"));
    }
    Ok((user.user.clone(), Secret::new(user.secret.bytes().to_vec())))
}

impl Engine {
    pub fn new(store: Arc<dyn Store>, boot_id: String) -> Self {
        Self {
            store,
            boot_id,
            sessions: Sessions::default(),
            session_limits: SessionLimits::default(),
            write_data: Budget::new(WRITE_DATA_BYTES),
            pollers: Pollers::default(),
            pipes: Pipes::default(),
            memory_volumes: false,
            policy: RwLock::default(),
            gates: Mutex::default(),
            next_session: AtomicU64::new(1),
        }
    }

    pub fn policy(&self) -> RwLockReadGuard<'_, Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn policy_mut(&self) -> RwLockWriteGuard<'_, Policy> {
        self.policy.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn gate(&self, volume: VolumeId) -> Arc<Gate> {
        self.gates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(volume)
            .or_insert_with(|| sanitize::gate_as_kept(&self.store, volume))
            .clone()
    }

    pub fn forget_gate(&self, volume: VolumeId) {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).remove(&volume);
    }

    /// The whole policy at once: all of it is checked before any of it is in force.
    pub fn configure(&self, request: Configure) -> Result<(), Refusal> {
        let mut policy = self.policy_mut();
        let mut wanted = BTreeMap::new();
        let mut names = HashMap::new();
        for target in request.targets {
            let id = checked_target(&target)?;
            if names.insert(target.name.to_ascii_lowercase(), id).is_some() || wanted.contains_key(&id) {
                return Err(Refusal::bad_request(format!("target {:?} or its volume is named twice", target.name)));
            }
            self.check_volume(id, &target)?;
            wanted.insert(id, target);
        }
        let users: HashMap<_, _> = request.chap_users.iter().map(checked_user).collect::<Result<_, _>>()?;
        let mutual = request.mutual.as_ref().map(checked_user).transpose()?;
        if !request.portal_address.is_empty() && !request.portal_address.contains(':') {
            return Err(Refusal::bad_request("portal_address must be host:port"));
        }
        let gone: Vec<_> = policy.exports.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        gone.into_iter().for_each(|id| self.take_away(&mut policy, id));
        // Names may move from one volume to another; that each is there once has been checked.
        policy.by_name.clear();
        for (id, target) in wanted {
            self.put(&mut policy, id, target)?;
        }
        (policy.chap_users, policy.mutual, policy.portal_address) = (users, mutual, request.portal_address);
        policy.configured = true;
        Ok(())
    }

    fn check_volume(&self, id: VolumeId, target: &Target) -> Result<(), Refusal> {
        let volume = self.store.open(id).map_err(crate::api::refusal)?;
        if volume.size_bytes() % u64::from(target.block_size) != 0 {
            return Err(Refusal::bad_request(format!("the size of volume {id} is no multiple of its block size")));
        }
        Ok(())
    }

    fn open_volume(&self, id: VolumeId) -> Result<Arc<dyn Volume>, Refusal> {
        let volume = self.store.open(id).map_err(crate::api::refusal)?;
        if self.memory_volumes { Ok(Arc::new(MemoryVolume::new(volume.size_bytes() as usize))) } else { Ok(volume) }
    }

    pub fn put_target(&self, target: Target) -> Result<(), Refusal> {
        let id = checked_target(&target)?;
        let mut policy = self.policy_mut();
        self.check_volume(id, &target)?;
        self.put(&mut policy, id, target)
    }

    fn put(&self, policy: &mut Policy, id: VolumeId, target: Target) -> Result<(), Refusal> {
        let name = target.name.to_ascii_lowercase();
        if policy.by_name.get(&name).is_some_and(|owner| *owner != id) {
            return Err(Refusal::new(Code::Exists, format!("another volume has the target name {name:?}")));
        }
        let gate = self.gate(id);
        gate.set_generation(target.generation);
        if gate.give_right(&target.writer) {
            let writer = if target.writer.is_empty() { "whoever is logged in" } else { &target.writer };
            log!(Info, "volume {id}: the right to write is now of {writer}");
        }
        let (generation, online) = (target.generation, target.online);
        match policy.exports.get(&id).cloned() {
            Some(export) => {
                let before = export.target();
                policy.forget_name(&before.name, id);
                let identity_changed = before.block_size != target.block_size
                    || before.physical_block_size != target.physical_block_size
                    || before.naa != target.naa;
                let parameters_changed = before.read_only != target.read_only;
                if before.generation != target.generation {
                    export.set_settings(Settings::default()); // initiators' settings go with their lease
                }
                export.set_target(target);
                // A disk does not change its nature under a session: the initiator has to look again.
                self.sessions.drop_where(id, |_| identity_changed || !online);
                if parameters_changed {
                    self.attend(id, attention::PARAMETERS, None);
                }
            }
            None => {
                let volume = self.open_volume(id)?;
                policy.exports.insert(id, Arc::new(Export::new(id, gate, volume, target)));
            }
        }
        // Their commands are refused from here on; revoking them keeps it so if the generation ever came back.
        for entry in self.sessions.of_volume(id).iter().filter(|entry| entry.ticket.generation != generation) {
            log!(
                Info,
                "session {}: over, its generation {} is not {generation}",
                entry.ticket.session,
                entry.ticket.generation
            );
            entry.export.gate.outdate(&entry.ticket);
        }
        policy.by_name.insert(name, id);
        Ok(())
    }

    fn take_away(&self, policy: &mut Policy, id: VolumeId) {
        if let Some(export) = policy.exports.remove(&id) {
            policy.forget_name(&export.target().name, id);
        }
        self.sessions.drop_where(id, |_| true);
    }

    pub fn remove_target(&self, id: VolumeId) {
        self.take_away(&mut self.policy_mut(), id);
    }

    /// From now on every login is told to come again later, as before `configure`.
    pub fn close(&self) {
        self.policy_mut().configured = false;
        let gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.values().for_each(|gate| gate.sanitizing.stop());
    }

    pub fn put_chap_user(&self, user: &ChapUser) -> Result<(), Refusal> {
        let (name, secret) = checked_user(user)?;
        self.policy_mut().chap_users.insert(name, secret);
        Ok(())
    }

    pub fn remove_chap_user(&self, user: &str) {
        self.policy_mut().chap_users.remove(user);
    }

    pub fn set_mutual(&self, credential: Option<&ChapUser>) -> Result<(), Refusal> {
        self.policy_mut().mutual = credential.map(checked_user).transpose()?;
        Ok(())
    }

    /// A unit attention for all sessions of a volume but one.
    pub fn attend(&self, volume: VolumeId, bits: u32, except: Option<u64>) {
        for entry in self.sessions.of_volume(volume) {
            if Some(entry.ticket.session) != except {
                entry.attend(bits);
            }
        }
    }

    /// May this initiator try, and must it do CHAP? Discovery is open to all: it shows only what the asker may use.
    pub fn may_try(&self, identity: &Identity, address: IpAddr) -> Result<bool, LoginStatus> {
        let policy = self.policy();
        if !policy.configured {
            return if identity.target.is_none() { Ok(false) } else { Err(LoginStatus::UNAVAILABLE) };
        }
        let Some(name) = &identity.target else { return Ok(false) };
        let target = policy.find(name).map(|export| export.target()).filter(|target| target.online);
        let target = target.ok_or(LoginStatus::NOT_FOUND)?;
        access::chap_required(&target.access, &identity.initiator, address).ok_or(LoginStatus::FORBIDDEN)
    }

    /// The last word on a login: everything is checked against the policy of this instant, and the session is entered.
    pub fn establish(
        &self,
        identity: &Identity,
        address: IpAddr,
        stream: &Arc<TcpStream>,
    ) -> Result<Arc<SessionEntry>, LoginStatus> {
        // The initiator sends again what its old session has not answered: a write of that session must not land later
        // than what the new one writes. Without `policy`, so that a volume that stands still holds up no other request.
        let replaced = {
            let policy = self.policy();
            let export = self.admitted(&policy, identity, address)?;
            self.reinstate(&export, identity)
        };
        if replaced.is_some_and(|gate| !gate.drain_commands(REPLACED_DRAIN)) {
            return Err(LoginStatus::UNAVAILABLE);
        }
        let policy = self.policy();
        let export = self.admitted(&policy, identity, address)?;
        self.enter(&export, identity, address, stream)
    }

    fn admitted(&self, policy: &Policy, identity: &Identity, address: IpAddr) -> Result<Arc<Export>, LoginStatus> {
        let name = identity.target.as_deref().unwrap_or_default();
        if !policy.configured {
            return Err(LoginStatus::UNAVAILABLE);
        }
        let export = policy.find(name).filter(|export| export.target().online).ok_or(LoginStatus::NOT_FOUND)?;
        let target = export.target();
        if !access::admits(&target.access, &identity.initiator, address, identity.chap_user.as_deref()) {
            return Err(LoginStatus::FORBIDDEN);
        }
        Ok(export.clone())
    }

    /// Called with `policy` held, so that no change of it comes between admission and this.
    fn enter(
        &self,
        export: &Arc<Export>,
        identity: &Identity,
        address: IpAddr,
        stream: &Arc<TcpStream>,
    ) -> Result<Arc<SessionEntry>, LoginStatus> {
        let (name, multihost) = (identity.target.as_deref().unwrap_or_default(), export.target().multihost);
        let mut entries = self.sessions.lock();
        let living = || entries.values().filter(|entry| entry.export.id == export.id && entry.ticket.alive());
        let stranger = living().find(|entry| !entry.initiator.eq_ignore_ascii_case(&identity.initiator));
        if let Some(other) = stranger.filter(|_| !multihost) {
            log!(
                Warning,
                "{} refused at {name}: {} is using it and it is not for several hosts",
                identity.initiator,
                other.initiator
            );
            return Err(LoginStatus::FORBIDDEN);
        }
        let own = || living().filter(|entry| entry.initiator.eq_ignore_ascii_case(&identity.initiator));
        if own().any(|entry| entry.isid == identity.isid) {
            return Err(LoginStatus::UNAVAILABLE); // it logs in twice at the same time, and this is the later one
        }
        let limits = &self.session_limits;
        let from_here = || entries.values().filter(|entry| entry.address == address);
        if entries.len() >= limits.in_all
            || own().count() >= limits.of_initiator
            || (entries.len() >= limits.of_address && from_here().count() >= limits.of_address)
        {
            return Err(LoginStatus::OUT_OF_RESOURCES);
        }
        let session = self.next_session.fetch_add(1, Ordering::Relaxed);
        let tsih = (session % 0xffff) as u16 + 1;
        let ticket = export.gate.ticket(session, persistent::port_name(identity));
        let entry = Arc::new(SessionEntry::new(ticket, export.clone(), identity, address, tsih, stream.clone()));
        entries.insert(session, entry.clone());
        Ok(entry)
    }

    /// The same initiator port logging in again means that its old session is dead (RFC 7143 6.3.5).
    /// The gate to be drained, if a session is being replaced.
    fn reinstate(&self, export: &Export, identity: &Identity) -> Option<Arc<Gate>> {
        let same =
            |entry: &SessionEntry| entry.isid == identity.isid && entry.initiator.eq_ignore_ascii_case(&identity.initiator);
        let replaced = self.sessions.drop_where(export.id, same);
        if replaced > 0 {
            log!(Info, "{}: a new session takes the place of {replaced}", identity.initiator);
        }
        // It is in the list until its thread has ended, also when an earlier login gave up waiting for it.
        let not_ended = self.sessions.of_volume(export.id).iter().any(|entry| same(entry));
        not_ended.then(|| export.gate.clone())
    }

    /// Names and portal of what the asker may use; `wanted` is one name, or empty for all.
    pub fn discover(&self, identity: &Identity, address: IpAddr, local: SocketAddr, wanted: &str) -> Vec<(String, String)> {
        let policy = self.policy();
        let portal = if policy.portal_address.is_empty() { local.to_string() } else { policy.portal_address.clone() };
        let user = identity.chap_user.as_deref();
        let targets = policy.exports.values().map(|export| export.target());
        let visible = targets.filter(|target| {
            let named = wanted.is_empty() || target.name.eq_ignore_ascii_case(wanted);
            target.online && named && access::discoverable(&target.access, &identity.initiator, address, user)
        });
        visible.map(|target| (target.name.clone(), format!("{portal},1"))).collect()
    }
}

#[cfg(test)]
pub mod one_volume;
#[cfg(test)]
mod tests;
