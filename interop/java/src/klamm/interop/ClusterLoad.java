package klamm.interop;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Load on a cluster whose brokers are killed meanwhile. An idempotent producer with {@code acks=all}
 * numbers the records of each partition, so record n must be at offset n: whoever reads checks that
 * there is no gap, no repetition and no change of order. Says {@code acked N} as it goes, and at the
 * end of its input {@code done} or {@code failed} with the reason. Asked with a line {@code gap} it
 * says {@code gap MS RETRIES}: how long a partition had no acknowledgement at the most since it was
 * last asked, up to now, and how many records were sent again.
 */
final class ClusterLoad {
    private final String topic;
    private final int partitions;
    private final Map<String, Object> client;
    private final AtomicLong acked = new AtomicLong();
    private final AtomicReference<String> failure = new AtomicReference<>();
    /** How many records of each partition were acknowledged: those before the number. */
    private final AtomicLong[] ackedOf;
    /** Where the reader that runs along stands. */
    private final AtomicLong[] readOf;
    private volatile boolean stopped;
    private volatile long longestGapMs;
    /** When each partition's last acknowledgement came, and its longest pause since asked. */
    private final AtomicLong[] lastAckOf;
    private final AtomicLong longestPause = new AtomicLong();
    private volatile KafkaProducer<byte[], byte[]> sender;

    private ClusterLoad(Options options) {
        topic = options.get("topic");
        partitions = Integer.parseInt(options.get("partitions"));
        client = Map.of("bootstrap.servers", options.bootstrap(), "metadata.max.age.ms", "5000");
        ackedOf = new AtomicLong[partitions];
        readOf = new AtomicLong[partitions];
        lastAckOf = new AtomicLong[partitions];
        for (int i = 0; i < partitions; i++) {
            ackedOf[i] = new AtomicLong();
            readOf[i] = new AtomicLong();
            lastAckOf[i] = new AtomicLong(System.nanoTime());
        }
    }

    static void run(Options options) throws Exception {
        ClusterLoad load = new ClusterLoad(options);
        Thread producer = new Thread(load.guarded(load::produce));
        Thread reader = new Thread(load.guarded(load::readAlong));
        producer.start();
        reader.start();
        try (BufferedReader in =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            while (in.readLine() != null) {
                load.tellGap();
            }
        }
        load.stopped = true;
        producer.join(TimeUnit.SECONDS.toMillis(180));
        reader.join(TimeUnit.SECONDS.toMillis(60));
        if (producer.isAlive() || reader.isAlive()) {
            load.fail("the clients do not end");
        }
        if (load.failure.get() == null) {
            load.guarded(load::readAll).run();
        }
        if (load.failure.get() == null) {
            long longest = load.longestGapMs;
            System.out.println(
                    "done " + load.acked.get() + " acknowledged, longest pause " + longest + " ms");
            System.out.flush();
        }
    }

    private interface Work {
        void run() throws Exception;
    }

    private Runnable guarded(Work work) {
        return () -> {
            try {
                work.run();
            } catch (Exception e) {
                fail(e.toString());
            }
        };
    }

    private void fail(String why) {
        if (failure.compareAndSet(null, why)) {
            System.out.println("failed " + why.replace('\n', ' '));
            System.out.flush();
        }
    }

    private void tellGap() {
        long now = System.nanoTime();
        long longest = longestPause.getAndSet(0);
        for (AtomicLong last : lastAckOf) {
            longest = Math.max(longest, now - last.get());
            last.accumulateAndGet(now, Math::max);
        }
        double retries =
                sender.metrics().entrySet().stream()
                        .filter(e -> e.getKey().name().equals("record-retry-total"))
                        .filter(e -> e.getKey().group().equals("producer-metrics"))
                        .mapToDouble(e -> (Double) e.getValue().metricValue())
                        .sum();
        System.out.println("gap " + longest / 1_000_000 + " " + (long) retries);
        System.out.flush();
    }

    private void produce() throws Exception {
        Map<String, Object> configs = new java.util.HashMap<>(client);
        configs.put("acks", "all");
        configs.put("enable.idempotence", "true");
        configs.put("linger.ms", "2");
        // Less than the session of a broker that stands still. Requests that the old leader holds do
        // not keep this client from sending later batches to the new one; with more than five of
        // those before it repeats the first ones, Kafka's brokers and ours no longer know them, and
        // refuse them for good (OUT_OF_ORDER_SEQUENCE_NUMBER).
        configs.put("request.timeout.ms", "2000");
        configs.put("delivery.timeout.ms", "150000");
        configs.put("max.block.ms", "150000");
        long[] next = new long[partitions];
        AtomicLong lastAck = new AtomicLong(System.nanoTime());
        AtomicLong told = new AtomicLong();
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(configs, new ByteArraySerializer(), new ByteArraySerializer())) {
            sender = producer;
            for (long i = 0; !stopped && failure.get() == null; i++) {
                int partition = (int) (i % partitions);
                long number = next[partition]++;
                producer.send(
                        new ProducerRecord<>(topic, partition, null, value(number)),
                        (metadata, error) -> {
                            if (error != null) {
                                fail("record " + number + " of " + partition + ": " + error);
                                return;
                            }
                            if (metadata.offset() != number) {
                                fail("record " + number + " acknowledged as " + metadata);
                            }
                            // Acknowledgements of one partition come in order.
                            ackedOf[partition].set(number + 1);
                            long now = System.nanoTime();
                            long gap = (now - lastAck.getAndSet(now)) / 1_000_000;
                            longestGapMs = Math.max(longestGapMs, gap);
                            long before = lastAckOf[partition].getAndSet(now);
                            longestPause.accumulateAndGet(now - before, Math::max);
                            long count = acked.incrementAndGet();
                            if (now - told.get() > 100_000_000L) {
                                told.set(now);
                                System.out.println("acked " + count);
                                System.out.flush();
                            }
                        });
                Thread.sleep(1);
            }
        }
    }

    private static byte[] value(long number) {
        return (number + " " + "v".repeat((int) (number % 300))).getBytes(StandardCharsets.UTF_8);
    }

    private KafkaConsumer<byte[], byte[]> consumer() {
        KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(
                        client, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        List<TopicPartition> all = new ArrayList<>();
        for (int i = 0; i < partitions; i++) {
            all.add(new TopicPartition(topic, i));
        }
        consumer.assign(all);
        consumer.seekToBeginning(all);
        return consumer;
    }

    private void check(ConsumerRecord<byte[], byte[]> record, long expected) {
        String place = topic + "-" + record.partition() + " at " + record.offset();
        if (record.offset() != expected) {
            fail(place + ": offset " + expected + " was due");
        } else if (!java.util.Arrays.equals(record.value(), value(record.offset()))) {
            String text = new String(record.value(), StandardCharsets.UTF_8);
            fail(place + ": holds another record: " + text.split(" ")[0]);
        }
    }

    private void readAlong() {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            while (!stopped && failure.get() == null) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                    check(record, readOf[record.partition()].getAndIncrement());
                }
            }
        }
    }

    /** With fresh eyes, from the start to the end. */
    private void readAll() {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            Map<TopicPartition, Long> ends =
                    consumer.endOffsets(consumer.assignment(), Duration.ofSeconds(60));
            long[] next = new long[partitions];
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
            while (failure.get() == null && !reached(next, ends)) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                    check(record, next[record.partition()]++);
                }
                if (System.nanoTime() > deadline) {
                    fail("the end of the log is not reached");
                }
            }
            for (int i = 0; i < partitions; i++) {
                long end = ends.get(new TopicPartition(topic, i));
                if (end < ackedOf[i].get()) {
                    fail(topic + "-" + i + " ends at " + end + ", acknowledged: " + ackedOf[i]);
                }
                if (end < readOf[i].get()) {
                    fail(topic + "-" + i + " ends at " + end + ", but was read up to " + readOf[i]);
                }
            }
        }
    }

    private static boolean reached(long[] next, Map<TopicPartition, Long> ends) {
        return ends.entrySet().stream().allMatch(e -> next[e.getKey().partition()] >= e.getValue());
    }
}
