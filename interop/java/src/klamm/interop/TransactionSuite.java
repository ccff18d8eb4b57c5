package klamm.interop;

import static klamm.interop.Suite.check;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListTransactionsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.TransactionDescription;
import org.apache.kafka.clients.admin.TransactionListing;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.InvalidTxnStateException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.TransactionalIdNotFoundException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Transactions of Kafka's own Java client. */
final class TransactionSuite {
    private static final long LIMIT_MS = 60_000;

    private TransactionSuite() {}

    static void add(Suite suite, Options options) {
        suite.test("commit-and-abort", () -> commitAndAbort(options));
        suite.test("consume-transform-produce", () -> consumeTransformProduce(options));
        suite.test("offsets-of-an-abort", () -> offsetsOfAnAbort(options));
        suite.test("fencing", () -> fencing(options));
        suite.test("init-aborts-what-is-open", () -> initAborts(options));
        suite.test("timeout", () -> timeout(options));
        suite.test("timeout-too-long", () -> timeoutTooLong(options));
        suite.test("many-small", () -> manySmall(options));
        suite.test("describe-and-list", () -> describeAndList(options));
        suite.test("abort-hanging", () -> abortHanging(options));
    }

    private static void commitAndAbort(Options options) throws Exception {
        create(options, "txn-basic", 3);
        try (KafkaProducer<String, String> producer = producer(options, "txn-basic-id", 60_000)) {
            producer.initTransactions();
            for (int t = 0; t < 10; t++) {
                producer.beginTransaction();
                for (int i = 0; i < 30; i++) {
                    String word = t % 3 == 2 ? "aborted" : "committed";
                    producer.send(new ProducerRecord<>("txn-basic", i % 3, "k" + i, word + "-" + t));
                }
                if (t % 3 == 2) {
                    producer.flush();
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
        }
        List<String> committed = read(options, "txn-basic", 3, "read_committed", 210);
        check(committed.size() == 210, "read_committed sees " + committed.size());
        check(
                committed.stream().allMatch(value -> value.startsWith("committed")),
                "read_committed sees aborted records");
        List<String> all = read(options, "txn-basic", 3, "read_uncommitted", 300);
        check(all.size() == 300, "read_uncommitted sees " + all.size());
    }

    /** Every record of one topic goes to another exactly once, though the program stops and starts. */
    private static void consumeTransformProduce(Options options) throws Exception {
        create(options, "txn-in", 2);
        create(options, "txn-out", 2);
        int total = 400;
        try (KafkaProducer<String, String> producer = producer(options, null, 0)) {
            for (int i = 0; i < total; i++) {
                producer.send(new ProducerRecord<>("txn-in", i % 2, "k" + i, "v" + i));
            }
        }
        int rounds = 0;
        while (read(options, "txn-out", 2, "read_committed", total).size() < total) {
            check(rounds++ < 20, "no end after 20 rounds");
            transform(options, rounds);
        }
        List<String> out = read(options, "txn-out", 2, "read_committed", total);
        check(out.size() == total, "written " + out.size());
        Map<String, Integer> counts = new TreeMap<>();
        out.forEach(value -> counts.merge(value, 1, Integer::sum));
        for (int i = 0; i < total; i++) {
            check(counts.getOrDefault("V" + i, 0) == 1, "V" + i + " times " + counts.get("V" + i));
        }
    }

    /** A life of the program: a few transactions, some aborted, and an end in the middle of one. */
    private static void transform(Options options, int round) {
        Map<String, Object> config = consumerConfig(options, "read_committed");
        config.put("group.id", "txn-ctp");
        config.put("max.poll.records", "25");
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config);
                KafkaProducer<String, String> producer = producer(options, "txn-ctp-id", 60_000)) {
            producer.initTransactions();
            consumer.subscribe(List.of("txn-in"));
            int transactions = 0;
            long end = System.currentTimeMillis() + 10_000;
            while (transactions < 4 && System.currentTimeMillis() < end) {
                ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(300));
                if (records.isEmpty()) {
                    continue;
                }
                producer.beginTransaction();
                Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                for (ConsumerRecord<String, String> record : records) {
                    producer.send(
                            new ProducerRecord<>(
                                    "txn-out",
                                    record.partition(),
                                    record.key(),
                                    record.value().toUpperCase()));
                    offsets.put(
                            new TopicPartition(record.topic(), record.partition()),
                            new OffsetAndMetadata(record.offset() + 1));
                }
                producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                transactions++;
                if (transactions == 4) {
                    // Stops here: whoever comes next aborts this.
                    producer.flush();
                } else if ((transactions + round) % 3 == 0) {
                    producer.abortTransaction();
                    reset(consumer);
                } else {
                    producer.commitTransaction();
                }
            }
        }
    }

    /** Back to what is committed. */
    private static void reset(KafkaConsumer<String, String> consumer) {
        Map<TopicPartition, OffsetAndMetadata> committed = consumer.committed(consumer.assignment());
        for (TopicPartition partition : consumer.assignment()) {
            OffsetAndMetadata offset = committed.get(partition);
            consumer.seek(partition, offset == null ? 0 : offset.offset());
        }
    }

    private static void offsetsOfAnAbort(Options options) throws Exception {
        create(options, "txn-offsets", 1);
        TopicPartition partition = new TopicPartition("txn-offsets", 0);
        try (KafkaProducer<String, String> producer = producer(options, "txn-offsets-id", 60_000);
                Admin admin = admin(options);
                KafkaConsumer<String, String> consumer = grouped(options, "txn-offsets-group")) {
            consumer.assign(List.of(partition));
            producer.initTransactions();
            for (long offset = 1; offset <= 4; offset++) {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>("txn-offsets", 0, "k", "v"));
                producer.sendOffsetsToTransaction(
                        Map.of(partition, new OffsetAndMetadata(offset, "at " + offset)),
                        consumer.groupMetadata());
                if (offset % 2 == 0) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
                // A reader of stable offsets waits for the markers.
                long expected = offset % 2 == 0 ? offset - 1 : offset;
                OffsetAndMetadata committed = consumer.committed(java.util.Set.of(partition)).get(partition);
                check(
                        committed != null && committed.offset() == expected,
                        "committed " + committed + ", not " + expected);
            }
            long listed =
                    admin.listConsumerGroupOffsets("txn-offsets-group")
                            .partitionsToOffsetAndMetadata()
                            .get()
                            .get(partition)
                            .offset();
            check(listed == 3, "listed " + listed);
        }
    }

    private static void fencing(Options options) throws Exception {
        create(options, "txn-fencing", 1);
        try (KafkaProducer<String, String> first = producer(options, "txn-fencing-id", 60_000);
                KafkaProducer<String, String> second = producer(options, "txn-fencing-id", 60_000)) {
            first.initTransactions();
            first.beginTransaction();
            first.send(new ProducerRecord<>("txn-fencing", 0, "k", "first")).get();
            second.initTransactions();
            boolean fenced = false;
            try {
                first.send(new ProducerRecord<>("txn-fencing", 0, "k", "zombie")).get();
                first.commitTransaction();
            } catch (ProducerFencedException | InvalidProducerEpochException e) {
                fenced = true;
            } catch (ExecutionException e) {
                fenced =
                        e.getCause() instanceof ProducerFencedException
                                || e.getCause() instanceof InvalidProducerEpochException;
                check(fenced, "the zombie's send failed with " + e.getCause());
            }
            check(fenced, "the first producer was not fenced");
            second.beginTransaction();
            second.send(new ProducerRecord<>("txn-fencing", 0, "k", "second"));
            second.commitTransaction();
        }
        List<String> seen = read(options, "txn-fencing", 1, "read_committed", 1);
        check(seen.equals(List.of("second")), "seen " + seen);
    }

    private static void initAborts(Options options) throws Exception {
        create(options, "txn-init", 1);
        KafkaProducer<String, String> first = producer(options, "txn-init-id", 60_000);
        first.initTransactions();
        first.beginTransaction();
        first.send(new ProducerRecord<>("txn-init", 0, "k", "open")).get();
        // Gone without a word, as in a crash.
        first.close(Duration.ZERO);
        try (KafkaProducer<String, String> second = producer(options, "txn-init-id", 60_000)) {
            second.initTransactions();
            second.beginTransaction();
            second.send(new ProducerRecord<>("txn-init", 0, "k", "next"));
            second.commitTransaction();
        }
        List<String> seen = read(options, "txn-init", 1, "read_committed", 1);
        check(seen.equals(List.of("next")), "seen " + seen);
    }

    private static void timeout(Options options) throws Exception {
        create(options, "txn-timeout", 1);
        TopicPartition partition = new TopicPartition("txn-timeout", 0);
        try (KafkaProducer<String, String> producer = producer(options, "txn-timeout-id", 1_000);
                Admin admin = admin(options)) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>("txn-timeout", 0, "k", "late")).get();
            await(
                    "the transaction is not aborted",
                    () -> state(admin, "txn-timeout-id") == TransactionState.COMPLETE_ABORT);
            check(openTransactions(admin, partition) == 0, "the partition has a transaction open");
            try {
                producer.commitTransaction();
                throw new AssertionError("a transaction that timed out was committed");
            } catch (ProducerFencedException
                    | InvalidProducerEpochException
                    | InvalidTxnStateException e) {
                // As it should be.
            }
        }
        List<String> seen = read(options, "txn-timeout", 1, "read_committed", 0);
        check(seen.isEmpty(), "seen " + seen);
    }

    private static void timeoutTooLong(Options options) {
        try (KafkaProducer<String, String> producer = producer(options, "txn-long-id", 900_001)) {
            producer.initTransactions();
            throw new AssertionError("a timeout above transaction.max.timeout.ms was taken");
        } catch (KafkaException e) {
            check(String.valueOf(e.getMessage()).contains("timeout is larger"), "failed with " + e);
        }
    }

    private static void manySmall(Options options) throws Exception {
        create(options, "txn-small", 1);
        try (KafkaProducer<String, String> producer = producer(options, "txn-small-id", 60_000)) {
            producer.initTransactions();
            for (int i = 0; i < 200; i++) {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>("txn-small", 0, "k", "v" + i));
                producer.commitTransaction();
            }
        }
        List<String> seen = read(options, "txn-small", 1, "read_committed", 200);
        for (int i = 0; i < 200; i++) {
            check(seen.get(i).equals("v" + i), "at " + i + ": " + seen.get(i));
        }
    }

    private static void describeAndList(Options options) throws Exception {
        create(options, "txn-describe", 2);
        try (KafkaProducer<String, String> producer = producer(options, "txn-describe-id", 61_000);
                Admin admin = admin(options)) {
            producer.initTransactions();
            check(
                    state(admin, "txn-describe-id") == TransactionState.EMPTY,
                    "state " + state(admin, "txn-describe-id"));
            producer.beginTransaction();
            producer.send(new ProducerRecord<>("txn-describe", 1, "k", "v")).get();
            TransactionDescription open = describe(admin, "txn-describe-id");
            check(open.state() == TransactionState.ONGOING, "state " + open.state());
            check(open.transactionTimeoutMs() == 61_000, "timeout " + open.transactionTimeoutMs());
            check(
                    open.topicPartitions().equals(java.util.Set.of(new TopicPartition("txn-describe", 1))),
                    "partitions " + open.topicPartitions());
            check(open.transactionStartTimeMs().isPresent(), "no start");
            check(openTransactions(admin, new TopicPartition("txn-describe", 1)) == 1, "not open");
            ListTransactionsOptions ongoing =
                    new ListTransactionsOptions().filterStates(List.of(TransactionState.ONGOING));
            check(ids(admin, ongoing).contains("txn-describe-id"), "not listed as ongoing");
            ListTransactionsOptions others =
                    new ListTransactionsOptions()
                            .filterStates(List.of(TransactionState.COMPLETE_COMMIT))
                            .filterOnTransactionalIdPattern("txn-describe-.*");
            check(ids(admin, others).isEmpty(), "listed as complete: " + ids(admin, others));
            ListTransactionsOptions old = new ListTransactionsOptions().filterOnDuration(3_600_000);
            check(!ids(admin, old).contains("txn-describe-id"), "listed as old");
            ListTransactionsOptions pattern =
                    new ListTransactionsOptions().filterOnTransactionalIdPattern("txn-describe-i.");
            check(ids(admin, pattern).equals(List.of("txn-describe-id")), "by pattern: " + ids(admin, pattern));
            ListTransactionsOptions part =
                    new ListTransactionsOptions().filterOnTransactionalIdPattern("txn-describe");
            check(ids(admin, part).isEmpty(), "by part: " + ids(admin, part));
            ListTransactionsOptions producerId =
                    new ListTransactionsOptions().filterProducerIds(List.of(open.producerId()));
            check(ids(admin, producerId).equals(List.of("txn-describe-id")), "by producer id");
            producer.commitTransaction();
            await(
                    "not complete",
                    () -> state(admin, "txn-describe-id") == TransactionState.COMPLETE_COMMIT);
            try {
                describe(admin, "txn-unheard-of");
                throw new AssertionError("an unknown id was described");
            } catch (ExecutionException e) {
                check(
                        e.getCause() instanceof TransactionalIdNotFoundException,
                        "unknown id: " + e.getCause());
            }
        }
    }

    /** As {@code kafka-transactions abort} does. */
    private static void abortHanging(Options options) throws Exception {
        create(options, "txn-hanging", 1);
        TopicPartition partition = new TopicPartition("txn-hanging", 0);
        try (KafkaProducer<String, String> producer = producer(options, "txn-hanging-id", 60_000);
                Admin admin = admin(options)) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>("txn-hanging", 0, "k", "v")).get();
            ProducerState open =
                    producers(admin, partition).stream()
                            .filter(state -> state.currentTransactionStartOffset().isPresent())
                            .findFirst()
                            .orElseThrow();
            admin.abortTransaction(
                            new org.apache.kafka.clients.admin.AbortTransactionSpec(
                                    partition,
                                    open.producerId(),
                                    (short) open.producerEpoch(),
                                    open.coordinatorEpoch().orElse(0)))
                    .all()
                    .get();
            check(openTransactions(admin, partition) == 0, "still open");
        }
    }

    private static TransactionState state(Admin admin, String id) throws Exception {
        return describe(admin, id).state();
    }

    private static TransactionDescription describe(Admin admin, String id) throws Exception {
        return admin.describeTransactions(List.of(id)).description(id).get();
    }

    private static List<String> ids(Admin admin, ListTransactionsOptions options) throws Exception {
        Collection<TransactionListing> all = admin.listTransactions(options).all().get();
        return all.stream().map(TransactionListing::transactionalId).sorted().toList();
    }

    private static List<ProducerState> producers(Admin admin, TopicPartition partition)
            throws Exception {
        return admin.describeProducers(List.of(partition))
                .partitionResult(partition)
                .get()
                .activeProducers();
    }

    private static long openTransactions(Admin admin, TopicPartition partition) throws Exception {
        return producers(admin, partition).stream()
                .filter(state -> state.currentTransactionStartOffset().isPresent())
                .count();
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    private static void await(String otherwise, Condition condition) throws Exception {
        long end = System.currentTimeMillis() + LIMIT_MS;
        while (!condition.holds()) {
            check(System.currentTimeMillis() < end, otherwise);
            Thread.sleep(50);
        }
    }

    private static Admin admin(Options options) {
        return Admin.create(Map.of("bootstrap.servers", options.bootstrap()));
    }

    private static void create(Options options, String topic, int partitions) throws Exception {
        try (Admin admin = admin(options)) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
        } catch (ExecutionException e) {
            if (!(e.getCause() instanceof TopicExistsException)) {
                throw e;
            }
        }
    }

    private static KafkaProducer<String, String> producer(Options options, String id, int timeoutMs) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", options.bootstrap());
        config.put("linger.ms", 0);
        if (id != null) {
            config.put("transactional.id", id);
            config.put("transaction.timeout.ms", timeoutMs);
        }
        return new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
    }

    private static Map<String, Object> consumerConfig(Options options, String isolation) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", options.bootstrap());
        config.put("isolation.level", isolation);
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", "false");
        config.put("key.deserializer", StringDeserializer.class.getName());
        config.put("value.deserializer", StringDeserializer.class.getName());
        return config;
    }

    private static KafkaConsumer<String, String> grouped(Options options, String group) {
        Map<String, Object> config = consumerConfig(options, "read_committed");
        config.put("group.id", group);
        return new KafkaConsumer<>(config);
    }

    /** All values up to where the isolation level lets one read; waits while there are fewer. */
    private static List<String> read(
            Options options, String topic, int partitions, String isolation, int expected) {
        List<String> values = new ArrayList<>();
        try (KafkaConsumer<String, String> consumer =
                new KafkaConsumer<>(consumerConfig(options, isolation))) {
            List<TopicPartition> all = new ArrayList<>();
            for (int p = 0; p < partitions; p++) {
                all.add(new TopicPartition(topic, p));
            }
            consumer.assign(all);
            consumer.seekToBeginning(all);
            Map<TopicPartition, Long> ends = consumer.endOffsets(all);
            long give = System.currentTimeMillis() + 10_000;
            while (System.currentTimeMillis() < give) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                    values.add(record.value());
                }
                boolean atEnd =
                        ends.entrySet().stream()
                                .allMatch(end -> consumer.position(end.getKey()) >= end.getValue());
                if (atEnd) {
                    break;
                }
            }
        }
        return values;
    }
}
