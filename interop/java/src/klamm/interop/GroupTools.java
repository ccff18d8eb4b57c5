package klamm.interop;

import static klamm.interop.Session.with;
import static klamm.interop.TopicTools.recorded;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.serialization.StringDeserializer;

/** {@code kafka-consumer-groups}: list, describe, reset, delete. */
final class GroupTools {
    private static final String TOOL = "kafka-consumer-groups";
    private static final Set<String> VARIES = Set.of("CONSUMER-ID");

    private GroupTools() {}

    static void add(Suite suite, Options options) {
        recorded(suite, options, "groups.list-and-describe", s -> describe(s, options));
        recorded(suite, options, "groups.active-members", s -> active(s, options));
        recorded(suite, options, "groups.consumer-protocol", s -> consumerProtocol(s, options));
        recorded(suite, options, "groups.reset-offsets", s -> reset(s, options));
        recorded(suite, options, "groups.delete", s -> delete(s, options));
        recorded(suite, options, "groups.delete-offsets", s -> deleteOffsets(s, options));
    }

    /** Makes an empty group with these offsets in partition 0 and 1 of the topic. */
    static void commit(Options options, String group, String topic, long first, long second) {
        try (KafkaConsumer<String, String> consumer = consumer(options, group, "commit")) {
            consumer.assign(List.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1)));
            consumer.commitSync(
                    Map.of(
                            new TopicPartition(topic, 0), new OffsetAndMetadata(first),
                            new TopicPartition(topic, 1), new OffsetAndMetadata(second, "note")));
        }
    }

    private static KafkaConsumer<String, String> consumer(
            Options options, String group, String clientId) {
        return consumer(options, group, clientId, "classic");
    }

    private static KafkaConsumer<String, String> consumer(
            Options options, String group, String clientId, String protocol) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", options.bootstrap());
        config.put("group.id", group);
        config.put("client.id", clientId);
        config.put("group.protocol", protocol);
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", "false");
        config.put("max.poll.records", "5");
        return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    private static void describe(Session s, Options options) throws Exception {
        s.run("kafka-topics", "--create", "--topic", "gt-lag", "--partitions", "2", "--config", "retention.ms=-1")
                .exits(0);
        OffsetTools.fill(options, "gt-lag", 2, 10);
        commit(options, "gt-lagging", "gt-lag", 4, 10);
        s.runUnrecorded(TOOL, "--list").exits(0).prints("gt-lagging");
        s.runUnrecorded(TOOL, "--list", "--state").exits(0).matches("^gt-lagging\\s+Empty");
        s.runUnrecorded(TOOL, "--list", "--state", "stable").exits(0).lacks("gt-lagging");
        s.runUnrecorded(TOOL, "--list", "--state", "empty").exits(0).prints("gt-lagging");
        s.runUnrecorded(TOOL, "--list", "--type", "classic").exits(0).prints("gt-lagging");
        s.runUnrecorded(TOOL, "--list", "--type", "consumer").exits(0).lacks("gt-lagging");
        s.runUnrecorded(TOOL, "--list", "--state", "drowsy").exits(1).prints("Invalid state list");
        s.runSorted(TOOL, "--describe", "--group", "gt-lagging")
                .exits(0)
                .matches("gt-lag +0 +4 +10 +6 ")
                .matches("gt-lag +1 +10 +10 +0 ");
        s.runSorted(TOOL, "--describe", "--group", "gt-lagging", "--offsets", "--verbose").exits(0);
        s.run(TOOL, "--describe", "--group", "gt-lagging", "--state").exits(0).prints("Empty");
        s.run(TOOL, "--describe", "--group", "gt-lagging", "--members").exits(0);
        s.run(TOOL, "--describe", "--group", "gt-nobody").exits(0).prints("not found");
        s.run(TOOL, "--describe", "--group", "gt-nobody", "--state").exits(0);
        s.run(TOOL, "--describe", "--group", "gt-nobody", "--members").exits(0);
    }

    private static void active(Session s, Options options) throws Exception {
        s.run("kafka-topics", "--create", "--topic", "gt-active", "--partitions", "2", "--config", "retention.ms=-1")
                .exits(0);
        OffsetTools.fill(options, "gt-active", 2, 5);
        try (KafkaConsumer<String, String> consumer = consumer(options, "gt-live", "member-one")) {
            consumer.subscribe(List.of("gt-active"));
            int read = 0;
            for (int i = 0; i < 100 && read < 10; i++) {
                read += consumer.poll(Duration.ofMillis(200)).count();
            }
            Suite.check(read == 10, "read " + read + " records instead of 10");
            consumer.commitSync();
            s.runUnrecorded(TOOL, "--list", "--state", "stable").exits(0).prints("gt-live");
            s.runSorted(TOOL, "--describe", "--group", "gt-live")
                    .exits(0)
                    .matches("gt-active +0 +5 +5 +0 +member-one-");
            s.runSorted(TOOL, "--describe", "--group", "gt-live", "--members").exits(0);
            s.runSorted(TOOL, "--describe", "--group", "gt-live", "--members", "--verbose")
                    .exits(0)
                    .prints("gt-active");
            s.run(TOOL, "--describe", "--group", "gt-live", "--state")
                    .exits(0)
                    .prints("Stable")
                    .prints("range");
            s.run(
                            TOOL, "--reset-offsets", "--group", "gt-live", "--topic", "gt-active",
                            "--to-earliest", "--execute")
                    .exits(0)
                    .prints("current state is Stable");
            s.run(TOOL, "--delete", "--group", "gt-live").exits(0).prints("GroupNotEmptyException");
        }
        s.run(TOOL, "--describe", "--group", "gt-live", "--state").exits(0).prints("Empty");
    }

    /** A group of the consumer protocol: epochs, assignments and targets are told as well. */
    private static void consumerProtocol(Session s, Options options) throws Exception {
        s.run("kafka-topics", "--create", "--topic", "gt-new", "--partitions", "2", "--config", "retention.ms=-1")
                .exits(0);
        OffsetTools.fill(options, "gt-new", 2, 5);
        String[] describe = {"--describe", "--group", "gt-modern"};
        try (KafkaConsumer<String, String> consumer =
                consumer(options, "gt-modern", "member-two", "consumer")) {
            consumer.subscribe(List.of("gt-new"));
            int read = 0;
            for (int i = 0; i < 100 && read < 10; i++) {
                read += consumer.poll(Duration.ofMillis(200)).count();
            }
            Suite.check(read == 10, "read " + read + " records instead of 10");
            consumer.commitSync();
            s.runUnrecorded(TOOL, "--list", "--type", "consumer").exits(0).prints("gt-modern");
            s.runUnrecorded(TOOL, "--list", "--type", "classic").exits(0).lacks("gt-modern");
            s.runUnrecorded(TOOL, "--list", "--state", "stable").exits(0).prints("gt-modern");
            s.runTable(VARIES, TOOL, describe).exits(0).matches("gt-new +0 +5 +5 +0 ");
            s.runTable(VARIES, TOOL, with(describe, "--offsets", "--verbose")).exits(0);
            s.runTable(VARIES, TOOL, with(describe, "--members")).exits(0);
            s.runTable(VARIES, TOOL, with(describe, "--members", "--verbose")).exits(0).prints("gt-new");
            s.run(TOOL, with(describe, "--state")).exits(0).prints("Stable").prints("uniform");
            s.run(TOOL, with(describe, "--state", "--verbose")).exits(0);
            s.run(
                            TOOL, "--reset-offsets", "--group", "gt-modern", "--topic", "gt-new",
                            "--to-earliest", "--execute")
                    .exits(0)
                    .prints("current state is Stable");
            s.run(TOOL, "--delete", "--group", "gt-modern").exits(0).prints("GroupNotEmptyException");
        }
        s.run(TOOL, with(describe, "--state")).exits(0).prints("Empty");
        s.run(TOOL, with(describe, "--members")).exits(0);
        s.runSorted(
                        TOOL, "--reset-offsets", "--group", "gt-modern", "--topic", "gt-new",
                        "--to-earliest", "--execute")
                .exits(0);
        s.runSorted(TOOL, describe).exits(0).matches("gt-new +0 +0 +5 +5 ");
        s.runSorted(TOOL, "--delete-offsets", "--group", "gt-modern", "--topic", "gt-new").exits(0);
        s.run(TOOL, "--delete", "--group", "gt-modern").exits(0).prints("was successful");
        s.run(TOOL, describe).exits(0).prints("not found");
    }

    private static void reset(Session s, Options options) throws Exception {
        s.run("kafka-topics", "--create", "--topic", "gt-reset", "--partitions", "2", "--config", "retention.ms=-1")
                .exits(0);
        OffsetTools.fill(options, "gt-reset", 2, 10);
        commit(options, "gt-resets", "gt-reset", 4, 6);
        String[] base = {"--reset-offsets", "--group", "gt-resets", "--topic", "gt-reset"};
        resetStep(s, base, "--to-earliest", "--dry-run").prints("gt-resets");
        s.runSorted(TOOL, "--describe", "--group", "gt-resets").matches("gt-reset +0 +4 ");
        resetStep(s, base, "--to-earliest", "--execute");
        s.runSorted(TOOL, "--describe", "--group", "gt-resets").matches("gt-reset +0 +0 +10 +10 ");
        resetStep(s, base, "--shift-by", "3", "--execute").matches("gt-reset +1 +3");
        resetStep(s, base, "--shift-by", "-1", "--execute").matches("gt-reset +1 +2");
        resetStep(s, base, "--to-offset", "7", "--execute").matches("gt-reset +0 +7");
        resetStep(s, base, "--to-offset", "700", "--execute").matches("gt-reset +0 +10");
        resetStep(s, base, "--to-latest", "--dry-run");
        resetStep(s, base, "--to-current", "--execute");
        resetStep(s, base, "--to-datetime", "1970-01-01T00:00:05.000", "--execute")
                .matches("gt-reset +0 +5");
        resetStep(s, base, "--by-duration", "PT1M", "--dry-run");
        Path export = options.path("work-dir").resolve("reset.csv");
        Session.Step exported = resetStep(s, base, "--to-offset", "2", "--dry-run", "--export");
        exported.prints("gt-reset,0,2");
        Files.writeString(export, "gt-reset,0,1\ngt-reset,1,9\n");
        s.runSorted(
                        TOOL, "--reset-offsets", "--group", "gt-resets", "--from-file",
                        export.toString(), "--execute")
                .exits(0)
                .matches("gt-reset +1 +9");
        s.runSorted(
                        TOOL, "--reset-offsets", "--group", "gt-resets", "--topic", "gt-reset:1",
                        "--to-earliest", "--execute")
                .exits(0);
        s.runSorted(TOOL, "--reset-offsets", "--group", "gt-resets", "--all-topics", "--to-latest", "--execute")
                .exits(0);
        s.runSorted(TOOL, "--describe", "--group", "gt-resets").matches("gt-reset +0 +10 +10 +0 ");
    }

    private static Session.Step resetStep(Session s, String[] base, String... rest)
            throws Exception {
        String[] all = new String[base.length + rest.length];
        System.arraycopy(base, 0, all, 0, base.length);
        System.arraycopy(rest, 0, all, base.length, rest.length);
        return s.runSorted(TOOL, all).exits(0);
    }

    private static void delete(Session s, Options options) throws Exception {
        TopicTools.create(s, "gt-gone", 2);
        commit(options, "gt-leaving", "gt-gone", 0, 0);
        s.runUnrecorded(TOOL, "--list").prints("gt-leaving");
        s.run(TOOL, "--delete", "--group", "gt-leaving").exits(0).prints("was successful");
        s.runUnrecorded(TOOL, "--list").lacks("gt-leaving");
        s.run(TOOL, "--delete", "--group", "gt-leaving").exits(0).prints("GroupIdNotFoundException");
        s.run(TOOL, "--describe", "--group", "gt-leaving").exits(0).prints("not found");
    }

    private static void deleteOffsets(Session s, Options options) throws Exception {
        TopicTools.create(s, "gt-partly", 2);
        TopicTools.create(s, "gt-kept", 2);
        commit(options, "gt-partial", "gt-partly", 0, 0);
        commit(options, "gt-partial", "gt-kept", 0, 0);
        s.runSorted(TOOL, "--delete-offsets", "--group", "gt-partial", "--topic", "gt-partly:1")
                .exits(0)
                .prints("Successful");
        s.runSorted(TOOL, "--describe", "--group", "gt-partial").matches("gt-partly +0 ");
        s.runSorted(TOOL, "--delete-offsets", "--group", "gt-partial", "--topic", "gt-partly").exits(0);
        s.runSorted(TOOL, "--describe", "--group", "gt-partial").lacks("gt-partly").prints("gt-kept");
        s.run(TOOL, "--delete-offsets", "--group", "gt-nobody", "--topic", "gt-kept");
    }
}
