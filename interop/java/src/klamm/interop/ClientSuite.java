package klamm.interop;

import java.time.Duration;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Kafka's own Java client. */
final class ClientSuite {
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    private static final long LIMIT_MS = 120_000;

    private ClientSuite() {}

    static void add(Suite suite, Options options) {
        int each = Integer.parseInt(options.get("records", "100000")) / CODECS.size();
        for (String codec : CODECS) {
            Workload work = new Workload("java", codec, each);
            suite.test(
                    "produce-and-read." + codec,
                    () -> {
                        produce(options, work);
                        readAll(options, work);
                    });
        }
        suite.test(
                "commit-and-resume",
                () -> commitAndResume(options, new Workload("java", "gzip", each)));
        suite.test("rebalance", () -> rebalance(options, new Workload("java", "lz4", each)));
    }

    /** What the other clients wrote, read by this one. */
    static void addCross(Suite suite, Options options) {
        int each = Integer.parseInt(options.get("records", "100000")) / CODECS.size();
        for (String client : options.get("clients", "").split(",")) {
            suite.test(
                    client,
                    () -> {
                        for (String codec : CODECS) {
                            readAll(options, new Workload(client, codec, each));
                        }
                    });
        }
    }

    private static void produce(Options options, Workload work) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", options.bootstrap()))) {
            NewTopic topic = new NewTopic(work.topic(), Workload.PARTITIONS, (short) 1);
            // The records are dated long ago; they shall stay.
            topic.configs(Map.of("retention.ms", "-1"));
            try {
                admin.createTopics(List.of(topic)).all().get();
            } catch (ExecutionException e) {
                if (!(e.getCause() instanceof TopicExistsException)) {
                    throw e;
                }
            }
        }
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", options.bootstrap());
        config.put("enable.idempotence", "true");
        config.put("acks", "all");
        config.put("compression.type", work.codec());
        config.put("linger.ms", 5);
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            Future<RecordMetadata> last = null;
            for (int i = 0; i < work.count(); i++) {
                last = producer.send(work.record(i));
            }
            producer.flush();
            Suite.check(
                    last.get().offset() == (work.count() - 1) / Workload.PARTITIONS,
                    "last offset is " + last.get().offset());
        }
    }

    private static void readAll(Options options, Workload work) {
        Seen seen = new Seen(work);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(options, null)) {
            List<TopicPartition> partitions =
                    IntStream.range(0, Workload.PARTITIONS)
                            .mapToObj(p -> new TopicPartition(work.topic(), p))
                            .toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            long total = ends.values().stream().mapToLong(Long::longValue).sum();
            Suite.check(total == work.count(), work.topic() + " holds " + total + " records");
            seen.poll(consumer, work.count());
        }
    }

    private static void commitAndResume(Options options, Workload work) {
        Seen seen = new Seen(work);
        String group = "resume-java";
        try (KafkaConsumer<byte[], byte[]> first = consumer(options, group)) {
            first.subscribe(List.of(work.topic()));
            seen.poll(first, work.count() / 2);
            first.commitSync();
        }
        int before = seen.count();
        Suite.check(before < work.count(), "the first consumer has read everything");
        try (KafkaConsumer<byte[], byte[]> second = consumer(options, group)) {
            second.subscribe(List.of(work.topic()));
            seen.poll(second, work.count());
            second.commitSync();
        }
        try (KafkaConsumer<byte[], byte[]> third = consumer(options, group)) {
            third.subscribe(List.of(work.topic()));
            ConsumerRecords<byte[], byte[]> more = third.poll(Duration.ofSeconds(2));
            Suite.check(more.isEmpty(), "read again: " + more.count() + " records");
        }
    }

    /** A second member takes over part of the partitions, and hands them back when it leaves. */
    private static void rebalance(Options options, Workload work) {
        String group = "rebalance-java";
        try (KafkaConsumer<byte[], byte[]> first = consumer(options, group)) {
            first.subscribe(List.of(work.topic()));
            waitForAssignment(List.of(first));
            try (KafkaConsumer<byte[], byte[]> second = consumer(options, group)) {
                second.subscribe(List.of(work.topic()));
                waitForAssignment(List.of(first, second));
            }
            waitForAssignment(List.of(first));
        }
    }

    /** Polls until each has some partition and together they have every one. */
    private static void waitForAssignment(List<KafkaConsumer<byte[], byte[]>> members) {
        long end = System.currentTimeMillis() + 30_000;
        while (System.currentTimeMillis() < end) {
            int assigned = 0;
            boolean all = true;
            for (KafkaConsumer<byte[], byte[]> member : members) {
                member.poll(Duration.ofMillis(50));
                assigned += member.assignment().size();
                all &= !member.assignment().isEmpty();
            }
            if (all && assigned == Workload.PARTITIONS) {
                return;
            }
        }
        throw new AssertionError(
                "still assigned: " + members.stream().map(KafkaConsumer::assignment).toList());
    }

    private static KafkaConsumer<byte[], byte[]> consumer(Options options, String group) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", options.bootstrap());
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", "false");
        config.put("group.protocol", "classic");
        // Small enough for reading to stop in the middle.
        config.put("max.poll.records", "500");
        if (group != null) {
            config.put("group.id", group);
        }
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** Which records came, each once and each as written. */
    private static final class Seen {
        private final Workload work;
        private final BitSet indices = new BitSet();

        Seen(Workload work) {
            this.work = work;
        }

        int count() {
            return indices.cardinality();
        }

        void poll(KafkaConsumer<byte[], byte[]> consumer, int until) {
            long end = System.currentTimeMillis() + LIMIT_MS;
            while (count() < until) {
                Suite.check(
                        System.currentTimeMillis() < end,
                        "only " + count() + " of " + until + " records of " + work.topic());
                for (ConsumerRecord<byte[], byte[]> record :
                        consumer.poll(Duration.ofMillis(500))) {
                    int index = work.check(record);
                    Suite.check(!indices.get(index), "record " + index + " came twice");
                    indices.set(index);
                }
            }
        }
    }
}
