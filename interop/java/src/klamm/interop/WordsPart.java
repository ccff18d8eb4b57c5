package klamm.interop;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * What {@link WordCount} makes of lines: the n-th time a word comes up, it writes n. So the counts of
 * a word must be 1, 2, 3 and so on, and the last must be how often it was said.
 */
final class WordsPart implements ExactlyOnceLoad.Part {
    static final String IN = "eos-lines";
    static final String OUT = "eos-counts";
    static final int PARTITIONS = 4;
    private static final int WORDS = 37;
    private static final int PER_LINE = 3;

    private final ExactlyOnceLoad.Run run;
    private final AtomicLong counts = new AtomicLong();

    WordsPart(ExactlyOnceLoad.Run run) {
        this.run = run;
    }

    @Override
    public String name() {
        return "words";
    }

    private static List<String> line(long i) {
        return List.of("w" + i % WORDS, "w" + i * 7 % WORDS, "w" + i * i % WORDS);
    }

    @Override
    public ProducerRecord<String, String> input(long i) {
        return new ProducerRecord<>(IN, (int) (i % PARTITIONS), null, String.join(" ", line(i)));
    }

    @Override
    public long done() {
        return counts.get() / PER_LINE;
    }

    private void check(Map<String, Long> last, ConsumerRecord<String, String> record) {
        long due = last.merge(record.key(), 1L, Long::sum);
        if (!record.value().equals(Long.toString(due))) {
            run.fail(
                    OUT + "-" + record.partition() + " at " + record.offset() + ": " + record.key()
                            + " counts " + record.value() + ", " + due + " is due");
        }
    }

    @Override
    public void read() {
        Map<String, Long> last = new HashMap<>();
        CommittedReader.along(
                run.client,
                OUT,
                PARTITIONS,
                run::goesOn,
                record -> {
                    check(last, record);
                    counts.incrementAndGet();
                });
    }

    @Override
    public void checkAll(long fed) throws Exception {
        Map<String, Long> last = new HashMap<>();
        CommittedReader.all(run.client, OUT, PARTITIONS, record -> check(last, record));
        Map<String, Long> model = new HashMap<>();
        for (long i = 0; i < fed; i++) {
            line(i).forEach(word -> model.merge(word, 1L, Long::sum));
        }
        if (!last.equals(model)) {
            run.fail("the counts are " + last + ", not " + model);
        }
    }
}
