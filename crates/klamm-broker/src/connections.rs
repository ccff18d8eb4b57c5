//! Connections to other nodes, kept open and shared by all who ask there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use klamm_client::{ClientError, ConnectOptions, Connection};
use tokio::sync::Mutex as AsyncMutex;

/// Where a node listens.
pub(crate) type Address = (String, u16);

/// A connection, and where to.
#[derive(Debug)]
pub(crate) struct Open {
    address: Address,
    pub(crate) connection: Connection,
}

impl Open {
    /// Whether it lives and goes to `address`.
    pub(crate) fn is_good_for(&self, address: &Address) -> bool {
        self.address == *address && !self.connection.is_closed()
    }

    /// Connects.
    pub(crate) async fn to(
        address: Address,
        options: &ConnectOptions,
    ) -> Result<Open, ClientError> {
        let connection = Connection::open(&address.0, address.1, options.clone()).await?;
        Ok(Open {
            address,
            connection,
        })
    }
}

type Slot = Arc<AsyncMutex<Option<Open>>>;

/// One connection for each key (a node, or a purpose there), opened when it is first asked for and
/// again when it was lost or the address has changed. Requests on it overlap.
#[derive(Debug)]
pub(crate) struct Connections<K> {
    options: ConnectOptions,
    slots: Mutex<BTreeMap<K, Slot>>,
}

impl<K: Ord> Connections<K> {
    /// None yet.
    pub(crate) fn new(options: ConnectOptions) -> Self {
        Connections {
            options,
            slots: Mutex::default(),
        }
    }

    /// The open connection, or a new one. Who comes while it is made waits for the same.
    pub(crate) async fn get(&self, key: K, address: Address) -> Result<Connection, ClientError> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(key).or_default())
        };
        let mut slot = slot.lock().await;
        if let Some(open) = slot.as_ref().filter(|open| open.is_good_for(&address)) {
            return Ok(open.connection.clone());
        }
        let open = Open::to(address, &self.options).await?;
        let connection = open.connection.clone();
        *slot = Some(open);
        Ok(connection)
    }
}
