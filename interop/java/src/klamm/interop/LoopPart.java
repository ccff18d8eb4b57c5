package klamm.interop;

import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/**
 * What {@link ExactlyOnceWorker}s take from one topic to another: the n-th record of a key holds n, in
 * and out. A key stays in its partition, but those of one partition go to all partitions, so that a
 * transaction ends on all brokers.
 */
final class LoopPart implements ExactlyOnceLoad.Part {
    static final String IN = "eos-in";
    static final String OUT = "eos-out";
    static final String GROUP = "eos-loop";
    static final int PARTITIONS = 6;
    private static final int KEYS = PARTITIONS * PARTITIONS;

    private final ExactlyOnceLoad.Run run;
    private final AtomicLong done = new AtomicLong();

    LoopPart(ExactlyOnceLoad.Run run) {
        this.run = run;
    }

    /** Where a worker writes records of a key. */
    static int target(String key) {
        return Integer.parseInt(key) / PARTITIONS;
    }

    @Override
    public String name() {
        return "loop";
    }

    @Override
    public ProducerRecord<String, String> input(long i) {
        int key = (int) (i % KEYS);
        return new ProducerRecord<>(IN, key % PARTITIONS, Integer.toString(key), Long.toString(i / KEYS));
    }

    @Override
    public long done() {
        return done.get();
    }

    private void check(Map<String, Long> next, ConsumerRecord<String, String> record) {
        long due = next.merge(record.key(), 1L, Long::sum) - 1;
        if (!record.value().equals(Long.toString(due))) {
            run.fail(
                    OUT + "-" + record.partition() + " at " + record.offset() + ": key " + record.key()
                            + " has " + record.value() + ", " + due + " is due");
        }
    }

    @Override
    public void read() {
        Map<String, Long> next = new HashMap<>();
        CommittedReader.along(
                run.client,
                OUT,
                PARTITIONS,
                run::goesOn,
                record -> {
                    check(next, record);
                    done.incrementAndGet();
                });
    }

    @Override
    public void checkAll(long fed) throws Exception {
        Map<String, Long> next = new HashMap<>();
        CommittedReader.all(run.client, OUT, PARTITIONS, record -> check(next, record));
        long read = next.values().stream().mapToLong(Long::longValue).sum();
        if (read != fed) {
            run.fail(OUT + " holds " + read + " of " + fed);
        }
        try (Admin admin = Admin.create(run.client)) {
            Map<TopicPartition, OffsetAndMetadata> committed =
                    admin.listConsumerGroupOffsets(GROUP).partitionsToOffsetAndMetadata().get();
            Map<TopicPartition, Long> ends =
                    admin
                            .listOffsets(
                                    committed.keySet().stream()
                                            .collect(Collectors.toMap(p -> p, p -> OffsetSpec.latest())))
                            .all()
                            .get()
                            .entrySet()
                            .stream()
                            .collect(Collectors.toMap(Map.Entry::getKey, e -> e.getValue().offset()));
            committed.forEach(
                    (partition, offset) -> {
                        if (offset.offset() != ends.get(partition)) {
                            run.fail(partition + ": committed " + offset + ", ends at " + ends.get(partition));
                        }
                    });
            if (committed.size() != PARTITIONS) {
                run.fail("committed for " + committed.keySet() + " alone");
            }
        }
    }
}
