//! How controllers reach each other.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use klamm_controller::{QuorumTransport, VoterEndpoint};

use super::Flaw;
use super::spoil;
use super::world::World;
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
        _endpoints: &'a [VoterEndpoint],
        request: Bytes,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send + 'a>> {
        let there = self.world.clone();
        let asked = request.clone();
        let consents = (self.world.flaw == Flaw::SilenceConsents)
            .then(|| spoil::consent(&request))
            .flatten();
        let serve = move || {
            let (controller, request) = (there.controller(node), asked.clone());
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
            match (answer, consents) {
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
