//! InitProducerId (key 22): a producer gets its id and epoch, and whoever had them is fenced.

use klamm_protocol::ErrorCode;

use super::messages::{InitProducerId, TransactionResponse};
use super::{TransactionEffects, TransactionShard, refuse, reply};
use crate::runtime::{Now, ReplyToken};
use crate::transaction::state::{Transaction, TransactionState};

impl TransactionShard {
    pub(super) fn init_producer_id(
        &mut self,
        request: &InitProducerId,
        spare: Option<i64>,
        token: ReplyToken,
        now: Now,
    ) -> TransactionEffects {
        let id = &request.transactional_id;
        let next = match self.idle(id) {
            Err(ErrorCode::InvalidProducerIdMapping) => match spare {
                None => return reply(token, TransactionResponse::NeedsProducerId),
                Some(spare) => {
                    let transaction = Transaction::new(spare, request.timeout_ms, now.wall_ms);
                    next_epoch(&transaction, request, now)
                }
            },
            Err(error) => return refuse(token, error),
            Ok(transaction) if transaction.state.is_prepared() => {
                return refuse(token, ErrorCode::ConcurrentTransactions);
            }
            Ok(transaction) => {
                let known = request.expected;
                if known.is_some_and(|producer| !transaction.knows_producer(producer)) {
                    return refuse(token, ErrorCode::ProducerFenced);
                }
                match transaction.state {
                    TransactionState::Ongoing => {
                        let transaction = transaction.clone();
                        return self.fence(id, &transaction, spare, token, now);
                    }
                    _ if !transaction.must_rotate(known.map(|(_, epoch)| epoch)) => {
                        next_epoch(transaction, request, now)
                    }
                    _ => match spare {
                        None => return reply(token, TransactionResponse::NeedsProducerId),
                        Some(spare) => {
                            let timeout_ms = request.timeout_ms;
                            let keep_last = known.is_some();
                            Ok(transaction.rotated(spare, timeout_ms, keep_last, now.wall_ms))
                        }
                    },
                }
            }
        };
        match next {
            Ok(next) => {
                let response = TransactionResponse::Producer {
                    producer_id: next.producer_id,
                    producer_epoch: next.producer_epoch,
                };
                self.write(id, next, token, response)
            }
            Err(error) => refuse(token, error),
        }
    }

    /// A transaction is open: it is aborted first, and the client asks again.
    fn fence(
        &mut self,
        id: &klamm_protocol::ByteStr,
        transaction: &Transaction,
        spare: Option<i64>,
        token: ReplyToken,
        now: Now,
    ) -> TransactionEffects {
        match self.fenced(transaction, spare, now) {
            Some(next) => {
                let response = TransactionResponse::Refused(ErrorCode::ConcurrentTransactions);
                self.write(id, next, token, response)
            }
            None => reply(token, TransactionResponse::NeedsProducerId),
        }
    }
}

fn next_epoch(
    transaction: &Transaction,
    request: &InitProducerId,
    now: Now,
) -> Result<Transaction, ErrorCode> {
    let expected_epoch = request.expected.map(|(_, epoch)| epoch);
    transaction.next_epoch(request.timeout_ms, expected_epoch, now.wall_ms)
}
