package klamm.interop;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Compaction. What is left of a history, with its offsets and timestamps, must be what Kafka's
 * cleaner leaves of it, and Kafka's tool must like the files. Segments end where the history says:
 * each of its parts has timestamps that are more than {@code segment.ms} above those of the last.
 */
final class CompactionSuite {
    private static final long LIMIT_MS = 60_000;
    private static final int SEGMENT_MS = 60_000;
    private static final int KEYS = 37;

    private CompactionSuite() {}

    static void add(Suite suite, Options options) {
        suite.test("dynamic-configs", () -> quicken(options));
        suite.test("keeps-the-last-value", () -> keepsTheLastValue(options));
        suite.test("drops-tombstones", () -> dropsTombstones(options));
        suite.test("respects-the-lag", () -> respectsTheLag(options));
        suite.test("compact-and-delete", () -> compactAndDelete(options));
    }

    /** Lets the cleaner look for work all the time, which it is told while it runs. */
    private static void quicken(Options options) throws Exception {
        ConfigResource cluster = new ConfigResource(ConfigResource.Type.BROKER, "");
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", options.bootstrap()))) {
            List<AlterConfigOp> ops = new ArrayList<>();
            Map<String, String> values =
                    Map.of("log.cleaner.backoff.ms", "200", "log.cleaner.threads", "2");
            values.forEach(
                    (name, value) ->
                            ops.add(
                                    new AlterConfigOp(
                                            new ConfigEntry(name, value), AlterConfigOp.OpType.SET)));
            admin.incrementalAlterConfigs(Map.of(cluster, ops)).all().get();
        }
    }

    /** Several codecs, keys again and again, some deleted, batches with and without survivors. */
    private static void keepsTheLastValue(Options options) throws Exception {
        Session s = new Session(options, "compaction.keeps-the-last-value");
        String topic = "ct-last";
        create(options, topic, Map.of("delete.retention.ms", "86400000"));
        int part = 0;
        for (int round = 0; round < 3; round++) {
            for (String codec : ClientSuite.CODECS) {
                List<ProducerRecord<String, String>> records = new ArrayList<>();
                for (int i = 0; i < 60; i++) {
                    String key = "key-" + (i * 7 + part * 13) % KEYS;
                    boolean deleted = (i * 3 + part) % 11 == 0;
                    String value = codec + "-" + part + "-" + i + "-" + "v".repeat(i % 50);
                    records.add(record(topic, part, key, deleted ? null : value, i));
                }
                // Keys that stay as they are, so that whole batches do.
                for (int i = 0; i < 10; i++) {
                    String key = "only-" + part + "-" + i;
                    records.add(record(topic, part, key, codec + "-" + i, 60 + i));
                }
                send(options, codec, records);
                part++;
            }
        }
        for (int end = 0; end < 2; end++) {
            send(options, "none", List.of(record(topic, part++, "end-" + end, "end", 0)));
        }
        awaitContent(options, topic, found -> keysOf(found).size() == found.size());
        s.run(
                        "kafka-console-consumer", "--topic", topic, "--from-beginning",
                        "--timeout-ms", "10000", "--formatter-property", "print.offset=true",
                        "--formatter-property", "print.timestamp=true",
                        "--formatter-property", "print.key=true", "--max-messages",
                        String.valueOf(KEYS + 15 * 10 + 2))
                .exits(0)
                .prints("end-1");
        s.run("kafka-get-offsets", "--topic", topic).exits(0);
        s.run("kafka-get-offsets", "--topic", topic, "--time", "earliest").exits(0);
        s.run("kafka-get-offsets", "--topic", topic, "--time", "max-timestamp").exits(0);
        for (int at = 0; at < part; at += 3) {
            String time = String.valueOf(at * 2L * SEGMENT_MS + 5);
            s.run("kafka-get-offsets", "--topic", topic, "--time", time).exits(0);
        }
        s.compare();
        filesAreKafkas(options, s, topic);
    }

    /** A tombstone goes once its time is over, with the clean after the one that set it. */
    private static void dropsTombstones(Options options) throws Exception {
        String topic = "ct-tombstones";
        create(options, topic, Map.of("delete.retention.ms", "0"));
        List<ProducerRecord<String, String>> records = new ArrayList<>();
        for (int i = 0; i < 20; i++) {
            records.add(record(topic, 0, "key-" + i, "value", i));
        }
        for (int i = 0; i < 20; i += 2) {
            records.add(record(topic, 0, "key-" + i, null, 20 + i));
        }
        send(options, "lz4", records);
        long deadline = System.currentTimeMillis() + LIMIT_MS;
        List<ConsumerRecord<String, String>> found;
        int part = 1;
        do {
            Suite.check(System.currentTimeMillis() < deadline, "tombstones are still there");
            send(options, "none", List.of(record(topic, part++, "tick", "tock", 0)));
            Thread.sleep(300);
            found = readAll(options, topic);
        } while (found.stream().anyMatch(r -> r.value() == null));
        List<String> left =
                found.stream().map(ConsumerRecord::key).filter(k -> !k.equals("tick")).toList();
        List<String> expected = new ArrayList<>();
        for (int i = 1; i < 20; i += 2) {
            expected.add("key-" + i);
        }
        Suite.check(left.equals(expected), "left are " + left);
        filesAreKafkas(options, new Session(options, "compaction.drops-tombstones"), topic);
    }

    /** A record younger than {@code min.compaction.lag.ms} keeps all of its segment from being cleaned. */
    private static void respectsTheLag(Options options) throws Exception {
        String topic = "ct-lag";
        create(options, topic, Map.of("min.compaction.lag.ms", "3600000"));
        long now = System.currentTimeMillis();
        for (int part = 0; part < 4; part++) {
            // Two parts are old enough.
            long time = part < 2 ? part * 2L * SEGMENT_MS : now + part * 2L * SEGMENT_MS;
            List<ProducerRecord<String, String>> records = new ArrayList<>();
            for (int i = 0; i < 5; i++) {
                records.add(new ProducerRecord<>(topic, 0, time, "key-" + i % 2, "v" + part + i));
            }
            send(options, "none", records);
        }
        awaitContent(options, topic, found -> found.size() == 12);
        List<Long> offsets = readAll(options, topic).stream().map(ConsumerRecord::offset).toList();
        Suite.check(
                offsets.equals(List.of(8L, 9L, 10L, 11L, 12L, 13L, 14L, 15L, 16L, 17L, 18L, 19L)),
                "left are " + offsets);
    }

    /** Both policies: old segments go whole, of the others the last values stay. */
    private static void compactAndDelete(Options options) throws Exception {
        String topic = "ct-both";
        create(options, topic, Map.of("cleanup.policy", "compact,delete", "retention.ms", "86400000"));
        long now = System.currentTimeMillis();
        for (int part = 0; part < 4; part++) {
            long time = part < 2 ? part * 2L * SEGMENT_MS : now + part * 2L * SEGMENT_MS;
            List<ProducerRecord<String, String>> records = new ArrayList<>();
            for (int i = 0; i < 6; i++) {
                records.add(
                        new ProducerRecord<>(topic, 0, time, "key-" + part + "-" + i % 3, "v" + i));
            }
            send(options, "zstd", records);
        }
        TopicPartition partition = new TopicPartition(topic, 0);
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", options.bootstrap()))) {
            long deadline = System.currentTimeMillis() + LIMIT_MS;
            long earliest;
            do {
                Suite.check(System.currentTimeMillis() < deadline, "old segments are still there");
                Thread.sleep(100);
                earliest =
                        admin.listOffsets(Map.of(partition, OffsetSpec.earliest()))
                                .partitionResult(partition)
                                .get()
                                .offset();
            } while (earliest < 12);
            Suite.check(earliest == 12, "the log starts at " + earliest);
        }
        awaitContent(options, topic, found -> found.size() == 9);
    }

    private static void create(Options options, String topic, Map<String, String> more)
            throws Exception {
        Map<String, String> configs = new HashMap<>();
        configs.put("cleanup.policy", "compact");
        configs.put("min.cleanable.dirty.ratio", "0");
        configs.put("segment.ms", String.valueOf(SEGMENT_MS));
        configs.put("index.interval.bytes", "256");
        configs.putAll(more);
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", options.bootstrap()))) {
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1).configs(configs))).all().get();
        }
    }

    /** A record of a part of the history; each part lies in a segment of its own. */
    private static ProducerRecord<String, String> record(
            String topic, int part, String key, String value, int index) {
        return new ProducerRecord<>(topic, 0, part * 2L * SEGMENT_MS + index, key, value);
    }

    private static void send(
            Options options, String codec, List<ProducerRecord<String, String>> records)
            throws Exception {
        Map<String, Object> config =
                Map.of(
                        "bootstrap.servers", options.bootstrap(), "compression.type", codec,
                        "batch.size", 800, "linger.ms", 50, "acks", "all");
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            List<java.util.concurrent.Future<?>> sent = new ArrayList<>();
            for (ProducerRecord<String, String> record : records) {
                sent.add(producer.send(record));
            }
            producer.flush();
            for (var future : sent) {
                future.get();
            }
        }
    }

    private static void awaitContent(
            Options options, String topic, Predicate<List<ConsumerRecord<String, String>>> wanted)
            throws Exception {
        long deadline = System.currentTimeMillis() + LIMIT_MS;
        List<ConsumerRecord<String, String>> found = readAll(options, topic);
        while (!wanted.test(found)) {
            Suite.check(
                    System.currentTimeMillis() < deadline,
                    topic + " still has " + found.size() + " records of " + keysOf(found).size() + " keys");
            Thread.sleep(200);
            found = readAll(options, topic);
        }
    }

    private static List<ConsumerRecord<String, String>> readAll(Options options, String topic) {
        Map<String, Object> config =
                Map.of("bootstrap.servers", options.bootstrap(), "enable.auto.commit", false);
        TopicPartition partition = new TopicPartition(topic, 0);
        List<ConsumerRecord<String, String>> found = new ArrayList<>();
        try (KafkaConsumer<String, String> consumer =
                new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            long deadline = System.currentTimeMillis() + LIMIT_MS;
            while (consumer.position(partition) < end) {
                Suite.check(System.currentTimeMillis() < deadline, "cannot read " + topic);
                consumer.poll(Duration.ofMillis(100)).forEach(found::add);
            }
        }
        return found;
    }

    private static java.util.Set<String> keysOf(List<ConsumerRecord<String, String>> records) {
        java.util.Set<String> keys = new java.util.HashSet<>();
        records.forEach(record -> keys.add(record.key()));
        return keys;
    }

    /** Kafka's tool reads every file, and the checkpoint names the topic. */
    private static void filesAreKafkas(Options options, Session s, String topic) throws Exception {
        Path folder = options.path("log-dir").resolve(topic + "-0");
        for (Path file : DumpTools.list(folder, "*.log")) {
            DumpTools.dump(s, file, "--print-data-log", "--deep-iteration");
        }
        List<Path> indexes = DumpTools.list(folder, "*.{index,timeindex}");
        // The newest segment's may be unfinished while it is written to.
        indexes.subList(indexes.size() - 2, indexes.size()).clear();
        Suite.check(!indexes.isEmpty(), "no closed segment in " + folder);
        for (Path index : indexes) {
            DumpTools.dump(s, index);
        }
        Path checkpoint = options.path("log-dir").resolve("cleaner-offset-checkpoint");
        String text = Files.readString(checkpoint, StandardCharsets.UTF_8);
        Suite.check(text.contains("\n" + topic + " 0 "), "no " + topic + " in " + text);
    }
}
