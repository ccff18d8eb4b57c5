package klamm.interop;

/** {@code kafka-topics}: create, list, describe, alter, delete and what each refuses. */
final class TopicTools {
    private static final String TOOL = "kafka-topics";

    private TopicTools() {}

    interface Scenario {
        void run(Session session) throws Exception;
    }

    /** A test whose transcript must equal the one recorded from Kafka. */
    static void recorded(Suite suite, Options options, String name, Scenario scenario) {
        suite.test(
                name,
                () -> {
                    Session session = new Session(options, "tools." + name);
                    scenario.run(session);
                    session.compare();
                });
    }

    static void create(Session session, String topic, int partitions) throws Exception {
        session.run(TOOL, "--create", "--topic", topic, "--partitions", "" + partitions)
                .exits(0)
                .prints("Created topic " + topic + ".");
    }

    static void add(Suite suite, Options options) {
        recorded(suite, options, "topics.create-list-describe", TopicTools::createListDescribe);
        recorded(suite, options, "topics.alter-partitions", TopicTools::alterPartitions);
        recorded(suite, options, "topics.delete", TopicTools::delete);
        recorded(suite, options, "topics.refuses-bad-topics", TopicTools::refusesBadTopics);
        recorded(suite, options, "topics.replica-assignment", TopicTools::replicaAssignment);
    }

    private static void createListDescribe(Session s) throws Exception {
        s.run(TOOL, "--create", "--topic", "tt-plain").exits(0).prints("Created topic tt-plain.");
        s.run(
                        TOOL, "--create", "--topic", "tt-configured", "--partitions", "3",
                        "--replication-factor", "1", "--config", "retention.ms=3600000",
                        "--config", "cleanup.policy=compact,delete", "--config",
                        "compression.type=lz4", "--config", "max.message.bytes=2000000")
                .exits(0)
                .prints("Created topic tt-configured.");
        s.run(TOOL, "--list", "--topic", "tt-.*").exits(0).prints("tt-plain");
        s.run(TOOL, "--describe", "--topic", "tt-plain").exits(0).prints("PartitionCount: 1");
        s.run(TOOL, "--describe", "--topic", "tt-configured")
                .exits(0)
                .prints("PartitionCount: 3")
                .prints("retention.ms=3600000")
                .prints("Partition: 2");
        s.run(TOOL, "--describe", "--topic", "tt-.*").exits(0);
        s.run(TOOL, "--describe", "--topic", "tt-.*", "--topics-with-overrides").exits(0);
        s.run(TOOL, "--describe", "--topic", "tt-.*", "--unavailable-partitions").exits(0);
        s.run(TOOL, "--describe", "--topic", "tt-.*", "--under-replicated-partitions").exits(0);
        s.run(TOOL, "--describe", "--topic", "tt-.*", "--under-min-isr-partitions").exits(0);
        s.run(TOOL, "--describe", "--topic", "tt-.*", "--at-min-isr-partitions").exits(0);
        s.run(TOOL, "--create", "--topic", "tt-plain").exits(1).prints("already exists");
        s.run(TOOL, "--create", "--if-not-exists", "--topic", "tt-plain").exits(0);
        s.run(TOOL, "--describe", "--topic", "tt-missing").exits(1).prints("does not exist");
        s.run(TOOL, "--describe", "--if-exists", "--topic", "tt-missing").exits(0);
        s.run(TOOL, "--describe", "--topic-id", "vR_5UZ0eRZi2jUGwnHIKPw").exits(1);
    }

    private static void alterPartitions(Session s) throws Exception {
        create(s, "tt-grow", 2);
        s.run(TOOL, "--alter", "--topic", "tt-grow", "--partitions", "5").exits(0);
        s.run(TOOL, "--describe", "--topic", "tt-grow").exits(0).prints("PartitionCount: 5");
        s.run(TOOL, "--alter", "--topic", "tt-grow", "--partitions", "3").exits(1);
        s.run(TOOL, "--alter", "--topic", "tt-grow", "--partitions", "5").exits(1);
        s.run(TOOL, "--alter", "--topic", "tt-missing", "--partitions", "5").exits(1);
        s.run(TOOL, "--alter", "--if-exists", "--topic", "tt-missing", "--partitions", "5").exits(0);
    }

    private static void delete(Session s) throws Exception {
        create(s, "tt-doomed", 2);
        s.run(TOOL, "--delete", "--topic", "tt-doomed").exits(0);
        s.run(TOOL, "--list", "--topic", "tt-doomed").exits(0).lacks("tt-doomed\n");
        s.run(TOOL, "--delete", "--topic", "tt-doomed").exits(1).prints("does not exist");
        s.run(TOOL, "--delete", "--if-exists", "--topic", "tt-doomed").exits(0);
        create(s, "tt-doomed", 1);
        s.run(TOOL, "--describe", "--topic", "tt-doomed").exits(0).prints("PartitionCount: 1");
        s.run(TOOL, "--delete", "--topic", "tt-doomed").exits(0);
    }

    private static void refusesBadTopics(Session s) throws Exception {
        s.run(TOOL, "--create", "--topic", "tt bad").exits(1);
        s.run(TOOL, "--create", "--topic", "..").exits(1);
        s.run(TOOL, "--create", "--topic", "t".repeat(250)).exits(1);
        s.run(TOOL, "--create", "--topic", "tt-wide", "--replication-factor", "3").exits(1);
        s.run(TOOL, "--create", "--topic", "tt-none", "--partitions", "0").exits(1);
        s.run(TOOL, "--create", "--topic", "tt-conf", "--config", "retention.ms=soon").exits(1);
        s.run(TOOL, "--create", "--topic", "tt-conf", "--config", "retention.ms=-2").exits(1);
        s.run(TOOL, "--create", "--topic", "tt-conf", "--config", "no.such.config=1").exits(1);
        s.run(TOOL, "--create", "--topic", "tt-conf", "--config", "cleanup.policy=burn").exits(1);
        s.run(TOOL, "--create", "--topic", "tt.dotted").exits(0);
        s.run(TOOL, "--create", "--topic", "tt_dotted").exits(1).prints("collides");
        s.run(TOOL, "--delete", "--topic", "tt.dotted").exits(0);
    }

    private static void replicaAssignment(Session s) throws Exception {
        s.run(TOOL, "--create", "--topic", "tt-assigned", "--replica-assignment", "1,1").exits(0);
        s.run(TOOL, "--describe", "--topic", "tt-assigned").exits(0).prints("PartitionCount: 2");
        s.run(TOOL, "--create", "--topic", "tt-foreign", "--replica-assignment", "77").exits(1);
        s.run(TOOL, "--alter", "--topic", "tt-assigned", "--partitions", "3", "--replica-assignment", "1,1,1")
                .exits(0);
        s.run(TOOL, "--describe", "--topic", "tt-assigned").exits(0).prints("PartitionCount: 3");
    }
}
