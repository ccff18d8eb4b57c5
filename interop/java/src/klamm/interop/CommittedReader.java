package klamm.interop;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Reads all partitions of a topic from their start with {@code read_committed}. */
final class CommittedReader {
    private CommittedReader() {}

    private static KafkaConsumer<String, String> open(
            Map<String, Object> client, String topic, int partitions) {
        Map<String, Object> configs = new HashMap<>(client);
        configs.put("isolation.level", "read_committed");
        KafkaConsumer<String, String> consumer =
                new KafkaConsumer<>(configs, new StringDeserializer(), new StringDeserializer());
        List<TopicPartition> all = new ArrayList<>();
        for (int i = 0; i < partitions; i++) {
            all.add(new TopicPartition(topic, i));
        }
        consumer.assign(all);
        consumer.seekToBeginning(all);
        return consumer;
    }

    /** Reads for as long as there is cause to. */
    static void along(
            Map<String, Object> client,
            String topic,
            int partitions,
            BooleanSupplier goesOn,
            Consumer<ConsumerRecord<String, String>> check) {
        try (KafkaConsumer<String, String> consumer = open(client, topic, partitions)) {
            while (goesOn.getAsBoolean()) {
                consumer.poll(Duration.ofMillis(100)).forEach(check);
            }
        }
    }

    /** Reads up to the ends that the partitions have now: nothing may be open before them. */
    static void all(
            Map<String, Object> client,
            String topic,
            int partitions,
            Consumer<ConsumerRecord<String, String>> check)
            throws Exception {
        Map<TopicPartition, Long> ends;
        try (KafkaConsumer<String, String> plain =
                new KafkaConsumer<>(client, new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> all = new ArrayList<>();
            for (int i = 0; i < partitions; i++) {
                all.add(new TopicPartition(topic, i));
            }
            ends = plain.endOffsets(all, Duration.ofSeconds(60));
        }
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        try (KafkaConsumer<String, String> consumer = open(client, topic, partitions)) {
            while (ends.entrySet().stream()
                    .anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
                consumer.poll(Duration.ofMillis(100)).forEach(check);
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException(
                            topic + " cannot be read to its ends " + ends + ": a transaction is open");
                }
            }
        }
    }
}
