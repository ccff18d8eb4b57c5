package klamm.interop;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;

/**
 * The records every client writes and every client can check, whoever wrote them; the rule is told
 * in {@code interop/README.md} and spelt once in each language.
 */
record Workload(String client, String codec, int count) {
    static final int PARTITIONS = 3;
    static final long FIRST_TIMESTAMP = 1_700_000_000_000L;

    String topic() {
        return "clients-" + client + "-" + codec;
    }

    byte[] key(int index) {
        return index % 10 == 7 ? null : bytes("key-" + index);
    }

    byte[] value(int index) {
        return index % 1000 == 999
                ? null
                : bytes(client + " " + codec + " " + index + " " + "v".repeat(index % 97));
    }

    ProducerRecord<byte[], byte[]> record(int index) {
        ProducerRecord<byte[], byte[]> record =
                new ProducerRecord<>(
                        topic(), index % PARTITIONS, FIRST_TIMESTAMP + index, key(index), value(index));
        record.headers().add("index", bytes("" + index)).add("codec", bytes(codec));
        if (index % 5 == 0) {
            record.headers().add("empty", new byte[0]);
        }
        return record;
    }

    /** Checks a record that was read; answers its index. */
    int check(ConsumerRecord<byte[], byte[]> found) {
        Header[] headers = found.headers().toArray();
        Suite.check(headers.length >= 2, "no headers on " + found);
        int index = Integer.parseInt(new String(headers[0].value(), StandardCharsets.UTF_8));
        ProducerRecord<byte[], byte[]> expected = record(index);
        Suite.check(found.partition() == expected.partition(), "partition of " + found);
        Suite.check(found.timestamp() == expected.timestamp(), "timestamp of " + found);
        Suite.check(Arrays.equals(found.key(), expected.key()), "key of " + found);
        Suite.check(Arrays.equals(found.value(), expected.value()), "value of " + found);
        Suite.check(Arrays.equals(headers, expected.headers().toArray()), "headers of " + found);
        // Partitions are dealt in turn, so the offset says how many came before.
        Suite.check(
                found.offset() == index / PARTITIONS,
                "record " + index + " at offset " + found.offset() + " of partition "
                        + found.partition());
        return index;
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
