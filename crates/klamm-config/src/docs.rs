//! What configurations are for, in Klamm's own words. Not every one has an entry.

/// The description of a configuration, if there is one.
pub fn of(name: &str) -> Option<&'static str> {
    TEXTS
        .binary_search_by(|(n, _)| n.cmp(&name))
        .ok()
        .map(|at| TEXTS[at].1)
}

/// Name and description, sorted by name.
#[rustfmt::skip]
const TEXTS: &[(&str, &str)] = &[
    ("advertised.listeners", "Addresses that clients and other brokers are told to connect to. Set it when they reach this node under another name or port than it binds."),
    ("auto.create.topics.enable", "Whether a topic comes into being when a client first asks for it."),
    ("broker.id", "The old name of node.id."),
    ("broker.rack", "Where this broker stands. Replicas are spread over racks, and consumers can fetch from their own."),
    ("cleanup.policy", "What happens to old records: delete drops them by age and size, compact keeps the newest of each key; both may be given."),
    ("compression.type", "The codec records are stored in; producer keeps what arrives."),
    ("controller.listener.names", "Which listeners serve the controller quorum instead of clients."),
    ("controller.quorum.voters", "The nodes that elect the controller, as id@host:port. Leave it out for a cluster of one."),
    ("default.replication.factor", "How many replicas an automatically created topic gets."),
    ("delete.retention.ms", "How long the marker of a deleted key outlives compaction."),
    ("delete.topic.enable", "Whether topics can be deleted."),
    ("fetch.max.bytes", "The most that one fetch response carries, unless a single batch is larger."),
    ("file.delete.delay.ms", "How long a file that is no longer needed stays on disk under its .deleted name."),
    ("flush.messages", "After how many records the log is forced to disk. The default leaves that to the operating system."),
    ("flush.ms", "After how long the log is forced to disk. The default leaves that to the operating system."),
    ("group.initial.rebalance.delay.ms", "How long a new classic group waits for more members before its first assignment."),
    ("group.max.session.timeout.ms", "The longest session timeout that a classic group member may ask for."),
    ("group.min.session.timeout.ms", "The shortest session timeout that a classic group member may ask for."),
    ("index.interval.bytes", "About how many bytes of log lie between two index entries."),
    ("inter.broker.listener.name", "The listener that brokers use to talk to each other."),
    ("klamm.fast.fencing.enable", "Whether a node whose process ended is done without as soon as its machine refuses connections: a broker is fenced then, and not only after broker.session.timeout.ms, and the active controller replaced, and not only after controller.quorum.fetch.timeout.ms. Read by controllers."),
    ("klamm.flush", "What acks=all waits for on each replica: os for the page cache, as Kafka does; group for the disk, with one sync for all that came meanwhile."),
    ("klamm.log.flush", "What klamm.flush is for topics that do not set it."),
    ("klamm.log.open.files.max", "Files that the logs keep open at the most; beyond that those that were not used for longest are closed. -1 for half of the descriptors that the system lets the process have."),
    ("klamm.log.produce.validation", "What klamm.produce.validation is for topics that do not set it."),
    ("klamm.metrics.listeners", "Where Prometheus metrics (/metrics) and the health check (/health) are served, as host:port; empty for nowhere."),
    ("klamm.produce.validation", "How closely produced batches are looked at: strict reads every record, as Kafka does; header trusts the header of a compressed batch whose checksum holds, unless the topic is compacted or has another codec."),
    ("listener.security.protocol.map", "The protocol of each listener name, as NAME:PROTOCOL."),
    ("listeners", "What this node binds, as NAME://host:port. An empty host means every interface, port 0 a free one."),
    ("log.cleaner.threads", "How many threads compact logs."),
    ("log.dir", "The data directory, if log.dirs is not set."),
    ("log.dirs", "The data directories, separated by commas. Klamm's default is ./data."),
    ("log.flush.interval.messages", "After how many records a log is forced to disk. The default leaves that to the operating system."),
    ("log.flush.interval.ms", "After how long a log is forced to disk."),
    ("log.index.interval.bytes", "About how many bytes of log lie between two index entries."),
    ("log.index.size.max.bytes", "The most an index file may take; a full one closes its segment."),
    ("log.retention.bytes", "How large a partition may grow before its oldest segments go; -1 for no limit."),
    ("log.retention.check.interval.ms", "How often segments are looked at for deletion."),
    ("log.retention.hours", "How many hours records are kept, unless a finer unit is set."),
    ("log.retention.minutes", "How many minutes records are kept; goes before hours."),
    ("log.retention.ms", "How many milliseconds records are kept; goes before minutes and hours, -1 for ever."),
    ("log.roll.hours", "After how many hours a segment is closed, even if it is not full."),
    ("log.roll.ms", "After how many milliseconds a segment is closed; goes before hours."),
    ("log.segment.bytes", "How large a segment file grows."),
    ("log.segment.delete.delay.ms", "How long a file that is no longer needed stays on disk under its .deleted name."),
    ("max.compaction.lag.ms", "After how long a record becomes subject to compaction at the latest."),
    ("max.connections", "How many connections this node accepts in all."),
    ("max.connections.per.ip", "How many connections one address may have."),
    ("max.message.bytes", "The largest record batch, after compression, that the topic takes."),
    ("message.max.bytes", "The largest record batch, after compression, that topics take by default."),
    ("message.timestamp.after.max.ms", "How far ahead of the broker's clock a record's time may be."),
    ("message.timestamp.before.max.ms", "How far behind the broker's clock a record's time may be."),
    ("message.timestamp.type", "Whether a record carries the producer's time (CreateTime) or the broker's (LogAppendTime)."),
    ("metadata.log.dir", "Where the metadata log lives; by default in the first data directory."),
    ("min.cleanable.dirty.ratio", "Which share of a log must be new before compaction starts."),
    ("min.compaction.lag.ms", "How long a record is safe from compaction."),
    ("min.insync.replicas", "How many replicas must be in sync for a write with acks=all."),
    ("node.id", "This node's number in the cluster."),
    ("num.network.threads", "How many threads clients' connections live on, for all listeners together; a listener with a value of its own has its own. As long as nobody sets it, as many as the machine has processors. Read at start."),
    ("num.partitions", "How many partitions an automatically created topic gets."),
    ("offset.metadata.max.bytes", "The most text a consumer may store beside a committed offset."),
    ("offsets.retention.minutes", "How long committed offsets outlive the last member of their group."),
    ("offsets.topic.num.partitions", "How many partitions the topic of committed offsets has; not to be changed later."),
    ("offsets.topic.replication.factor", "How many replicas the topic of committed offsets has."),
    ("preallocate", "Whether a new segment file takes its full size at once."),
    ("process.roles", "What this node is: broker, controller, or both. Left out, Klamm runs a cluster of one."),
    ("retention.bytes", "How large a partition may grow before its oldest segments go; -1 for no limit."),
    ("retention.ms", "How long records are kept; -1 for ever."),
    ("segment.bytes", "How large a segment file grows."),
    ("segment.index.bytes", "The most an index file may take; a full one closes its segment."),
    ("segment.jitter.ms", "By how much at most segment.ms is shortened at random, so that partitions do not roll together."),
    ("segment.ms", "After how long a segment is closed, even if it is not full."),
    ("socket.request.max.bytes", "The largest request a connection may send; a larger one closes it."),
    ("unclean.leader.election.enable", "Whether a replica that lags may become leader when no other is left, at the price of lost records."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_sorted_and_about_something() {
        assert!(TEXTS.is_sorted_by(|a, b| a.0 < b.0));
        for (name, _) in TEXTS {
            let known = crate::broker::governing(name).is_some()
                || crate::def::topic_config(name).is_some();
            assert!(known, "{name}");
        }
    }
}
