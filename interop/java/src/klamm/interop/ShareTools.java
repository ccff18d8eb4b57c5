package klamm.interop;

import static klamm.interop.TopicTools.recorded;

import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;

/** {@code kafka-share-groups}: list, describe, reset, delete. */
final class ShareTools {
    private static final String TOOL = "kafka-share-groups";
    private static final Set<String> VARIES = Set.of("CONSUMER-ID", "MEMBER-EPOCH");

    private ShareTools() {}

    static void add(Suite suite, Options options) {
        recorded(suite, options, "share-groups.describe", s -> describe(s, options));
        recorded(suite, options, "share-groups.reset-offsets", s -> reset(s, options));
        recorded(suite, options, "share-groups.delete-offsets", s -> deleteOffsets(s, options));
        recorded(suite, options, "share-groups.delete", s -> delete(s, options));
    }

    /** A group whose only member has taken the ten records of a topic's two partitions. */
    private static KafkaShareConsumer<String, String> member(Options options, String topic, String group)
            throws Exception {
        ShareSuite.prepare(options, topic, group, 2, Map.of());
        ShareSuite.fill(options, topic, 2, 10, "v");
        KafkaShareConsumer<String, String> consumer = ShareSuite.consumer(options, group, "implicit");
        consumer.subscribe(java.util.List.of(topic));
        TreeMap<String, Integer> seen = new TreeMap<>();
        ShareSuite.poll(consumer, seen, s -> s.size() == 10);
        consumer.commitSync();
        return consumer;
    }

    private static void describe(Session s, Options options) throws Exception {
        try (KafkaShareConsumer<String, String> member = member(options, "st-described", "st-live")) {
            Suite.check(member.subscription().size() == 1, "not subscribed");
            s.runUnrecorded(TOOL, "--list").exits(0).prints("st-live");
            s.runUnrecorded(TOOL, "--list", "--state").exits(0).matches("^st-live\\s+Stable");
            s.runUnrecorded(TOOL, "--list", "--state", "empty").exits(0).lacks("st-live");
            s.runUnrecorded(TOOL, "--list", "--state", "drowsy").exits(1).prints("Invalid state list");
            s.runSorted(TOOL, "--describe", "--group", "st-live").exits(0).prints("st-described");
            s.runSorted(TOOL, "--describe", "--group", "st-live", "--verbose").exits(0);
            s.run(TOOL, "--describe", "--group", "st-live", "--state").exits(0).prints("Stable");
            s.runTable(VARIES, TOOL, "--describe", "--group", "st-live", "--members").exits(0);
            s.runTable(VARIES, TOOL, "--describe", "--group", "st-live", "--members", "--verbose").exits(0);
            s.run(
                    TOOL, "--reset-offsets", "--group", "st-live", "--topic", "st-described",
                    "--to-earliest", "--execute");
            s.run(TOOL, "--delete", "--group", "st-live");
            s.run(TOOL, "--delete-offsets", "--group", "st-live", "--topic", "st-described");
        }
        s.run(TOOL, "--describe", "--group", "st-live", "--state").exits(0).prints("Empty");
        s.run(TOOL, "--describe", "--group", "st-live", "--members").exits(0);
        s.run(TOOL, "--describe", "--group", "st-nobody");
        s.run(TOOL, "--describe", "--group", "st-nobody", "--state");
        s.run(TOOL, "--describe", "--group", "st-nobody", "--members");
    }

    private static void reset(Session s, Options options) throws Exception {
        member(options, "st-reset", "st-resets").close();
        String[] base = {"--reset-offsets", "--group", "st-resets", "--topic", "st-reset"};
        step(s, base, "--to-earliest", "--dry-run");
        s.runSorted(TOOL, "--describe", "--group", "st-resets");
        step(s, base, "--to-earliest", "--execute");
        s.runSorted(TOOL, "--describe", "--group", "st-resets");
        step(s, base, "--to-latest", "--execute");
        s.runSorted(TOOL, "--describe", "--group", "st-resets");
        step(s, base, "--to-datetime", "2001-01-01T00:00:00.000", "--execute");
        s.runSorted(TOOL, "--describe", "--group", "st-resets");
        s.runSorted(TOOL, "--reset-offsets", "--group", "st-resets", "--all-topics", "--to-latest", "--execute");
        s.runSorted(TOOL, "--describe", "--group", "st-resets");
        s.runSorted(
                TOOL, "--reset-offsets", "--group", "st-resets", "--topic", "st-unheard-of",
                "--to-latest", "--execute");
        s.runSorted(
                TOOL, "--reset-offsets", "--group", "st-unheard-of", "--topic", "st-reset",
                "--to-latest", "--execute");
    }

    private static void step(Session s, String[] base, String... rest) throws Exception {
        String[] all = new String[base.length + rest.length];
        System.arraycopy(base, 0, all, 0, base.length);
        System.arraycopy(rest, 0, all, base.length, rest.length);
        s.runSorted(TOOL, all).exits(0);
    }

    private static void deleteOffsets(Session s, Options options) throws Exception {
        member(options, "st-partly", "st-partial").close();
        s.runSorted(TOOL, "--delete-offsets", "--group", "st-partial", "--topic", "st-unheard-of");
        s.runSorted(TOOL, "--delete-offsets", "--group", "st-partial", "--topic", "st-partly")
                .exits(0)
                .prints("Successful");
        s.runSorted(TOOL, "--describe", "--group", "st-partial").lacks("st-partly");
        s.runSorted(TOOL, "--delete-offsets", "--group", "st-unheard-of", "--topic", "st-partly");
    }

    private static void delete(Session s, Options options) throws Exception {
        member(options, "st-gone", "st-leaving").close();
        s.run(TOOL, "--delete", "--group", "st-leaving").exits(0);
        s.runUnrecorded(TOOL, "--list").lacks("st-leaving");
        s.run(TOOL, "--delete", "--group", "st-leaving");
        s.run(TOOL, "--describe", "--group", "st-leaving");
    }
}
