package klamm.interop;

import java.nio.file.Files;

/**
 * The JVM side of {@code cargo xtask interop}: Kafka's own tools and Java client against whatever
 * broker listens at {@code --bootstrap}.
 */
public final class Main {
    private Main() {}

    public static void main(String[] args) throws Exception {
        Options options = Options.parse(args, 1);
        switch (args[0]) {
            case "cluster-load" -> ClusterLoad.run(options);
            case "exactly-once-load" -> ExactlyOnceLoad.run(options);
            case "exactly-once-worker" -> ExactlyOnceWorker.run(options);
            case "group-member" -> GroupMember.run(options);
            case "word-count" -> WordCount.run(options);
            default -> suite(args[0], options);
        }
        // Clients and tools leave threads behind.
        Runtime.getRuntime().halt(0);
    }

    /** Tests, each of which prints how it went. */
    private static void suite(String name, Options options) throws Exception {
        Tool.install();
        Suite suite = new Suite(name, options.only());
        switch (name) {
            case "tools" -> {
                Files.createDirectories(options.path("work-dir"));
                TopicTools.add(suite, options);
                ConsoleTools.add(suite, options);
                OffsetTools.add(suite, options);
                ConfigTools.add(suite, options);
                GroupTools.add(suite, options);
                ShareTools.add(suite, options);
                TransactionTools.add(suite, options);
                BrokerTools.add(suite, options);
                DumpTools.add(suite, options);
            }
            case "versions" -> VersionSweep.add(suite, options);
            case "dump" -> DumpTools.addStopped(suite, options);
            case "compaction" -> CompactionSuite.add(suite, options);
            case "java" -> ClientSuite.add(suite, options);
            case "transactions" -> TransactionSuite.add(suite, options);
            case "share-groups" -> ShareSuite.add(suite, options);
            case "share-restarted" -> ShareSuite.addRestarted(suite, options);
            case "streams-groups" -> StreamsSuite.add(suite, options);
            case "cross" -> ClientSuite.addCross(suite, options);
            default -> throw new IllegalArgumentException("unknown suite " + name);
        }
        suite.run();
    }
}
