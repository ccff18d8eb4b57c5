package main

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Keeps the first error of many goroutines.
type firstError struct {
	once sync.Once
	err  error
}

func (f *firstError) set(err error) {
	if err != nil {
		f.once.Do(func() { f.err = err })
	}
}

func produce(ctx context.Context, o options) (map[string]float64, error) {
	pool := values(o.size)
	clients := make([]*kgo.Client, o.clients)
	for i := range clients {
		opts := append(o.producer(), kgo.ProducerLinger(5*time.Millisecond))
		if o.pinned {
			opts = append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		}
		cl, err := kgo.NewClient(opts...)
		if err != nil {
			return nil, err
		}
		defer cl.Close()
		// Connections and metadata are there before the clock starts.
		first := &kgo.Record{Value: pool[0], Partition: int32(i)}
		if err := cl.ProduceSync(ctx, first).FirstErr(); err != nil {
			return nil, err
		}
		clients[i] = cl
	}
	var failed firstError
	var all sync.WaitGroup
	begun := time.Now()
	for c, cl := range clients {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := c; i < o.records; i += o.clients {
				record := &kgo.Record{Value: pool[i%len(pool)]}
				if o.pinned {
					record.Partition = int32(c)
				}
				cl.Produce(ctx, record, func(_ *kgo.Record, err error) { failed.set(err) })
			}
			failed.set(cl.Flush(ctx))
		}()
	}
	all.Wait()
	seconds := time.Since(begun).Seconds()
	return map[string]float64{
		"records": float64(o.records), "bytes": float64(o.records * o.size), "seconds": seconds,
	}, failed.err
}

func consume(ctx context.Context, o options) (map[string]float64, error) {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(o.bootstrap), kgo.ConsumeTopics(o.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	records, bytes := 0, 0
	begun := time.Now()
	for records < o.records {
		fetches := cl.PollRecords(ctx, 20_000)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			records++
			bytes += len(r.Value)
		})
		if o.mbPerS > 0 {
			due := time.Duration(float64(bytes) / o.mbPerS / 1e6 * float64(time.Second))
			time.Sleep(due - time.Since(begun))
		}
	}
	seconds := time.Since(begun).Seconds()
	return map[string]float64{
		"records": float64(records), "bytes": float64(bytes), "seconds": seconds,
	}, nil
}
