package klamm.interop;

import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.Stores;

/**
 * Counts words with Kafka Streams, {@code exactly_once_v2}: lines are split, repartitioned by word and
 * counted in a store with a changelog; each count is written. Ends with its input, or by {@code kill -9}.
 */
final class WordCount {
    private WordCount() {}

    static void run(Options options) throws Exception {
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(WordsPart.IN, Consumed.with(Serdes.String(), Serdes.String()))
                .flatMapValues(line -> List.of(line.split(" ")))
                .groupBy((key, word) -> word, Grouped.with("by-word", Serdes.String(), Serdes.String()))
                .count(
                        Materialized.<String, Long>as(Stores.inMemoryKeyValueStore("counts"))
                                .withKeySerde(Serdes.String())
                                .withValueSerde(Serdes.Long()))
                .toStream()
                .mapValues(String::valueOf)
                .to(WordsPart.OUT, Produced.with(Serdes.String(), Serdes.String()));
        Properties configs = new Properties();
        configs.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.bootstrap());
        configs.put(StreamsConfig.APPLICATION_ID_CONFIG, "eos-words");
        configs.put(StreamsConfig.STATE_DIR_CONFIG, options.get("state-dir"));
        configs.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        configs.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, "2");
        configs.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, "3");
        configs.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, "100");
        // Every count is to be seen.
        configs.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, "0");
        configs.put(StreamsConfig.METADATA_MAX_AGE_CONFIG, "5000");
        configs.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        if (options.get("protocol", "classic").equals("streams")) {
            // The group is told by the broker how often to show that it is there.
            configs.put(StreamsConfig.GROUP_PROTOCOL_CONFIG, "streams");
        } else {
            configs.put(StreamsConfig.mainConsumerPrefix("session.timeout.ms"), "6000");
            configs.put(StreamsConfig.mainConsumerPrefix("heartbeat.interval.ms"), "500");
        }
        configs.put(StreamsConfig.producerPrefix("transaction.timeout.ms"), "8000");
        configs.put(StreamsConfig.producerPrefix("delivery.timeout.ms"), "7000");
        configs.put(StreamsConfig.producerPrefix("request.timeout.ms"), "5000");
        KafkaStreams streams = new KafkaStreams(builder.build(configs), configs);
        streams.setUncaughtExceptionHandler(
                error -> {
                    org.slf4j.LoggerFactory.getLogger(WordCount.class).warn("a thread ended", error);
                    return StreamThreadExceptionResponse.REPLACE_THREAD;
                });
        streams.start();
        while (System.in.read() >= 0) {}
        streams.close(Duration.ofSeconds(10));
    }
}
