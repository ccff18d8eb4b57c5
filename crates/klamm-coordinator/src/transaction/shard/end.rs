//! EndTxn (key 26): the decision.

use klamm_protocol::ByteStr;

use super::messages::TransactionResponse;
use super::{TransactionEffects, TransactionShard, refuse, reply};
use crate::runtime::{Now, ReplyToken};
use crate::transaction::state::{EndRequest, EndStep};
use crate::transaction::{EPOCH_BUMP_VERSION, NO_PRODUCER_EPOCH, NO_PRODUCER_ID};

impl TransactionShard {
    pub(super) fn end(
        &mut self,
        id: &ByteStr,
        request: &EndRequest,
        spare: Option<i64>,
        token: ReplyToken,
        now: Now,
    ) -> TransactionEffects {
        let bumps = request.version >= EPOCH_BUMP_VERSION;
        // Older clients keep their epoch and are told none.
        let answer = |producer_id, producer_epoch| {
            if bumps {
                TransactionResponse::Producer {
                    producer_id,
                    producer_epoch,
                }
            } else {
                TransactionResponse::Producer {
                    producer_id: NO_PRODUCER_ID,
                    producer_epoch: NO_PRODUCER_EPOCH,
                }
            }
        };
        let transaction = match self.idle(id) {
            Ok(transaction) => transaction,
            Err(error) => return refuse(token, error),
        };
        match transaction.end(request) {
            Err(error) => refuse(token, error),
            Ok(EndStep::Repeated) => {
                let response = answer(transaction.producer_id, transaction.producer_epoch);
                reply(token, response)
            }
            Ok(EndStep::Prepare) => {
                let rotates = bumps && transaction.is_epoch_exhausted();
                let next_producer_id = match spare {
                    None if rotates => return reply(token, TransactionResponse::NeedsProducerId),
                    Some(spare) if rotates => spare,
                    _ => NO_PRODUCER_ID,
                };
                let (committed, version) = (request.committed, request.version);
                // A client of an older version counts as one of the oldest.
                let version = if bumps { version } else { 0 };
                let next = transaction.prepared(committed, version, next_producer_id, now.wall_ms);
                let completed = next.completed(now.wall_ms);
                let response = answer(completed.producer_id, completed.producer_epoch);
                self.write(id, next, token, response)
            }
        }
    }
}
