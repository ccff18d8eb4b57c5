package klamm.interop;

import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * A member of a consumer group that tells what it is given and what it reads; what its lines mean
 * stands in interop/README.md. {@code --protocol} is {@code consumer} or the assignor of a classic
 * group. Ends with its input.
 */
final class GroupMember implements ConsumerRebalanceListener {
    private static final String PACKAGE = "org.apache.kafka.clients.consumer.";
    private static final Map<String, String> ASSIGNORS =
            Map.of(
                    "range", PACKAGE + "RangeAssignor",
                    "roundrobin", PACKAGE + "RoundRobinAssignor",
                    "cooperative-sticky", PACKAGE + "CooperativeStickyAssignor");
    private static final long COMMIT_INTERVAL_MS = 500;

    private final String topic;
    private final KafkaConsumer<String, String> consumer;
    /** What is to be read next of what was read. */
    private final Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();
    private volatile boolean stopped;

    private GroupMember(Options options) {
        topic = options.get("topic");
        Map<String, Object> configs = new HashMap<>();
        configs.put("bootstrap.servers", options.bootstrap());
        configs.put("group.id", options.get("group"));
        configs.put("auto.offset.reset", "earliest");
        configs.put("enable.auto.commit", "false");
        configs.put("fetch.max.wait.ms", "200");
        configs.put("fetch.min.bytes", "100000");
        String protocol = options.get("protocol");
        if (protocol.equals("consumer")) {
            configs.put("group.protocol", "consumer");
        } else {
            configs.put("partition.assignment.strategy", ASSIGNORS.get(protocol));
            configs.put("session.timeout.ms", "6000");
            configs.put("heartbeat.interval.ms", "500");
        }
        consumer = new KafkaConsumer<>(configs, new StringDeserializer(), new StringDeserializer());
    }

    static void run(Options options) throws Exception {
        GroupMember member = new GroupMember(options);
        Thread input =
                new Thread(
                        () -> {
                            try {
                                while (System.in.read() >= 0) {}
                            } catch (java.io.IOException e) {
                                e.printStackTrace();
                            }
                            member.stopped = true;
                        });
        input.setDaemon(true);
        input.start();
        member.consume();
        member.tell("ended", "");
    }

    private void consume() {
        try (consumer) {
            consumer.subscribe(List.of(topic), this);
            long last = System.currentTimeMillis();
            while (!stopped) {
                var records = consumer.poll(Duration.ofMillis(100));
                for (TopicPartition partition : records.partitions()) {
                    read(partition, records.records(partition));
                }
                if (System.currentTimeMillis() - last > COMMIT_INTERVAL_MS) {
                    commit();
                    last = System.currentTimeMillis();
                }
            }
        }
    }

    /** Records of one partition, one behind the other unless the broker left some out. */
    private void read(TopicPartition partition, List<ConsumerRecord<String, String>> records) {
        long first = records.get(0).offset();
        long last = first - 1;
        for (ConsumerRecord<String, String> record : records) {
            if (!record.value().equals(Long.toString(record.offset()))) {
                tell("wrong", partition.partition() + " " + record.offset() + " " + record.value());
            }
            if (record.offset() != last + 1) {
                tell("read", partition.partition() + " " + first + " " + last);
                first = record.offset();
            }
            last = record.offset();
        }
        tell("read", partition.partition() + " " + first + " " + last);
        next.put(partition, new OffsetAndMetadata(last + 1));
    }

    private void commit() {
        if (next.isEmpty()) {
            return;
        }
        try {
            consumer.commitSync(next, Duration.ofSeconds(10));
        } catch (KafkaException e) {
            tell("refused", e.toString().replace('\n', ' '));
            return;
        }
        Map<Integer, Long> offsets = new TreeMap<>();
        next.forEach((partition, offset) -> offsets.put(partition.partition(), offset.offset()));
        tell(
                "committed",
                offsets.entrySet().stream()
                        .map(e -> e.getKey() + ":" + e.getValue())
                        .collect(Collectors.joining(",")));
    }

    private void partitions(String kind, Collection<TopicPartition> partitions) {
        if (!partitions.isEmpty()) {
            tell(
                    kind,
                    partitions.stream()
                            .map(TopicPartition::partition)
                            .sorted()
                            .map(String::valueOf)
                            .collect(Collectors.joining(",")));
            next.keySet().removeAll(partitions);
        }
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        partitions("assigned", partitions);
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        commit();
        partitions("revoked", partitions);
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
        partitions("lost", partitions);
    }

    private void tell(String kind, String rest) {
        System.out.println((System.currentTimeMillis() + " " + kind + " " + rest).stripTrailing());
        System.out.flush();
    }
}
