//! DescribeTransactions (key 65) and ListTransactions (key 66).

use klamm_protocol::messages::describe_transactions_response::{
    TopicData, TransactionState as Described,
};
use klamm_protocol::messages::list_transactions_response::TransactionState as Listed;
use klamm_protocol::{ByteStr, ErrorCode};

use super::messages::{ListFilter, TransactionResponse};
use super::{TransactionEffects, TransactionShard, refuse, reply};
use crate::runtime::{Now, ReplyToken};
use crate::transaction::record::by_topic;
use crate::transaction::state::Transaction;

impl TransactionShard {
    pub(super) fn describe(&self, id: &ByteStr, token: ReplyToken) -> TransactionEffects {
        let entry = self.ids.get(id);
        let Some((entry, transaction)) =
            entry.and_then(|entry| Some((entry, entry.committed.as_ref()?)))
        else {
            return refuse(token, ErrorCode::TransactionalIdNotFound);
        };
        // While markers are written only those partitions are shown that still lack theirs.
        let partitions = if transaction.state.is_prepared() {
            &entry.unmarked
        } else {
            &transaction.partitions
        };
        let topics = by_topic(partitions).into_iter();
        let described = Described {
            transactional_id: id.clone(),
            transaction_state: transaction.state.name().into(),
            transaction_timeout_ms: transaction.timeout_ms,
            transaction_start_time_ms: transaction.start_ms,
            producer_id: transaction.producer_id,
            producer_epoch: transaction.producer_epoch,
            topics: topics
                .map(|(topic, partitions)| TopicData {
                    topic,
                    partitions,
                    ..TopicData::default()
                })
                .collect(),
            ..Described::default()
        };
        reply(token, TransactionResponse::Described(Box::new(described)))
    }

    pub(super) fn list(
        &self,
        filter: &ListFilter,
        token: ReplyToken,
        now: Now,
    ) -> TransactionEffects {
        let wanted = self
            .transactions()
            .filter(|(id, transaction)| filter.takes(id, transaction, now.wall_ms));
        let listed = wanted.map(|(id, transaction)| Listed {
            transactional_id: id.clone(),
            producer_id: transaction.producer_id,
            transaction_state: transaction.state.name().into(),
            ..Listed::default()
        });
        reply(token, TransactionResponse::Listed(listed.collect()))
    }
}

impl ListFilter {
    fn takes(&self, id: &str, transaction: &Transaction, now_ms: i64) -> bool {
        let producers = &self.producer_ids;
        let age_ms = now_ms.saturating_sub(transaction.start_ms);
        (producers.is_empty() || producers.contains(&transaction.producer_id))
            && self
                .states
                .as_ref()
                .is_none_or(|states| states.contains(&transaction.state))
            && (self.duration_ms < 0 || age_ms > self.duration_ms)
            && self
                .pattern
                .as_ref()
                .is_none_or(|pattern| pattern.is_match(id))
    }
}
