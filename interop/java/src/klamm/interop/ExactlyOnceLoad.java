package klamm.interop;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * What goes into programs that promise exactly once, and whether it came out so, while brokers and
 * the programs are killed. An idempotent producer feeds each part the same number of records; each
 * part reads along what became of them and fails at the first that is missing, repeated or out of
 * order. Says {@code acked N} as it goes, N being how far the slowest part is, and at the end of its
 * input {@code done} or {@code failed} with the reason.
 */
final class ExactlyOnceLoad {
    /** A program under test, as its input and its output. */
    interface Part {
        String name();

        /** The i-th record that goes in. */
        ProducerRecord<String, String> input(long i);

        /** How many of the records that went in have come out. */
        long done();

        /** Reads along until told to stop. */
        void read() throws Exception;

        /** Looks at everything again, now that {@code fed} records have gone in and come out. */
        void checkAll(long fed) throws Exception;
    }

    /** What all parts share. */
    static final class Run {
        final Map<String, Object> client;
        private final AtomicReference<String> failure = new AtomicReference<>();
        private volatile boolean stopped;

        Run(Map<String, Object> client) {
            this.client = client;
        }

        boolean goesOn() {
            return !stopped && failure.get() == null;
        }

        void fail(String why) {
            failure.compareAndSet(null, why);
        }
    }

    private static final long PATIENCE_MS = 120_000;

    private final Run run;
    private final List<Part> parts = new ArrayList<>();
    private final AtomicLong fed = new AtomicLong();
    private volatile boolean isFed;

    private ExactlyOnceLoad(Options options) throws Exception {
        run = new Run(Map.of("bootstrap.servers", options.bootstrap(), "metadata.max.age.ms", "5000"));
        for (String part : options.get("parts").split(",")) {
            parts.add(
                    switch (part) {
                        case "loop" -> new LoopPart(run);
                        case "words" -> new WordsPart(run);
                        case "shares" -> new SharesPart(run, options);
                        default -> throw new IllegalArgumentException("no part " + part);
                    });
        }
    }

    static void run(Options options) throws Exception {
        ExactlyOnceLoad load = new ExactlyOnceLoad(options);
        long rate = Long.parseLong(options.get("rate"));
        List<Thread> threads = new ArrayList<>();
        threads.add(load.start(() -> load.feed(rate)));
        for (Part part : load.parts) {
            threads.add(load.start(part::read));
        }
        Thread teller = load.start(load::tell);
        try (BufferedReader in =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            while (in.readLine() != null) {}
        }
        load.isFed = true;
        threads.get(0).join();
        load.awaitOutput();
        load.run.stopped = true;
        for (Thread thread : threads) {
            thread.join(60_000);
        }
        teller.join();
        for (Part part : load.parts) {
            if (load.run.failure.get() == null) {
                load.guarded(() -> part.checkAll(load.fed.get())).run();
            }
        }
        String failed = load.run.failure.get();
        System.out.println(
                failed == null ? "done " + load.standing() : "failed " + failed + "; " + load.standing());
        System.out.flush();
    }

    private interface Work {
        void run() throws Exception;
    }

    private Runnable guarded(Work work) {
        return () -> {
            try {
                work.run();
            } catch (Exception e) {
                run.fail(e + " at " + e.getStackTrace()[0]);
            }
        };
    }

    private Thread start(Work work) {
        Thread thread = new Thread(guarded(work));
        thread.start();
        return thread;
    }

    private String standing() {
        StringBuilder text = new StringBuilder("of " + fed + " came out");
        parts.forEach(part -> text.append(" ").append(part.name()).append(" ").append(part.done()));
        return text.toString();
    }

    private void feed(long rate) throws Exception {
        Map<String, Object> configs = new HashMap<>(run.client);
        configs.put("acks", "all");
        configs.put("enable.idempotence", "true");
        configs.put("linger.ms", "5");
        configs.put("request.timeout.ms", "5000");
        configs.put("delivery.timeout.ms", "150000");
        configs.put("max.block.ms", "150000");
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(configs, new StringSerializer(), new StringSerializer())) {
            long begun = System.nanoTime();
            for (long i = 0; !isFed && run.goesOn(); i++) {
                for (Part part : parts) {
                    long number = i;
                    producer.send(
                            part.input(i),
                            (metadata, error) -> {
                                if (error != null) {
                                    run.fail(part.name() + " record " + number + ": " + error);
                                }
                            });
                }
                fed.set(i + 1);
                long due = begun + TimeUnit.SECONDS.toNanos(i + 1) / rate;
                // What an outage has held up is not made up for: that would be another test.
                begun += Math.max(0, System.nanoTime() - due - 500_000_000L);
                TimeUnit.NANOSECONDS.sleep(due - System.nanoTime());
            }
            producer.flush();
        }
    }

    private long slowest() {
        return parts.stream().mapToLong(Part::done).min().orElse(0);
    }

    private void tell() throws Exception {
        while (run.goesOn()) {
            System.out.println("acked " + slowest());
            System.out.flush();
            Thread.sleep(100);
        }
    }

    private void awaitOutput() throws Exception {
        long last = -1;
        long since = System.nanoTime();
        while (run.goesOn() && slowest() < fed.get()) {
            if (slowest() != last) {
                last = slowest();
                since = System.nanoTime();
            } else if (System.nanoTime() - since > PATIENCE_MS * 1_000_000) {
                run.fail("nothing more comes out");
            }
            Thread.sleep(50);
        }
    }
}
