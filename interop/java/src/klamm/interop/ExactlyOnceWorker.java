package klamm.interop;

import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Takes records from {@link LoopPart#IN} to {@link LoopPart#OUT} as a member of a group, offsets and
 * records in one transaction each time. Now and then it changes its mind. Whatever goes wrong, it
 * begins anew from what is committed. Ends with its input, or by {@code kill -9}.
 */
final class ExactlyOnceWorker {
    private static final Logger LOG = LoggerFactory.getLogger(ExactlyOnceWorker.class);
    /** One of this many transactions is aborted. */
    private static final int ABORT_EVERY = 19;

    private final Options options;
    private int transactions;

    private ExactlyOnceWorker(Options options) {
        this.options = options;
    }

    static void run(Options options) throws Exception {
        Thread work = new Thread(new ExactlyOnceWorker(options)::work);
        work.setDaemon(true);
        work.start();
        while (System.in.read() >= 0) {}
    }

    private void work() {
        while (true) {
            try (KafkaProducer<String, String> producer = producer();
                    KafkaConsumer<String, String> consumer = consumer()) {
                producer.initTransactions();
                consumer.subscribe(List.of(LoopPart.IN));
                while (true) {
                    ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(100));
                    if (!records.isEmpty()) {
                        transact(producer, consumer, records);
                    }
                }
            } catch (KafkaException e) {
                LOG.warn("begins anew", e);
            }
        }
    }

    private void transact(
            KafkaProducer<String, String> producer,
            KafkaConsumer<String, String> consumer,
            ConsumerRecords<String, String> records) {
        producer.beginTransaction();
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        for (ConsumerRecord<String, String> record : records) {
            int target = LoopPart.target(record.key());
            producer.send(new ProducerRecord<>(LoopPart.OUT, target, record.key(), record.value()));
            offsets.put(
                    new TopicPartition(record.topic(), record.partition()),
                    new OffsetAndMetadata(record.offset() + 1));
        }
        producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
        transactions++;
        if (transactions % ABORT_EVERY != 0) {
            producer.commitTransaction();
            return;
        }
        producer.abortTransaction();
        Map<TopicPartition, OffsetAndMetadata> committed = consumer.committed(records.partitions());
        for (TopicPartition partition : records.partitions()) {
            OffsetAndMetadata offset = committed.get(partition);
            consumer.seek(partition, offset == null ? 0 : offset.offset());
        }
    }

    private KafkaProducer<String, String> producer() {
        Map<String, Object> configs = new HashMap<>();
        configs.put("bootstrap.servers", options.bootstrap());
        configs.put("transactional.id", "eos-worker-" + options.get("id"));
        configs.put("transaction.timeout.ms", "15000");
        configs.put("request.timeout.ms", "5000");
        configs.put("delivery.timeout.ms", "10000");
        configs.put("metadata.max.age.ms", "5000");
        return new KafkaProducer<>(configs, new StringSerializer(), new StringSerializer());
    }

    private KafkaConsumer<String, String> consumer() {
        Map<String, Object> configs = new HashMap<>();
        configs.put("bootstrap.servers", options.bootstrap());
        configs.put("group.id", LoopPart.GROUP);
        configs.put("group.protocol", options.get("protocol"));
        if (options.get("protocol").equals("classic")) {
            configs.put("session.timeout.ms", "6000");
            configs.put("heartbeat.interval.ms", "500");
        }
        configs.put("enable.auto.commit", "false");
        configs.put("auto.offset.reset", "earliest");
        configs.put("isolation.level", "read_committed");
        configs.put("max.poll.records", "60");
        configs.put("metadata.max.age.ms", "5000");
        return new KafkaConsumer<>(configs, new StringDeserializer(), new StringDeserializer());
    }
}
