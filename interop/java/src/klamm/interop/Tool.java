package klamm.interop;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs one of Kafka's command-line tools inside this JVM, as its shell script would: same class,
 * same arguments, with standard input given and both outputs and the exit code caught.
 *
 * <p>A JVM start costs more than most of these commands, so one driver runs them all. It runs one
 * tool at a time: the standard streams belong to the whole process.
 */
final class Tool {
    /** Script name (without {@code .sh}) to main class, as in Kafka's own {@code bin} folder. */
    private static final Map<String, String> CLASSES =
            Map.ofEntries(
                    Map.entry("kafka-topics", "org.apache.kafka.tools.TopicCommand"),
                    Map.entry("kafka-configs", "kafka.admin.ConfigCommand"),
                    Map.entry(
                            "kafka-consumer-groups",
                            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
                    Map.entry(
                            "kafka-share-groups",
                            "org.apache.kafka.tools.consumer.group.ShareGroupCommand"),
                    Map.entry("kafka-transactions", "org.apache.kafka.tools.TransactionsCommand"),
                    Map.entry("kafka-groups", "org.apache.kafka.tools.GroupsCommand"),
                    Map.entry(
                            "kafka-streams-groups",
                            "org.apache.kafka.tools.streams.StreamsGroupCommand"),
                    Map.entry("kafka-features", "org.apache.kafka.tools.FeatureCommand"),
                    Map.entry(
                            "kafka-client-metrics", "org.apache.kafka.tools.ClientMetricsCommand"),
                    Map.entry("kafka-e2e-latency", "org.apache.kafka.tools.EndToEndLatency"),
                    Map.entry("kafka-log-dirs", "org.apache.kafka.tools.LogDirsCommand"),
                    Map.entry("kafka-dump-log", "org.apache.kafka.tools.DumpLogSegments"),
                    Map.entry("kafka-get-offsets", "org.apache.kafka.tools.GetOffsetShell"),
                    Map.entry("kafka-delete-records", "org.apache.kafka.tools.DeleteRecordsCommand"),
                    Map.entry("kafka-metadata-quorum", "org.apache.kafka.tools.MetadataQuorumCommand"),
                    Map.entry("kafka-cluster", "org.apache.kafka.tools.ClusterTool"),
                    Map.entry(
                            "kafka-broker-api-versions",
                            "org.apache.kafka.tools.BrokerApiVersionsCommand"),
                    Map.entry(
                            "kafka-producer-perf-test", "org.apache.kafka.tools.ProducerPerformance"),
                    Map.entry(
                            "kafka-consumer-perf-test", "org.apache.kafka.tools.ConsumerPerformance"),
                    Map.entry("kafka-verifiable-producer", "org.apache.kafka.tools.VerifiableProducer"),
                    Map.entry("kafka-verifiable-consumer", "org.apache.kafka.tools.VerifiableConsumer"),
                    Map.entry("kafka-console-producer", "org.apache.kafka.tools.ConsoleProducer"),
                    Map.entry(
                            "kafka-console-consumer",
                            "org.apache.kafka.tools.consumer.ConsoleConsumer"),
                    Map.entry(
                            "kafka-console-share-consumer",
                            "org.apache.kafka.tools.consumer.ConsoleShareConsumer"));

    /** These say their last words from a shutdown hook of the JVM. */
    private static final Set<String> OWN_JVM =
            Set.of("kafka-verifiable-producer", "kafka-verifiable-consumer");

    private static final long LIMIT_MS = 90_000;

    private static final PrintStream REAL_OUT = System.out;
    private static final Redirect OUT = new Redirect();
    private static final Redirect ERR = new Redirect();
    private static final List<Runnable> EXIT_HOOKS = new CopyOnWriteArrayList<>();

    private Tool() {}

    /** What a tool did: its exit code and everything it printed. */
    record Run(int exit, String out, String err) {}

    /** A tool made no headway: the machine's fault as easily as the broker's. */
    static final class Stalled extends AssertionError {
        private static final long serialVersionUID = 1;

        Stalled(String message) {
            super(message);
        }
    }

    /** The code a tool asked to leave with; null while it has not. */
    private static volatile Integer exitCode;

    /** Thrown in place of leaving the JVM. Some tools catch it; what they print then is not heard. */
    private static final class ExitTrap extends Error {
        private static final long serialVersionUID = 1;

        ExitTrap() {
            super("exit", null, false, false);
        }
    }

    /**
     * Takes over the standard streams and Kafka's way to leave the process. Must run before any
     * tool class is loaded: Scala keeps the stream it first saw.
     */
    static void install() {
        System.setOut(new PrintStream(OUT, true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(ERR, true, StandardCharsets.UTF_8));
        Exit.Procedure trap =
                (code, message) -> {
                    if (exitCode == null) {
                        if (message != null) {
                            System.err.println(message);
                        }
                        exitCode = code;
                        OUT.muted = true;
                        ERR.muted = true;
                    }
                    throw new ExitTrap();
                };
        Exit.setExitProcedure(trap);
        Exit.setHaltProcedure(trap);
        Exit.setShutdownHookAdder((name, hook) -> EXIT_HOOKS.add(hook));
    }

    /** Where the suite itself prints. */
    static PrintStream console() {
        return REAL_OUT;
    }

    static Run run(String name, String stdin, List<String> arguments) throws Exception {
        String className = CLASSES.get(name);
        if (className == null) {
            throw new IllegalArgumentException("no such tool: " + name);
        }
        if (OWN_JVM.contains(name)) {
            return runInNewJvm(className, arguments);
        }
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        ByteArrayOutputStream err = new ByteArrayOutputStream();
        InputStream realIn = System.in;
        System.setIn(new ByteArrayInputStream(stdin.getBytes(StandardCharsets.UTF_8)));
        OUT.begin(out);
        ERR.begin(err);
        exitCode = null;
        EXIT_HOOKS.clear();
        AtomicReference<Throwable> thrown = new AtomicReference<>();
        Thread thread = new Thread(() -> thrown.set(call(className, arguments)), name);
        thread.setDaemon(true);
        try {
            thread.start();
            thread.join(LIMIT_MS);
            if (thread.isAlive()) {
                StringBuilder where = new StringBuilder();
                for (StackTraceElement element : thread.getStackTrace()) {
                    where.append("\n\tin ").append(element);
                }
                thread.interrupt();
                throw new Stalled(
                        name + " did not end in " + LIMIT_MS + " ms; printed so far:\n"
                                + out.toString(StandardCharsets.UTF_8) + where);
            }
            OUT.muted = false;
            ERR.muted = false;
            for (Runnable hook : new ArrayList<>(EXIT_HOOKS)) {
                Thread hookThread = new Thread(hook, name + " exit hook");
                hookThread.setDaemon(true);
                hookThread.start();
                hookThread.join(LIMIT_MS);
            }
        } finally {
            System.setIn(realIn);
            System.out.flush();
            System.err.flush();
            OUT.begin(null);
            ERR.begin(null);
        }
        int exit = exitCode == null ? 0 : exitCode;
        Throwable failure = thrown.get();
        if (exitCode == null && failure != null) {
            exit = 1;
            err.writeBytes((failure + "\n").getBytes(StandardCharsets.UTF_8));
        }
        return new Run(
                exit, out.toString(StandardCharsets.UTF_8), err.toString(StandardCharsets.UTF_8));
    }

    private static Run runInNewJvm(String className, List<String> arguments) throws Exception {
        Path out = Files.createTempFile("tool", ".out");
        Path err = Files.createTempFile("tool", ".err");
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(List.of("-Xshare:auto", "-XX:TieredStopAtLevel=1", "-Xmx256m"));
        command.add("-Dlog4j2.level=OFF");
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), className));
        command.addAll(arguments);
        try {
            Process process =
                    new ProcessBuilder(command)
                            .redirectOutput(out.toFile())
                            .redirectError(err.toFile())
                            .start();
            if (!process.waitFor(LIMIT_MS, TimeUnit.MILLISECONDS)) {
                process.destroyForcibly().waitFor();
                throw new AssertionError(
                        className + " did not end; printed so far:\n" + Files.readString(out));
            }
            return new Run(process.exitValue(), Files.readString(out), Files.readString(err));
        } finally {
            Files.deleteIfExists(out);
            Files.deleteIfExists(err);
        }
    }

    private static Throwable call(String className, List<String> arguments) {
        try {
            Class.forName(className)
                    .getMethod("main", String[].class)
                    .invoke(null, (Object) arguments.toArray(new String[0]));
            return null;
        } catch (InvocationTargetException e) {
            return e.getCause();
        } catch (ReflectiveOperationException e) {
            return e;
        }
    }

    /** A stream whose end can be changed while others hold it. */
    private static final class Redirect extends java.io.OutputStream {
        private volatile ByteArrayOutputStream target;
        private volatile boolean muted;

        void begin(ByteArrayOutputStream next) {
            target = next;
            muted = false;
        }

        @Override
        public void write(int b) {
            ByteArrayOutputStream now = target;
            if (now != null && !muted) {
                now.write(b);
            }
        }

        @Override
        public void write(byte[] b, int offset, int length) {
            ByteArrayOutputStream now = target;
            if (now != null && !muted) {
                now.write(b, offset, length);
            }
        }
    }
}
