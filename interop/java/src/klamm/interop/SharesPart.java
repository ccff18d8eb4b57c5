package klamm.interop;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.SharePartitionOffsetInfo;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicIdPartition;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Two members of a share group, in this process. Everything must be delivered; what a member has
 * accepted, and was told that this counts, must not come again.
 */
final class SharesPart implements ExactlyOnceLoad.Part {
    static final String TOPIC = "eos-shared";
    static final String GROUP = "eos-sharers";
    static final int PARTITIONS = 3;

    private final ExactlyOnceLoad.Run run;
    private final Set<String> delivered = ConcurrentHashMap.newKeySet();
    private final Set<String> accepted = ConcurrentHashMap.newKeySet();

    SharesPart(ExactlyOnceLoad.Run run, Options options) throws Exception {
        this.run = run;
        ShareSuite.configure(options, GROUP, Map.of("share.auto.offset.reset", "earliest"));
    }

    @Override
    public String name() {
        return "shares";
    }

    @Override
    public ProducerRecord<String, String> input(long i) {
        return new ProducerRecord<>(TOPIC, (int) (i % PARTITIONS), null, Long.toString(i));
    }

    @Override
    public long done() {
        return delivered.size();
    }

    @Override
    public void read() throws Exception {
        List<Thread> members = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            Thread member = new Thread(this::share);
            member.start();
            members.add(member);
        }
        for (Thread member : members) {
            member.join();
        }
    }

    private void share() {
        while (run.goesOn()) {
            Map<String, Object> configs = new HashMap<>(run.client);
            configs.put("group.id", GROUP);
            configs.put("share.acknowledgement.mode", "explicit");
            try (KafkaShareConsumer<String, String> consumer =
                    new KafkaShareConsumer<>(configs, new StringDeserializer(), new StringDeserializer())) {
                consumer.subscribe(List.of(TOPIC));
                while (run.goesOn()) {
                    take(consumer);
                }
            } catch (KafkaException e) {
                // The member comes again; what it held does as well.
                org.slf4j.LoggerFactory.getLogger(SharesPart.class).warn("a member ended", e);
            }
        }
    }

    private void take(KafkaShareConsumer<String, String> consumer) {
        ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(200));
        Map<TopicPartition, List<String>> accepting = new HashMap<>();
        for (ConsumerRecord<String, String> record : records) {
            if (accepted.contains(record.value())) {
                run.fail(
                        TOPIC + "-" + record.partition() + " at " + record.offset()
                                + " was accepted and comes again, for the "
                                + record.deliveryCount().orElse((short) -1) + ". time");
            }
            delivered.add(record.value());
            boolean isFirst = record.deliveryCount().orElse((short) 1) == 1;
            if (isFirst && record.offset() % 23 == 0) {
                consumer.acknowledge(record, AcknowledgeType.RELEASE);
            } else {
                consumer.acknowledge(record, AcknowledgeType.ACCEPT);
                accepting
                        .computeIfAbsent(
                                new TopicPartition(record.topic(), record.partition()),
                                p -> new ArrayList<>())
                        .add(record.value());
            }
        }
        Map<TopicIdPartition, Optional<KafkaException>> told = consumer.commitSync(Duration.ofSeconds(30));
        told.forEach(
                (partition, error) -> {
                    if (error.isEmpty()) {
                        accepted.addAll(
                                accepting.getOrDefault(partition.topicPartition(), List.of()));
                    }
                });
    }

    @Override
    public void checkAll(long fed) throws Exception {
        if (delivered.size() != fed) {
            run.fail(TOPIC + ": " + delivered.size() + " delivered of " + fed);
        }
        // What was out when the members left is taken by another one.
        ExactlyOnceLoad.Run rest = new ExactlyOnceLoad.Run(run.client);
        long end = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        Map<String, Object> configs = new HashMap<>(run.client);
        configs.put("group.id", GROUP);
        configs.put("share.acknowledgement.mode", "explicit");
        try (Admin admin = Admin.create(rest.client);
                KafkaShareConsumer<String, String> consumer =
                        new KafkaShareConsumer<>(configs, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(TOPIC));
            while (lag(admin) > 0) {
                take(consumer);
                if (System.nanoTime() > end) {
                    run.fail(TOPIC + ": " + lag(admin) + " records are not done with");
                    return;
                }
            }
        }
    }

    private static long lag(Admin admin) throws Exception {
        Map<TopicPartition, SharePartitionOffsetInfo> offsets =
                admin.listShareGroupOffsets(Map.of(GROUP, new ListShareGroupOffsetsSpec()))
                        .partitionsToOffsetInfo(GROUP)
                        .get();
        long lag = 0;
        for (SharePartitionOffsetInfo info : offsets.values()) {
            lag += info.lag().orElse(1_000_000L);
        }
        return offsets.size() == PARTITIONS ? lag : 1_000_000L;
    }
}
