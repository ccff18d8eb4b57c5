package klamm.interop;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Pattern;

/**
 * One test's dealings with the tools, kept as a transcript: each command with its exit code and its
 * normalised output. At the end the transcript is compared with the one recorded from a real Kafka
 * ({@code golden/NAME.txt}), so every word of a tool's output counts without being spelt in a test.
 */
final class Session {
    private static final Pattern UUID_HEX =
            Pattern.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}");
    private static final Pattern TOPIC_ID = Pattern.compile("(TopicId: )[A-Za-z0-9_-]{22}");
    private static final Pattern MILLIS = Pattern.compile("\\b1[6-9]\\d{11}\\b");
    private static final Pattern ADDRESS = Pattern.compile("(?:(?<![/:])/)?(localhost|127\\.0\\.0\\.1)(/127\\.0\\.0\\.1)?( *:| +)\\d{4,5}\\b");
    private static final Pattern STACK = Pattern.compile("^(\\s+at |\\s+\\.\\.\\. \\d+ more).*");

    private final Options options;
    private final String name;
    private final StringBuilder transcript = new StringBuilder();
    private final Map<String, String> masks = new LinkedHashMap<>();

    Session(Options options, String name) {
        this.options = options;
        this.name = name;
    }

    /** The step just run; its checks read the raw output. */
    record Step(String command, Tool.Run run) {
        Step exits(int code) {
            Suite.check(
                    run.exit() == code,
                    command + ": exit " + run.exit() + " instead of " + code + ": " + all());
            return this;
        }

        Step prints(String text) {
            Suite.check(all().contains(text), command + ": no '" + text + "' in: " + all());
            return this;
        }

        Step matches(String regex) {
            Suite.check(
                    Pattern.compile(regex, Pattern.MULTILINE).matcher(all()).find(),
                    command + ": nothing like '" + regex + "' in: " + all());
            return this;
        }

        Step lacks(String text) {
            Suite.check(!all().contains(text), command + ": '" + text + "' in: " + all());
            return this;
        }

        String all() {
            return run.err().isEmpty() ? run.out() : run.out() + run.err();
        }
    }

    /** Arguments, and more of them. */
    static String[] with(String[] some, String... more) {
        String[] all = Arrays.copyOf(some, some.length + more.length);
        System.arraycopy(more, 0, all, some.length, more.length);
        return all;
    }

    Step run(String tool, String... arguments) throws Exception {
        return step(tool, "", false, true, arguments);
    }

    Step run(String tool, List<String> arguments) throws Exception {
        return run(tool, arguments.toArray(new String[0]));
    }

    /** For output whose lines come in no fixed order. */
    Step runSorted(String tool, String... arguments) throws Exception {
        return step(tool, "", true, true, arguments);
    }

    Step runWithInput(String stdin, String tool, String... arguments) throws Exception {
        return step(tool, stdin, false, true, arguments);
    }

    /** For output that holds measurements: checked by the test alone. */
    Step runUnrecorded(String tool, String... arguments) throws Exception {
        return step(tool, "", false, false, arguments);
    }

    /**
     * For tables whose lines come in no fixed order and some columns of which are another each time:
     * those are masked, and the width of columns does not count.
     */
    Step runTable(Set<String> varies, String tool, String... arguments) throws Exception {
        Step step = step(tool, "", false, false, arguments);
        Tool.Run run = step.run();
        transcript.append("$ ").append(normalise(step.command())).append('\n');
        transcript.append(text(table(run.out(), varies), true));
        if (!run.err().isBlank()) {
            transcript.append("[stderr]\n").append(text(run.err(), false));
        }
        transcript.append("[exit ").append(run.exit()).append("]\n\n");
        return step;
    }

    private static String table(String out, Set<String> varies) {
        List<String> lines = new ArrayList<>();
        String[] header = {};
        for (String line : out.split("\n")) {
            String[] cells = line.strip().split("\\s+");
            if (List.of(cells).stream().anyMatch(varies::contains)) {
                header = cells;
            } else if (cells.length == header.length) {
                for (int i = 0; i < cells.length; i++) {
                    if (varies.contains(header[i]) && !cells[i].equals("None") && !cells[i].equals("-1")) {
                        cells[i] = "<" + header[i] + ">";
                    }
                }
            }
            lines.add(String.join(" ", cells));
        }
        return String.join("\n", lines);
    }

    private Step step(
            String tool, String stdin, boolean sorted, boolean recorded, String... arguments)
            throws Exception {
        List<String> all = new ArrayList<>();
        if (tool.equals("kafka-cluster") || tool.equals("kafka-metadata-quorum")) {
            // These take their command first.
            all.addAll(List.of(arguments));
        }
        if (tool.equals("kafka-producer-perf-test")) {
            all.addAll(List.of("--bootstrap-server", options.bootstrap()));
        } else if (tool.equals("kafka-metadata-quorum")) {
            all.addAll(0, List.of("--bootstrap-server", options.bootstrap()));
        } else if (!tool.equals("kafka-dump-log")) {
            all.addAll(List.of("--bootstrap-server", options.bootstrap()));
        }
        if (!tool.equals("kafka-cluster") && !tool.equals("kafka-metadata-quorum")) {
            all.addAll(List.of(arguments));
        }
        Tool.Run run = Tool.run(tool, stdin, all);
        String command = tool + " " + String.join(" ", arguments);
        if (recorded) {
            transcript.append("$ ").append(normalise(command)).append('\n');
            transcript.append(text(run.out(), sorted));
            if (!run.err().isBlank()) {
                transcript.append("[stderr]\n").append(text(run.err(), sorted));
            }
            transcript.append("[exit ").append(run.exit()).append("]\n\n");
        }
        return new Step(command, run);
    }

    private String text(String raw, boolean sorted) {
        List<String> lines = new ArrayList<>();
        for (String line : normalise(raw).split("\n")) {
            if (!line.isBlank() && !STACK.matcher(line).matches()) {
                lines.add(line.stripTrailing());
            }
        }
        if (sorted) {
            lines = new ArrayList<>(new TreeSet<>(lines));
        }
        return lines.isEmpty() ? "" : String.join("\n", lines) + "\n";
    }

    /** Replaces what differs between any two runs: ids, times, addresses, folders. */
    String normalise(String text) {
        text = text.replace("\r", "");
        text = text.replace(options.get("log-dir", "\0"), "<log-dir>");
        text = text.replace(options.get("work-dir", "\0"), "<work-dir>");
        text = text.replace(options.get("cluster-id", "\0"), "<cluster-id>");
        for (Map.Entry<String, String> mask : masks.entrySet()) {
            text = text.replace(mask.getKey(), mask.getValue());
        }
        text = ADDRESS.matcher(text).replaceAll("<address>");
        text = UUID_HEX.matcher(text).replaceAll("<uuid>");
        text = TOPIC_ID.matcher(text).replaceAll("$1<id>");
        text = MILLIS.matcher(text).replaceAll("<ms>");
        return text;
    }

    /** Shows something that is another each time under a name. */
    void mask(String text, String name) {
        masks.put(text, name);
    }

    /** Leaves out of the transcript the lines that match: what only one of the brokers has. */
    void dropLines(String regex) {
        Pattern pattern = Pattern.compile(regex);
        String kept =
                transcript
                        .toString()
                        .lines()
                        .filter(line -> !pattern.matcher(line).matches())
                        .collect(java.util.stream.Collectors.joining("\n"));
        transcript.setLength(0);
        transcript.append(kept).append('\n');
    }

    /** Compares the transcript with the recorded one, or records it when told to. */
    void compare() throws Exception {
        Path golden = options.path("golden").resolve(name + ".txt");
        if (Boolean.parseBoolean(options.get("record", "false"))) {
            Files.createDirectories(golden.getParent());
            Files.writeString(golden, transcript);
            return;
        }
        Suite.check(Files.exists(golden), "no recording at " + golden);
        String[] expected = Files.readString(golden).split("\n", -1);
        String[] found = transcript.toString().split("\n", -1);
        String command = "";
        for (int i = 0; i < Math.max(expected.length, found.length); i++) {
            String e = i < expected.length ? expected[i] : "<end>";
            String f = i < found.length ? found[i] : "<end>";
            if (e.startsWith("$ ")) {
                command = e;
            }
            Suite.check(
                    e.equals(f),
                    "unlike Kafka in `" + command + "` (" + name + ".txt:" + (i + 1) + ")"
                            + "\n  kafka: " + e + "\n  found: " + f);
        }
    }
}
