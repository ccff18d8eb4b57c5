package klamm.interop;

import static klamm.interop.Session.with;
import static klamm.interop.Suite.check;
import static klamm.interop.TopicTools.recorded;

import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListStreamsGroupOffsetsSpec;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.StreamsGroupDescription;
import org.apache.kafka.clients.admin.StreamsGroupMemberAssignment;
import org.apache.kafka.clients.admin.StreamsGroupMemberDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Streams groups (KIP-1071): a word count of Kafka Streams with a repartition topic, a state store and
 * its changelog, of one instance, then two, then one again; and {@code kafka-streams-groups} at each
 * step.
 */
final class StreamsSuite {
    private static final String TOOL = "kafka-streams-groups";
    private static final String APPLICATION = "sw-app";
    private static final String INPUT = "sw-words";
    private static final String OUTPUT = "sw-counts";
    private static final String[] VOCABULARY = "ox cat dog emu fox gnu hen jay kea owl".split(" ");
    private static final long LIMIT_MS = 60_000;

    private final Options options;
    private final Random random = new Random(7);
    private final Map<String, Long> model = new TreeMap<>();
    private KafkaStreams first;
    private KafkaStreams second;

    private StreamsSuite(Options options) {
        this.options = options;
    }

    static void add(Suite suite, Options options) {
        StreamsSuite it = new StreamsSuite(options);
        suite.test("one-instance", it::oneInstance);
        recorded(suite, options, "streams.active", it::activeTools);
        suite.test("two-instances", it::twoInstances);
        suite.test("one-again", it::oneAgain);
        recorded(suite, options, "streams.empty", it::emptyTools);
        suite.test("missing-source", it::missingSource);
    }

    /** Its internal topics are made as it asks for, and it counts what was there before it. */
    private void oneInstance() throws Exception {
        try (Admin admin = admin()) {
            admin.createTopics(
                            List.of(
                                    new NewTopic(INPUT, 2, (short) 1),
                                    new NewTopic(OUTPUT, 2, (short) 1)))
                    .all()
                    .get();
            write(300);
            first = start("one");
            expectCounts();
            var topics = List.of(APPLICATION + "-counts-repartition", APPLICATION + "-counts-changelog");
            var described = admin.describeTopics(topics).allTopicNames().get();
            described.forEach(
                    (name, topic) ->
                            check(topic.partitions().size() == 2, name + ": " + topic.partitions()));
            var resource = new ConfigResource(ConfigResource.Type.TOPIC, topics.get(1));
            var config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
            check("compact".equals(config.get("cleanup.policy").value()), "changelog: " + config);
            StreamsGroupDescription group = until("stable", admin, g -> isStable(g, 1));
            check(group.subtopologies().size() == 2, "topology: " + group.subtopologies());
            int tasks = tasks(group, StreamsGroupMemberAssignment::activeTasks);
            check(tasks == 4, "tasks: " + tasks);
        }
    }

    private void activeTools(Session s) throws Exception {
        try (Admin admin = admin()) {
            await("commits of all that was read", () -> isCommitted(admin) ? Boolean.TRUE : null);
            for (StreamsGroupMemberDescription member : describe(admin).members()) {
                s.mask(member.memberId(), "<member>");
                s.mask(member.processId(), "<process>");
            }
        }
        s.run(TOOL, "--list").exits(0).prints(APPLICATION);
        s.run(TOOL, "--list", "--state").exits(0).matches(APPLICATION + "\\s+Stable");
        s.run(TOOL, "--list", "--state", "empty").exits(0).lacks(APPLICATION);
        s.run("kafka-groups", "--list", "--streams").exits(0).matches(APPLICATION + "\\s+Streams\\s+streams");
        s.run("kafka-groups", "--list", "--group-type", "consumer").exits(0).lacks(APPLICATION);
        s.runSorted(TOOL, "--describe", "--group", APPLICATION).exits(0).prints(INPUT);
        s.runSorted(TOOL, "--describe", "--group", APPLICATION, "--offsets", "--verbose").exits(0);
        s.run(TOOL, "--describe", "--group", APPLICATION, "--members").exits(0).prints("ACTIVE");
        s.runUnrecorded(TOOL, "--describe", "--group", APPLICATION, "--members", "--verbose")
                .exits(0)
                .prints("TARGET-ACTIVE");
        s.run(TOOL, "--describe", "--group", APPLICATION, "--state").exits(0).prints("Stable");
        s.runUnrecorded(TOOL, "--describe", "--group", APPLICATION, "--state", "--verbose")
                .exits(0)
                .prints("Stable");
        s.run(TOOL, "--delete", "--group", APPLICATION).exits(0).prints("not EMPTY");
        s.run(TOOL, "--describe", "--group", "sw-nobody").exits(1).prints("not found");
        s.run("kafka-consumer-groups", "--describe", "--group", APPLICATION);
    }

    private static boolean isCommitted(Admin admin) throws Exception {
        var spec = Map.of(APPLICATION, new ListStreamsGroupOffsetsSpec());
        var committed =
                admin.listStreamsGroupOffsets(spec)
                        .partitionsToOffsetAndMetadata(APPLICATION)
                        .get();
        Map<TopicPartition, OffsetSpec> latest = new HashMap<>();
        committed.keySet().forEach(partition -> latest.put(partition, OffsetSpec.latest()));
        var ends = admin.listOffsets(latest).all().get();
        return committed.size() == 4
                && committed.entrySet().stream()
                        .allMatch(e -> ends.get(e.getKey()).offset() == e.getValue().offset());
    }

    /** A second instance takes tasks over, and each keeps copies of the other's state. */
    private void twoInstances() throws Exception {
        try (Admin admin = admin()) {
            var group = new ConfigResource(ConfigResource.Type.GROUP, APPLICATION);
            var standby = new ConfigEntry("streams.num.standby.replicas", "1");
            var set = new AlterConfigOp(standby, AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(group, List.of(set))).all().get();
            second = start("two");
            StreamsGroupDescription both = until("two members", admin, g -> isStable(g, 2));
            for (StreamsGroupMemberDescription member : both.members()) {
                int tasks = count(member.assignment().activeTasks());
                check(tasks == 2, "tasks of one member: " + tasks);
            }
            until(
                    "standby tasks",
                    admin,
                    g -> isStable(g, 2) && tasks(g, StreamsGroupMemberAssignment::standbyTasks) == 2);
            write(300);
            expectCounts();
        }
    }

    /** What the second instance had comes back, its state with it. */
    private void oneAgain() throws Exception {
        stop(first);
        try (Admin admin = admin()) {
            until("one member", admin, g -> isStable(g, 1));
            write(300);
            expectCounts();
            stop(second);
            until("no member", admin, g -> g.groupState() == GroupState.EMPTY);
        }
    }

    private void emptyTools(Session s) throws Exception {
        s.run(TOOL, "--list", "--state").exits(0).matches(APPLICATION + "\\s+Empty");
        s.runSorted(TOOL, "--describe", "--group", APPLICATION).exits(0);
        s.run(TOOL, "--describe", "--group", APPLICATION, "--state").exits(0).prints("Empty");
        s.run(TOOL, "--describe", "--group", APPLICATION, "--members").exits(0);
        String[] reset = {"--reset-offsets", "--group", APPLICATION};
        s.runSorted(TOOL, with(reset, "--input-topic", INPUT, "--to-earliest", "--dry-run")).exits(0);
        s.runSorted(TOOL, with(reset, "--all-input-topics", "--to-latest", "--dry-run")).exits(0);
        s.runSorted(TOOL, with(reset, "--input-topic", INPUT, "--shift-by", "-5", "--execute")).exits(0);
        s.runSorted(TOOL, "--describe", "--group", APPLICATION).exits(0);
        s.runSorted(TOOL, "--delete-offsets", "--group", APPLICATION, "--input-topic", INPUT).exits(0);
        s.run(TOOL, "--delete", "--group", APPLICATION).exits(0).prints("successful");
        s.run(TOOL, "--list").exits(0).lacks(APPLICATION);
        s.run(TOOL, "--describe", "--group", APPLICATION).exits(1).prints("not found");
    }

    /** Without its source topic an application does not run, and the group says why. */
    private void missingSource() throws Exception {
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream("sw-nowhere").to(OUTPUT);
        KafkaStreams streams = new KafkaStreams(builder.build(), config("sw-lost", "lost"));
        streams.setUncaughtExceptionHandler(
                e ->
                        org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler
                                .StreamThreadExceptionResponse.SHUTDOWN_CLIENT);
        try (Admin admin = admin()) {
            streams.start();
            await(
                    "an error",
                    () -> streams.state() == KafkaStreams.State.ERROR ? Boolean.TRUE : null);
            var group = admin.describeStreamsGroups(List.of("sw-lost")).all().get().get("sw-lost");
            var state = group.groupState();
            check(state == GroupState.NOT_READY || state == GroupState.EMPTY, "state " + state);
        } finally {
            stop(streams);
        }
    }

    private KafkaStreams start(String name) {
        StreamsBuilder builder = new StreamsBuilder();
        var strings = Serdes.String();
        builder.stream(INPUT, Consumed.with(strings, strings))
                .flatMapValues(line -> List.of(line.split(" ")))
                .groupBy((key, word) -> word, Grouped.with("counts", strings, strings))
                .count(
                        Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts")
                                .withKeySerde(strings)
                                .withValueSerde(Serdes.Long()))
                .toStream()
                .to(OUTPUT, Produced.with(strings, Serdes.Long()));
        Properties config = config(APPLICATION, name);
        KafkaStreams streams = new KafkaStreams(builder.build(config), config);
        streams.start();
        return streams;
    }

    private Properties config(String application, String name) {
        Properties config = new Properties();
        config.put("application.id", application);
        config.put("bootstrap.servers", options.bootstrap());
        config.put("group.protocol", "streams");
        config.put("client.id", "sw-" + name);
        config.put("num.stream.threads", "1");
        config.put("commit.interval.ms", "200");
        config.put("replication.factor", "1");
        config.put("auto.offset.reset", "earliest");
        Path state = options.path("work-dir").resolve("streams-" + name);
        config.put("state.dir", state.toString());
        return config;
    }

    private static void stop(KafkaStreams streams) {
        var leave = CloseOptions.GroupMembershipOperation.LEAVE_GROUP;
        boolean stopped =
                streams.close(
                        CloseOptions.timeout(Duration.ofSeconds(30)).withGroupMembershipOperation(leave));
        check(stopped, "an instance did not stop");
    }

    private void write(int lines) throws Exception {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", options.bootstrap());
        config.put("linger.ms", "5");
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (int i = 0; i < lines; i++) {
                StringBuilder line = new StringBuilder();
                for (int word = 0; word < 1 + random.nextInt(5); word++) {
                    String next = VOCABULARY[random.nextInt(VOCABULARY.length)];
                    line.append(word == 0 ? "" : " ").append(next);
                    model.merge(next, 1L, Long::sum);
                }
                producer.send(new ProducerRecord<>(INPUT, i % 2, "line", line.toString()));
            }
        }
    }

    /** The newest count of each word is that of the model, within the limit, and none is above it. */
    private void expectCounts() throws Exception {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", options.bootstrap());
        config.put("auto.offset.reset", "earliest");
        Map<String, Long> counts = new TreeMap<>();
        try (KafkaConsumer<String, Long> consumer =
                new KafkaConsumer<>(config, new StringDeserializer(), new LongDeserializer())) {
            var partitions = List.of(new TopicPartition(OUTPUT, 0), new TopicPartition(OUTPUT, 1));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            long end = System.currentTimeMillis() + LIMIT_MS;
            while (!counts.equals(model) && System.currentTimeMillis() < end) {
                for (ConsumerRecord<String, Long> record : consumer.poll(Duration.ofMillis(200))) {
                    counts.put(record.key(), record.value());
                }
            }
        }
        check(counts.equals(model), "counted " + counts + " instead of " + model);
    }

    private interface Condition {
        boolean holds(StreamsGroupDescription group);
    }

    private static boolean isStable(StreamsGroupDescription group, int members) {
        return group.groupState() == GroupState.STABLE && group.members().size() == members;
    }

    private interface Role {
        List<StreamsGroupMemberAssignment.TaskIds> of(StreamsGroupMemberAssignment assignment);
    }

    private static int tasks(StreamsGroupDescription group, Role role) {
        return group.members().stream().mapToInt(m -> count(role.of(m.assignment()))).sum();
    }

    private static int count(List<StreamsGroupMemberAssignment.TaskIds> ids) {
        return ids.stream().mapToInt(task -> task.partitions().size()).sum();
    }

    private static StreamsGroupDescription describe(Admin admin) throws Exception {
        return admin.describeStreamsGroups(List.of(APPLICATION)).all().get().get(APPLICATION);
    }

    private static StreamsGroupDescription until(String what, Admin admin, Condition condition)
            throws Exception {
        return await(
                what,
                () -> {
                    StreamsGroupDescription group = describe(admin);
                    return condition.holds(group) ? group : null;
                });
    }

    private static <T> T await(String what, Callable<T> attempt) throws Exception {
        long end = System.currentTimeMillis() + LIMIT_MS;
        while (true) {
            T found = attempt.call();
            if (found != null) {
                return found;
            }
            check(System.currentTimeMillis() < end, "never: " + what);
            Thread.sleep(100);
        }
    }

    private Admin admin() {
        return Admin.create(Map.of("bootstrap.servers", options.bootstrap()));
    }
}
