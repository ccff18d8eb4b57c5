package klamm.interop;

import static klamm.interop.TopicTools.recorded;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.file.Path;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The tools that look at the broker as a whole, and those that put a load on it. */
final class BrokerTools {
    /** What the clients and tools of these suites cannot do without. */
    private static final List<String> NEEDED_APIS =
            List.of(
                    "Produce", "Fetch", "ListOffsets", "Metadata", "OffsetCommit", "OffsetFetch",
                    "FindCoordinator", "JoinGroup", "Heartbeat", "LeaveGroup", "SyncGroup",
                    "DescribeGroups", "ListGroups", "ApiVersions", "CreateTopics", "DeleteTopics",
                    "DeleteRecords", "InitProducerId", "OffsetForLeaderEpoch", "DescribeConfigs",
                    "AlterConfigs", "DescribeLogDirs", "CreatePartitions", "DeleteGroups",
                    "IncrementalAlterConfigs", "OffsetDelete", "DescribeQuorum", "DescribeCluster",
                    "DescribeTopicPartitions");

    private static final Pattern API_LINE =
            Pattern.compile("^\\s+(\\w+)\\((\\d+)\\): (\\d+)(?: to (\\d+))? \\[usable: (\\d+)\\],?$");

    private BrokerTools() {}

    static void add(Suite suite, Options options) {
        suite.test("log-dirs", () -> logDirs(options));
        suite.test("broker-api-versions", () -> apiVersions(options));
        recorded(suite, options, "cluster", s -> cluster(s, options));
        recorded(suite, options, "metadata-quorum", BrokerTools::quorum);
        recorded(suite, options, "features", BrokerTools::features);
        suite.testUnderLoad("perf-tests", attempt -> perf(options, attempt));
        suite.testUnderLoad("e2e-latency", attempt -> latency(options, attempt));
        suite.test("verifiable", () -> verifiable(options));
    }

    private static void logDirs(Options options) throws Exception {
        Session s = new Session(options, "tools.log-dirs");
        TopicTools.create(s, "bt-dirs", 2);
        OffsetTools.fill(options, "bt-dirs", 2, 50);
        Session.Step step =
                s.runUnrecorded("kafka-log-dirs", "--describe", "--topic-list", "bt-dirs").exits(0);
        String json = "";
        for (String line : step.run().out().split("\n")) {
            if (line.startsWith("{")) {
                json = line;
            }
        }
        JsonNode root = new ObjectMapper().readTree(json);
        JsonNode broker = root.at("/brokers/0");
        Suite.check(broker.at("/broker").asInt() == 1, "not broker 1: " + json);
        Suite.check(broker.at("/logDirs").size() == 1, "not one log dir: " + json);
        JsonNode dir = broker.at("/logDirs/0");
        Suite.check(dir.at("/error").isNull(), "error in " + json);
        Suite.check(
                dir.at("/logDir").asText().equals(options.get("log-dir")), "wrong dir in " + json);
        Suite.check(dir.at("/partitions").size() == 2, "not two partitions: " + json);
        for (JsonNode partition : dir.at("/partitions")) {
            String name = partition.at("/partition").asText();
            Suite.check(name.startsWith("bt-dirs-"), "foreign partition in " + json);
            long onDisk = segmentBytes(options.path("log-dir").resolve(name));
            Suite.check(
                    partition.at("/size").asLong() == onDisk && onDisk > 0,
                    name + " holds " + onDisk + " bytes on disk, told: " + json);
            Suite.check(partition.at("/offsetLag").asLong() == 0, "lag in " + json);
            Suite.check(!partition.at("/isFuture").asBoolean(), "future in " + json);
        }
        s.runUnrecorded("kafka-log-dirs", "--describe", "--broker-list", "1").exits(0).prints("bt-dirs-0");
        s.runUnrecorded("kafka-log-dirs", "--describe", "--broker-list", "77").exits(1).prints("77");
    }

    private static long segmentBytes(Path folder) throws Exception {
        long sum = 0;
        try (var files = Files.newDirectoryStream(folder, "*.log")) {
            for (Path file : files) {
                sum += Files.size(file);
            }
        }
        return sum;
    }

    private static void apiVersions(Options options) throws Exception {
        Session s = new Session(options, "tools.broker-api-versions");
        Session.Step step = s.runUnrecorded("kafka-broker-api-versions").exits(0);
        step.matches("\\(id: 1 rack: null isFenced: false\\) -> \\($");
        Map<String, int[]> found = new HashMap<>();
        for (String line : step.run().out().split("\n")) {
            Matcher m = API_LINE.matcher(line);
            if (m.matches()) {
                int low = Integer.parseInt(m.group(3));
                int high = m.group(4) == null ? low : Integer.parseInt(m.group(4));
                found.put(m.group(1), new int[] {low, high});
            }
        }
        if (Boolean.parseBoolean(options.get("record", "false"))) {
            List<String> lines = new ArrayList<>();
            found.forEach((name, range) -> lines.add(name + " " + range[0] + " " + range[1]));
            lines.sort(null);
            Files.write(options.path("golden").resolve("api-versions.txt"), lines);
            return;
        }
        Map<String, int[]> kafka = new HashMap<>();
        for (String line : Files.readString(options.path("golden").resolve("api-versions.txt")).split("\n")) {
            String[] f = line.split(" ");
            kafka.put(f[0], new int[] {Integer.parseInt(f[1]), Integer.parseInt(f[2])});
        }
        for (String name : NEEDED_APIS) {
            int[] range = found.get(name);
            int[] expected = kafka.get(name);
            Suite.check(range != null, name + " is not offered: " + step.all());
            Suite.check(
                    range[0] == expected[0] && range[1] == expected[1],
                    name + " " + range[0] + "-" + range[1] + ", in Kafka " + expected[0] + "-"
                            + expected[1]);
        }
        found.forEach(
                (name, range) -> {
                    int[] expected = kafka.get(name);
                    Suite.check(expected != null, name + " is unknown to Kafka's brokers");
                    Suite.check(
                            range[0] >= expected[0] && range[1] <= expected[1],
                            name + " " + range[0] + "-" + range[1] + " is wider than Kafka's");
                });
    }

    private static void cluster(Session s, Options options) throws Exception {
        s.run("kafka-cluster", "cluster-id").exits(0).matches("^Cluster ID: [A-Za-z0-9_-]{22}$");
        s.run("kafka-cluster", "list-endpoints").exits(0);
        s.run("kafka-cluster", "list-endpoints", "--include-fenced-brokers").exits(0);
        s.run("kafka-cluster", "unregister", "--id", "77").exits(1);
    }

    private static void quorum(Session s) throws Exception {
        s.runUnrecorded("kafka-metadata-quorum", "describe", "--status")
                .exits(0)
                .matches("^ClusterId: +[A-Za-z0-9_-]{22}$")
                .matches("^LeaderId: +1$")
                .matches("^LeaderEpoch: +[1-9]\\d*$")
                .matches("^HighWatermark: +[1-9]\\d*$")
                .matches("^MaxFollowerLag: +0$")
                .matches("^MaxFollowerLagTimeMs: +0$")
                .matches("^CurrentVoters: +\\[\\{\"id\": 1,")
                .matches("^CurrentObservers: +\\[\\]$");
        s.runUnrecorded("kafka-metadata-quorum", "describe", "--replication")
                .exits(0)
                .matches("^NodeId\\s+DirectoryId\\s+LogEndOffset\\s+Lag\\s+LastFetchTimestamp")
                .matches("^1\\s+[A-Za-z0-9_-]{22}\\s+\\d+\\s+0\\s+\\d{13}\\s+\\d{13}\\s+Leader");
        s.runUnrecorded("kafka-metadata-quorum", "describe", "--replication", "--human-readable")
                .exits(0)
                .matches("ms ago");
        s.run("kafka-metadata-quorum", "describe").exits(1);
    }

    private static void perf(Options options, int attempt) throws Exception {
        Session s = new Session(options, "tools.perf");
        String topic = "bt-perf-" + attempt;
        TopicTools.create(s, topic, 3);
        s.runUnrecorded(
                        "kafka-producer-perf-test", "--topic", topic, "--num-records", "20000",
                        "--record-size", "200", "--throughput", "-1", "--command-property",
                        "acks=all", "linger.ms=5")
                .exits(0)
                .matches("^20000 records sent, [0-9.]+ records/sec");
        s.runUnrecorded(
                        "kafka-consumer-perf-test", "--topic", topic, "--num-records", "20000",
                        "--timeout", "20000")
                .exits(0)
                .matches("^start.time, end.time, data.consumed.in.MB")
                .matches(", 20\\d{3}, ");
        s.runUnrecorded("kafka-get-offsets", "--topic", topic).exits(0);
    }

    /** What a release's features are, which the tool knows by itself; and refusals by the controller. */
    private static void features(Session s) throws Exception {
        String tool = "kafka-features";
        s.runUnrecorded(tool, "describe").exits(0).matches("^Feature: metadata.version\\s");
        s.run(tool, "version-mapping").exits(0).prints("metadata.version");
        s.run(tool, "version-mapping", "--release-version", "3.9-IV0").exits(0);
        s.run(tool, "version-mapping", "--release-version", "2.8-IV0").exits(1);
        s.run(tool, "feature-dependencies", "--feature", "transaction.version=2").exits(0);
        s.run(
                        tool, "feature-dependencies", "--feature", "group.version=1", "--feature",
                        "streams.version=1")
                .exits(0);
        s.run(tool, "feature-dependencies", "--feature", "transaction.version=77").exits(1);
        s.run(tool, "feature-dependencies", "--feature", "no.such=1").exits(1);
        s.run(tool, "upgrade", "--feature", "transaction.version=77").exits(1);
        s.run(tool, "upgrade", "--feature", "no.such=1").exits(1);
        s.run(tool, "downgrade", "--dry-run", "--feature", "share.version=0");
        s.run(tool, "disable", "--dry-run", "--feature", "streams.version");
    }

    private static void latency(Options options, int attempt) throws Exception {
        Session s = new Session(options, "tools.e2e-latency");
        String topic = "bt-latency-" + attempt;
        s.runUnrecorded(
                        "kafka-e2e-latency", "--topic", topic, "--num-records", "500",
                        "--producer-acks", "all", "--record-size", "200", "--record-key-size", "8",
                        "--num-headers", "2", "--record-header-key-size", "3",
                        "--record-header-size", "5")
                .exits(0)
                .matches("^Avg latency: [0-9.]+ ms$")
                .matches("^Percentiles: 50th = \\d+, 99th = \\d+, 99.9th = \\d+$");
        s.runUnrecorded("kafka-get-offsets", "--topic", topic).prints(topic + ":0:500");
    }

    private static void verifiable(Options options) throws Exception {
        Session s = new Session(options, "tools.verifiable");
        TopicTools.create(s, "bt-verifiable", 1);
        Session.Step produced =
                s.runUnrecorded(
                        "kafka-verifiable-producer", "--topic", "bt-verifiable", "--max-messages",
                        "500", "--acks", "-1");
        produced.exits(0);
        ObjectMapper mapper = new ObjectMapper();
        long sent = 0;
        long told = -1;
        for (String line : produced.run().out().split("\n")) {
            JsonNode event = mapper.readTree(line);
            if (event.at("/name").asText().equals("producer_send_success")) {
                Suite.check(event.at("/offset").asLong() == sent, "out of order: " + line);
                sent++;
            }
            if (event.at("/name").asText().equals("tool_data")) {
                told = event.at("/acked").asLong();
            }
        }
        Suite.check(sent == 500, "acknowledged " + sent + " instead of 500: " + produced.all());
        Suite.check(told == 500, "the closing line tells " + told + " instead of 500");
        Session.Step consumed =
                s.runUnrecorded(
                        "kafka-verifiable-consumer", "--topic", "bt-verifiable", "--group-id",
                        "bt-verify", "--max-messages", "500", "--group-protocol", "classic");
        consumed.exits(0);
        long read = 0;
        boolean committed = false;
        for (String line : consumed.run().out().split("\n")) {
            JsonNode event = mapper.readTree(line);
            if (event.at("/name").asText().equals("records_consumed")) {
                read += event.at("/count").asLong();
            }
            if (event.at("/name").asText().equals("offsets_committed")) {
                committed |= event.at("/success").asBoolean();
            }
        }
        Suite.check(read == 500, "read " + read + " instead of 500: " + consumed.all());
        Suite.check(committed, "no offsets committed: " + consumed.all());
    }
}
