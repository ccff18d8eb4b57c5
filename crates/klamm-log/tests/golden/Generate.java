// Writes the history that data.tar.gz holds to a Kafka 4.3.1 broker:
//
//   javac -cp "LIBS/*" -d OUT Generate.java && java -cp "LIBS/*:OUT" Generate localhost:PORT
//
// Then stop the broker in order and pack its log directory (see README.md).

import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Generate {
    static final long START = 1_700_000_000_000L;
    static String bootstrap;

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            Map<String, String> small = Map.of(
                "segment.ms", "60000", "index.interval.bytes", "200", "retention.ms", "-1");
            Map<String, String> stamped = Map.of(
                "message.timestamp.type", "LogAppendTime", "index.interval.bytes", "200", "retention.ms", "-1");
            admin.createTopics(List.of(
                new NewTopic("mixed", 1, (short) 1).configs(small),
                new NewTopic("stamped", 1, (short) 1).configs(stamped),
                new NewTopic("txn", 1, (short) 1).configs(small))).all().get();
            mixed();
            stamped();
            admin.deleteRecords(Map.of(
                new TopicPartition("mixed", 0), RecordsToDelete.beforeOffset(5))).all().get();
        }
        transactions();
    }

    static Properties config(String codec) {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("key.serializer", ByteArraySerializer.class.getName());
        p.put("value.serializer", ByteArraySerializer.class.getName());
        p.put("compression.type", codec);
        p.put("linger.ms", "1000");
        return p;
    }

    static byte[] bytes(String s) {
        return s == null ? null : s.getBytes(StandardCharsets.UTF_8);
    }

    // Five codecs, two segments each: batches of 1 to 7 records, 10 s apart; every seventh time
    // stamp steps back.
    static void mixed() throws Exception {
        int n = 0;
        long time = START;
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config(codec))) {
                for (int batch = 0; batch < 14; batch++) {
                    time += 10_000;
                    for (int i = 0; i <= batch % 7; i++, n++) {
                        long at = n % 7 == 6 ? time - 3_000 : time + i;
                        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>("mixed", 0, at,
                            n % 3 == 0 ? null : bytes("key-" + n % 10),
                            n % 11 == 5 ? null : bytes("value " + n + " of " + codec + " x".repeat(n % 40)));
                        if (n % 5 == 0) {
                            record.headers().add(new RecordHeader("h" + n, n % 2 == 0 ? null : bytes("v" + n)));
                        }
                        producer.send(record);
                    }
                    producer.flush();
                }
            }
        }
    }

    static void stamped() throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config("lz4"))) {
            for (int n = 0; n < 12; n++) {
                producer.send(new ProducerRecord<>("stamped", 0, START + n, null, bytes("stamped " + n)));
                if (n % 3 == 2) producer.flush();
            }
        }
    }

    static KafkaProducer<byte[], byte[]> transactional(String id) {
        Properties p = config("none");
        p.put("transactional.id", id);
        KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(p);
        producer.initTransactions();
        return producer;
    }

    // Interleaved transactions, some aborted; one is left open.
    static void transactions() throws Exception {
        KafkaProducer<byte[], byte[]> a = transactional("a"), b = transactional("b"), c = transactional("c");
        for (int round = 0; round < 6; round++) {
            a.beginTransaction();
            b.beginTransaction();
            for (int i = 0; i < 3; i++) {
                long at = START + round * 25_000L + i;
                a.send(new ProducerRecord<>("txn", 0, at, bytes("a"), bytes("a" + round + "." + i)));
                a.flush();
                b.send(new ProducerRecord<>("txn", 0, at, bytes("b"), bytes("b" + round + "." + i)));
                b.flush();
            }
            if (round % 2 == 0) a.abortTransaction(); else a.commitTransaction();
            if (round % 3 == 0) b.commitTransaction(); else b.abortTransaction();
        }
        c.beginTransaction();
        c.send(new ProducerRecord<>("txn", 0, START + 200_000L, bytes("c"), bytes("open"))).get();
        // Left open: neither closed nor aborted.
        Runtime.getRuntime().halt(0);
    }
}
