//! AlterUserScramCredentials (KIP-554): kept by the controller.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_protocol::ByteStr;
use klamm_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use klamm_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for AlterUserScramCredentialsRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        _: RequestContext,
    ) -> AlterUserScramCredentialsResponse {
        let users: BTreeSet<ByteStr> = self
            .deletions
            .iter()
            .map(|deletion| deletion.name.clone())
            .chain(
                self.upsertions
                    .iter()
                    .map(|upsertion| upsertion.name.clone()),
            )
            .collect();
        match broker.controller.alter_user_scram_credentials(self).await {
            Ok(response) => response,
            Err(error) => AlterUserScramCredentialsResponse {
                results: users
                    .into_iter()
                    .map(|user| AlterUserScramCredentialsResult {
                        user,
                        error_code: error.code.into(),
                        error_message: error.wire_message(),
                        ..AlterUserScramCredentialsResult::default()
                    })
                    .collect(),
                ..AlterUserScramCredentialsResponse::default()
            },
        }
    }
}
