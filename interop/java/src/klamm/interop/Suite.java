package klamm.interop;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Named tests, run in the order they were added. Each prints one line that {@code cargo xtask
 * interop} reads: {@code pass|fail|skip|stall}, the name, and the time it took or why it did not pass,
 * parted by tabs.
 */
final class Suite {
    /** A test: throws when it fails. */
    interface Body {
        void run() throws Exception;
    }

    /** A test that may be told to run again: {@code attempt} is 1, then 2. */
    interface LoadBody {
        void run(int attempt) throws Exception;
    }

    private final String prefix;
    private final String only;
    private final Map<String, Body> tests = new LinkedHashMap<>();

    /** Tests are named {@code prefix.name}; {@code only} limits them to names that contain it. */
    Suite(String prefix, String only) {
        this.prefix = prefix;
        this.only = only;
    }

    void test(String name, Body body) {
        if (tests.put(prefix + "." + name, body) != null) {
            throw new IllegalStateException("two tests named " + name);
        }
    }

    /**
     * A test of throughput. If a tool stalls, all that is known is told and the test runs once more,
     * so that a disk which stands still for a while is not taken for a fault of the broker's. A wrong
     * answer fails at once.
     */
    void testUnderLoad(String name, LoadBody body) {
        test(
                name,
                () -> {
                    try {
                        body.run(1);
                    } catch (Tool.Stalled e) {
                        Tool.console().println("stall\t" + prefix + "." + name + "\t" + oneLine(e));
                        body.run(2);
                    }
                });
    }

    void run() {
        tests.forEach(
                (name, body) -> {
                    if (only != null && !name.contains(only)) {
                        return;
                    }
                    long begun = System.nanoTime();
                    try {
                        body.run();
                        long ms = (System.nanoTime() - begun) / 1_000_000;
                        Tool.console().println("pass\t" + name + "\t" + ms + " ms");
                    } catch (Throwable e) {
                        Tool.console().println("fail\t" + name + "\t" + oneLine(e));
                    }
                    Tool.console().flush();
                });
    }

    private static String oneLine(Throwable e) {
        String text = e instanceof AssertionError ? e.getMessage() : e.toString();
        if (!(e instanceof AssertionError)) {
            for (StackTraceElement element : e.getStackTrace()) {
                if (element.getClassName().startsWith("klamm.")) {
                    text += " at " + element;
                    break;
                }
            }
        }
        return String.valueOf(text).replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t");
    }

    static void check(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }
}
