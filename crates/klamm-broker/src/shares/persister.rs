//! The way to share coordinators. So far that of every key is on this broker; a broker elsewhere is
//! to be asked here and nowhere else.

use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use klamm_coordinator::runtime::BoxFuture;
use klamm_coordinator::share_state::{LogPruner, SharePersister};
use klamm_protocol::messages::{
    DeleteShareGroupStateRequest, DeleteShareGroupStateResponse, InitializeShareGroupStateRequest,
    InitializeShareGroupStateResponse, ReadShareGroupStateRequest, ReadShareGroupStateResponse,
    ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse,
    WriteShareGroupStateRequest, WriteShareGroupStateResponse,
};
use klamm_protocol::{ErrorCode, topic_name};
use klamm_replication::ReplicaManager;
use tokio::time::sleep;
use tracing::warn;

use crate::auto_create;
use crate::shared::Shared;

/// How often a coordinator that is not there yet is asked.
const TRIES: usize = 40;
/// How long to wait between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// How long DeleteRecords on the states' topic may take.
const PRUNE_TIMEOUT_MS: i32 = 30_000;

/// Asks the share coordinator, which is on this broker, and again while it loads. Makes its topic
/// if that is not there.
#[derive(Default)]
pub(crate) struct Persister(OnceLock<Weak<Shared>>);

impl Debug for Persister {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Persister").finish_non_exhaustive()
    }
}

/// Whether an answer says that the coordinator may be had in a moment.
fn is_passing(code: i16) -> bool {
    matches!(
        ErrorCode::from_code(code),
        Some(
            ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::CoordinatorNotAvailable
                | ErrorCode::NotCoordinator
        )
    )
}

/// One of the requests: asks until no answer is a passing error.
macro_rules! ask {
    ($method:ident, $request:ty, $response:ty) => {
        fn $method(&self, request: $request) -> BoxFuture<'_, $response> {
            Box::pin(async move {
                let Some(broker) = self.broker().await else {
                    return <$response>::default();
                };
                let mut tries = TRIES;
                loop {
                    let response = broker.share_states.$method(request.clone()).await;
                    let mut results = response.results.iter().flat_map(|topic| &topic.partitions);
                    tries -= 1;
                    if tries == 0 || !results.any(|result| is_passing(result.error_code)) {
                        return response;
                    }
                    sleep(PAUSE).await;
                }
            })
        }
    };
}

impl Persister {
    /// Tells of the broker. Only the first call counts.
    pub(crate) fn attach(&self, broker: &Arc<Shared>) {
        let _ = self.0.set(Arc::downgrade(broker));
    }

    async fn broker(&self) -> Option<Arc<Shared>> {
        let broker = self.0.get()?.upgrade()?;
        if broker
            .image()
            .topic(topic_name::SHARE_GROUP_STATE)
            .is_none()
        {
            auto_create::create_missing(&broker, &[topic_name::SHARE_GROUP_STATE]).await;
        }
        Some(broker)
    }
}

impl SharePersister for Persister {
    ask!(
        initialize,
        InitializeShareGroupStateRequest,
        InitializeShareGroupStateResponse
    );
    ask!(
        read,
        ReadShareGroupStateRequest,
        ReadShareGroupStateResponse
    );
    ask!(
        write,
        WriteShareGroupStateRequest,
        WriteShareGroupStateResponse
    );
    ask!(
        delete,
        DeleteShareGroupStateRequest,
        DeleteShareGroupStateResponse
    );
    ask!(
        summary,
        ReadShareGroupStateSummaryRequest,
        ReadShareGroupStateSummaryResponse
    );
}

/// Deletes what is not needed of `__share_group_state`.
pub(crate) struct StateTopicPruner(pub(crate) ReplicaManager);

impl LogPruner for StateTopicPruner {
    fn prune(&self, partition: i32, before_offset: i64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let wish = (topic_name::SHARE_GROUP_STATE, partition, before_offset);
            let deleted = self.0.delete_records(&[wish], PRUNE_TIMEOUT_MS).await;
            for answer in deleted {
                if answer.error != ErrorCode::None {
                    warn!(partition, error = ?answer.error, "share states were not pruned");
                }
            }
        })
    }
}
