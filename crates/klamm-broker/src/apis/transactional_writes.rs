//! What a broker asks before a producer may write in a transaction (KIP-890): that the transaction
//! coordinator knows of the partition. Else a late request could open a transaction that nobody
//! ends.
//!
//! A partition that has the transaction open already needs no question. For the others there is one
//! request to the coordinator, which adds the partitions for clients that leave that to the broker,
//! and verifies for those that add them by themselves.

use std::collections::{BTreeMap, BTreeSet};

use klamm_coordinator::transaction::{EPOCH_BUMP_VERSION, TransactionPartition};
use klamm_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::{AddPartitionsToTxnRequest, ProduceRequest};
use klamm_protocol::{ByteStr, ErrorCode, Records, topic_name};
use klamm_records::BatchHeader;
use klamm_replication::{ProduceResult, ProducerClaim, TopicRef};

use tracing::debug;

use super::produce::topic_ref;
use crate::shared::Shared;

/// The version in which a coordinator is asked to add partitions.
const ADD_VERSION: i16 = 5;
/// The version in which it is asked whether they were added.
const VERIFY_VERSION: i16 = 4;

/// What a client understands, by the version of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// Neither of the following.
    Plain,
    /// `TRANSACTION_ABORTABLE`.
    Abortable,
    /// The broker adds partitions to the transaction.
    Adds,
}

impl Support {
    /// Of a Produce request.
    pub(super) fn of_produce(version: i16) -> Support {
        match version {
            12.. => Support::Adds,
            11 => Support::Abortable,
            _ => Support::Plain,
        }
    }

    /// Of a TxnOffsetCommit request.
    pub(super) fn of_offset_commit(version: i16) -> Support {
        match version {
            5.. => Support::Adds,
            4 => Support::Abortable,
            _ => Support::Plain,
        }
    }

    pub(super) fn adds(self) -> bool {
        self == Support::Adds
    }
}

/// Whether the coordinator is to be asked about this client's writes.
pub(super) fn is_asked(broker: &Shared, support: Support) -> bool {
    support.adds()
        || broker
            .config()
            .boolean("transaction.partition.verification.enable")
}

/// Asks the transaction coordinator. Only refused partitions are in the result.
pub(super) async fn ask(
    broker: &Shared,
    support: Support,
    transactional_id: &ByteStr,
    producer: (i64, i16),
    partitions: BTreeSet<TransactionPartition>,
) -> BTreeMap<TransactionPartition, ErrorCode> {
    let mut refused: BTreeMap<_, _> = match coordinator_of(broker, transactional_id) {
        Some(node) if node == broker.node_id => {
            ask_here(broker, support, transactional_id, producer, partitions).await
        }
        Some(node) => {
            let question = question(support, transactional_id, producer, &partitions);
            match ask_there(broker, support, node, question).await {
                Ok(refused) => refused,
                Err(error) => all(error, partitions),
            }
        }
        None => all(ErrorCode::CoordinatorNotAvailable, partitions),
    };
    for error in refused.values_mut() {
        *error = match *error {
            ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
            ErrorCode::TransactionAbortable if support == Support::Plain => {
                ErrorCode::InvalidTxnState
            }
            error => error,
        };
    }
    refused
}

fn all(
    error: ErrorCode,
    partitions: BTreeSet<TransactionPartition>,
) -> BTreeMap<TransactionPartition, ErrorCode> {
    let partitions = partitions.into_iter();
    partitions.map(|partition| (partition, error)).collect()
}

/// The broker that coordinates a transactional id's transactions.
fn coordinator_of(broker: &Shared, transactional_id: &str) -> Option<i32> {
    let image = broker.image();
    let topic = image.topic(topic_name::TRANSACTION_STATE)?;
    let count = i32::try_from(topic.partition_count()).ok()?;
    let partition = klamm_coordinator::group::partition_for(transactional_id, count);
    let leader = topic.partition(partition)?.leader;
    (leader >= 0).then_some(leader)
}

async fn ask_here(
    broker: &Shared,
    support: Support,
    transactional_id: &ByteStr,
    producer: (i64, i16),
    partitions: BTreeSet<TransactionPartition>,
) -> BTreeMap<TransactionPartition, ErrorCode> {
    let transactions = &broker.transactions;
    if support.adds() {
        let patience_ms = broker.settings.transaction_patience_ms;
        let version = EPOCH_BUMP_VERSION;
        let added = partitions.clone();
        match transactions
            .add(transactional_id, producer, added, version, patience_ms)
            .await
        {
            ErrorCode::None => BTreeMap::new(),
            error => all(error, partitions),
        }
    } else {
        let asked = partitions.clone();
        match transactions.verify(transactional_id, producer, asked).await {
            Ok(verdicts) => verdicts
                .into_iter()
                .filter(|(_, error)| *error != ErrorCode::None)
                .collect(),
            Err(error) => all(error, partitions),
        }
    }
}

/// The same question, for the coordinator on another broker.
fn question(
    support: Support,
    transactional_id: &ByteStr,
    (producer_id, producer_epoch): (i64, i16),
    partitions: &BTreeSet<TransactionPartition>,
) -> AddPartitionsToTxnRequest {
    let mut topics: Vec<AddPartitionsToTxnTopic> = Vec::new();
    for (name, partition) in partitions {
        match topics.last_mut() {
            Some(topic) if topic.name == *name => topic.partitions.push(*partition),
            _ => topics.push(AddPartitionsToTxnTopic {
                name: name.clone(),
                partitions: vec![*partition],
                ..AddPartitionsToTxnTopic::default()
            }),
        }
    }
    AddPartitionsToTxnRequest {
        transactions: vec![AddPartitionsToTxnTransaction {
            transactional_id: transactional_id.clone(),
            producer_id,
            producer_epoch,
            verify_only: !support.adds(),
            topics,
            ..AddPartitionsToTxnTransaction::default()
        }],
        ..AddPartitionsToTxnRequest::default()
    }
}

async fn ask_there(
    broker: &Shared,
    support: Support,
    node: i32,
    question: AddPartitionsToTxnRequest,
) -> Result<BTreeMap<TransactionPartition, ErrorCode>, ErrorCode> {
    // The version tells the coordinator by which rules the producer's epochs go (KIP-890).
    let version = if support.adds() {
        ADD_VERSION
    } else {
        VERIFY_VERSION
    };
    let asked = broker.transaction_line.ask_up_to(node, &question, version);
    let answer = asked.await.map_err(|failed| {
        debug!(node, error = %failed, "the coordinator of a transaction cannot be asked");
        ErrorCode::NetworkException
    })?;
    let error_of = |code| ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError);
    match error_of(answer.error_code) {
        ErrorCode::None => {}
        // What a client could not make sense of: the brokers are at odds, not it.
        ErrorCode::ClusterAuthorizationFailed => return Err(ErrorCode::InvalidTxnState),
        error => return Err(error),
    }
    let mut refused = BTreeMap::new();
    for topic in answer
        .results_by_transaction
        .iter()
        .flat_map(|t| &t.topic_results)
    {
        for result in &topic.results_by_partition {
            let error = error_of(result.partition_error_code);
            if error != ErrorCode::None {
                refused.insert((topic.name.clone(), result.partition_index), error);
            }
        }
    }
    Ok(refused)
}

/// What is known of one partition of a produce request before its batch is appended.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// What the log gave out for the verification.
    pub(super) guard: Option<u64>,
    /// The answer if the partition is refused.
    pub(super) refused: Option<ProduceResult>,
}

/// The partitions of a produce request that belong to a transaction, with a verdict for each
/// partition of the request in its order.
pub(super) struct Checks {
    support: Support,
    producer: (i64, i16),
    verdicts: Vec<Verdict>,
    /// Partitions that the coordinator must be asked about, with their places.
    asked: BTreeMap<TransactionPartition, usize>,
}

impl Checks {
    /// Looks at the batches and at what the partitions know. None if no batch belongs to a
    /// transaction.
    pub(super) fn begin(broker: &Shared, version: i16, request: &ProduceRequest) -> Option<Checks> {
        let support = Support::of_produce(version);
        let partitions = || {
            let topics = request.topic_data.iter();
            topics.flat_map(|topic| topic.partition_data.iter().map(move |p| (topic, p)))
        };
        let transactional: Vec<(usize, &TopicProduceData, &PartitionProduceData, BatchHeader)> =
            partitions()
                .enumerate()
                .filter_map(|(place, (topic, partition))| {
                    let header = transactional_header(partition)?;
                    Some((place, topic, partition, header))
                })
                .collect();
        let (_, _, _, first) = transactional.first()?;
        let mut checks = Checks {
            support,
            producer: (first.producer_id, first.producer_epoch),
            verdicts: vec![Verdict::default(); partitions().count()],
            asked: BTreeMap::new(),
        };
        let is_another =
            |header: &BatchHeader| (header.producer_id, header.producer_epoch) != checks.producer;
        if transactional
            .iter()
            .any(|(_, _, _, header)| is_another(header))
        {
            let refused = ProduceResult::error(ErrorCode::InvalidProducerIdMapping);
            checks.verdicts.fill(Verdict {
                refused: Some(refused),
                guard: None,
            });
            return Some(checks);
        }
        for (place, topic, partition, header) in transactional {
            checks.look_up(broker, version, place, (topic, partition), &header);
        }
        if !is_asked(broker, support) {
            checks.asked.clear();
        }
        Some(checks)
    }

    fn look_up(
        &mut self,
        broker: &Shared,
        version: i16,
        place: usize,
        (topic, partition): (&TopicProduceData, &PartitionProduceData),
        header: &BatchHeader,
    ) {
        let named = topic_ref(version, topic);
        let name = match named {
            TopicRef::Name(_) => Some(topic.name.clone()),
            TopicRef::Id(id) => {
                let image = broker.image();
                image.topic_by_id(id).map(|topic| (&**topic.name()).into())
            }
        };
        // What cannot be found is refused, with all there is to tell, when it is prepared.
        let Some(name) = name else { return };
        let claim = ProducerClaim {
            id: header.producer_id,
            epoch: header.producer_epoch,
            sequence: header.base_sequence,
            bumps_epoch: self.support.adds(),
        };
        let index = partition.index;
        match broker.replicas.begin_verification(named, index, claim) {
            Ok(None) => {}
            Ok(Some(guard)) => {
                self.verdicts[place].guard = Some(guard);
                self.asked.insert((name, index), place);
            }
            Err(error @ ErrorCode::InvalidProducerEpoch) => {
                self.verdicts[place].refused = Some(ProduceResult::error(error));
            }
            Err(_) => {}
        }
    }

    /// Whether the coordinator has to be asked.
    pub(super) fn must_ask(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Asks it.
    pub(super) async fn ask(&mut self, broker: &Shared, transactional_id: &ByteStr) {
        let partitions = self.asked.keys().cloned().collect();
        let (support, producer) = (self.support, self.producer);
        let refused = ask(broker, support, transactional_id, producer, partitions).await;
        for (partition, error) in refused {
            if let Some(place) = self.asked.get(&partition) {
                self.verdicts[*place].refused = Some(refusal(error, support));
            }
        }
    }

    /// The verdicts, in the order of the request.
    pub(super) fn into_verdicts(self) -> Vec<Verdict> {
        self.verdicts
    }
}

/// The header of a partition's batch if it belongs to a transaction.
pub(super) fn transactional_header(partition: &PartitionProduceData) -> Option<BatchHeader> {
    let records = partition.records.as_ref().and_then(Records::as_bytes)?;
    let header = BatchHeader::parse(records).ok()?;
    (header.attributes.is_transactional() && header.producer_id >= 0).then_some(header)
}

/// What a producer is told. Older ones do not try again on every error that should make them, but
/// do on `NOT_ENOUGH_REPLICAS`, which does not send them to look for another leader.
fn refusal(error: ErrorCode, support: Support) -> ProduceResult {
    let retriable = match error {
        ErrorCode::NetworkException
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => true,
        ErrorCode::ConcurrentTransactions => !support.adds(),
        _ => false,
    };
    if retriable {
        return ProduceResult {
            error_message: Some(format!(
                "Unable to verify the partition has been added to the transaction. Underlying \
                 error: {}",
                error.name()
            )),
            ..ProduceResult::error(ErrorCode::NotEnoughReplicas)
        };
    }
    let message = (error == ErrorCode::InvalidTxnState)
        .then(|| "Partition was not added to the transaction".to_owned());
    ProduceResult {
        error_message: message,
        ..ProduceResult::error(error)
    }
}
