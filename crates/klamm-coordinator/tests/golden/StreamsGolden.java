import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.*;
import java.util.stream.Collectors;
import org.apache.kafka.coordinator.group.streams.assignor.AssignmentMemberSpec;
import org.apache.kafka.coordinator.group.streams.assignor.GroupAssignment;
import org.apache.kafka.coordinator.group.streams.assignor.GroupSpecImpl;
import org.apache.kafka.coordinator.group.streams.assignor.MemberAssignment;
import org.apache.kafka.coordinator.group.streams.assignor.StickyTaskAssignor;
import org.apache.kafka.coordinator.group.streams.assignor.TopologyDescriber;

/**
 * Asks Kafka's own task assignor and writes the answers beside this file:
 * `java -cp "LIBS/*" StreamsGolden.java .` with the libs folder of a Kafka 4.3 release.
 */
public class StreamsGolden {
    public static void main(String[] args) throws Exception {
        Path file = Path.of(args[0]).resolve("streams-assignor.txt");
        try (PrintWriter out = new PrintWriter(Files.newBufferedWriter(file))) {
            for (int seed = 0; seed < 30; seed++) new History(seed, out).run();
        }
    }

    /** An application whose members come and go from round to round. */
    static class History {
        final Random random;
        final PrintWriter out;
        final TreeMap<String, Integer> counts = new TreeMap<>();
        final Set<String> stateful = new HashSet<>();
        final Map<String, String> processes = new TreeMap<>();
        Map<String, MemberAssignment> target = new HashMap<>();
        int standbys;
        int names = 0;

        History(int seed, PrintWriter out) {
            this.random = new Random(seed);
            this.out = out;
            this.standbys = seed % 3;
        }

        void run() {
            int parts = 1 + random.nextInt(3);
            for (int i = 0; i < parts; i++) {
                counts.put(String.valueOf(i), 1 + random.nextInt(6));
                if (random.nextBoolean()) stateful.add(String.valueOf(i));
            }
            for (int i = 0; i < 1 + random.nextInt(5); i++) join();
            for (int round = 0; round < 6; round++) {
                assign();
                switch (random.nextInt(4)) {
                    case 0: case 1: join(); break;
                    case 2: leave(); break;
                    default: standbys = random.nextInt(3);
                }
            }
        }

        String uuid() {
            return new UUID(random.nextLong(), random.nextLong()).toString();
        }

        void join() {
            List<String> known = new ArrayList<>(new TreeSet<>(processes.values()));
            boolean thread = !known.isEmpty() && random.nextBoolean();
            processes.put(uuid(), thread ? known.get(random.nextInt(known.size())) : uuid());
        }

        void leave() {
            if (processes.size() < 2) return;
            List<String> members = new ArrayList<>(processes.keySet());
            processes.remove(members.get(random.nextInt(members.size())));
        }

        void assign() {
            MemberAssignment nothing = new MemberAssignment(Map.of(), Map.of(), Map.of());
            Map<String, AssignmentMemberSpec> members = new HashMap<>();
            processes.forEach((member, process) -> {
                MemberAssignment had = target.getOrDefault(member, nothing);
                members.put(member, new AssignmentMemberSpec(Optional.empty(), Optional.empty(),
                        had.activeTasks(), had.standbyTasks(), Map.of(), process, Map.of(), Map.of(), Map.of()));
            });
            out.println("case " + standbys);
            counts.forEach((part, count) ->
                    out.println("part " + part + " " + count + " " + stateful.contains(part)));
            // As the assignor goes through them.
            members.forEach((member, spec) -> out.println("member " + member + " " + spec.processId() + " "
                    + text(spec.activeTasks()) + " " + text(spec.standbyTasks())));
            TopologyDescriber topology = new TopologyDescriber() {
                public List<String> subtopologies() { return List.copyOf(counts.keySet()); }
                public int maxNumInputPartitions(String part) { return counts.get(part); }
                public boolean isStateful(String part) { return stateful.contains(part); }
            };
            Map<String, String> configs = Map.of("num.standby.replicas", String.valueOf(standbys));
            GroupAssignment assigned =
                    new StickyTaskAssignor().assign(new GroupSpecImpl(members, configs), topology);
            target = assigned.members();
            new TreeMap<>(target).forEach((member, got) -> out.println(
                    "gets " + member + " " + text(got.activeTasks()) + " " + text(got.standbyTasks())));
            out.println("end");
        }

        static String text(Map<String, Set<Integer>> tasks) {
            String all = new TreeMap<>(tasks).entrySet().stream()
                    .flatMap(e -> new TreeSet<>(e.getValue()).stream().map(p -> e.getKey() + "_" + p))
                    .collect(Collectors.joining(","));
            return all.isEmpty() ? "-" : all;
        }
    }
}
