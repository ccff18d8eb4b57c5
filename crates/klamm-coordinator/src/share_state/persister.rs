//! The seam to the share coordinators, wherever they are.

use klamm_protocol::messages::{
    DeleteShareGroupStateRequest, DeleteShareGroupStateResponse, InitializeShareGroupStateRequest,
    InitializeShareGroupStateResponse, ReadShareGroupStateRequest, ReadShareGroupStateResponse,
    ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse,
    WriteShareGroupStateRequest, WriteShareGroupStateResponse,
};

use crate::runtime::BoxFuture;

/// Asks share coordinators. Every partition that a request names is answered for, with an error
/// where its coordinator could not be reached.
pub trait SharePersister: Send + Sync + 'static {
    /// Makes states, or makes them anew.
    fn initialize(
        &self,
        request: InitializeShareGroupStateRequest,
    ) -> BoxFuture<'_, InitializeShareGroupStateResponse>;

    /// Reads states, for leaders of data partitions.
    fn read(
        &self,
        request: ReadShareGroupStateRequest,
    ) -> BoxFuture<'_, ReadShareGroupStateResponse>;

    /// Changes states.
    fn write(
        &self,
        request: WriteShareGroupStateRequest,
    ) -> BoxFuture<'_, WriteShareGroupStateResponse>;

    /// Deletes states.
    fn delete(
        &self,
        request: DeleteShareGroupStateRequest,
    ) -> BoxFuture<'_, DeleteShareGroupStateResponse>;

    /// Reads what tools show of states.
    fn summary(
        &self,
        request: ReadShareGroupStateSummaryRequest,
    ) -> BoxFuture<'_, ReadShareGroupStateSummaryResponse>;
}
