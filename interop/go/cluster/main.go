// Franz-go's part of the load on a cluster whose brokers are killed, cut off and moved meanwhile.
//
//	cluster BOOTSTRAP TOPIC PARTITIONS
//
// Does what interop/java's ClusterLoad does: an idempotent producer numbers the records of each
// partition, so record n must be at offset n; a reader runs along, another one reads everything at
// the end. Says "acked N" as it goes, and at the end of its input "done" or "failed" and why.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Between two records.
const pace = 4 * time.Millisecond

type load struct {
	bootstrap  []string
	topic      string
	partitions int
	stopped    atomic.Bool
	acked      atomic.Int64
	longestMs  atomic.Int64
	lastAck    atomic.Int64
	// How many records of each partition were acknowledged and read.
	ackedOf, readOf []atomic.Int64
	once            sync.Once
	failed          atomic.Bool
}

func main() {
	partitions, err := strconv.Atoi(os.Args[3])
	if err != nil {
		panic(err)
	}
	l := &load{
		bootstrap: strings.Split(os.Args[1], ","), topic: os.Args[2], partitions: partitions,
		ackedOf: make([]atomic.Int64, partitions), readOf: make([]atomic.Int64, partitions),
	}
	var clients sync.WaitGroup
	clients.Go(func() { l.fail(l.produce()) })
	clients.Go(func() { l.fail(l.readAlong()) })
	go l.tell()
	_, _ = io.Copy(io.Discard, os.Stdin)
	l.stopped.Store(true)
	clients.Wait()
	if !l.failed.Load() {
		l.fail(l.readAll())
	}
	if l.failed.Load() {
		return
	}
	fmt.Printf("done %d acknowledged, longest pause %d ms\n", l.acked.Load(), l.longestMs.Load())
}

func (l *load) fail(err error) {
	if err != nil {
		l.once.Do(func() {
			l.failed.Store(true)
			fmt.Println("failed " + strings.ReplaceAll(err.Error(), "\n", " "))
		})
	}
}

func (l *load) over() bool { return l.stopped.Load() || l.failed.Load() }

func (l *load) tell() {
	for {
		time.Sleep(100 * time.Millisecond)
		fmt.Printf("acked %d\n", l.acked.Load())
	}
}

func (l *load) options() []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(l.bootstrap...), kgo.MetadataMaxAge(5 * time.Second)}
}

func value(number int64) string {
	return fmt.Sprintf("%d %s", number, strings.Repeat("v", int(number%300)))
}

func (l *load) produce() error {
	producer, err := kgo.NewClient(append(l.options(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(2*time.Millisecond),
		kgo.ProduceRequestTimeout(5*time.Second), kgo.StopProducerOnDataLossDetected())...)
	if err != nil {
		return err
	}
	defer producer.Close()
	l.lastAck.Store(time.Now().UnixNano())
	next := make([]int64, l.partitions)
	for i := 0; !l.over(); i++ {
		partition := i % l.partitions
		number := next[partition]
		next[partition]++
		record := &kgo.Record{Topic: l.topic, Partition: int32(partition), Value: []byte(value(number))}
		producer.Produce(context.Background(), record, func(r *kgo.Record, err error) { l.answered(r, number, err) })
		time.Sleep(pace)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Second)
	defer cancel()
	return producer.Flush(ctx)
}

func (l *load) answered(r *kgo.Record, number int64, err error) {
	if err != nil {
		l.fail(fmt.Errorf("record %d of %d: %w", number, r.Partition, err))
		return
	}
	if r.Offset != number {
		l.fail(fmt.Errorf("record %d of %d acknowledged at %d", number, r.Partition, r.Offset))
	}
	// Acknowledgements of one partition come in order.
	l.ackedOf[r.Partition].Store(number + 1)
	now := time.Now().UnixNano()
	gap := (now - l.lastAck.Swap(now)) / 1e6
	if gap > l.longestMs.Load() {
		l.longestMs.Store(gap)
	}
	l.acked.Add(1)
}

func (l *load) reader() (*kgo.Client, error) {
	starts := map[int32]kgo.Offset{}
	for p := range l.partitions {
		starts[int32(p)] = kgo.NewOffset().At(0)
	}
	return kgo.NewClient(append(l.options(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.topic: starts}),
		// Nothing is ever out of range here; if it were, the gap would show.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchMaxWait(200*time.Millisecond))...)
}

// Reads what is there and checks that each record is the next one.
func (l *load) poll(reader *kgo.Client, next func(partition int32) int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	var failed error
	// Errors of brokers that cannot be reached are the point of all this; the client goes on.
	reader.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
		place := fmt.Sprintf("%s-%d at %d", l.topic, r.Partition, r.Offset)
		if due := next(r.Partition); r.Offset != due && failed == nil {
			failed = fmt.Errorf("%s: offset %d was due", place, due)
		}
		if string(r.Value) != value(r.Offset) && failed == nil {
			failed = fmt.Errorf("%s: holds another record", place)
		}
	})
	return failed
}

func (l *load) readAlong() error {
	reader, err := l.reader()
	if err != nil {
		return err
	}
	defer reader.Close()
	next := func(partition int32) int64 { return l.readOf[partition].Add(1) - 1 }
	for !l.over() {
		if err := l.poll(reader, next); err != nil {
			return err
		}
	}
	return nil
}

// With fresh eyes, from the start to the end.
func (l *load) readAll() error {
	reader, err := l.reader()
	if err != nil {
		return err
	}
	defer reader.Close()
	ends, err := l.ends(reader)
	if err != nil {
		return err
	}
	next := make([]int64, l.partitions)
	count := func(partition int32) int64 { next[partition]++; return next[partition] - 1 }
	deadline := time.Now().Add(time.Minute)
	for p := 0; p < l.partitions; {
		if next[p] >= ends[p] {
			p++
			continue
		}
		if err := l.poll(reader, count); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the end of the log is not reached: %v of %v", next, ends)
		}
	}
	for p, end := range ends {
		if acked, read := l.ackedOf[p].Load(), l.readOf[p].Load(); end < acked || end < read {
			return fmt.Errorf("%s-%d ends at %d; acknowledged %d, read %d", l.topic, p, end, acked, read)
		}
	}
	return nil
}

func (l *load) ends(client *kgo.Client) ([]int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	request := kmsg.NewPtrListOffsetsRequest()
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic = l.topic
	for p := range l.partitions {
		partition := kmsg.NewListOffsetsRequestTopicPartition()
		partition.Partition, partition.Timestamp = int32(p), -1
		topic.Partitions = append(topic.Partitions, partition)
	}
	request.ReplicaID, request.Topics = -1, append(request.Topics, topic)
	ends := make([]int64, l.partitions)
	for _, shard := range client.RequestSharded(ctx, request) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		for _, topic := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range topic.Partitions {
				if p.ErrorCode != 0 {
					return nil, fmt.Errorf("%s-%d has no end: error %d", l.topic, p.Partition, p.ErrorCode)
				}
				ends[p.Partition] = p.Offset
			}
		}
	}
	return ends, nil
}
