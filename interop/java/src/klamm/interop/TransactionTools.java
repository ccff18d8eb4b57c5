package klamm.interop;

import static klamm.interop.TopicTools.recorded;

import java.time.Duration;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** {@code kafka-transactions}: list, describe, describe-producers, find-hanging, abort. */
final class TransactionTools {
    private static final String TOOL = "kafka-transactions";
    private static final Set<String> VARIES =
            Set.of(
                    "ProducerId",
                    "CurrentTransactionStartTimeMs",
                    "TransactionDurationMs",
                    "LatestTimestamp",
                    "LastTimestamp");

    private TransactionTools() {}

    static void add(Suite suite, Options options) {
        recorded(suite, options, "transactions.list-and-describe", s -> describe(s, options));
        recorded(suite, options, "transactions.abort", s -> abort(s, options));
    }

    private static KafkaProducer<String, String> producer(Options options, String id) {
        return new KafkaProducer<>(
                Map.of(
                        "bootstrap.servers", options.bootstrap(),
                        "transactional.id", id,
                        "transaction.timeout.ms", 61_000),
                new StringSerializer(),
                new StringSerializer());
    }

    /** A transaction that is open in partition 0. */
    private static KafkaProducer<String, String> open(Options options, String id, String topic)
            throws Exception {
        KafkaProducer<String, String> producer = producer(options, id);
        producer.initTransactions();
        producer.beginTransaction();
        producer.send(new ProducerRecord<>(topic, 0, "k", "v")).get();
        return producer;
    }

    private static void describe(Session s, Options options) throws Exception {
        TopicTools.create(s, "xt-described", 2);
        try (KafkaProducer<String, String> done = producer(options, "xt-done");
                KafkaProducer<String, String> open = open(options, "xt-open", "xt-described")) {
            done.initTransactions();
            done.beginTransaction();
            done.send(new ProducerRecord<>("xt-described", 1, "k", "v")).get();
            done.abortTransaction();
            s.runTable(VARIES, TOOL, "list", "--transactional-id-pattern", "xt-open").exits(0).prints("Ongoing");
            s.runTable(VARIES, TOOL, "list", "--transactional-id-pattern", "xt-(open|none)").exits(0);
            s.runTable(VARIES, TOOL, "list", "--duration-filter", "3600000").exits(0);
            s.runTable(VARIES, TOOL, "list", "--transactional-id-pattern", "xt-(").exits(1);
            s.runTable(VARIES, TOOL, "describe", "--transactional-id", "xt-open").exits(0).prints("Ongoing");
            s.runTable(VARIES, TOOL, "describe", "--transactional-id", "xt-unheard-of").exits(1);
            s.runTable(VARIES, TOOL, "describe-producers", "--topic", "xt-described", "--partition", "0")
                    .exits(0);
            s.runTable(VARIES, TOOL, "describe-producers", "--topic", "xt-described", "--partition", "1")
                    .exits(0);
            s.runTable(
                            VARIES, TOOL, "describe-producers", "--topic", "xt-described", "--partition", "0",
                            "--broker-id", "1")
                    .exits(0);
            s.runTable(VARIES, TOOL, "find-hanging", "--broker-id", "1").exits(0);
            s.runTable(VARIES, TOOL, "find-hanging", "--topic", "xt-described", "--partition", "0").exits(0);
            s.runTable(
                            VARIES, TOOL, "find-hanging", "--topic", "xt-described",
                            "--max-transaction-timeout", "0")
                    .exits(0);
            open.abortTransaction();
        }
    }

    private static void abort(Session s, Options options) throws Exception {
        TopicTools.create(s, "xt-aborted", 1);
        KafkaProducer<String, String> open = open(options, "xt-abort", "xt-aborted");
        s.runTable(VARIES, TOOL, "describe-producers", "--topic", "xt-aborted", "--partition", "0").exits(0);
        s.runTable(
                        VARIES, TOOL, "abort", "--topic", "xt-aborted", "--partition", "0",
                        "--start-offset", "7")
                .exits(1);
        s.runTable(
                        VARIES, TOOL, "abort", "--topic", "xt-aborted", "--partition", "0",
                        "--start-offset", "0")
                .exits(0);
        s.runTable(VARIES, TOOL, "describe-producers", "--topic", "xt-aborted", "--partition", "0").exits(0);
        s.run("kafka-console-consumer", "--topic", "xt-aborted", "--from-beginning", "--timeout-ms", "3000",
                "--isolation-level", "read_committed");
        open.close(Duration.ZERO);
        try (KafkaProducer<String, String> next = producer(options, "xt-abort")) {
            next.initTransactions();
        }
    }
}
