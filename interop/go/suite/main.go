// Franz-go against the broker at BOOTSTRAP.   suite BOOTSTRAP RECORDS [ONLY]
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"klamm/interop/workload"
)

const client = "franz-go"

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

func main() {
	bootstrap, only := os.Args[1], ""
	if len(os.Args) > 3 {
		only = os.Args[3]
	}
	records, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	each := records / len(codecs)
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		test("produce-and-read."+codec, only, func() error {
			return produceAndRead(bootstrap, workload.New(client, codec, each))
		})
	}
	test("commit-and-resume", only, func() error {
		return commitAndResume(bootstrap, workload.New(client, "gzip", each))
	})
}

// test prints the line that `cargo xtask interop` reads.
func test(name, only string, body func() error) {
	name = client + "." + name
	if !strings.Contains(name, only) {
		return
	}
	begun := time.Now()
	if err := body(); err != nil {
		text := strings.NewReplacer("\\", "\\\\", "\n", "\\n", "\t", "\\t").Replace(err.Error())
		fmt.Printf("fail\t%s\t%s\n", name, text)
	} else {
		fmt.Printf("pass\t%s\t%d ms\n", name, time.Since(begun).Milliseconds())
	}
}

func limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 2*time.Minute)
}

func create(bootstrap, topic string) error {
	ctx, cancel := limited()
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	if err != nil {
		return err
	}
	defer cl.Close()
	request := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, workload.Partitions, 1
	forever := "-1"
	t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: "retention.ms", Value: &forever})
	request.Topics = append(request.Topics, t)
	response, err := request.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return nil
	}
	return err
}

func produceAndRead(bootstrap string, work *workload.Workload) error {
	if err := create(bootstrap, work.Topic()); err != nil {
		return err
	}
	ctx, cancel := limited()
	defer cancel()
	// Idempotent unless told otherwise.
	producer, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codecs[work.Codec]),
		kgo.ProducerLinger(5*time.Millisecond),
	)
	if err != nil {
		return err
	}
	defer producer.Close()
	failed := make(chan error, 1)
	for i := 0; i < work.Count; i++ {
		producer.Produce(ctx, work.Record(i), func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	if err := producer.Flush(ctx); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	default:
	}
	start := map[int32]kgo.Offset{}
	for p := int32(0); p < workload.Partitions; p++ {
		start[p] = kgo.NewOffset().AtStart()
	}
	reader, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{work.Topic(): start}),
	)
	if err != nil {
		return err
	}
	defer reader.Close()
	return read(reader, work, work.Count)
}

func read(reader *kgo.Client, work *workload.Workload, until int) error {
	ctx, cancel := limited()
	defer cancel()
	for len(work.Seen) < until {
		fetches := reader.PollRecords(ctx, 500)
		if err := fetches.Err0(); err != nil {
			return fmt.Errorf("only %d of %d records: %w", len(work.Seen), until, err)
		}
		var failed error
		fetches.EachError(func(t string, p int32, err error) { failed = fmt.Errorf("%s-%d: %w", t, p, err) })
		fetches.EachRecord(func(r *kgo.Record) {
			if err := work.Check(r); err != nil && failed == nil {
				failed = err
			}
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}

func member(bootstrap string, work *workload.Workload) (*kgo.Client, error) {
	return kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.ConsumerGroup("resume-"+client),
		kgo.ConsumeTopics(work.Topic()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
	)
}

func commitAndResume(bootstrap string, work *workload.Workload) error {
	for _, until := range []int{work.Count / 2, work.Count} {
		cl, err := member(bootstrap, work)
		if err != nil {
			return err
		}
		if err := read(cl, work, until); err != nil {
			cl.Close()
			return err
		}
		ctx, cancel := limited()
		err = cl.CommitUncommittedOffsets(ctx)
		cancel()
		cl.Close()
		if err != nil {
			return err
		}
		if until < work.Count && len(work.Seen) >= work.Count {
			return errors.New("the first consumer has read everything")
		}
	}
	cl, err := member(bootstrap, work)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if more := cl.PollFetches(ctx).NumRecords(); more > 0 {
		return fmt.Errorf("read again: %d records", more)
	}
	return nil
}
