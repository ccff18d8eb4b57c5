package klamm.interop;

import static klamm.interop.Session.with;
import static klamm.interop.Suite.check;
import static klamm.interop.TopicTools.recorded;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.function.Predicate;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.SharePartitionOffsetInfo;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Share groups (KIP-932) of Kafka's own Java client. */
final class ShareSuite {
    private static final long LIMIT_MS = 60_000;

    private ShareSuite() {}

    static void add(Suite suite, Options options) {
        suite.test("accept-all", () -> acceptAll(options));
        suite.test("two-members", () -> twoMembers(options));
        suite.test("release-and-reject", () -> releaseAndReject(options));
        suite.test("delivery-count-limit", () -> deliveryCountLimit(options));
        suite.test("member-leaves", () -> memberLeaves(options));
        suite.test("read-committed", () -> readCommitted(options));
        suite.test("renew", () -> renew(options));
        suite.test("lock-timeout", () -> lockTimeout(options));
        recorded(suite, options, "share-console", s -> console(s, options));
        suite.test("before-restart", () -> beforeRestart(options));
    }

    /** What is to be found after the broker was restarted. */
    static void addRestarted(Suite suite, Options options) {
        suite.test("after-restart", () -> afterRestart(options));
    }

    /** Every record comes once, and the group is known to be done with it. */
    private static void acceptAll(Options options) throws Exception {
        prepare(options, "sg-all", "share-all", 2, Map.of());
        fill(options, "sg-all", 2, 100, "v");
        TreeMap<String, Integer> seen = new TreeMap<>();
        try (KafkaShareConsumer<String, String> consumer = consumer(options, "share-all", "implicit")) {
            consumer.subscribe(List.of("sg-all"));
            poll(consumer, seen, s -> s.size() == 100);
            consumer.commitSync();
        }
        check(seen.size() == 100, "read " + seen.size());
        check(seen.values().stream().allMatch(count -> count == 1), "delivered again: " + seen);
        check(lag(options, "share-all") == 0, "lag " + lag(options, "share-all"));
    }

    /** Two members read one partition at the same time; next to nothing comes to both. */
    private static void twoMembers(Options options) throws Exception {
        prepare(options, "sg-two", "share-two", 1, Map.of());
        Map<String, Integer> seen = Collections.synchronizedMap(new TreeMap<>());
        int[] read = new int[2];
        List<Thread> threads = new ArrayList<>();
        List<Throwable> failures = Collections.synchronizedList(new ArrayList<>());
        for (int i = 0; i < 2; i++) {
            int me = i;
            Thread thread =
                    new Thread(
                            () -> {
                                try (KafkaShareConsumer<String, String> consumer =
                                        consumer(options, "share-two", "implicit")) {
                                    consumer.subscribe(List.of("sg-two"));
                                    read[me] = poll(consumer, seen, s -> s.size() == 2000);
                                } catch (Throwable e) {
                                    failures.add(e);
                                }
                            });
            thread.start();
            threads.add(thread);
        }
        // Both have their partition by now.
        Thread.sleep(12_000);
        for (int round = 0; round < 20; round++) {
            fill(options, "sg-two", 1, 100, "r" + round + "-");
            Thread.sleep(50);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        check(failures.isEmpty(), "failed: " + failures);
        check(seen.size() == 2000, "read " + seen.size());
        // What a member had when its session was made anew comes again, in Kafka too.
        int deliveries = seen.values().stream().mapToInt(Integer::intValue).sum();
        check(deliveries < 2_200, "delivered " + deliveries + " times");
        check(read[0] > 0 && read[1] > 0, "one got nothing: " + read[0] + ", " + read[1]);
    }

    private static void releaseAndReject(Options options) throws Exception {
        prepare(options, "sg-words", "share-words", 1, Map.of());
        fill(options, "sg-words", 1, 9, "v");
        Map<String, List<Short>> counts = new TreeMap<>();
        try (KafkaShareConsumer<String, String> consumer = consumer(options, "share-words", "explicit")) {
            consumer.subscribe(List.of("sg-words"));
            long end = System.currentTimeMillis() + LIMIT_MS;
            int deliveries = 0;
            while (deliveries < 12 && System.currentTimeMillis() < end) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(500))) {
                    short count = record.deliveryCount().orElse((short) 0);
                    counts.computeIfAbsent(record.value(), k -> new ArrayList<>()).add(count);
                    deliveries++;
                    int number = Integer.parseInt(record.value().substring(1));
                    AcknowledgeType type = AcknowledgeType.ACCEPT;
                    if (number % 3 == 1 && count == 1) {
                        type = AcknowledgeType.RELEASE;
                    } else if (number % 3 == 2) {
                        type = AcknowledgeType.REJECT;
                    }
                    consumer.acknowledge(record, type);
                }
                consumer.commitSync();
            }
            // Nothing more comes.
            check(consumer.poll(Duration.ofMillis(1_500)).isEmpty(), "something came again");
        }
        counts.forEach(
                (value, seen) -> {
                    boolean released = Integer.parseInt(value.substring(1)) % 3 == 1;
                    List<Short> expected =
                            released ? List.of((short) 1, (short) 2) : List.of((short) 1);
                    check(seen.equals(expected), value + " came as " + seen);
                });
        check(counts.size() == 9, "read " + counts.keySet());
        check(lag(options, "share-words") == 0, "lag " + lag(options, "share-words"));
    }

    private static void deliveryCountLimit(Options options) throws Exception {
        prepare(options, "sg-limit", "share-limit", 1, Map.of("share.delivery.count.limit", "3"));
        fill(options, "sg-limit", 1, 4, "v");
        Map<String, Integer> seen = new TreeMap<>();
        try (KafkaShareConsumer<String, String> consumer = consumer(options, "share-limit", "explicit")) {
            consumer.subscribe(List.of("sg-limit"));
            long end = System.currentTimeMillis() + LIMIT_MS;
            int deliveries = 0;
            while (deliveries < 12 && System.currentTimeMillis() < end) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(500))) {
                    seen.merge(record.value(), 1, Integer::sum);
                    deliveries++;
                    consumer.acknowledge(record, AcknowledgeType.RELEASE);
                }
                consumer.commitSync();
            }
            check(consumer.poll(Duration.ofMillis(1_500)).isEmpty(), "a fourth delivery");
        }
        check(seen.size() == 4, "read " + seen);
        check(seen.values().stream().allMatch(count -> count == 3), "deliveries " + seen);
    }

    /** What a member has comes back as soon as it leaves. */
    private static void memberLeaves(Options options) throws Exception {
        prepare(options, "sg-leave", "share-leave", 1, Map.of());
        fill(options, "sg-leave", 1, 10, "v");
        try (KafkaShareConsumer<String, String> consumer = consumer(options, "share-leave", "explicit")) {
            consumer.subscribe(List.of("sg-leave"));
            int read = 0;
            long end = System.currentTimeMillis() + LIMIT_MS;
            while (read == 0 && System.currentTimeMillis() < end) {
                read = consumer.poll(Duration.ofMillis(500)).count();
            }
            check(read == 10, "read " + read);
        }
        TreeMap<String, Integer> seen = new TreeMap<>();
        try (KafkaShareConsumer<String, String> consumer = consumer(options, "share-leave", "implicit")) {
            consumer.subscribe(List.of("sg-leave"));
            poll(consumer, seen, s -> s.size() == 10);
        }
        check(seen.size() == 10, "read " + seen.size() + " after the first member left");
    }

    private static void readCommitted(Options options) throws Exception {
        prepare(
                options, "sg-txn", "share-txn", 1, Map.of("share.isolation.level", "read_committed"));
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", options.bootstrap());
        config.put("transactional.id", "sg-txn-id");
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            producer.initTransactions();
            for (int t = 0; t < 6; t++) {
                producer.beginTransaction();
                for (int i = 0; i < 5; i++) {
                    String word = t % 2 == 1 ? "aborted" : "committed";
                    producer.send(new ProducerRecord<>("sg-txn", 0, "k", word + t + "-" + i));
                }
                producer.flush();
                if (t % 2 == 1) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
        }
        TreeMap<String, Integer> seen = new TreeMap<>();
        try (KafkaShareConsumer<String, String> consumer = consumer(options, "share-txn", "implicit")) {
            consumer.subscribe(List.of("sg-txn"));
            poll(consumer, seen, s -> s.size() == 15);
            consumer.poll(Duration.ofMillis(1_000)).forEach(r -> seen.merge(r.value(), 1, Integer::sum));
        }
        check(seen.size() == 15, "read " + seen.size());
        check(seen.keySet().stream().allMatch(v -> v.startsWith("committed")), "read " + seen.keySet());
    }

    /** A renewed lock outlives its first time. */
    private static void renew(Options options) throws Exception {
        prepare(
                options, "sg-renew", "share-renew", 1, Map.of("share.record.lock.duration.ms", "15000"));
        fill(options, "sg-renew", 1, 1, "v");
        try (KafkaShareConsumer<String, String> consumer = consumer(options, "share-renew", "explicit")) {
            consumer.subscribe(List.of("sg-renew"));
            int deliveries = 0;
            long end = System.currentTimeMillis() + LIMIT_MS;
            long begun = 0;
            while (System.currentTimeMillis() < end && (begun == 0 || System.currentTimeMillis() < begun + 20_000)) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(500))) {
                    if (begun == 0) {
                        begun = System.currentTimeMillis();
                    }
                    short count = record.deliveryCount().orElse((short) 0);
                    check(count == 1, "delivered again: " + count);
                    deliveries++;
                    consumer.acknowledge(record, AcknowledgeType.RENEW);
                    consumer.commitSync();
                    Thread.sleep(500);
                }
            }
            check(deliveries > 0, "nothing came");
        }
    }

    /** What a member does not acknowledge in time comes to another. */
    private static void lockTimeout(Options options) throws Exception {
        prepare(
                options, "sg-lock", "share-lock", 1, Map.of("share.record.lock.duration.ms", "15000"));
        fill(options, "sg-lock", 1, 5, "v");
        try (KafkaShareConsumer<String, String> one = consumer(options, "share-lock", "explicit");
                KafkaShareConsumer<String, String> other = consumer(options, "share-lock", "explicit")) {
            one.subscribe(List.of("sg-lock"));
            int read = 0;
            long end = System.currentTimeMillis() + LIMIT_MS;
            while (read == 0 && System.currentTimeMillis() < end) {
                read = one.poll(Duration.ofMillis(500)).count();
            }
            check(read == 5, "read " + read);
            long taken = System.currentTimeMillis();
            other.subscribe(List.of("sg-lock"));
            Set<String> again = new TreeSet<>();
            while (again.size() < 5 && System.currentTimeMillis() < end) {
                for (ConsumerRecord<String, String> record : other.poll(Duration.ofMillis(500))) {
                    check(record.deliveryCount().orElse((short) 0) == 2, "count of " + record);
                    again.add(record.value());
                    other.acknowledge(record, AcknowledgeType.ACCEPT);
                }
            }
            check(again.size() == 5, "came again: " + again);
            check(System.currentTimeMillis() - taken > 10_000, "came too early");
        }
    }

    /** {@code kafka-console-share-consumer}: ten records by and by accepted, rejected, released. */
    private static void console(Session s, Options options) throws Exception {
        String tool = "kafka-console-share-consumer";
        prepare(options, "sg-console", "share-console", 1, Map.of());
        fill(options, "sg-console", 1, 10, "v");
        String[] group = {"--topic", "sg-console", "--group", "share-console"};
        s.run(tool, with(group, "--max-messages", "4", "--timeout-ms", "20000")).exits(0).prints("v3");
        s.run(tool, with(group, "--max-messages", "2", "--timeout-ms", "20000", "--reject"))
                .exits(0)
                .lacks("v3")
                .prints("v4");
        s.run(tool, with(group, "--max-messages", "3", "--timeout-ms", "20000", "--release"))
                .exits(0)
                .prints("v6");
        String[] shown = {
            "--formatter-property", "print.key=true", "--formatter-property", "print.offset=true",
            "--formatter-property", "print.partition=true", "--formatter-property",
            "print.headers=true"
        };
        s.run(tool, with(with(group, "--max-messages", "4", "--timeout-ms", "20000"), shown))
                .exits(0)
                .prints("v6")
                .prints("v9");
        // All are done with.
        s.run(tool, with(group, "--timeout-ms", "1500"));
        s.runUnrecorded("kafka-share-groups", "--describe", "--group", "share-console")
                .exits(0)
                .matches("^share-console +sg-console +0 +\\d+ +0$");
        s.runUnrecorded(tool, with(group, "--reject", "--release")).exits(1).prints("At most one of");
    }

    /** Half is accepted, one record rejected, and the rest is out with a member. */
    private static void beforeRestart(Options options) throws Exception {
        prepare(options, "sg-restart", "share-restart", 1, Map.of());
        fill(options, "sg-restart", 1, 20, "v");
        try (KafkaShareConsumer<String, String> consumer = consumer(options, "share-restart", "explicit")) {
            consumer.subscribe(List.of("sg-restart"));
            int read = 0;
            long end = System.currentTimeMillis() + LIMIT_MS;
            while (read < 20 && System.currentTimeMillis() < end) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(500))) {
                    int number = Integer.parseInt(record.value().substring(1));
                    read++;
                    consumer.acknowledge(
                            record,
                            number == 15
                                    ? AcknowledgeType.REJECT
                                    : number < 10 ? AcknowledgeType.ACCEPT : AcknowledgeType.RELEASE);
                }
                consumer.commitSync();
                if (read >= 20) {
                    break;
                }
            }
            check(read == 20, "read " + read);
        }
    }

    private static void afterRestart(Options options) throws Exception {
        TreeMap<String, Integer> seen = new TreeMap<>();
        try (KafkaShareConsumer<String, String> consumer = consumer(options, "share-restart", "implicit")) {
            consumer.subscribe(List.of("sg-restart"));
            poll(consumer, seen, s -> s.size() == 9);
            consumer.poll(Duration.ofMillis(1_500)).forEach(r -> seen.merge(r.value(), 1, Integer::sum));
        }
        Set<String> expected = new TreeSet<>();
        for (int i = 10; i < 20; i++) {
            if (i != 15) {
                expected.add("v" + i);
            }
        }
        check(seen.keySet().equals(expected), "read " + seen.keySet());
    }

    /** A topic, and a group that begins at its start. */
    static void prepare(
            Options options, String topic, String group, int partitions, Map<String, String> settings)
            throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", options.bootstrap()))) {
            try {
                admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
            } catch (ExecutionException e) {
                if (!(e.getCause() instanceof TopicExistsException)) {
                    throw e;
                }
            }
        }
        Map<String, String> all = new HashMap<>(settings);
        all.put("share.auto.offset.reset", "earliest");
        configure(options, group, all);
    }

    /** Sets configurations of a group. */
    static void configure(Options options, String group, Map<String, String> settings)
            throws Exception {
        List<AlterConfigOp> changes = new ArrayList<>();
        settings.forEach(
                (name, value) ->
                        changes.add(
                                new AlterConfigOp(
                                        new ConfigEntry(name, value), AlterConfigOp.OpType.SET)));
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", options.bootstrap()))) {
            admin.incrementalAlterConfigs(Map.of(resource, changes)).all().get();
        }
    }

    static void fill(Options options, String topic, int partitions, int count, String word) {
        Map<String, Object> config = Map.of("bootstrap.servers", options.bootstrap());
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (int i = 0; i < count; i++) {
                producer.send(new ProducerRecord<>(topic, i % partitions, "k" + i, word + i));
            }
        }
    }

    static KafkaShareConsumer<String, String> consumer(Options options, String group, String mode) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", options.bootstrap());
        config.put("group.id", group);
        config.put("client.id", "sharer");
        config.put("share.acknowledgement.mode", mode);
        return new KafkaShareConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    /** Reads until that is enough, and returns how many records came. */
    static int poll(
            KafkaShareConsumer<String, String> consumer,
            Map<String, Integer> seen,
            Predicate<Map<String, Integer>> enough) {
        int read = 0;
        long end = System.currentTimeMillis() + LIMIT_MS;
        while (!enough.test(seen) && System.currentTimeMillis() < end) {
            for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(500))) {
                seen.merge(record.value(), 1, Integer::sum);
                read++;
            }
        }
        return read;
    }

    /** How far the group is behind in all partitions, once it is known. */
    private static long lag(Options options, String group) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", options.bootstrap()))) {
            Map<TopicPartition, SharePartitionOffsetInfo> offsets =
                    admin.listShareGroupOffsets(Map.of(group, new ListShareGroupOffsetsSpec()))
                            .partitionsToOffsetInfo(group)
                            .get();
            long lag = 0;
            for (SharePartitionOffsetInfo info : offsets.values()) {
                lag += info.lag().orElse(1_000_000L);
            }
            return lag;
        }
    }
}
