package klamm.interop;

import java.util.List;
import java.util.Set;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.SimpleRecord;

/** A small sensible request of each kind, for {@link VersionSweep}; others go out with their defaults. */
final class Samples {
    /** These want authentication, end the registration, wait for others or need more than defaults. */
    private static final Set<ApiKeys> LEFT_OUT =
            Set.of(
                    ApiKeys.SASL_HANDSHAKE, ApiKeys.SASL_AUTHENTICATE, ApiKeys.UNREGISTER_BROKER,
                    ApiKeys.CONSUMER_GROUP_HEARTBEAT, ApiKeys.SHARE_GROUP_HEARTBEAT,
                    ApiKeys.STREAMS_GROUP_HEARTBEAT, ApiKeys.ASSIGN_REPLICAS_TO_DIRS,
                    ApiKeys.ADD_PARTITIONS_TO_TXN, ApiKeys.DESCRIBE_ACLS);

    private Samples() {}

    /** Whether Kafka answers this version at all: Produce before 3 is listed and refused. */
    static boolean answers(ApiKeys key, short version) {
        return !LEFT_OUT.contains(key) && !(key == ApiKeys.PRODUCE && version < 3);
    }

    static ApiMessage request(ApiKeys key, short v, String topic, Uuid id) {
        return switch (key) {
            case PRODUCE -> produce(v, topic, id);
            case FETCH -> fetch(v, topic, id);
            case LIST_OFFSETS ->
                    new ListOffsetsRequestData()
                            .setReplicaId(-1)
                            .setTopics(
                                    List.of(
                                            new ListOffsetsRequestData.ListOffsetsTopic()
                                                    .setName(topic)
                                                    .setPartitions(
                                                            List.of(
                                                                    new ListOffsetsRequestData
                                                                                    .ListOffsetsPartition()
                                                                            .setPartitionIndex(0)
                                                                            .setTimestamp(-1)))));
            case METADATA ->
                    new MetadataRequestData()
                            .setTopics(
                                    List.of(
                                            new MetadataRequestData.MetadataRequestTopic()
                                                    .setName(topic)));
            case OFFSET_COMMIT -> offsetCommit(v, topic, id);
            case OFFSET_FETCH -> offsetFetch(v, topic, id);
            case FIND_COORDINATOR ->
                    v < 4
                            ? new FindCoordinatorRequestData().setKey("vs-group")
                            : new FindCoordinatorRequestData().setCoordinatorKeys(List.of("vs-group"));
            case JOIN_GROUP -> join(v);
            case HEARTBEAT -> new HeartbeatRequestData().setGroupId("vs-none").setMemberId("nobody");
            case SYNC_GROUP -> new SyncGroupRequestData().setGroupId("vs-none").setMemberId("nobody");
            case LEAVE_GROUP ->
                    v < 3
                            ? new LeaveGroupRequestData().setGroupId("vs-none").setMemberId("nobody")
                            : new LeaveGroupRequestData()
                                    .setGroupId("vs-none")
                                    .setMembers(
                                            List.of(
                                                    new LeaveGroupRequestData.MemberIdentity()
                                                            .setMemberId("nobody")));
            case DESCRIBE_GROUPS -> new DescribeGroupsRequestData().setGroups(List.of("vs-none"));
            case DELETE_GROUPS -> new DeleteGroupsRequestData().setGroupsNames(List.of("vs-none"));
            case CREATE_TOPICS -> createTopics("vs-made-" + v);
            case DELETE_TOPICS ->
                    v < 6
                            ? new DeleteTopicsRequestData()
                                    .setTimeoutMs(5000)
                                    .setTopicNames(List.of("vs-none"))
                            : new DeleteTopicsRequestData()
                                    .setTimeoutMs(5000)
                                    .setTopics(
                                            List.of(
                                                    new DeleteTopicsRequestData.DeleteTopicState()
                                                            .setName("vs-none")));
            case DELETE_RECORDS ->
                    new DeleteRecordsRequestData()
                            .setTimeoutMs(5000)
                            .setTopics(
                                    List.of(
                                            new DeleteRecordsRequestData.DeleteRecordsTopic()
                                                    .setName(topic)
                                                    .setPartitions(
                                                            List.of(
                                                                    new DeleteRecordsRequestData
                                                                                    .DeleteRecordsPartition()
                                                                            .setPartitionIndex(0)
                                                                            .setOffset(0)))));
            case INIT_PRODUCER_ID ->
                    new InitProducerIdRequestData()
                            .setTransactionalId(null)
                            .setTransactionTimeoutMs(60_000);
            case OFFSET_FOR_LEADER_EPOCH -> leaderEpoch(topic);
            case DESCRIBE_CONFIGS ->
                    new DescribeConfigsRequestData()
                            .setResources(
                                    List.of(
                                            new DescribeConfigsRequestData.DescribeConfigsResource()
                                                    .setResourceType((byte) 2)
                                                    .setResourceName(topic)));
            case DESCRIBE_TOPIC_PARTITIONS ->
                    new DescribeTopicPartitionsRequestData()
                            .setTopics(
                                    List.of(
                                            new DescribeTopicPartitionsRequestData.TopicRequest()
                                                    .setName(topic)));
            case DESCRIBE_QUORUM ->
                    new DescribeQuorumRequestData()
                            .setTopics(
                                    List.of(
                                            new DescribeQuorumRequestData.TopicData()
                                                    .setTopicName("__cluster_metadata")
                                                    .setPartitions(
                                                            List.of(
                                                                    new DescribeQuorumRequestData
                                                                                    .PartitionData()
                                                                            .setPartitionIndex(0)))));
            case API_VERSIONS ->
                    new ApiVersionsRequestData()
                            .setClientSoftwareName("klamm-interop")
                            .setClientSoftwareVersion("1");
            case OFFSET_DELETE -> new OffsetDeleteRequestData().setGroupId("vs-none");
            default -> key.messageType.newRequest();
        };
    }

    private static ApiMessage produce(short v, String topic, Uuid id) {
        ProduceRequestData.TopicProduceData data =
                v < 13
                        ? new ProduceRequestData.TopicProduceData().setName(topic)
                        : new ProduceRequestData.TopicProduceData().setTopicId(id);
        data.setPartitionData(
                List.of(
                        new ProduceRequestData.PartitionProduceData()
                                .setIndex(0)
                                .setRecords(
                                        MemoryRecords.withRecords(
                                                Compression.NONE,
                                                new SimpleRecord(("v" + v).getBytes())))));
        ProduceRequestData.TopicProduceDataCollection all =
                new ProduceRequestData.TopicProduceDataCollection();
        all.add(data);
        return new ProduceRequestData().setAcks((short) -1).setTimeoutMs(5000).setTopicData(all);
    }

    private static ApiMessage fetch(short v, String topic, Uuid id) {
        FetchRequestData.FetchTopic data = new FetchRequestData.FetchTopic();
        data = v < 13 ? data.setTopic(topic) : data.setTopicId(id);
        data.setPartitions(
                List.of(
                        new FetchRequestData.FetchPartition()
                                .setPartition(0)
                                .setFetchOffset(0)
                                .setPartitionMaxBytes(1 << 20)));
        FetchRequestData request = new FetchRequestData().setMaxWaitMs(100).setMinBytes(0);
        if (v < 15) {
            request.setReplicaId(-1);
        }
        return request.setTopics(List.of(data));
    }

    private static ApiMessage offsetCommit(short v, String topic, Uuid id) {
        OffsetCommitRequestData.OffsetCommitRequestTopic data =
                new OffsetCommitRequestData.OffsetCommitRequestTopic();
        data = v < 10 ? data.setName(topic) : data.setTopicId(id);
        data.setPartitions(
                List.of(
                        new OffsetCommitRequestData.OffsetCommitRequestPartition()
                                .setPartitionIndex(0)
                                .setCommittedOffset(v)));
        return new OffsetCommitRequestData().setGroupId("vs-group").setTopics(List.of(data));
    }

    private static ApiMessage offsetFetch(short v, String topic, Uuid id) {
        if (v < 8) {
            return new OffsetFetchRequestData()
                    .setGroupId("vs-group")
                    .setTopics(
                            List.of(
                                    new OffsetFetchRequestData.OffsetFetchRequestTopic()
                                            .setName(topic)
                                            .setPartitionIndexes(List.of(0))));
        }
        OffsetFetchRequestData.OffsetFetchRequestTopics data =
                new OffsetFetchRequestData.OffsetFetchRequestTopics();
        data = v < 10 ? data.setName(topic) : data.setTopicId(id);
        return new OffsetFetchRequestData()
                .setGroups(
                        List.of(
                                new OffsetFetchRequestData.OffsetFetchRequestGroup()
                                        .setGroupId("vs-group")
                                        .setTopics(List.of(data.setPartitionIndexes(List.of(0))))));
    }

    /** Before version 4 a member is in at once; since then it gets an id and has to come again. */
    private static ApiMessage join(short v) {
        JoinGroupRequestData.JoinGroupRequestProtocolCollection protocols =
                new JoinGroupRequestData.JoinGroupRequestProtocolCollection();
        protocols.add(
                new JoinGroupRequestData.JoinGroupRequestProtocol()
                        .setName("range")
                        .setMetadata(new byte[] {0, 1, 0, 0, 0, 0, 0, 0, 0, 0}));
        return new JoinGroupRequestData()
                .setGroupId("vs-join-" + v)
                .setSessionTimeoutMs(10_000)
                .setRebalanceTimeoutMs(10_000)
                .setProtocolType("consumer")
                .setProtocols(protocols);
    }

    private static ApiMessage createTopics(String name) {
        CreateTopicsRequestData.CreatableTopicCollection topics =
                new CreateTopicsRequestData.CreatableTopicCollection();
        topics.add(
                new CreateTopicsRequestData.CreatableTopic()
                        .setName(name)
                        .setNumPartitions(1)
                        .setReplicationFactor((short) 1));
        return new CreateTopicsRequestData().setTimeoutMs(5000).setTopics(topics);
    }

    private static ApiMessage leaderEpoch(String topic) {
        OffsetForLeaderEpochRequestData.OffsetForLeaderTopicCollection topics =
                new OffsetForLeaderEpochRequestData.OffsetForLeaderTopicCollection();
        topics.add(
                new OffsetForLeaderEpochRequestData.OffsetForLeaderTopic()
                        .setTopic(topic)
                        .setPartitions(
                                List.of(
                                        new OffsetForLeaderEpochRequestData.OffsetForLeaderPartition()
                                                .setPartition(0)
                                                .setLeaderEpoch(0))));
        return new OffsetForLeaderEpochRequestData().setReplicaId(-1).setTopics(topics);
    }
}
