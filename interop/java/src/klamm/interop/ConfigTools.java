package klamm.interop;

import static klamm.interop.Session.with;
import static klamm.interop.TopicTools.recorded;

/**
 * {@code kafka-configs}: describe and alter topics, brokers and quotas of users, clients and
 * addresses; {@code kafka-client-metrics}, which sets configs of another kind.
 */
final class ConfigTools {
    private static final String TOOL = "kafka-configs";

    private ConfigTools() {}

    static void add(Suite suite, Options options) {
        recorded(suite, options, "configs.topics", ConfigTools::topics);
        recorded(suite, options, "configs.topics-describe-all", ConfigTools::topicsAll);
        recorded(suite, options, "configs.brokers", ConfigTools::brokers);
        suite.test("configs.brokers-describe-all", () -> brokersAll(options));
        recorded(suite, options, "configs.refuses-bad-values", ConfigTools::refuses);
        recorded(suite, options, "configs.quotas", ConfigTools::quotas);
        recorded(suite, options, "configs.client-metrics", ConfigTools::clientMetrics);
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

    /** None of the users and clients is one of these suites', and no limit is one they could reach. */
    private static void quotas(Session s) throws Exception {
        String[] user = {"--entity-type", "users", "--entity-name", "qu-alice"};
        String[] users = {"--entity-type", "users", "--entity-default"};
        String[] client = {"--entity-type", "clients", "--entity-name", "qu-app"};
        String[] clients = {"--entity-type", "clients", "--entity-default"};
        String[] both = with(user, "--entity-type", "clients", "--entity-name", "qu-app");
        String[] ip = {"--entity-type", "ips", "--entity-name", "192.0.2.7"};
        String[] ips = {"--entity-type", "ips", "--entity-default"};
        String rates = "producer_byte_rate=1048576,consumer_byte_rate=2097152";
        s.run(TOOL, with(user, "--alter", "--add-config", rates)).exits(0);
        quota(s, user).prints("producer_byte_rate=1048576");
        s.run(TOOL, with(users, "--alter", "--add-config", "request_percentage=900.5")).exits(0);
        s.run(TOOL, with(client, "--alter", "--add-config", rates)).exits(0);
        s.run(TOOL, with(clients, "--alter", "--add-config", "controller_mutation_rate=5000")).exits(0);
        s.run(TOOL, with(both, "--alter", "--add-config", "consumer_byte_rate=4194304")).exits(0);
        quota(s, both).prints("4194304");
        quota(s, "--entity-type", "users").prints("qu-alice").prints("default");
        quota(s, "--entity-type", "clients").prints("qu-app");
        quota(s, "--entity-type", "users", "--entity-type", "clients").prints("qu-app");
        s.run(TOOL, with(user, "--alter", "--delete-config", "producer_byte_rate")).exits(0);
        quota(s, user).lacks("producer_byte_rate");
        s.run(TOOL, with(ip, "--alter", "--add-config", "connection_creation_rate=5000")).exits(0);
        s.run(TOOL, with(ips, "--alter", "--add-config", "connection_creation_rate=6000")).exits(0);
        quota(s, ip).prints("5000");
        quota(s, "--entity-type", "ips").prints("6000");
        s.run(TOOL, with(user, "--alter", "--add-config", "producer_byte_rate=lots")).exits(1);
        s.run(TOOL, with(user, "--alter", "--add-config", "no_such_rate=1")).exits(1);
        s.run(TOOL, with(client, "--alter", "--add-config", "connection_creation_rate=1")).exits(1);
        s.run(TOOL, with(ip, "--alter", "--add-config", "producer_byte_rate=1")).exits(1);
        s.run(TOOL, "--entity-type", "ips", "--entity-name", "no.such.host.invalid", "--alter",
                        "--add-config", "connection_creation_rate=1")
                .exits(1);
        s.run(TOOL, with(user, "--alter", "--delete-config", "request_percentage"));
        s.run(TOOL, with(user, "--alter", "--delete-config", "consumer_byte_rate")).exits(0);
        s.run(TOOL, with(users, "--alter", "--delete-config", "request_percentage")).exits(0);
        String gone = "producer_byte_rate,consumer_byte_rate";
        s.run(TOOL, with(client, "--alter", "--delete-config", gone)).exits(0);
        s.run(TOOL, with(clients, "--alter", "--delete-config", "controller_mutation_rate")).exits(0);
        s.run(TOOL, with(both, "--alter", "--delete-config", "consumer_byte_rate")).exits(0);
        for (String[] address : new String[][] {ip, ips}) {
            s.run(TOOL, with(address, "--alter", "--delete-config", "connection_creation_rate")).exits(0);
        }
        quota(s, "--entity-type", "users").lacks("qu-alice");
        quota(s, "--entity-type", "ips").lacks("5000");
    }

    /** A broker takes up what it was told a moment after it was accepted. */
    private static Session.Step quota(Session s, String... entity) throws Exception {
        Thread.sleep(100);
        return s.runSorted(TOOL, with(entity, "--describe")).exits(0);
    }

    private static void clientMetrics(Session s) throws Exception {
        String tool = "kafka-client-metrics";
        String[] alter = {"--alter", "--name", "cm-basic"};
        s.run(tool, "--list").exits(0);
        s.run(
                        tool,
                        with(alter, "--metrics", "org.apache.kafka.producer.", "--interval", "60000",
                                "--match", "client_id=cm-nobody,client_software_name=apache.*"))
                .exits(0);
        Thread.sleep(100);
        s.run(tool, "--list").exits(0).prints("cm-basic");
        s.runSorted(tool, "--describe", "--name", "cm-basic").exits(0).prints("60000");
        s.runSorted(TOOL, "--entity-type", "client-metrics", "--entity-name", "cm-basic", "--describe")
                .exits(0)
                .prints("60000");
        s.run(tool, with(alter, "--interval", "")).exits(0);
        s.run(tool, with(alter, "--interval", "5")).exits(1);
        s.run(tool, with(alter, "--match", "no_such_thing=1")).exits(1);
        s.run(tool, with(alter, "--match", "client_id=(")).exits(1);
        Thread.sleep(100);
        s.runSorted(tool, "--describe").exits(0).prints("cm-basic");
        s.run(tool, "--delete", "--name", "cm-basic").exits(0);
        Thread.sleep(100);
        s.run(tool, "--list").exits(0).lacks("cm-basic");
        s.run(tool, "--describe", "--name", "cm-basic");
        s.run(tool, "--delete", "--name", "cm-basic");
    }
}
