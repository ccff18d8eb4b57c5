package klamm.interop;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Named tests, run in the order they were added. Each prints one line that {@code cargo xtask
 * interop} reads: {@code pass|fail|skip}, the name, and the time it took or why it did not pass, parted by tabs.
 */
final class Suite {
    /** A test: throws when it fails. */
    interface Body {
        void run() throws Exception;
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
