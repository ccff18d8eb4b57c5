// A load for `cargo xtask bench`.   load BOOTSTRAP TOPIC produce|consume RECORDS SIZE ACKS
// Prints records, bytes and seconds.
package main

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	bootstrap, topic, verb := os.Args[1], os.Args[2], os.Args[3]
	records, size := number(os.Args[4]), number(os.Args[5])
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var err error
	begun := time.Now()
	if verb == "produce" {
		err = produce(ctx, bootstrap, topic, records, size, os.Args[6])
	} else {
		err = consume(ctx, bootstrap, topic, records)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%d %d %.3f\n", records, records*size, time.Since(begun).Seconds())
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}

func produce(ctx context.Context, bootstrap, topic string, records, size int, acks string) error {
	options := []kgo.Opt{
		kgo.SeedBrokers(bootstrap), kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(5 * time.Millisecond),
		kgo.MaxBufferedRecords(50_000),
	}
	if acks == "1" {
		options = append(options, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	}
	cl, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer cl.Close()
	value := make([]byte, size)
	rand.New(rand.NewSource(1)).Read(value)
	failed := make(chan error, 1)
	for i := 0; i < records; i++ {
		cl.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func consume(ctx context.Context, bootstrap, topic string, records int) error {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	for read := 0; read < records; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		read += fetches.NumRecords()
	}
	return nil
}
