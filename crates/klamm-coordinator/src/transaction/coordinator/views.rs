//! DescribeTransactions and ListTransactions.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use klamm_protocol::messages::describe_transactions_response::TransactionState as Described;
use klamm_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest,
    ListTransactionsResponse,
};
use klamm_protocol::{ByteStr, ErrorCode};
use regex::Regex;

use super::{TransactionCoordinator, mismatch};
use crate::group::client_error;
use crate::transaction::{ListFilter, TransactionRequest, TransactionResponse, TransactionState};

impl TransactionCoordinator {
    /// DescribeTransactions (key 65), version 0.
    pub async fn describe_transactions(
        &self,
        request: DescribeTransactionsRequest,
    ) -> DescribeTransactionsResponse {
        let mut transaction_states = Vec::with_capacity(request.transactional_ids.len());
        for id in request.transactional_ids {
            let described = self.describe(&id).await;
            transaction_states.push(described.unwrap_or_else(|error| Described {
                error_code: error.into(),
                transactional_id: id,
                ..Described::default()
            }));
        }
        DescribeTransactionsResponse {
            transaction_states,
            ..DescribeTransactionsResponse::default()
        }
    }

    async fn describe(&self, id: &ByteStr) -> Result<Described, ErrorCode> {
        if !self.is_active.load(Ordering::Acquire) {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        if id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        let request = TransactionRequest::Describe(id.clone());
        match self.submit(id, request).await? {
            TransactionResponse::Described(described) => Ok(*described),
            other => Err(mismatch(&other)),
        }
    }

    /// ListTransactions (key 66), versions 0-2: the ids that this broker coordinates.
    pub async fn list_transactions(
        &self,
        request: ListTransactionsRequest,
    ) -> ListTransactionsResponse {
        let refuse = |error: ErrorCode| ListTransactionsResponse {
            error_code: error.into(),
            ..ListTransactionsResponse::default()
        };
        if !self.is_active.load(Ordering::Acquire) {
            return refuse(ErrorCode::CoordinatorNotAvailable);
        }
        let (states, unknown_state_filters) = states(&request.state_filters);
        let pattern = match pattern(request.transactional_id_pattern.as_deref()) {
            Ok(pattern) => pattern,
            Err(error) => return refuse(error),
        };
        let filter = ListFilter {
            producer_ids: request.producer_id_filters.into_iter().collect(),
            states,
            duration_ms: request.duration_filter,
            pattern,
        };
        let mut transaction_states = Vec::new();
        for partition in self.runtime.partitions() {
            let request = TransactionRequest::List(filter.clone());
            match self.runtime.submit(partition, request).await {
                Ok(TransactionResponse::Listed(listed)) => transaction_states.extend(listed),
                Ok(other) => return refuse(mismatch(&other)),
                // Lost meanwhile: its new coordinator lists it.
                Err(ErrorCode::NotCoordinator) => {}
                Err(error) => return refuse(client_error(error)),
            }
        }
        ListTransactionsResponse {
            unknown_state_filters,
            transaction_states,
            ..ListTransactionsResponse::default()
        }
    }
}

/// The states of the names, if there are any, and the names that are none.
fn states(names: &[ByteStr]) -> (Option<BTreeSet<TransactionState>>, Vec<ByteStr>) {
    let mut states = BTreeSet::new();
    let mut unknown: Vec<ByteStr> = Vec::new();
    for name in names {
        match TransactionState::from_name(name) {
            Some(state) => {
                states.insert(state);
            }
            None if unknown.contains(name) => {}
            None => unknown.push(name.clone()),
        }
    }
    ((!names.is_empty()).then_some(states), unknown)
}

/// A pattern that an id must match as a whole.
fn pattern(pattern: Option<&str>) -> Result<Option<Regex>, ErrorCode> {
    let Some(pattern) = pattern.filter(|pattern| !pattern.is_empty()) else {
        return Ok(None);
    };
    // Compiled by itself first, so that it cannot close the group that goes around it.
    Regex::new(pattern)
        .and_then(|_| Regex::new(&format!("^(?:{pattern})$")))
        .map(Some)
        .map_err(|_| ErrorCode::InvalidRegularExpression)
}
