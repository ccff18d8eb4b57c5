// Reads property files, one a line, escaped so that they fit a line (two backslashes for one, and n, r, t, f, s after
// a backslash for newline, return, tab, form feed, space), from standard
//
// Output: the case, TAB, `ok` or `error`, then TAB key TAB value for each property sorted by key, escaped alike.
// A case that begins with `store:` is `key TAB value`: printed is the line that Properties.store writes for it.
import java.io.*;
import java.util.*;

public class PropertiesGolden {
    public static void main(String[] args) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        PrintStream out = new PrintStream(System.out, false, "UTF-8");
        for (String line; (line = in.readLine()) != null; ) {
            if (line.startsWith("store:")) {
                String[] pair = line.substring(6).split("\t", -1);
                Properties p = new Properties();
                p.setProperty(unescape(pair[0]), unescape(pair[1]));
                ByteArrayOutputStream bytes = new ByteArrayOutputStream();
                p.store(bytes, null);
                String stored = bytes.toString("ISO-8859-1");
                out.println(line + "\t" + escape(stored.substring(stored.indexOf('\n') + 1)));
                continue;
            }
            StringBuilder s = new StringBuilder(line).append('\t');
            Properties p = new Properties();
            try {
                p.load(new StringReader(unescape(line)));
                s.append("ok");
            } catch (IllegalArgumentException e) {
                s.append("error");
                p.clear();
            }
            for (String name : new TreeSet<>(p.stringPropertyNames())) {
                s.append('\t').append(escape(name)).append('\t').append(escape(p.getProperty(name)));
            }
            out.println(s);
        }
        out.flush();
    }

    static String unescape(String s) {
        StringBuilder o = new StringBuilder();
        for (int i = 0; i < s.length(); i++) {
            char c = s.charAt(i);
            if (c != '\\') { o.append(c); continue; }
            c = s.charAt(++i);
            o.append(c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : c == 'f' ? '\f' : c == 's' ? ' ' : c);
        }
        return o.toString();
    }

    static String escape(String s) {
        return s.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
            .replace("\f", "\\f");
    }
}
