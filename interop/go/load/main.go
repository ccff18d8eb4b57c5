// The load of `cargo xtask bench`, over franz-go.
//
//	load VERB -bootstrap HOST:PORT -topic TOPIC [flags]
//
//	produce  records as fast as the broker takes them            bulk.go
//	consume  a topic from its start, at a pace if one is given   bulk.go
//	paced    requests of one record each at a fixed rate         paced.go
//	idle     connections that hardly say anything                idle.go
//
//	rebalance      a group forms, and one more member joins      groups.go
//	commits        offsets, one a request                        groups.go
//	transactions   of one record each                            groups.go
//	fill-offsets   as many committed offsets as records given    groups.go
//	offsets-ready  waits until those are told                    groups.go
//
// Prints one line of JSON: what was done, in how many seconds, and how long it took if that is
// what the verb measures.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Options of all verbs; each uses those that mean something to it.
type options struct {
	bootstrap, topic, acks, codec string
	records, size, clients, batch int
	pinned, endToEnd              bool
	rate, seconds, mbPerS         float64
	connections, partitions       int
	protocol                      string
}

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: load VERB [flags]"))
	}
	o := options{}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&o.bootstrap, "bootstrap", "127.0.0.1:9092", "address of the broker")
	flags.StringVar(&o.topic, "topic", "load", "topic, which must exist")
	flags.StringVar(&o.acks, "acks", "all", "all or 1")
	flags.StringVar(&o.codec, "codec", "none", "none, gzip, snappy, lz4 or zstd")
	flags.IntVar(&o.records, "records", 0, "records in all")
	flags.IntVar(&o.size, "size", 1000, "bytes of a value")
	flags.IntVar(&o.clients, "clients", 1, "clients that share the load")
	flags.IntVar(&o.batch, "batch", 1_000_000, "bytes of a batch at most")
	flags.BoolVar(&o.pinned, "pinned", false, "client n writes to partition n alone")
	flags.BoolVar(&o.endToEnd, "end-to-end", false, "read the records, too, and time their way")
	flags.Float64Var(&o.rate, "rate", 0, "requests a second; 0: as many as go")
	flags.Float64Var(&o.seconds, "seconds", 5, "how long")
	flags.Float64Var(&o.mbPerS, "mb-per-s", 0, "pace of reading; 0: none")
	flags.IntVar(&o.connections, "connections", 1000, "connections to hold")
	flags.IntVar(&o.partitions, "partitions", 1, "partitions of the topic")
	flags.StringVar(&o.protocol, "protocol", "classic", "of the group: classic or consumer")
	_ = flags.Parse(os.Args[2:])
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	verbs := map[string]func(context.Context, options) (map[string]float64, error){
		"produce": produce, "consume": consume, "paced": paced, "idle": idle,
		"rebalance": rebalance, "commits": commits, "transactions": transactions,
		"fill-offsets": fillOffsets, "offsets-ready": offsetsReady,
	}
	verb := verbs[os.Args[1]]
	if verb == nil {
		fail(fmt.Errorf("no such verb: %s", os.Args[1]))
	}
	result, err := verb(ctx, o)
	if err != nil {
		fail(err)
	}
	line, _ := json.Marshal(result)
	fmt.Println(string(line))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// What all producers of the loads have in common. Acks 1 goes without idempotence, as it must.
func (o options) producer() []kgo.Opt {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(o.bootstrap), kgo.DefaultProduceTopic(o.topic),
		kgo.ProducerBatchCompression(codecs[o.codec]), kgo.ProducerBatchMaxBytes(int32(o.batch)),
		kgo.MaxBufferedRecords(50_000), kgo.MaxBufferedBytes(64 << 20),
		// A topic that the broker has only just been told of is asked for again soon.
		kgo.MetadataMinAge(50 * time.Millisecond),
	}
	if o.acks == "1" {
		opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	}
	return opts
}

// A thousand values of one size that look like events and shrink like them.
func values(size int) [][]byte {
	random := rand.New(rand.NewSource(1))
	actions := []string{"click", "view", "purchase", "search", "logout"}
	pool := make([][]byte, 1000)
	for i := range pool {
		value := make([]byte, 0, size+128)
		for len(value) < size {
			value = fmt.Appendf(value, `{"user":%d,"session":"%08x","action":"%s","page":"/item/%d","ms":%d}`,
				random.Intn(1_000_000), random.Uint32(), actions[random.Intn(len(actions))],
				random.Intn(10_000), random.Intn(5_000))
		}
		pool[i] = value[:size]
	}
	return pool
}
