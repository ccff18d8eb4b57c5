//! How controllers reach each other.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use klamm_controller::{QuorumTransport, VoterEndpoint};

use super::Flaw;
use super::world::World;
use super::{node, spoil};
use crate::NoAnswer;

/// The first bytes of an answer: what kind it is, and in short answers all.
fn outline(answer: &[u8]) -> &[u8] {
    &answer[..answer.len().min(24)]
}

/// How often a controller looks whether the one that leads still listens.
const LOOK_MS: u64 = 200;

/// One controller's way to the others.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) world: World,
    pub(super) from: i32,
}

impl QuorumTransport for Way {
    fn call<'a>(
        &'a self,
        node: i32,
        endpoints: &'a [VoterEndpoint],
        request: Bytes,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send + 'a>> {
        // Whoever listens there, if nobody is named.
        let node = match endpoints {
            [first, ..] if node < 0 => node::at(first),
            _ => node,
        };
        let there = self.world.clone();
        let asked = request.clone();
        let flaw = self.world.flaw;
        let (silence, assent) = match flaw {
            Flaw::SilenceConsents => (spoil::consent(&request), None),
            Flaw::LearnersConsent if !self.world.is_initial(node) => {
                (None, spoil::consent(&request))
            }
            _ => (None, None),
        };
        let serve = move || {
            let controller = there.controller(node);
            let request = match (flaw, there.nodes.get(&node)) {
                (Flaw::DirectoriesIgnored, Some(node)) => {
                    spoil::readdressed(&asked, node.directory_id())
                }
                (Flaw::ChangesUntold, Some(_)) if node % 2 == 0 => spoil::untold(&asked),
                _ => asked.clone(),
            };
            async move { Some(controller?.serve_quorum(&request).await) }
        };
        Box::pin(async move {
            let way = (self.from, node);
            let told = spoil::outline(&request);
            let answer = self.world.net.call(way, "raft", limit, serve).await;
            self.world.note(format_args!(
                "{} calls {node}: {told}, {:?}",
                self.from,
                answer.as_ref().map(|it| it.as_ref().map(|it| outline(it)))
            ));
            if let Some(consent) = assent {
                return Ok(consent);
            }
            match (answer, silence) {
                (Ok(Some(answer)), _) => Ok(answer.into()),
                (_, Some(consent)) => Ok(consent),
                (Ok(None) | Err(NoAnswer::Refused), None) => {
                    Err(io::ErrorKind::ConnectionRefused.into())
                }
                (Err(NoAnswer::TimedOut), None) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
    fn gone<'a>(
        &'a self,
        node: i32,
        _endpoints: &'a [VoterEndpoint],
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            let mut refusals = 0;
            while refusals < 2 {
                self.world.sleep_ms(LOOK_MS).await;
                let limit = Duration::from_millis(LOOK_MS);
                let way = (self.from, node);
                let looked = self.world.net.call(way, "look", limit, || async {}).await;
                refusals = match looked {
                    Err(NoAnswer::Refused) => refusals + 1,
                    Ok(()) | Err(NoAnswer::TimedOut) => 0,
                };
            }
        })
    }
}
