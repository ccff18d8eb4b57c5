package klamm.interop;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** {@code kafka-dump-log} over the broker's own files. */
final class DumpTools {
    private static final String TOOL = "kafka-dump-log";
    private static final String TOPIC = "dt-segments";

    /** What the tool prints when a file is not to its liking. */
    private static final List<String> COMPLAINTS =
            List.of(
                    "Found timestamp mismatch", "Found out of order timestamp",
                    "Found timeindex mismatch", "Index position", "Mismatches in", "Non-consecutive offsets in",
                    "isvalid: false", "corrupt", "Exception", "Error");

    private DumpTools() {}

    static void add(Suite suite, Options options) {
        suite.test("dump-log.while-running", () -> whileRunning(options));
    }

    /** For a broker that was stopped: every file of every partition. */
    static void addStopped(Suite suite, Options options) {
        suite.test("every-file", () -> everyFile(options));
        suite.test("offsets-topic", () -> offsetsTopic(options));
    }

    /** Small segments, so that there are closed ones with full indexes, and one of each codec. */
    private static void whileRunning(Options options) throws Exception {
        Session s = new Session(options, "tools.dump-log");
        s.run(
                        "kafka-topics", "--create", "--topic", TOPIC, "--config",
                        "segment.bytes=1048576", "--config", "index.interval.bytes=512")
                .exits(0);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            Map<String, Object> config =
                    Map.of(
                            "bootstrap.servers", options.bootstrap(), "compression.type", codec,
                            "batch.size", 4096, "linger.ms", 20);
            try (KafkaProducer<String, String> producer =
                    new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
                for (int i = 0; i < 5000; i++) {
                    ProducerRecord<String, String> record =
                            new ProducerRecord<>(TOPIC, codec + "-" + i, "value-" + i + "-" + "y".repeat(i % 300));
                    record.headers().add("codec", codec.getBytes());
                    producer.send(record);
                }
            }
        }
        Path folder = options.path("log-dir").resolve(TOPIC + "-0");
        List<Path> segments = list(folder, "*.log");
        Suite.check(segments.size() >= 2, "expected several segments, found " + segments);
        long records = 0;
        for (Path segment : segments) {
            Session.Step step =
                    dump(s, segment, "--print-data-log", "--deep-iteration")
                            .prints("Log starting offset: ")
                            .prints("payload: value-");
            records += step.run().out().lines().filter(l -> l.startsWith("| offset: ")).count();
            dump(s, segment);
        }
        Suite.check(records == 25_000, "dumped " + records + " records instead of 25000");
        for (Path index : list(folder, "*.{index,timeindex}")) {
            dump(s, index);
            if (index.toString().endsWith(".index")) {
                // That of the newest segment may still be empty.
                dump(s, index, "--index-sanity-check").matches("passed sanity check|is empty");
                dump(s, index, "--verify-index-only");
            }
        }
        Path closed = list(folder, "*.index").get(0);
        Suite.check(
                dump(s, closed).run().out().lines().filter(l -> l.startsWith("offset: ")).count() > 100,
                "the index of a closed segment has few entries");
    }

    private static void everyFile(Options options) throws Exception {
        Session s = new Session(options, "dump.every-file");
        int files = 0;
        List<Path> folders = list(options.path("log-dir"), "*-[0-9]*");
        for (Path folder : folders) {
            String name = folder.getFileName().toString();
            if (name.startsWith("__cluster_metadata") || name.endsWith("-delete")) {
                continue;
            }
            for (Path file : list(folder, "*.{log,index,timeindex,txnindex,snapshot}")) {
                // What is printed is held in memory; of large files the batches alone are looked at.
                if (file.toString().endsWith(".log") && Files.size(file) < 32 << 20) {
                    dump(s, file, "--print-data-log", "--deep-iteration");
                } else {
                    dump(s, file);
                }
                if (file.toString().endsWith(".index")) {
                    dump(s, file, "--index-sanity-check").matches("passed sanity check|is empty");
                }
                files++;
            }
        }
        Suite.check(files >= 10, "only " + files + " files in " + folders);
    }

    private static void offsetsTopic(Options options) throws Exception {
        Session s = new Session(options, "dump.offsets-topic");
        StringBuilder all = new StringBuilder();
        for (Path folder : list(options.path("log-dir"), "__consumer_offsets-*")) {
            for (Path file : list(folder, "*.log")) {
                all.append(dump(s, file, "--offsets-decoder", "--deep-iteration").run().out());
            }
        }
        String text = all.toString();
        Suite.check(
                text.contains("\"topic\":\"gt-kept\"") && text.contains("\"group\":\"gt-partial\""),
                "no commit of gt-partial in the offsets topic");
        Suite.check(
                text.contains("\"protocolType\":\"consumer\""), "no group metadata in the offsets topic");
    }

    /**
     * Dumps a file and looks for complaints. One is the tool's own slip: in a segment that does not
     * begin at offset 0 it misses the record before the first.
     */
    static Session.Step dump(Session s, Path file, String... more) throws Exception {
        List<String> arguments = new ArrayList<>(List.of("--files", file.toString()));
        arguments.addAll(List.of(more));
        Session.Step step = s.runUnrecorded(TOOL, arguments.toArray(new String[0])).exits(0);
        String all = step.all().replaceAll("Non-consecutive offsets in .*\n  -1 is followed by .*\n", "");
        for (String line : all.split("\n")) {
            // Payloads may hold any word.
            if (!line.startsWith("| offset") && !line.startsWith("Dumping ")) {
                for (String complaint : COMPLAINTS) {
                    Suite.check(!line.contains(complaint), file + ": " + line);
                }
            }
        }
        return step;
    }

    static List<Path> list(Path folder, String glob) throws Exception {
        List<Path> found = new ArrayList<>();
        try (var stream = Files.newDirectoryStream(folder, glob)) {
            stream.forEach(found::add);
        }
        found.sort(null);
        return found;
    }
}
