package klamm.interop;

import static klamm.interop.TopicTools.recorded;

/** {@code kafka-console-producer} and {@code kafka-console-consumer}. */
final class ConsoleTools {
    static final String PRODUCER = "kafka-console-producer";
    static final String CONSUMER = "kafka-console-consumer";

    private ConsoleTools() {}

    static void add(Suite suite, Options options) {
        recorded(suite, options, "console.keys-and-headers", ConsoleTools::keysAndHeaders);
        recorded(suite, options, "console.partition-and-offset", ConsoleTools::partitionAndOffset);
        recorded(suite, options, "console.groups", ConsoleTools::groups);
        recorded(suite, options, "console.codecs-and-acks", ConsoleTools::codecsAndAcks);
        recorded(suite, options, "console.auto-creation", ConsoleTools::autoCreation);
        recorded(suite, options, "console.include-pattern", ConsoleTools::includePattern);
    }

    private static void keysAndHeaders(Session s) throws Exception {
        TopicTools.create(s, "ct-keys", 1);
        s.runWithInput(
                        "h1:one,h2:two\tkey-a\tvalue a\n"
                                + "h1:drei\tkey-b\tgr\u00fc\u00dfe\n"
                                + "h1:x\tNULL\tno key\n"
                                + "h1:y\tkey-c\tNULL\n",
                        PRODUCER, "--topic", "ct-keys", "--reader-property", "parse.key=true",
                        "--reader-property", "parse.headers=true", "--reader-property",
                        "null.marker=NULL")
                .exits(0);
        s.runWithInput("plain one\nplain two\n", PRODUCER, "--topic", "ct-keys", "--sync").exits(0);
        s.run(
                        CONSUMER, "--topic", "ct-keys", "--from-beginning", "--max-messages", "6",
                        "--timeout-ms", "20000", "--formatter-property", "print.key=true",
                        "--formatter-property", "print.headers=true", "--formatter-property",
                        "print.offset=true", "--formatter-property", "print.partition=true",
                        "--formatter-property", "print.timestamp=true")
                .exits(0)
                .prints("h1:one,h2:two")
                .prints("key-b\tgr\u00fc\u00dfe")
                .prints("plain two");
        s.run(
                        CONSUMER, "--topic", "ct-keys", "--from-beginning", "--max-messages", "6",
                        "--timeout-ms", "20000", "--property", "print.key=true", "--isolation-level",
                        "read_committed")
                .exits(0)
                .prints("Processed a total of 6 messages");
    }

    private static void partitionAndOffset(Session s) throws Exception {
        TopicTools.create(s, "ct-offsets", 1);
        StringBuilder lines = new StringBuilder();
        for (int i = 0; i < 20; i++) {
            lines.append("line ").append(i).append('\n');
        }
        s.runWithInput(lines.toString(), PRODUCER, "--topic", "ct-offsets").exits(0);
        s.run(
                        CONSUMER, "--topic", "ct-offsets", "--partition", "0", "--offset", "17",
                        "--max-messages", "3", "--timeout-ms", "20000")
                .exits(0)
                .prints("line 17\nline 18\nline 19\n")
                .lacks("line 16");
        s.run(
                        CONSUMER, "--topic", "ct-offsets", "--partition", "0", "--offset", "earliest",
                        "--max-messages", "2", "--timeout-ms", "20000")
                .exits(0)
                .prints("line 0\nline 1\n");
        s.run(
                        CONSUMER, "--topic", "ct-offsets", "--partition", "0", "--offset", "latest",
                        "--timeout-ms", "1500")
                .lacks("line 19");
    }

    private static void groups(Session s) throws Exception {
        TopicTools.create(s, "ct-groups", 1);
        s.runWithInput("first\nsecond\n", PRODUCER, "--topic", "ct-groups").exits(0);
        s.run(
                        CONSUMER, "--topic", "ct-groups", "--group", "ct-group", "--from-beginning",
                        "--max-messages", "2", "--timeout-ms", "30000")
                .exits(0)
                .prints("first\nsecond\n");
        s.runWithInput("third\n", PRODUCER, "--topic", "ct-groups").exits(0);
        // The group goes on where it stopped, although asked to begin at the start.
        s.run(
                        CONSUMER, "--topic", "ct-groups", "--group", "ct-group", "--from-beginning",
                        "--max-messages", "1", "--timeout-ms", "30000")
                .exits(0)
                .prints("third\n")
                .lacks("first");
        s.run(
                        CONSUMER, "--topic", "ct-groups", "--group", "ct-other", "--from-beginning",
                        "--max-messages", "3", "--timeout-ms", "30000", "--command-property",
                        "partition.assignment.strategy="
                                + "org.apache.kafka.clients.consumer.CooperativeStickyAssignor")
                .exits(0)
                .prints("first\nsecond\nthird\n");
    }

    private static void codecsAndAcks(Session s) throws Exception {
        TopicTools.create(s, "ct-codecs", 1);
        for (String codec : new String[] {"none", "gzip", "snappy", "lz4", "zstd"}) {
            s.runWithInput(
                            codec + " " + "compressible ".repeat(20) + "\n", PRODUCER, "--topic",
                            "ct-codecs", "--compression-codec", codec)
                    .exits(0);
        }
        for (String acks : new String[] {"0", "1", "all"}) {
            s.runWithInput(
                            "acks " + acks + "\n", PRODUCER, "--topic", "ct-codecs",
                            "--request-required-acks", acks, "--command-property",
                            "enable.idempotence=" + acks.equals("all"))
                    .exits(0);
        }
        s.run(
                        CONSUMER, "--topic", "ct-codecs", "--from-beginning", "--max-messages", "8",
                        "--timeout-ms", "20000")
                .exits(0)
                .prints("zstd compressible")
                .prints("acks 0\nacks 1\nacks all\n");
    }

    private static void autoCreation(Session s) throws Exception {
        // The producer warns about missing metadata in its log, not on its streams.
        s.runWithInput("made on the way\n", PRODUCER, "--topic", "ct-made").exits(0);
        s.run(
                        CONSUMER, "--topic", "ct-made", "--from-beginning", "--max-messages", "1",
                        "--timeout-ms", "20000")
                .exits(0)
                .prints("made on the way");
        s.run("kafka-topics", "--describe", "--topic", "ct-made").exits(0).prints("PartitionCount: 1");
    }

    private static void includePattern(Session s) throws Exception {
        TopicTools.create(s, "ct-pattern-a", 1);
        TopicTools.create(s, "ct-pattern-b", 1);
        s.runWithInput("in a\n", PRODUCER, "--topic", "ct-pattern-a").exits(0);
        s.runWithInput("in b\n", PRODUCER, "--topic", "ct-pattern-b").exits(0);
        s.runSorted(
                        CONSUMER, "--include", "ct-pattern-.*", "--from-beginning", "--max-messages",
                        "2", "--timeout-ms", "30000")
                .exits(0)
                .prints("in a\n")
                .prints("in b\n");
    }
}
