//! A machine with a controller: start, recovery, the ways to die.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_controller::{
    Controller, ControllerConfig, ControllerListener, DynamicQuorum, VoterEndpoint, write_voters,
};
use klamm_env::{Env, Fs};
use klamm_records::Uuid;

use super::super::Run;
use super::super::lying::{Lies, LyingFs};
use super::transport::Way;
use super::world::{CLUSTER_ID, Witness, World};
use super::{Flaw, spoil};
use crate::clock::NodeClock;
use crate::{Errno, Process, SimFs, SimRng};

const DIR: &str = "/metadata";
/// Where controllers listen, from this port on.
const FIRST_PORT: u16 = 9000;

/// A machine, and the controller on it if it runs.
pub(in crate::scenarios) struct Node {
    pub(in crate::scenarios) id: i32,
    pub(in crate::scenarios) clock: NodeClock,
    fs: SimFs,
    disk: Arc<dyn Fs>,
    rng: SimRng,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    process: Option<Process>,
    controller: Option<Controller>,
    /// Whether the disk has failed since the machine was started.
    disturbed: bool,
    /// The vote as it was a life ago, for the flaw that brings it back.
    earlier_vote: Option<Vec<u8>>,
    /// How many disks it has lost.
    disks_lost: u8,
}

impl Node {
    pub(in crate::scenarios) fn new(id: i32, run: &Run, flaw: Flaw) -> Node {
        let rng = run.rng.fork("controller");
        let fs = SimFs::new(rng.fork("fs"), run.clock.clone(), run.trace.clone());
        let disk: Arc<dyn Fs> = match flaw {
            Flaw::SyncsLie => Arc::new(LyingFs {
                fs: fs.clone(),
                lies: Lies {
                    syncs: false,
                    ..Lies::NONE
                },
            }),
            _ => Arc::new(fs.clone()),
        };
        Node {
            id,
            clock: NodeClock::new(&run.clock),
            fs,
            disk,
            rng,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The controller, if it has started.
    pub(in crate::scenarios) fn controller(&self) -> Option<Controller> {
        self.state().controller.clone()
    }

    /// The process, if there is one, whether the controller in it has started or not.
    pub(in crate::scenarios) fn process(&self) -> Option<Process> {
        self.state().process
    }

    /// Starts the controller, unless it runs.
    pub(in crate::scenarios) fn start(&self, world: &World) {
        if self.process().is_some() {
            return;
        }
        world.note(format_args!("{} starts", self.id));
        let dir = self.dir();
        let made = self.fs.create_dir_all(&dir);
        let made = made.and_then(|()| self.fs.sync_dir(Path::new("/")));
        let mut earlier = self.state().earlier_vote.take();
        let spoil = |()| spoil::restart(world.flaw, &self.fs, &dir, &mut earlier);
        let spoilt = made.and_then(spoil);
        let spoilt = spoilt.and_then(|()| self.format(world));
        self.state().earlier_vote = earlier;
        if let Err(error) = spoilt {
            world.fail("setup", error.to_string());
        }
        let env = Env {
            clock: Arc::new(self.clock.clone()),
            rng: Arc::new(self.rng.fork("process")),
            fs: Arc::clone(&self.disk),
        };
        let process = world.executor.new_process();
        self.state().process = Some(process);
        world.known().images.began(self.id);
        let name = format!("controller {}", self.id);
        let life = live(world.clone(), self.id, process, env);
        world.executor.spawn_in(process, name, life);
    }

    /// The process is gone; with `power_cut`, so is what the machine had not synced.
    pub(in crate::scenarios) fn die(&self, world: &World, power_cut: bool) {
        world.net.hang_up(self.id);
        let (process, controller) = {
            let mut state = self.state();
            (state.process.take(), state.controller.take())
        };
        if let Some(process) = process {
            world.executor.resume(process);
            world.executor.end(process);
        }
        drop(controller);
        // Who has failed once may go on showing what it has lost, until the machine is restarted.
        if power_cut || self.state().disturbed {
            world.note(format_args!("{} loses power", self.id));
            self.fs.crash();
            self.fs.set_faults(crate::Faults::default());
            self.state().disturbed = false;
        } else {
            world.note(format_args!("{} is killed", self.id));
            self.fs.kill();
        }
    }

    /// The machine dies, and comes back with another disk.
    pub(super) fn lose_disk(&self, world: &World) {
        self.die(world, true);
        let lost = self.dir();
        match self.fs.remove_dir_all(&lost) {
            // The one before was lost, too, and it has not started since.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => world.fail("setup", error.to_string()),
            Ok(()) => {}
        }
        self.state().disks_lost += 1;
        world.note(format_args!("{} has lost its disk", self.id));
    }

    /// The metadata directory: each disk has its own.
    fn dir(&self) -> PathBuf {
        match self.state().disks_lost {
            0 => DIR.into(),
            lost => format!("{DIR}-{lost}").into(),
        }
    }

    /// The id of that directory.
    pub(super) fn directory_id(&self) -> Uuid {
        directory_id(self.id, self.state().disks_lost)
    }

    /// Formats the first disk of one of the first voters.
    fn format(&self, world: &World) -> std::io::Result<()> {
        let (dir, lost) = (self.dir(), self.state().disks_lost);
        let Some(dynamic) = &world.plan.dynamic else {
            return Ok(());
        };
        if lost > 0 || !dynamic.initial.contains(&self.id) || !self.fs.read_dir(&dir)?.is_empty() {
            return Ok(());
        }
        let voter = |id: &i32| (*id, (directory_id(*id, 0), vec![endpoint(*id)]));
        let voters = dynamic.initial.iter().map(voter).collect();
        let env = Env {
            clock: Arc::new(self.clock.clone()),
            rng: Arc::new(self.rng.fork("format")),
            fs: Arc::new(self.fs.clone()),
        };
        write_voters(&env, &dir, &voters, 0)
    }

    /// A call of the disk will fail.
    pub(in crate::scenarios) fn break_disk(&self, calls: u64, errno: Errno) {
        self.state().disturbed = true;
        self.fs.fail_after(calls, errno);
    }

    /// The machine loses power in the middle of what it writes.
    pub(in crate::scenarios) fn pull_plug(&self, calls: u64) {
        self.state().disturbed = true;
        self.fs.power_off_after(calls);
    }

    fn config(&self, world: &World) -> ControllerConfig {
        let own = endpoint(self.id);
        let (all, dynamic) = (&world.plan.controllers, &world.plan.dynamic);
        let others = all.iter().filter(|id| **id != self.id && dynamic.is_none());
        ControllerConfig {
            cluster_id: Some(CLUSTER_ID.to_owned()),
            listeners: vec![ControllerListener {
                name: own.name,
                host: own.host,
                port: own.port,
                security_protocol: 0,
            }],
            other_voters: others.map(|id| (*id, vec![endpoint(*id)])).collect(),
            dynamic: dynamic.as_ref().map(|dynamic| DynamicQuorum {
                bootstrap_servers: all.iter().map(|id| endpoint(*id)).collect(),
                auto_join: dynamic.auto_join,
            }),
            transport: Some(Arc::new(Way {
                world: world.clone(),
                from: self.id,
            })),
            election_timeout: world.plan.election,
            request_timeout: world.plan.election,
            entries_kept: world.plan.entries_kept,
            session_timeout: world.plan.session,
            leader_balance_interval: Some(world.plan.balance[0]),
            unclean_election_interval: world.plan.balance[1],
            snapshot_log_bytes: world.plan.snapshot_bytes,
            snapshot_interval: world.plan.snapshots.map(|(every, _)| every),
            metadata_log: world.plan.metadata_log(),
            ..ControllerConfig::new(
                self.id,
                self.dir(),
                self.directory_id(),
                world.schema.clone(),
            )
        }
    }
}

/// Where a controller listens.
pub(super) fn endpoint(id: i32) -> VoterEndpoint {
    VoterEndpoint {
        name: "CONTROLLER".to_owned(),
        host: "localhost".to_owned(),
        port: FIRST_PORT + id.unsigned_abs() as u16,
    }
}

/// Which controller listens there.
pub(super) fn at(endpoint: &VoterEndpoint) -> i32 {
    i32::from(endpoint.port) - i32::from(FIRST_PORT)
}

/// The id of the directory on a disk, of which so many were lost before.
pub(super) fn directory_id(id: i32, lost: u8) -> Uuid {
    let mut bytes = [id.unsigned_abs() as u8; 16];
    bytes[15] += lost * 16;
    Uuid::from_bytes(bytes)
}

/// From the start on: recovers, and serves.
async fn live(world: World, id: i32, process: Process, env: Env) {
    let Some(node) = world.nodes.get(&id) else {
        return;
    };
    match Controller::start(node.config(&world), env).await {
        Ok(controller) => {
            let witness = Witness {
                world: world.clone(),
                who: id,
            };
            controller.subscribe(Arc::new(witness)).await;
            node.state().controller = Some(controller);
            world.net.listen(id, process);
            world.note(format_args!("{id} runs"));
        }
        Err(error) => {
            world.note(format_args!("{id} cannot start: {error}"));
            let disturbed = node.state().disturbed;
            if !disturbed {
                let detail = format!("{id} cannot start: {}", chain(&error));
                world.fail("recovery", detail);
            }
        }
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
