package klamm.interop;

import static klamm.interop.TopicTools.recorded;

/** {@code kafka-configs}: describe and alter topics and brokers. */
final class ConfigTools {
    private static final String TOOL = "kafka-configs";

    private ConfigTools() {}

    static void add(Suite suite, Options options) {
        recorded(suite, options, "configs.topics", ConfigTools::topics);
        recorded(suite, options, "configs.topics-describe-all", ConfigTools::topicsAll);
        recorded(suite, options, "configs.brokers", ConfigTools::brokers);
        suite.test("configs.brokers-describe-all", () -> brokersAll(options));
        recorded(suite, options, "configs.refuses-bad-values", ConfigTools::refuses);
    }

    private static void topics(Session s) throws Exception {
        TopicTools.create(s, "cf-topic", 1);
        String[] topic = {"--entity-type", "topics", "--entity-name", "cf-topic"};
        s.run(TOOL, with(topic, "--describe")).exits(0);
        s.run(TOOL, with(topic, "--alter", "--add-config", "retention.ms=1234567,segment.bytes=2097152"))
                .exits(0)
                .prints("Completed updating config for topic cf-topic.");
        s.runSorted(TOOL, with(topic, "--describe")).exits(0).prints("retention.ms=1234567");
        s.run(TOOL, with(topic, "--alter", "--add-config", "cleanup.policy=[compact,delete]"))
                .exits(0);
        s.runSorted(TOOL, with(topic, "--describe")).exits(0).prints("cleanup.policy=compact,delete");
        s.run(TOOL, with(topic, "--alter", "--delete-config", "retention.ms,cleanup.policy")).exits(0);
        s.runSorted(TOOL, with(topic, "--describe")).exits(0).lacks("1234567");
        s.run(TOOL, with(topic, "--alter", "--delete-config", "retention.ms")).exits(0);
        s.runSorted(TOOL, "--topic", "cf-topic", "--describe").exits(0).prints("segment.bytes=2097152");
        s.run("kafka-topics", "--describe", "--topic", "cf-topic").prints("segment.bytes=2097152");
        s.run(TOOL, "--entity-type", "topics", "--entity-name", "cf-missing", "--describe").exits(0);
    }

    private static void topicsAll(Session s) throws Exception {
        TopicTools.create(s, "cf-all", 1);
        s.run(
                        TOOL, "--entity-type", "topics", "--entity-name", "cf-all", "--alter",
                        "--add-config", "min.insync.replicas=1,retention.bytes=1000000")
                .exits(0);
        s.runSorted(TOOL, "--entity-type", "topics", "--entity-name", "cf-all", "--describe", "--all")
                .exits(0)
                .prints("DYNAMIC_TOPIC_CONFIG:retention.bytes=1000000")
                .prints("DEFAULT_CONFIG:log.retention.bytes=-1");
        s.dropLines("^  klamm\\..*");
    }

    private static void brokers(Session s) throws Exception {
        String[] broker = {"--entity-type", "brokers", "--entity-name", "1"};
        String[] all = {"--entity-type", "brokers", "--entity-default"};
        s.runSorted(TOOL, with(broker, "--describe")).exits(0);
        s.run(TOOL, with(broker, "--alter", "--add-config", "log.cleaner.threads=2")).exits(0);
        // A broker takes up its new configs a moment after they are accepted.
        for (int i = 0; i < 100; i++) {
            Session.Step step = s.runUnrecorded(TOOL, with(broker, "--describe"));
            if (step.run().out().contains("log.cleaner.threads=2 sensitive")) {
                break;
            }
            Thread.sleep(50);
        }
        s.runSorted(TOOL, with(broker, "--describe")).exits(0).prints("log.cleaner.threads=2");
        s.run(TOOL, with(all, "--alter", "--add-config", "log.retention.ms=86400000")).exits(0);
        s.runSorted(TOOL, with(all, "--describe")).exits(0).prints("log.retention.ms=86400000");
        // What a broker is told is what its topics inherit.
        TopicTools.create(s, "cf-inherits", 1);
        Session.Step step =
                s.runUnrecorded(
                        TOOL, "--entity-type", "topics", "--entity-name", "cf-inherits", "--describe",
                        "--all");
        step.exits(0).prints("retention.ms=86400000");
        s.run(TOOL, with(broker, "--alter", "--delete-config", "log.cleaner.threads")).exits(0);
        s.run(TOOL, with(all, "--alter", "--delete-config", "log.retention.ms")).exits(0);
        s.runSorted(TOOL, with(broker, "--describe")).exits(0).lacks("log.cleaner.threads=2");
        s.runSorted(TOOL, with(all, "--describe")).exits(0).lacks("86400000");
    }

    /** Every config of the broker by name, value, sensitivity and synonyms. */
    private static void brokersAll(Options options) throws Exception {
        Session s = new Session(options, "tools.configs.brokers-describe-all");
        s.runSorted(TOOL, "--entity-type", "brokers", "--entity-name", "1", "--describe", "--all")
                .exits(0)
                .prints("log.segment.bytes=1073741824")
                .prints("  node.id=1 sensitive=false synonyms={STATIC_BROKER_CONFIG:node.id=1}");
        s.dropLines("^  klamm\\..*");
        s.compare();
    }

    private static void refuses(Session s) throws Exception {
        TopicTools.create(s, "cf-bad", 1);
        String[] topic = {"--entity-type", "topics", "--entity-name", "cf-bad"};
        String[] broker = {"--entity-type", "brokers", "--entity-name", "1"};
        String[] all = {"--entity-type", "brokers", "--entity-default"};
        s.run(TOOL, with(topic, "--alter", "--add-config", "retention.ms=-7")).exits(1);
        s.run(TOOL, with(topic, "--alter", "--add-config", "segment.bytes=1")).exits(1);
        s.run(TOOL, with(topic, "--alter", "--add-config", "segment.bytes=many")).exits(1);
        s.run(TOOL, with(topic, "--alter", "--add-config", "no.such.config=1")).exits(1);
        s.run(TOOL, with(topic, "--alter", "--add-config", "min.cleanable.dirty.ratio=1.5")).exits(1);
        s.run(TOOL, with(broker, "--alter", "--add-config", "log.cleaner.threads=none")).exits(1);
        s.run(TOOL, with(broker, "--alter", "--add-config", "node.id=9")).exits(1);
        s.run(TOOL, with(all, "--alter", "--add-config", "num.io.threads=0")).exits(1);
        s.run(TOOL, "--entity-type", "brokers", "--entity-name", "77", "--describe").exits(0);
        s.runSorted(TOOL, with(topic, "--describe")).exits(0);
    }

    private static String[] with(String[] entity, String... rest) {
        String[] all = new String[entity.length + rest.length];
        System.arraycopy(entity, 0, all, 0, entity.length);
        System.arraycopy(rest, 0, all, entity.length, rest.length);
        return all;
    }
}
