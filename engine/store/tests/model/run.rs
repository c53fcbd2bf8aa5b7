//! One run: steps, crashes, recoveries, and after each the comparison with what was promised.

use crate::operation::{Failure, Operation};
use crate::sectors::Since;
use crate::step::{Choice, Config, Step, Verb};
use crate::subject::{Running, Subject};
use crate::usage::Figures;
use crate::world::{World, letter};
use fastrand::Rng;
use gespann_store::disk::{SimDisk, sim};
use gespann_store::{Limit, VolumeId};

/// Background work that has not come to an end after so many pieces never will.
const MOST_PIECES: u32 = 100_000;

/// A store may need so much more for a moment when it is opened: a log and a checkpoint beside the old ones.
const ROOM_TO_OPEN_BYTES: u64 = 16 << 20;

pub struct Run<'a> {
    subject: &'a dyn Subject,
    config: Config,
    disk: SimDisk,
    running: Option<Box<dyn Running>>,
    world: World,
    /// A request that failed on the way: it may turn out to be done when the store is opened anew.
    limbo: Option<Operation>,
    /// Faults that had struck when the store was opened. Errors are expected when there are more now.
    faults_before: usize,
    syncs_failed: usize,
    syncs_failed_before: usize,
    capacity: u64,
    /// The store has been told how much may be occupied.
    limited: bool,
    /// How the process ends that `arm` has ended: the seed of a loss of power.
    power: Option<u64>,
    chance: Rng,
    /// What was done, as a person reads it.
    pub story: Vec<String>,
    pub crashes: u32,
}

type Outcome = Result<(), String>;

impl<'a> Run<'a> {
    pub fn new(subject: &'a dyn Subject, config: Config) -> Result<Self, String> {
        let disk = SimDisk::new(config.seed);
        let mut run = Self {
            subject,
            config,
            disk,
            running: None,
            world: World::default(),
            limbo: None,
            faults_before: 0,
            syncs_failed: 0,
            syncs_failed_before: 0,
            capacity: 1 << 50,
            limited: false,
            power: None,
            chance: Rng::with_seed(config.seed ^ 0x5eed),
            story: Vec::new(),
            crashes: 0,
        };
        run.open().map_err(|error| format!("the first start: {error}"))?;
        Ok(run)
    }

    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    fn chunk_bytes(&self) -> u64 {
        self.config.options.chunk_bytes
    }

    fn running(&self) -> &dyn Running {
        self.running.as_deref().expect("open between steps")
    }

    fn open(&mut self) -> Outcome {
        self.running = Some(self.subject.open(&self.disk, self.config.options).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn say(&mut self, text: impl Into<String>) {
        self.story.push(text.into());
    }

    /// Has a fault struck since the store was opened?
    fn faulty(&self) -> bool {
        self.disk.fired().len() > self.faults_before
    }

    pub fn step(&mut self, number: u64, step: Step) -> Outcome {
        match step.verb {
            Verb::Reopen => self.recover(Since::ProcessDeath, None, "the process ends and starts again"),
            Verb::Look => {
                self.say("look at everything");
                self.disk.clear_faults();
                self.compare(Since::Running)
            }
            Verb::Crash => {
                let (calls, power) = Choice::new(step, &self.world, &self.config).crash();
                self.arm(calls, power);
                Ok(())
            }
            Verb::Fault => {
                let fault = Choice::new(step, &self.world, &self.config).fault();
                self.fault(fault);
                Ok(())
            }
            Verb::Fill if !self.subject.deletes_when_full() => Ok(()),
            Verb::Fill => self.fill(Choice::new(step, &self.world, &self.config).room()),
            Verb::Limit if !self.subject.has_limits() => Ok(()),
            Verb::Limit => {
                let (room, at_rest) = Choice::new(step, &self.world, &self.config).limit();
                if at_rest {
                    self.come_to_rest()?;
                }
                self.limit(room)
            }
            verb => match Choice::new(step, &self.world, &self.config).operation(verb, number) {
                Some(operation) => self.perform(&operation),
                None => Ok(()),
            },
        }
    }

    pub fn arm(&mut self, calls: u64, power: Option<u64>) {
        self.say(format!(
            "(after {calls} more calls of the disk: {})",
            if power.is_some() { "no power" } else { "the process dies" }
        ));
        self.disk.crash_after(calls);
        self.power = power;
    }

    pub fn fault(&mut self, fault: sim::Fault) {
        let calls = fault.operation.map_or("all".to_owned(), |operation| format!("{operation:?}"));
        self.say(format!("(of {calls} calls the one after {} more fails: errno {})", fault.after, fault.errno));
        self.disk.plan(fault);
    }

    pub fn perform(&mut self, operation: &Operation) -> Outcome {
        self.say(operation.to_string());
        let struck = self.disk.fired();
        if self.limited {
            // As another thread does all the time. Where it cannot, what it said before stays so.
            let _ = self.running().store().watch_space();
        }
        let outcome = operation.run(self.running(), &self.world);
        if self.disk.is_dead() {
            return self.die_in(operation);
        }
        let sync_failed = self.note_failed_syncs();
        match outcome {
            Ok(()) => self.done(operation)?,
            Err(Failure::Wrong(error)) if !sync_failed => return Err(error),
            Err(failure) => self.failed(operation, failure, struck.len())?,
        }
        if sync_failed { self.look_after_failure() } else { Ok(()) }
    }

    fn done(&mut self, operation: &Operation) -> Outcome {
        if let Operation::Flush { id } = operation {
            if self.world.volumes[id].poisoned {
                return Err(format!("{} was flushed, but an earlier flush had failed", letter(*id)));
            }
        }
        operation.apply(&mut self.world, self.config.options.chunk_bytes);
        operation.promise(&mut self.world);
        Ok(())
    }

    fn failed(&mut self, operation: &Operation, failure: Failure, struck_before: usize) -> Outcome {
        let struck = self.disk.fired()[struck_before..].to_vec();
        self.say(format!("  failed: {failure:?}"));
        let expected = match failure {
            Failure::Full if self.config.full || struck.iter().any(|(_, errno)| *errno == libc::ENOSPC) => true,
            Failure::Full => self.limited && operation.target().is_some_and(|range| !self.world.is_sure(range.id)),
            _ => self.faulty(),
        };
        if !expected {
            return Err(format!("{operation}: {failure:?}"));
        }
        let full = matches!(failure, Failure::Full);
        if let (Operation::Flush { id }, false) = (operation, full) {
            self.world.volume(*id).poisoned = true;
            if operation.run(self.running(), &self.world).is_ok() && !self.disk.is_dead() {
                return Err(format!("{operation} failed, and then did not"));
            }
        }
        if operation.is_control() {
            if full && !self.faulty() {
                return self.look_after_failure(); // nothing has changed
            }
            self.limbo = Some(operation.clone());
            let power = self.chance.bool().then(|| self.chance.u64(..));
            let since = if power.is_some() { Since::PowerLoss } else { Since::ProcessDeath };
            return self.recover(since, power, "after the failed request the store is opened anew");
        }
        if let Some(range) = operation.target() {
            operation.apply(&mut self.world, self.config.options.chunk_bytes);
            self.world.volume(range.id).sectors.write_failed(range.from, range.to);
            if full && self.limited && !self.config.full && !self.faulty() {
                return self.lift_limit(operation);
            }
            if full && !self.limited && !self.faulty() && self.chance.bool() {
                return self.relieve(operation, range.id);
            }
        }
        self.look_after_failure()
    }

    /// The disk was full. All volumes but those that the write is about are deleted, and it must go on.
    fn relieve(&mut self, operation: &Operation, id: VolumeId) -> Outcome {
        self.look_after_failure()?;
        for other in self
            .world
            .volumes
            .keys()
            .copied()
            .filter(|other| *other != id && operation.source() != Some(*other))
            .collect::<Vec<_>>()
        {
            self.perform(&Operation::Delete { id: other })?;
            if self.world.volumes.contains_key(&other) || !self.world.volumes.contains_key(&id) {
                return Ok(()); // it died or failed on the way
            }
        }
        self.all_background()?;
        let free = self.capacity.saturating_sub(self.disk.allocated_bytes());
        if self.disk.is_dead() || free < 8 * self.chunk_bytes() + (64 << 10) {
            return Ok(());
        }
        self.say(format!("{operation}, once more"));
        let outcome = operation.run(self.running(), &self.world);
        match outcome {
            _ if self.disk.is_dead() => self.die_in(operation),
            Ok(()) => self.done(operation),
            Err(failure) => Err(format!("{free} bytes are free again, and still {operation}: {failure:?}")),
        }
    }

    /// Everything is durable, and what was let go is given back.
    fn come_to_rest(&mut self) -> Outcome {
        for id in self.world.volumes.keys().copied().collect::<Vec<_>>() {
            if !self.world.volumes.get(&id).is_some_and(|volume| !volume.poisoned) || self.faulty() {
                return Ok(());
            }
            self.perform(&Operation::Flush { id })?;
        }
        for _ in 0..8 {
            self.all_background()?;
        }
        if self.disk.is_dead() {
            return self.die();
        }
        if !self.faulty() {
            self.world.settled();
        }
        Ok(())
    }

    /// So many bytes may be occupied besides those that are; none: any number.
    fn limit(&mut self, room: Option<u64>) -> Outcome {
        self.say(format!("(room for {room:?} bytes more)"));
        let store = self.running().store();
        let set = store.space().and_then(|space| {
            store.set_limit(Limit { limit_bytes: room.map(|room| space.used_bytes + room), warn_percent: 90 })
        });
        match set {
            _ if self.disk.is_dead() => return self.die(),
            Err(error) if !self.faulty() => return Err(format!("no limit can be set: {error}")),
            _ => self.limited = room.is_some() || (self.limited && set.is_err()),
        }
        Ok(())
    }

    /// What a limit has held up goes on without it.
    fn lift_limit(&mut self, operation: &Operation) -> Outcome {
        self.look_after_failure()?;
        if self.chance.bool() || !self.limited {
            return Ok(());
        }
        self.limit(None)?;
        if self.limited || !operation.fits(&self.world) {
            return Ok(());
        }
        self.say(format!("{operation}, once more"));
        match operation.run(self.running(), &self.world) {
            _ if self.disk.is_dead() => self.die_in(operation),
            Ok(()) => self.done(operation),
            Err(_) if self.faulty() => self.failed(operation, Failure::Refused("once more".to_owned()), 0),
            Err(failure) => Err(format!("nothing is limited any more, and still {operation}: {failure:?}")),
        }
    }

    /// After a failed sync, what was not flushed may be lost at any time, in any volume.
    fn note_failed_syncs(&mut self) -> bool {
        let failed = self.disk.fired().iter().filter(|(operation, _)| *operation == sim::Operation::Sync).count();
        let more = failed > self.syncs_failed;
        self.syncs_failed = failed;
        if more {
            self.world.volumes.values_mut().for_each(|volume| volume.sectors.sync_failed());
        }
        more
    }

    fn look_after_failure(&mut self) -> Outcome {
        if self.running.is_none() {
            return Ok(());
        }
        self.disk.clear_faults();
        self.compare(Since::Running)
    }

    fn compare(&mut self, since: Since) -> Outcome {
        let seen = self.world.observe(self.running(), since, self.chunk_bytes());
        if self.disk.is_dead() {
            return self.die();
        }
        if seen.is_err() && self.syncs_failed > self.syncs_failed_before {
            // A store may refuse to read what may be lost.
            return self.recover(Since::ProcessDeath, None, "after the failed sync the store is opened anew");
        }
        let seen = seen?;
        self.world.allows(&seen, since)?;
        self.world.observed(&seen, since, self.config.options.chunk_bytes);
        Ok(())
    }

    fn die_in(&mut self, operation: &Operation) -> Outcome {
        self.say("  ... dies in it");
        self.note_failed_syncs();
        if operation.is_control() {
            self.limbo = Some(operation.clone());
        } else if operation.target().is_some() {
            operation.apply(&mut self.world, self.config.options.chunk_bytes);
        }
        self.die()
    }

    fn die(&mut self) -> Outcome {
        self.crashes += 1;
        let (since, words) = match self.power {
            Some(_) => (Since::PowerLoss, "the power is back"),
            None => (Since::ProcessDeath, "the next process starts"),
        };
        self.recover(since, self.power, words)
    }

    /// Opens the store after its process has ended in whatever way, perhaps dying in that too.
    pub fn recover(&mut self, since: Since, power: Option<u64>, words: &str) -> Outcome {
        let mut since = since;
        let mut power = power;
        self.say(words);
        loop {
            self.running = None;
            self.disk = match power {
                Some(seed) => self.disk.after_power_loss(seed),
                None => self.disk.after_process_death(),
            };
            self.faults_before = self.disk.fired().len();
            self.syncs_failed_before = self.syncs_failed;
            if self.chance.u32(0..8) == 0 {
                let calls = self.chance.u64(0..60);
                self.disk.crash_after(calls);
            }
            self.disk.set_capacity(self.capacity.saturating_add(ROOM_TO_OPEN_BYTES));
            let opened = self.open();
            self.disk.set_capacity(self.capacity);
            if self.disk.is_dead() {
                power = self.chance.bool().then(|| self.chance.u64(..));
                since = if power.is_some() { Since::PowerLoss } else { since };
                let how = if power.is_some() { "loses its power" } else { "dies" };
                self.say(format!("... and {how} while it starts"));
                continue;
            }
            self.disk.stay_alive();
            opened.map_err(|error| format!("cannot be opened: {error}"))?;
            break;
        }
        self.limited = false;
        self.world.settled();
        self.compare_after_recovery(since)?;
        self.check()
    }

    /// With a request under way there are two worlds that it may be, and nothing between.
    fn compare_after_recovery(&mut self, since: Since) -> Outcome {
        let chunk_bytes = self.chunk_bytes();
        let mut worlds: Vec<World> =
            self.limbo.take().map(|operation| self.world.with(&operation, chunk_bytes)).into_iter().collect();
        worlds.push(self.world.clone());
        let mut errors = Vec::new();
        for mut world in worlds {
            let seen = world.observe(self.running(), since, chunk_bytes)?;
            match world.allows(&seen, since) {
                Ok(()) => {
                    world.observed(&seen, since, chunk_bytes);
                    self.world = world;
                    return Ok(());
                }
                Err(error) => errors.push(error),
            }
        }
        Err(match errors.as_slice() {
            [after, before] => format!("neither done ({after}) nor not done ({before})"),
            _ => errors.remove(0),
        })
    }

    fn check(&self) -> Outcome {
        let errors = self.subject.check(&self.disk);
        if errors.is_empty() { Ok(()) } else { Err(format!("the check finds: {}", errors.join("; "))) }
    }

    /// The disk is nearly full for a while; then volumes are deleted and writes must go on.
    fn fill(&mut self, room: u64) -> Outcome {
        let used = self.disk.allocated_bytes();
        self.say(format!("(the disk has {room} bytes left)"));
        self.capacity = used + room;
        self.disk.set_capacity(self.capacity);
        Ok(())
    }

    fn all_background(&mut self) -> Outcome {
        for _ in 0..MOST_PIECES {
            if !self.running().background() || self.disk.is_dead() {
                return Ok(());
            }
        }
        Err("the background work does not come to an end".to_owned())
    }

    fn compare_space(&mut self) -> Outcome {
        for _ in 0..8 {
            self.all_background()?; // what waits for a volume to come to rest is done in a later round
        }
        let wrong = if self.disk.is_dead() { Vec::new() } else { self.running().verify() };
        if !wrong.is_empty() {
            return Err(format!("the store's own counts are wrong: {}", wrong.join("; ")));
        }
        self.check()?;
        let need = self.world.need(self.chunk_bytes());
        let (used, allowed) = (self.subject.occupied(&self.disk)?, self.subject.allowance(need, self.config.options));
        if used > allowed {
            let files: Vec<String> =
                self.disk.files().iter().map(|(name, length, used)| format!("{name} {used} of {length}")).collect();
            return Err(format!("the data occupies {used} bytes, and should {allowed} for {need:?}: {}", files.join(", ")));
        }
        let figures = self.figures()?;
        self.subject.counts_right(&self.disk, &figures)?;
        figures.hold_at_rest(&self.world, self.chunk_bytes())
    }

    fn figures(&self) -> Result<Figures, String> {
        Figures::of(self.running().store(), &self.world).map_err(|error| format!("what is occupied: {error}"))
    }

    /// Deletes a volume: what only it had comes back.
    fn delete_counted(&mut self, id: VolumeId) -> Outcome {
        let before = self.figures()?;
        self.perform(&Operation::Delete { id })?;
        self.compare_space()?;
        before.came_back(id, &self.figures()?, &self.world)
    }

    /// Everything flushed, reclaimed, deleted: nothing may be left over, and nothing missing.
    pub fn finish(&mut self) -> Outcome {
        self.say("the end: everything is flushed and compared, then all but one volume deleted");
        self.disk.clear_faults();
        self.disk.stay_alive();
        self.capacity = 1 << 50;
        self.disk.set_capacity(self.capacity);
        if self.faulty() {
            self.recover(Since::ProcessDeath, None, "the store is opened anew")?;
        }
        if self.limited {
            self.limit(None)?;
        }
        self.compare(Since::Running)?;
        for id in self.world.volumes.keys().copied().collect::<Vec<_>>() {
            self.perform(&Operation::Flush { id })?;
        }
        self.compare_space()?;
        let seed = self.chance.u64(..);
        self.recover(Since::PowerLoss, Some(seed), "no power, and the power is back")?;
        self.compare_space()?;
        for id in self.world.volumes.keys().skip(1).copied().collect::<Vec<_>>() {
            self.delete_counted(id)?;
        }
        self.compare(Since::Running)?;
        for id in self.world.volumes.keys().copied().collect::<Vec<_>>() {
            self.delete_counted(id)?;
        }
        self.recover(Since::PowerLoss, Some(seed), "no power, and the power is back")
    }
}
