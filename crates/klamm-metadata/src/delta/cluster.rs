use std::sync::Arc;

use klamm_protocol::metadata::{
    BrokerRegistrationChangeRecord, RegisterBrokerRecord, RegisterControllerRecord,
    UnregisterBrokerRecord,
};

use super::MetadataDelta;
use crate::error::ReplayError;
use crate::image::{BrokerImage, ControllerImage, Endpoint};

impl MetadataDelta {
    pub(super) fn register_broker(&mut self, record: &RegisterBrokerRecord) {
        let endpoints = record.end_points.iter().map(|endpoint| Endpoint {
            name: endpoint.name.to_string(),
            host: endpoint.host.to_string(),
            port: endpoint.port,
            security_protocol: endpoint.security_protocol,
        });
        let features = record.features.iter().map(|feature| {
            let range = (feature.min_supported_version, feature.max_supported_version);
            (feature.name.to_string(), range)
        });
        let mut log_dirs = record.log_dirs.clone();
        log_dirs.sort_unstable();
        let broker = BrokerImage {
            id: record.broker_id,
            epoch: record.broker_epoch,
            incarnation_id: record.incarnation_id,
            endpoints: endpoints.collect(),
            features: features.collect(),
            rack: record.rack.as_ref().map(|rack| rack.to_string()),
            fenced: record.fenced,
            in_controlled_shutdown: record.in_controlled_shutdown,
            log_dirs,
            cordoned_log_dirs: record.cordoned_log_dirs.clone(),
        };
        let cluster = Arc::make_mut(&mut self.image.cluster);
        cluster.brokers.insert(record.broker_id, Arc::new(broker));
        self.changed_brokers.insert(record.broker_id);
    }

    pub(super) fn unregister_broker(
        &mut self,
        record: &UnregisterBrokerRecord,
    ) -> Result<(), ReplayError> {
        self.registered(record.broker_id, record.broker_epoch)?;
        Arc::make_mut(&mut self.image.cluster)
            .brokers
            .remove(&record.broker_id);
        self.changed_brokers.insert(record.broker_id);
        Ok(())
    }

    pub(super) fn set_fenced(
        &mut self,
        id: i32,
        epoch: i64,
        fenced: bool,
    ) -> Result<(), ReplayError> {
        self.registered(id, epoch)?.fenced = fenced;
        self.changed_brokers.insert(id);
        Ok(())
    }

    pub(super) fn change_broker(
        &mut self,
        record: &BrokerRegistrationChangeRecord,
    ) -> Result<(), ReplayError> {
        let broker = self.registered(record.broker_id, record.broker_epoch)?;
        match record.fenced {
            0 => {}
            1 => broker.fenced = true,
            -1 => broker.fenced = false,
            value => {
                return Err(ReplayError::BrokerStateChange {
                    field: "fenced",
                    value,
                });
            }
        }
        match record.in_controlled_shutdown {
            0 => {}
            1 => broker.in_controlled_shutdown = true,
            value => {
                let field = "inControlledShutdown";
                return Err(ReplayError::BrokerStateChange { field, value });
            }
        }
        if !record.log_dirs.is_empty() {
            broker.log_dirs.clone_from(&record.log_dirs);
            broker.log_dirs.sort_unstable();
        }
        if let Some(cordoned) = &record.cordoned_log_dirs {
            broker.cordoned_log_dirs = Some(cordoned.clone());
        }
        self.changed_brokers.insert(record.broker_id);
        Ok(())
    }

    pub(super) fn register_controller(&mut self, record: &RegisterControllerRecord) {
        let endpoints = record.end_points.iter().map(|endpoint| Endpoint {
            name: endpoint.name.to_string(),
            host: endpoint.host.to_string(),
            port: endpoint.port,
            security_protocol: endpoint.security_protocol,
        });
        let features = record.features.iter().map(|feature| {
            let range = (feature.min_supported_version, feature.max_supported_version);
            (feature.name.to_string(), range)
        });
        let controller = ControllerImage {
            id: record.controller_id,
            incarnation_id: record.incarnation_id,
            endpoints: endpoints.collect(),
            features: features.collect(),
        };
        let cluster = Arc::make_mut(&mut self.image.cluster);
        cluster
            .controllers
            .insert(record.controller_id, Arc::new(controller));
        self.changed_controllers.insert(record.controller_id);
    }

    fn registered(&mut self, id: i32, epoch: i64) -> Result<&mut BrokerImage, ReplayError> {
        let broker = Arc::make_mut(&mut self.image.cluster)
            .brokers
            .get_mut(&id)
            .ok_or(ReplayError::UnknownBroker { id })?;
        if broker.epoch != epoch {
            return Err(ReplayError::BrokerEpoch {
                id,
                registered: broker.epoch,
                epoch,
            });
        }
        Ok(Arc::make_mut(broker))
    }
}
