package klamm.interop;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.function.BooleanSupplier;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.StringDeserializer;

/** The consumer group protocol of KIP-848 with the Java client, and the tool that shows it. */
final class ConsumerGroupSuite {
    private static final String TOOL = "kafka-consumer-groups";
    private static final long LIMIT_MS = 60_000;
    private static final int PARTITIONS = 6;

    private ConsumerGroupSuite() {}

    static void add(Suite suite, Options options) {
        suite.test("scale-up-and-down", () -> scale(options));
        suite.test("static-members", () -> statics(options));
        suite.test("regular-expressions", () -> regexes(options));
        suite.test("range-assignor", () -> range(options));
        suite.test("both-protocols", () -> bothProtocols(options));
        suite.test("described", () -> described(options));
        suite.test("broker-killed", () -> killed(options));
        suite.test("dumped", () -> dumped(options));
    }

    /** Members come and go while they read: every record once, no partition with two owners. */
    private static void scale(Options options) throws Exception {
        topic(options, "cg-scale", PARTITIONS);
        OffsetTools.fill(options, "cg-scale", PARTITIONS, 200);
        try (Crowd crowd = new Crowd(options, "cg-scaling")) {
            crowd.join(consumer -> consumer.subscribe(List.of("cg-scale")));
            crowd.settle(PARTITIONS);
            crowd.join(consumer -> consumer.subscribe(List.of("cg-scale")));
            crowd.join(consumer -> consumer.subscribe(List.of("cg-scale")));
            crowd.settle(PARTITIONS);
            crowd.sizes(List.of(2, 2, 2));
            crowd.await("all records", () -> crowd.seen.size() == PARTITIONS * 200);
            crowd.leave(0);
            crowd.settle(PARTITIONS);
            crowd.sizes(List.of(3, 3));
            OffsetTools.fill(options, "cg-scale", PARTITIONS, 10);
            crowd.await("more records", () -> crowd.seen.size() == PARTITIONS * 210);
            crowd.leave(0);
            crowd.settle(PARTITIONS);
        }
    }

    /** A static member that comes back finds what it had; the others notice nothing. */
    private static void statics(Options options) throws Exception {
        topic(options, "cg-static", PARTITIONS);
        try (Crowd crowd = new Crowd(options, "cg-statics")) {
            crowd.more.put("group.instance.id", "one");
            crowd.join(consumer -> consumer.subscribe(List.of("cg-static")));
            crowd.more.put("group.instance.id", "two");
            crowd.join(consumer -> consumer.subscribe(List.of("cg-static")));
            crowd.settle(PARTITIONS);
            Set<TopicPartition> before = crowd.members.get(1).assignment();
            Set<TopicPartition> others = crowd.members.get(0).assignment();
            crowd.leave(1);
            crowd.join(consumer -> consumer.subscribe(List.of("cg-static")));
            crowd.settle(PARTITIONS);
            Suite.check(crowd.members.get(1).assignment().equals(before), "another assignment");
            Suite.check(crowd.members.get(0).assignment().equals(others), "the others moved");
            Suite.check(
                    crowd.members.get(1).groupMetadata().groupInstanceId().get().equals("two"),
                    "no instance id");
        }
    }

    /** Topics that match now and those that come later. */
    private static void regexes(Options options) throws Exception {
        topic(options, "cg-re-a", 2);
        topic(options, "cg-other", 2);
        try (Crowd crowd = new Crowd(options, "cg-regexes")) {
            SubscriptionPattern pattern = new SubscriptionPattern("cg-re-[a-c]|nothing");
            crowd.join(consumer -> consumer.subscribe(pattern));
            crowd.join(consumer -> consumer.subscribe(pattern));
            crowd.settle(2);
            topic(options, "cg-re-b", 3);
            topic(options, "cg-re-z", 3);
            crowd.settle(5);
            Set<String> topics = crowd.topics();
            Suite.check(topics.equals(Set.of("cg-re-a", "cg-re-b")), "assigned " + topics);
        }
        try (KafkaConsumer<String, String> broken = consumer(options, "cg-regexes", Map.of())) {
            broken.subscribe(new SubscriptionPattern("cg-re-("));
            try {
                for (int i = 0; i < 50; i++) {
                    broken.poll(Duration.ofMillis(200));
                }
                throw new AssertionError("a broken expression was taken");
            } catch (org.apache.kafka.common.errors.InvalidRegularExpression expected) {
                Suite.check(
                        expected.getMessage().contains("missing closing )"), expected.getMessage());
            }
        }
    }

    /** The range assignor: the same partitions of both topics to the same member. */
    private static void range(Options options) throws Exception {
        topic(options, "cg-range-a", 4);
        topic(options, "cg-range-b", 4);
        try (Crowd crowd = new Crowd(options, "cg-ranges")) {
            crowd.more.put("group.remote.assignor", "range");
            for (int i = 0; i < 2; i++) {
                crowd.join(consumer -> consumer.subscribe(List.of("cg-range-a", "cg-range-b")));
            }
            crowd.settle(8);
            for (KafkaConsumer<String, String> member : crowd.members) {
                Set<Integer> a = partitions(member, "cg-range-a");
                Suite.check(a.equals(partitions(member, "cg-range-b")), "not together: " + a);
                Suite.check(a.equals(Set.of(0, 1)) || a.equals(Set.of(2, 3)), "no range: " + a);
            }
        }
    }

    /** A classic group goes up to the consumer protocol and down again, reading all the time. */
    private static void bothProtocols(Options options) throws Exception {
        topic(options, "cg-both", PARTITIONS);
        OffsetTools.fill(options, "cg-both", PARTITIONS, 50);
        try (Crowd crowd = new Crowd(options, "cg-mixed")) {
            crowd.more.put("group.protocol", "classic");
            for (int i = 0; i < 2; i++) {
                crowd.join(consumer -> consumer.subscribe(List.of("cg-both")));
            }
            crowd.settle(PARTITIONS);
            Suite.check(type(options, "cg-mixed").equals("Classic"), "no classic group");
            crowd.more.put("group.protocol", "consumer");
            crowd.join(consumer -> consumer.subscribe(List.of("cg-both")));
            crowd.settle(PARTITIONS);
            crowd.sizes(List.of(2, 2, 2));
            Suite.check(type(options, "cg-mixed").equals("Consumer"), "no consumer group");
            OffsetTools.fill(options, "cg-both", PARTITIONS, 50);
            crowd.await("records of both", () -> crowd.seen.size() == PARTITIONS * 100);
            crowd.leave(2);
            crowd.settle(PARTITIONS);
            Suite.check(type(options, "cg-mixed").equals("Classic"), "no classic group again");
            OffsetTools.fill(options, "cg-both", PARTITIONS, 10);
            crowd.await("records after", () -> crowd.seen.size() == PARTITIONS * 110);
        }
    }

    /** What the tool tells of such groups, word for word. */
    private static void described(Options options) throws Exception {
        Session s = new Session(options, "consumer-groups.described");
        topic(options, "cg-told", 2);
        OffsetTools.fill(options, "cg-told", 2, 5);
        String member;
        try (Crowd crowd = new Crowd(options, "cg-tells")) {
            crowd.more.put("client.id", "teller");
            crowd.more.put("group.instance.id", "told");
            crowd.join(consumer -> consumer.subscribe(List.of("cg-told")));
            crowd.settle(2);
            crowd.await("its records", () -> crowd.seen.size() == 10);
            crowd.members.get(0).commitSync();
            member = crowd.members.get(0).groupMetadata().memberId();
            crowd.background(
                    () -> {
                        String[] base = {"--describe", "--group", "cg-tells"};
                        s.runUnrecorded(TOOL, "--list", "--type", "consumer").prints("cg-tells");
                        s.runUnrecorded(TOOL, "--list", "--state", "stable").prints("cg-tells");
                        told(s, base).matches("cg-told +0 +5 +5 +0 ");
                        told(s, base, "--offsets", "--verbose");
                        told(s, base, "--state").prints("Stable").prints("uniform");
                        told(s, base, "--state", "--verbose");
                        told(s, base, "--members");
                        told(s, base, "--members", "--verbose").prints("cg-told:0,1");
                        s.run(TOOL, "--delete", "--group", "cg-tells")
                                .prints("GroupNotEmptyException");
                        s.runSorted(
                                        TOOL, "--delete-offsets", "--group", "cg-tells", "--topic",
                                        "cg-told")
                                .prints("subscribed");
                    });
        }
        // A static member is only away.
        String[] base = {"--describe", "--group", "cg-tells"};
        told(s, base, "--state");
        s.run(TOOL, "--describe", "--group", "cg-nobody", "--members");
        s.mask(member, "<member>");
        s.compare();
    }

    private static Session.Step told(Session s, String[] base, String... more) throws Exception {
        List<String> all = new ArrayList<>(List.of(base));
        all.addAll(List.of(more));
        return s.runSorted(TOOL, all.toArray(new String[0])).exits(0);
    }

    /** The broker is killed and started again while members read. */
    private static void killed(Options options) throws Exception {
        topic(options, "cg-killed", PARTITIONS);
        OffsetTools.fill(options, "cg-killed", PARTITIONS, 50);
        try (Crowd crowd = new Crowd(options, "cg-survives")) {
            for (int i = 0; i < 3; i++) {
                crowd.join(consumer -> consumer.subscribe(List.of("cg-killed")));
            }
            crowd.settle(PARTITIONS);
            crowd.await("its records", () -> crowd.seen.size() == PARTITIONS * 50);
            crowd.members.forEach(KafkaConsumer::commitSync);
            List<Set<TopicPartition>> before = crowd.assignments();
            // The runner sees the file, kills the broker, starts it again and removes the file.
            Path marker = options.path("work-dir").resolve("restart.now");
            Files.createDirectories(marker.getParent());
            Files.createFile(marker);
            crowd.await("the restart", () -> !Files.exists(marker));
            OffsetTools.fill(options, "cg-killed", PARTITIONS, 50);
            crowd.await("the rest", () -> crowd.seen.size() == PARTITIONS * 100);
            crowd.settle(PARTITIONS);
            Suite.check(crowd.assignments().equals(before), "partitions moved");
            crowd.leave(0);
            crowd.settle(PARTITIONS);
        }
    }

    /** The records of groups, read by Kafka's own tool. */
    private static void dumped(Options options) throws Exception {
        List<String> files = new ArrayList<>();
        Path dir = options.path("log-dir");
        try (var folders = Files.newDirectoryStream(dir, "__consumer_offsets-*")) {
            for (Path folder : folders) {
                Path log = folder.resolve("00000000000000000000.log");
                if (Files.size(log) > 0) {
                    files.add(log.toString());
                }
            }
        }
        Session s = new Session(options, "consumer-groups.dumped");
        Session.Step dump =
                s.runUnrecorded(
                        "kafka-dump-log", "--files", String.join(",", files), "--offsets-decoder",
                        "--print-data-log");
        dump.exits(0).lacks("Malformed").lacks("Found invalid");
        for (int type : new int[] {3, 5, 6, 7, 8, 16}) {
            dump.prints("{\"type\":\"" + type + "\"");
        }
        dump.prints("\"assignmentEpochs\"").prints("\"metadataHash\"").prints("cg-re-[a-c]");
    }

    private static String type(Options options, String group) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", options.bootstrap()))) {
            return admin.describeConsumerGroups(List.of(group))
                    .describedGroups()
                    .get(group)
                    .get()
                    .type()
                    .toString();
        }
    }

    private static Set<Integer> partitions(KafkaConsumer<?, ?> member, String topic) {
        return member.assignment().stream()
                .filter(partition -> partition.topic().equals(topic))
                .map(TopicPartition::partition)
                .collect(Collectors.toSet());
    }

    private static void topic(Options options, String name, int partitions) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", options.bootstrap()))) {
            NewTopic topic = new NewTopic(name, partitions, (short) 1);
            topic.configs(Map.of("retention.ms", "-1"));
            admin.createTopics(List.of(topic)).all().get();
        } catch (ExecutionException e) {
            if (!(e.getCause() instanceof TopicExistsException)) {
                throw e;
            }
        }
    }

    private static KafkaConsumer<String, String> consumer(
            Options options, String group, Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", options.bootstrap());
        config.put("group.id", group);
        config.put("group.protocol", "consumer");
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", "false");
        config.put("metadata.max.age.ms", "1000");
        config.putAll(more);
        return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    /** Members of one group, all polled by this thread. */
    private static final class Crowd implements AutoCloseable {
        final List<KafkaConsumer<String, String>> members = new ArrayList<>();
        final Map<String, Object> more = new HashMap<>();
        final Set<String> seen = new HashSet<>();
        private final Options options;
        private final String group;

        Crowd(Options options, String group) {
            this.options = options;
            this.group = group;
        }

        void join(java.util.function.Consumer<KafkaConsumer<String, String>> subscribe) {
            KafkaConsumer<String, String> member = consumer(options, group, more);
            subscribe.accept(member);
            members.add(member);
        }

        void leave(int which) {
            members.remove(which).close();
        }

        /** One round: each record must be new, and is committed at once. */
        void poll() {
            for (KafkaConsumer<String, String> member : members) {
                boolean any = false;
                for (ConsumerRecord<String, String> record : member.poll(Duration.ofMillis(50))) {
                    String place = record.topic() + "-" + record.partition() + "@" + record.offset();
                    Suite.check(seen.add(place), place + " came twice");
                    any = true;
                }
                if (any) {
                    member.commitSync();
                }
            }
        }

        void await(String what, BooleanSupplier reached) {
            long end = System.currentTimeMillis() + LIMIT_MS;
            while (!reached.getAsBoolean()) {
                Suite.check(
                        System.currentTimeMillis() < end,
                        what + " not reached: " + seen.size() + " records, " + assignments());
                poll();
            }
        }

        /** Waits until the members share this many partitions, none of them twice, and for long. */
        void settle(int partitions) {
            long[] since = {0};
            await(
                    partitions + " partitions in good hands",
                    () -> {
                        Set<TopicPartition> all = new HashSet<>();
                        int count = 0;
                        for (Set<TopicPartition> of : assignments()) {
                            all.addAll(of);
                            count += of.size();
                        }
                        boolean shared = members.size() <= 1 || members.stream().noneMatch(m -> m.assignment().isEmpty());
                        if (count != partitions || all.size() != partitions || !shared) {
                            since[0] = 0;
                        } else if (since[0] == 0) {
                            since[0] = System.currentTimeMillis();
                        }
                        return since[0] != 0 && System.currentTimeMillis() - since[0] > 1_000;
                    });
        }

        /** Waits until the members have that many partitions each, in any order. */
        void sizes(List<Integer> wanted) {
            await(
                    wanted + " partitions each",
                    () -> {
                        List<Integer> sizes =
                                assignments().stream().map(Set::size).sorted().toList();
                        return sizes.equals(wanted);
                    });
        }

        List<Set<TopicPartition>> assignments() {
            return members.stream().map(KafkaConsumer::assignment).toList();
        }

        Set<String> topics() {
            return assignments().stream()
                    .flatMap(Set::stream)
                    .map(TopicPartition::topic)
                    .collect(Collectors.toCollection(TreeSet::new));
        }

        /** Runs something that takes a while on another thread, and polls meanwhile. */
        void background(Suite.Body body) throws Exception {
            Throwable[] failed = {null};
            Thread thread =
                    new Thread(
                            () -> {
                                try {
                                    body.run();
                                } catch (Throwable e) {
                                    failed[0] = e;
                                }
                            });
            thread.start();
            while (thread.isAlive()) {
                poll();
            }
            if (failed[0] instanceof Error error) {
                throw error;
            }
            if (failed[0] != null) {
                throw (Exception) failed[0];
            }
        }

        @Override
        public void close() {
            members.forEach(KafkaConsumer::close);
        }
    }
}
