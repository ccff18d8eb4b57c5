package klamm.interop;

import static klamm.interop.TopicTools.recorded;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** {@code kafka-get-offsets} and {@code kafka-delete-records}. */
final class OffsetTools {
    private static final String TOOL = "kafka-get-offsets";

    private OffsetTools() {}

    static void add(Suite suite, Options options) {
        recorded(suite, options, "get-offsets", s -> getOffsets(s, options));
        recorded(suite, options, "delete-records", s -> deleteRecords(s, options));
    }

    /** Writes {@code count} records to each partition, their timestamps {@code 1000 * index}. */
    static void fill(Options options, String topic, int partitions, int count) throws Exception {
        Map<String, Object> config =
                Map.of("bootstrap.servers", options.bootstrap(), "acks", "all", "linger.ms", 5);
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (int i = 0; i < count; i++) {
                for (int p = 0; p < partitions; p++) {
                    producer.send(
                            new ProducerRecord<>(topic, p, 1000L * i, "key-" + i, "value-" + i));
                }
            }
        }
    }

    private static void getOffsets(Session s, Options options) throws Exception {
        s.run(
                        "kafka-topics", "--create", "--topic", "ot-offsets", "--partitions", "2",
                        "--config", "retention.ms=-1")
                .exits(0);
        s.run(TOOL, "--topic", "ot-offsets").exits(0).prints("ot-offsets:0:0\not-offsets:1:0\n");
        s.run(TOOL, "--topic", "ot-offsets", "--time", "max-timestamp").exits(0);
        fill(options, "ot-offsets", 2, 10);
        s.run(TOOL, "--topic", "ot-offsets").exits(0).prints("ot-offsets:0:10\not-offsets:1:10\n");
        for (String time :
                List.of(
                        "latest", "-1", "earliest", "-2", "max-timestamp", "-3", "earliest-local",
                        "-4", "latest-tiered", "-5", "earliest-pending-upload", "-6", "0", "3500", "9000", "9001")) {
            s.run(TOOL, "--topic", "ot-offsets", "--time", time).exits(0);
        }
        s.run(TOOL, "--topic", "ot-offsets", "--time", "3500").prints("ot-offsets:1:4");
        s.run(TOOL, "--topic", "ot-offsets", "--time", "max-timestamp").prints("ot-offsets:1:9");
        s.run(TOOL, "--topic-partitions", "ot-offsets:1").exits(0).prints("ot-offsets:1:10");
        s.run(TOOL, "--topic", "ot-offsets", "--partitions", "0").exits(0);
        s.run(TOOL, "--topic-partitions", "ot-off.*:0-1", "--exclude-internal-topics").exits(0);
        s.run(TOOL, "--topic", "ot-missing").exits(1);
        s.run(TOOL, "--topic", "ot-offsets", "--time", "yesterday").exits(1);
    }

    private static void deleteRecords(Session s, Options options) throws Exception {
        s.run(
                        "kafka-topics", "--create", "--topic", "ot-delete", "--partitions", "2",
                        "--config", "retention.ms=-1")
                .exits(0);
        fill(options, "ot-delete", 2, 10);
        Path file = options.path("work-dir").resolve("delete-records.json");
        Files.writeString(
                file,
                "{\"partitions\":[{\"topic\":\"ot-delete\",\"partition\":0,\"offset\":4},"
                        + "{\"topic\":\"ot-delete\",\"partition\":1,\"offset\":-1}],\"version\":1}");
        s.runSorted("kafka-delete-records", "--offset-json-file", file.toString())
                .exits(0)
                .prints("low_watermark: 4")
                .prints("low_watermark: 10");
        s.run(TOOL, "--topic", "ot-delete", "--time", "earliest")
                .exits(0)
                .prints("ot-delete:0:4\not-delete:1:10\n");
        s.run(
                        ConsoleTools.CONSUMER, "--topic", "ot-delete", "--partition", "0", "--offset",
                        "earliest", "--max-messages", "6", "--timeout-ms", "20000")
                .exits(0)
                .prints("value-4\n")
                .lacks("value-3\n");
        Files.writeString(
                file, "{\"partitions\":[{\"topic\":\"ot-delete\",\"partition\":0,\"offset\":99}]}");
        s.run("kafka-delete-records", "--offset-json-file", file.toString()).prints("OffsetOutOfRange");
    }
}
