//! Where a broker has its metadata from where controllers are as in production: the controller in
//! its process, or what it fetches and keeps a copy of on its disk.

use std::future::{Future, ready};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use klamm_controller::{Controller, MetadataPublisher, MetadataReplica, MetadataUpdate};
use klamm_metadata::MetadataImage;

use super::super::quorum::Observer;
use super::Flaw;
use super::follow;
use super::node::{self, Broker, Node};
use super::world::World;
use crate::Process;

const DIR: &str = "/metadata";

/// Where the metadata is from.
pub(super) enum Source {
    /// The controller on this machine.
    Local(Controller),
    /// Controllers elsewhere.
    Observed {
        replica: MetadataReplica,
        /// Who leads them in which epoch, as far as it was told.
        leader: Arc<Mutex<Option<(i32, i32)>>>,
    },
}

impl Source {
    fn image(&self) -> Arc<MetadataImage> {
        match self {
            Source::Local(controller) => controller.image(),
            Source::Observed { replica, .. } => replica.image(),
        }
    }
}

impl Broker {
    /// The controller in its process.
    pub(super) fn local(&self) -> Option<&Controller> {
        match self.source.get()? {
            Source::Local(controller) => Some(controller),
            Source::Observed { .. } => None,
        }
    }

    /// The controller that decides, as far as it knows.
    pub(super) fn decider(&self) -> Option<i32> {
        match self.source.get()? {
            Source::Local(controller) => controller.leader(),
            Source::Observed { leader, .. } => {
                let leader = leader.lock().unwrap_or_else(PoisonError::into_inner);
                leader.map(|(leader, _)| leader)
            }
        }
    }
}

/// Finds where the metadata come from; `None` if the disk fails.
pub(super) async fn open(world: &World, broker: &Broker) -> Option<()> {
    let quorum = world.quorum()?;
    quorum.known().images.began(broker.id);
    let source = match world.beside(broker.id) {
        Some((_, beside)) => loop {
            if let Some(controller) = beside.controller() {
                break Source::Local(controller);
            }
            world.sleep_ms(10).await;
        },
        None => observe(world, broker).await?,
    };
    // Nobody else sets it.
    let _ = broker.source.set(source);
    Some(())
}

/// Opens the copy on the disk, and begins to follow.
async fn observe(world: &World, broker: &Broker) -> Option<Source> {
    let options = world.quorum()?.plan.metadata_log();
    let opened = MetadataReplica::open(&broker.env, Path::new(DIR), options).await;
    let replica = opened.map_err(|error| {
        let detail = format!("{} cannot open its metadata: {error}", broker.id);
        node::failed(world, broker.id, detail);
    });
    let replica = replica.ok()?;
    let leader = Arc::default();
    let (there, id) = (world.clone(), broker.id);
    let observer = Observer {
        world: world.quorum()?.clone(),
        who: broker.id,
        replica: replica.clone(),
        leader: Arc::clone(&leader),
        is_disturbed: Arc::new(move || there.nodes.get(&id).is_some_and(Node::is_disturbed)),
        is_faithful: world.flaw == Flaw::FaithfulObservers,
    };
    node::spawn(world, broker, "observer", observer.run());
    Some(Source::Observed { replica, leader })
}

/// Waits for all that was decided until this broker was registered, applies it, and from then on
/// every change.
pub(super) async fn follow(world: &World, broker: &Broker) {
    let Some(source) = broker.source.get() else {
        return;
    };
    while source.image().offset() < broker.epoch() {
        world.sleep_ms(10).await;
    }
    let applier = Arc::new(Applier {
        world: world.clone(),
        id: broker.id,
        process: broker.process,
    });
    match source {
        Source::Local(controller) => controller.subscribe(applier).await,
        Source::Observed { replica, .. } => replica.subscribe(applier).await,
    }
    if let Err(error) = broker.replicas.set_stray_logs_aside() {
        node::failed(world, broker.id, format!("{}: {error}", broker.id));
    }
    world.net.listen(broker.id, broker.process);
}

/// Brings a broker in line with the metadata, as long as it lives. It does not own the broker, which
/// owns who owns this.
struct Applier {
    world: World,
    id: i32,
    process: Process,
}

impl MetadataPublisher for Applier {
    fn publish<'a>(
        &'a self,
        update: &'a MetadataUpdate,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let world = &self.world;
        let running = world.nodes.get(&self.id).and_then(Node::broker);
        let alive = running.filter(|running| running.process == self.process);
        if let (Some(quorum), Some(broker)) = (world.quorum(), alive) {
            quorum.known().saw(broker.id, &update.image);
            follow::apply(world, &broker, &update.delta, &update.image);
        }
        Box::pin(ready(()))
    }
}
