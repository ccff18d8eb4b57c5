package klamm.interop;

import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/** The driver's own command line: {@code --name value} pairs. */
record Options(Map<String, String> values) {
    static Options parse(String[] args, int from) {
        Map<String, String> values = new HashMap<>();
        for (int i = from; i < args.length; i += 2) {
            if (!args[i].startsWith("--") || i + 1 == args.length) {
                throw new IllegalArgumentException("expected --name value, found " + args[i]);
            }
            values.put(args[i].substring(2), args[i + 1]);
        }
        return new Options(values);
    }

    String get(String name) {
        String value = values.get(name);
        if (value == null) {
            throw new IllegalArgumentException("--" + name + " is needed");
        }
        return value;
    }

    String get(String name, String otherwise) {
        return values.getOrDefault(name, otherwise);
    }

    String bootstrap() {
        return get("bootstrap");
    }

    Path path(String name) {
        return Path.of(get(name));
    }

    /** Limits a run to the tests whose names contain this. */
    String only() {
        return values.get("only");
    }
}
