package main

import (
	"context"
	"encoding/binary"
	"math"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Requests of one record each. Client n writes to partition n, and two records don't fit into a
// batch, so that no request carries more than one. The times count from when a record was due, not
// from when it was sent: a broker that holds the client up does not get its records forgiven.
func paced(ctx context.Context, o options) (map[string]float64, error) {
	o.batch = max(o.size+o.size/2, 1024)
	value := values(o.size)[0]
	clients := make([]*kgo.Client, o.clients)
	for i := range clients {
		opts := append(o.producer(), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(1000),
			kgo.RecordPartitioner(kgo.ManualPartitioner()))
		cl, err := kgo.NewClient(opts...)
		if err != nil {
			return nil, err
		}
		defer cl.Close()
		clients[i] = cl
		// Connections, metadata and producer ids are there before the clock starts.
		first := &kgo.Record{Value: make([]byte, o.size), Partition: int32(i)}
		if err := cl.ProduceSync(ctx, first).FirstErr(); err != nil {
			return nil, err
		}
	}
	most := int(o.rate * o.seconds)
	if o.rate == 0 {
		most = int(o.seconds * 200_000)
	}
	run := &pacedRun{acked: make([]int64, most), seen: make([]int64, most), begun: time.Now()}
	reading := make(chan error, 1)
	readCtx, stop := context.WithCancel(ctx)
	defer stop()
	if o.endToEnd {
		cl, err := kgo.NewClient(kgo.SeedBrokers(o.bootstrap), kgo.ConsumePartitions(starts(o)),
			kgo.FetchMaxWait(500*time.Millisecond), kgo.FetchMinBytes(1))
		if err != nil {
			return nil, err
		}
		defer cl.Close()
		go func() { reading <- run.read(readCtx, cl) }()
		time.Sleep(300 * time.Millisecond)
	}
	run.begun = time.Now()
	run.ready.Store(true)
	sent := run.send(ctx, o, clients, value)
	for _, cl := range clients {
		run.failed.set(cl.Flush(ctx))
	}
	seconds := time.Since(run.begun).Seconds()
	if run.failed.err != nil {
		return nil, run.failed.err
	}
	result := map[string]float64{"records": float64(sent), "bytes": float64(sent * o.size), "seconds": seconds}
	// The first fifth is for getting into step.
	percentiles(result, "", run.acked[sent/5:sent])
	if o.endToEnd {
		for end := time.Now().Add(5 * time.Second); int(run.count.Load()) < sent && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
		stop()
		if err := <-reading; err != nil {
			return nil, err
		}
		percentiles(result, "end_to_end_", run.seen[sent/5:sent])
		result["read"] = float64(run.count.Load())
	}
	return result, nil
}

type pacedRun struct {
	begun       time.Time
	ready       atomic.Bool
	acked, seen []int64
	count       atomic.Int64
	failed      firstError
}

func (r *pacedRun) send(ctx context.Context, o options, clients []*kgo.Client, value []byte) int {
	// A thread of its own sleeps to some ten microseconds; Go's timers know milliseconds only.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	end := r.begun.Add(time.Duration(o.seconds * float64(time.Second)))
	for i := range r.acked {
		due := time.Now()
		if o.rate > 0 {
			due = r.begun.Add(time.Duration(float64(i) / o.rate * float64(time.Second)))
			if wait := time.Until(due); wait > 0 {
				nap := syscall.NsecToTimespec(int64(wait))
				_ = syscall.Nanosleep(&nap, nil)
			}
		} else if due.After(end) {
			return i
		}
		record := &kgo.Record{Value: append([]byte(nil), value...), Partition: int32(i % len(clients))}
		binary.LittleEndian.PutUint64(record.Value, uint64(i)+1)
		binary.LittleEndian.PutUint64(record.Value[8:], uint64(due.Sub(r.begun)))
		clients[i%len(clients)].Produce(ctx, record, func(_ *kgo.Record, err error) {
			r.acked[i] = int64(time.Since(due))
			r.failed.set(err)
		})
	}
	return len(r.acked)
}

func (r *pacedRun) read(ctx context.Context, cl *kgo.Client) error {
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		if !r.ready.Load() {
			continue // the clients' first records
		}
		now := time.Since(r.begun)
		fetches.EachRecord(func(record *kgo.Record) {
			if number := binary.LittleEndian.Uint64(record.Value); number > 0 {
				r.seen[number-1] = int64(now) - int64(binary.LittleEndian.Uint64(record.Value[8:]))
				r.count.Add(1)
			}
		})
	}
}

func starts(o options) map[string]map[int32]kgo.Offset {
	partitions := map[int32]kgo.Offset{}
	for i := range o.clients {
		partitions[int32(i)] = kgo.NewOffset().At(0)
	}
	return map[string]map[int32]kgo.Offset{o.topic: partitions}
}

func percentiles(result map[string]float64, prefix string, nanos []int64) {
	sorted := slices.Clone(nanos)
	slices.Sort(sorted)
	at := func(part float64) float64 {
		if len(sorted) == 0 {
			return math.NaN()
		}
		return float64(sorted[min(int(part*float64(len(sorted))), len(sorted)-1)]) / 1e6
	}
	result[prefix+"p50_ms"], result[prefix+"p99_ms"] = at(0.5), at(0.99)
	result[prefix+"p999_ms"] = at(0.999)
}
