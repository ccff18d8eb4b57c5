// Package workload is the records every client writes and every client can check; the rule is in
// interop/README.md.
package workload

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	Partitions     = 3
	firstTimestamp = 1_700_000_000_000
)

// Workload is one topic of one client.
type Workload struct {
	Client, Codec string
	Count         int
	Seen          map[int]bool
}

func New(client, codec string, count int) *Workload {
	return &Workload{client, codec, count, map[int]bool{}}
}

func (w *Workload) Topic() string { return "clients-" + w.Client + "-" + w.Codec }

func (w *Workload) Record(index int) *kgo.Record {
	r := &kgo.Record{
		Topic:     w.Topic(),
		Partition: int32(index % Partitions),
		Timestamp: time.UnixMilli(firstTimestamp + int64(index)),
		Headers: []kgo.RecordHeader{
			{Key: "index", Value: []byte(strconv.Itoa(index))},
			{Key: "codec", Value: []byte(w.Codec)},
		},
	}
	if index%10 != 7 {
		r.Key = []byte("key-" + strconv.Itoa(index))
	}
	if index%1000 != 999 {
		text := fmt.Sprintf("%s %s %d %s", w.Client, w.Codec, index, strings.Repeat("v", index%97))
		r.Value = []byte(text)
	}
	if index%5 == 0 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "empty", Value: []byte{}})
	}
	return r
}

// Check compares a record that was read with what was written.
func (w *Workload) Check(found *kgo.Record) error {
	if len(found.Headers) == 0 {
		return fmt.Errorf("no headers at %s-%d@%d", found.Topic, found.Partition, found.Offset)
	}
	index, err := strconv.Atoi(string(found.Headers[0].Value))
	if err != nil {
		return err
	}
	expected := w.Record(index)
	same := found.Partition == expected.Partition &&
		found.Offset == int64(index/Partitions) &&
		found.Timestamp.UnixMilli() == expected.Timestamp.UnixMilli() &&
		equal(found.Key, expected.Key) && equal(found.Value, expected.Value) &&
		len(found.Headers) == len(expected.Headers)
	for i := 0; same && i < len(expected.Headers); i++ {
		same = found.Headers[i].Key == expected.Headers[i].Key &&
			bytes.Equal(found.Headers[i].Value, expected.Headers[i].Value)
	}
	if !same {
		return fmt.Errorf("record %d differs: %+v", index, found)
	}
	if w.Seen[index] {
		return fmt.Errorf("record %d came twice", index)
	}
	w.Seen[index] = true
	return nil
}

func equal(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
