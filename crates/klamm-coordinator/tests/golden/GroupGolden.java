import com.google.re2j.Pattern;
import com.google.re2j.PatternSyntaxException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.*;
import java.util.stream.Collectors;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.coordinator.common.runtime.CoordinatorMetadataDelta;
import org.apache.kafka.coordinator.common.runtime.CoordinatorMetadataImage;
import org.apache.kafka.coordinator.group.Utils;
import org.apache.kafka.coordinator.group.api.assignor.ConsumerGroupPartitionAssignor;
import org.apache.kafka.coordinator.group.api.assignor.GroupAssignment;
import org.apache.kafka.coordinator.group.api.assignor.MemberAssignment;
import org.apache.kafka.coordinator.group.api.assignor.SubscribedTopicDescriber;
import org.apache.kafka.coordinator.group.api.assignor.SubscriptionType;
import org.apache.kafka.coordinator.group.assignor.RangeAssignor;
import org.apache.kafka.coordinator.group.assignor.UniformAssignor;
import org.apache.kafka.coordinator.group.modern.Assignment;
import org.apache.kafka.coordinator.group.modern.GroupSpecImpl;
import org.apache.kafka.coordinator.group.modern.MemberSubscriptionAndAssignmentImpl;

/**
 * Asks Kafka's own assignors, topic hashes and regular expressions, and writes the answers beside this file:
 * `java -cp "LIBS/*" GroupGolden.java .` with the libs folder of a Kafka 4.3 release.
 */
public class GroupGolden {
    public static void main(String[] args) throws Exception {
        Path dir = Path.of(args[0]);
        try (PrintWriter out = new PrintWriter(Files.newBufferedWriter(dir.resolve("assignors.txt")))) {
            for (int seed = 0; seed < 60; seed++) new History(seed, out).run();
        }
        try (PrintWriter out = new PrintWriter(Files.newBufferedWriter(dir.resolve("topic-hashes.tsv")))) {
            hashes(out);
        }
        List<String> names = Files.readAllLines(dir.resolve("re2j-names.txt"));
        try (PrintWriter out = new PrintWriter(Files.newBufferedWriter(dir.resolve("re2j.tsv")))) {
            for (String expression : Files.readAllLines(dir.resolve("re2j-cases.txt"))) regex(expression, names, out);
        }
    }

    /** A group whose members and topics change from round to round. */
    static class History {
        final Random random;
        final PrintWriter out;
        final ConsumerGroupPartitionAssignor assignor;
        final boolean same;
        final TreeMap<String, Uuid> topics = new TreeMap<>();
        final Map<Uuid, Integer> partitions = new HashMap<>();
        final TreeMap<String, Set<String>> subscriptions = new TreeMap<>();
        final Map<String, String> instances = new HashMap<>();
        Map<String, Map<Uuid, Set<Integer>>> target = new HashMap<>();
        int names = 0;

        History(int seed, PrintWriter out) {
            this.random = new Random(seed);
            this.out = out;
            this.assignor = seed % 3 == 0 ? new RangeAssignor() : new UniformAssignor();
            this.same = seed % 2 == 0;
        }

        void run() {
            int count = 1 + random.nextInt(6);
            for (int i = 0; i < count; i++) addTopic();
            for (int i = 0; i < 1 + random.nextInt(5); i++) join();
            for (int round = 0; round < 8; round++) {
                assign();
                switch (random.nextInt(6)) {
                    case 0: case 1: join(); break;
                    case 2: leave(); break;
                    case 3: addTopic(); resubscribe(); break;
                    case 4: grow(); break;
                    default: resubscribe();
                }
            }
        }

        Uuid uuid() {
            return new Uuid(random.nextLong(), random.nextLong());
        }

        void addTopic() {
            Uuid id = uuid();
            partitions.remove(topics.put("topic-" + random.nextInt(1000), id));
            partitions.put(id, 1 + random.nextInt(25));
        }

        void grow() {
            List<Uuid> ids = new ArrayList<>(topics.values());
            partitions.merge(ids.get(random.nextInt(ids.size())), 3, Integer::sum);
        }

        void join() {
            String id = names++ % 4 == 3 ? "static-" + random.nextInt(1000) : uuid().toString();
            subscriptions.put(id, Set.of());
            if (random.nextInt(4) == 0) instances.put(id, "instance-" + random.nextInt(100));
            resubscribe();
        }

        void leave() {
            if (subscriptions.size() < 2) return;
            List<String> ids = new ArrayList<>(subscriptions.keySet());
            String gone = ids.get(random.nextInt(ids.size()));
            subscriptions.remove(gone);
            instances.remove(gone);
            target.remove(gone);
        }

        void resubscribe() {
            List<String> all = new ArrayList<>(topics.keySet());
            for (String id : subscriptions.keySet()) {
                if (same) subscriptions.put(id, new HashSet<>(all));
                else if (subscriptions.get(id).isEmpty() || random.nextInt(3) == 0) {
                    Set<String> some = new HashSet<>();
                    for (String topic : all) if (random.nextBoolean()) some.add(topic);
                    if (some.isEmpty()) some.add(all.get(0));
                    subscriptions.put(id, some);
                }
            }
            // A topic that was named anew has another id: nobody subscribes to the old one.
            subscriptions.replaceAll((id, set) -> set.stream().filter(topics::containsKey).collect(Collectors.toCollection(HashSet::new)));
        }

        void assign() {
            Map<String, MemberSubscriptionAndAssignmentImpl> members = new HashMap<>();
            Map<Uuid, Map<Integer, String>> inverted = new HashMap<>();
            target.forEach((id, map) -> map.forEach((t, ps) -> ps.forEach(p -> inverted.computeIfAbsent(t, k -> new HashMap<>()).put(p, id))));
            out.println("case " + assignor.name() + " " + (same ? "same" : "different"));
            partitions.entrySet().stream().sorted(Map.Entry.comparingByKey()).forEach(e -> out.println("topic " + e.getKey() + " " + e.getValue()));
            for (Map.Entry<String, Set<String>> e : subscriptions.entrySet()) {
                LinkedHashSet<Uuid> ids = new LinkedHashSet<>();
                e.getValue().forEach(name -> ids.add(topics.get(name)));
                Map<Uuid, Set<Integer>> assignment = target.getOrDefault(e.getKey(), Map.of());
                String instance = instances.get(e.getKey());
                members.put(e.getKey(), new MemberSubscriptionAndAssignmentImpl(Optional.empty(), Optional.ofNullable(instance), ids, new Assignment(Collections.unmodifiableMap(assignment))));
                out.println("member " + e.getKey() + " " + instance + " " + ids.stream().map(Uuid::toString).collect(Collectors.joining(",")) + " " + text(assignment));
            }
            SubscribedTopicDescriber describer = new SubscribedTopicDescriber() {
                public int numPartitions(Uuid id) { return partitions.getOrDefault(id, -1); }
                public Set<String> racksForPartition(Uuid id, int p) { return Set.of(); }
            };
            GroupAssignment result = assignor.assign(new GroupSpecImpl(members, same ? SubscriptionType.HOMOGENEOUS : SubscriptionType.HETEROGENEOUS, inverted), describer);
            Map<String, Map<Uuid, Set<Integer>>> next = new HashMap<>();
            for (String id : subscriptions.keySet()) {
                MemberAssignment given = result.members().get(id);
                Map<Uuid, Set<Integer>> map = new HashMap<>();
                // As read back from a record with topics and partitions in order.
                Comparator<Uuid> order = Comparator.<Uuid, Long>comparing(Uuid::getMostSignificantBits, Long::compareUnsigned)
                    .thenComparing(Uuid::getLeastSignificantBits, Long::compareUnsigned);
                if (given != null) given.partitions().keySet().stream().sorted(order)
                    .forEach(t -> map.put(t, new HashSet<>(new ArrayList<>(new TreeSet<>(given.partitions().get(t))))));
                next.put(id, map);
                out.println("gets " + id + " " + text(map));
            }
            out.println("end");
            target = next;
        }

        static String text(Map<Uuid, Set<Integer>> map) {
            if (map.isEmpty()) return "-";
            return new TreeMap<>(map).entrySet().stream()
                .map(e -> e.getKey() + ":" + new TreeSet<>(e.getValue()).stream().map(String::valueOf).collect(Collectors.joining(",")))
                .collect(Collectors.joining(";"));
        }
    }

    record Topic(String name, Uuid id, List<List<String>> racks) implements CoordinatorMetadataImage.TopicMetadata {
        public int partitionCount() { return racks.size(); }
        public List<String> partitionRacks(int partition) { return new ArrayList<>(racks.get(partition)); }
    }

    record Image(Map<String, Topic> topics) implements CoordinatorMetadataImage {
        public Set<Uuid> topicIds() { return Set.of(); }
        public Set<String> topicNames() { return topics.keySet(); }
        public Optional<TopicMetadata> topicMetadata(String name) { return Optional.ofNullable(topics.get(name)); }
        public Optional<TopicMetadata> topicMetadata(Uuid id) { return Optional.empty(); }
        public CoordinatorMetadataDelta emptyDelta() { return CoordinatorMetadataDelta.EMPTY; }
        public long version() { return 0; }
        public boolean isEmpty() { return false; }
    }

    /** One topic a line and the hash of the group of all topics up to it. */
    static void hashes(PrintWriter out) {
        Random random = new Random(7);
        Map<String, Topic> topics = new HashMap<>();
        Map<String, Long> hashes = new HashMap<>();
        for (int i = 0; i < 12; i++) {
            List<List<String>> racks = new ArrayList<>();
            for (int p = 0; p < 1 + random.nextInt(9); p++) {
                List<String> of = new ArrayList<>();
                for (int r = 0; r < random.nextInt(4); r++) of.add("rack-" + random.nextInt(3));
                racks.add(of);
            }
            Topic topic = new Topic("topic." + random.nextInt(100000), new Uuid(random.nextLong(), random.nextLong()), racks);
            topics.put(topic.name(), topic);
            hashes.put(topic.name(), Utils.computeTopicHash(topic.name(), new Image(topics)));
            String text = racks.stream().map(r -> String.join(",", r)).collect(Collectors.joining(";"));
            out.println(topic.name() + "\t" + topic.id() + "\t" + text + "\t" + Utils.computeGroupHash(hashes));
        }
    }

    static void regex(String expression, List<String> names, PrintWriter out) {
        try {
            Pattern pattern = Pattern.compile(expression);
            List<String> hits = new ArrayList<>();
            for (int i = 0; i < names.size(); i++) if (pattern.matcher(names.get(i)).matches()) hits.add(String.valueOf(i));
            out.println(expression + "\t" + String.join(" ", hits));
        } catch (PatternSyntaxException refused) {
            out.println(expression + "\t! " + refused.getDescription());
        }
    }
}
