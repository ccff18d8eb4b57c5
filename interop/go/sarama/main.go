// Sarama against the broker at BOOTSTRAP.   sarama BOOTSTRAP RECORDS [ONLY]
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"

	"klamm/interop/workload"
)

const (
	client = "sarama"
	limit  = 2 * time.Minute
)

var codecs = map[string]sarama.CompressionCodec{
	"none":   sarama.CompressionNone,
	"gzip":   sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4,
	"zstd":   sarama.CompressionZSTD,
}

func main() {
	bootstrap, only := []string{os.Args[1]}, ""
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
	test("transactions", only, func() error { return transactions(bootstrap) })
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

func create(bootstrap []string, topic string) error {
	admin, err := sarama.NewClusterAdmin(bootstrap, sarama.NewConfig())
	if err != nil {
		return err
	}
	defer admin.Close()
	forever := "-1"
	detail := sarama.TopicDetail{
		NumPartitions: workload.Partitions, ReplicationFactor: 1,
		ConfigEntries: map[string]*string{"retention.ms": &forever},
	}
	err = admin.CreateTopic(topic, &detail, false)
	if errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return nil
	}
	return err
}

// All as it comes but for what the workload asks for.
func producerConfig(codec string) *sarama.Config {
	config := sarama.NewConfig()
	config.Producer.Idempotent = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Net.MaxOpenRequests = 1
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.Compression = codecs[codec]
	config.Producer.Return.Successes = true
	return config
}

func produceAndRead(bootstrap []string, work *workload.Workload) error {
	if err := create(bootstrap, work.Topic()); err != nil {
		return err
	}
	producer, err := sarama.NewAsyncProducer(bootstrap, producerConfig(work.Codec))
	if err != nil {
		return err
	}
	go func() {
		for i := 0; i < work.Count; i++ {
			producer.Input() <- message(work.Record(i))
		}
	}()
	for range work.Count {
		select {
		case <-producer.Successes():
		case err := <-producer.Errors():
			return err
		case <-time.After(limit):
			return errors.New("a record is not acknowledged")
		}
	}
	if err := producer.Close(); err != nil {
		return err
	}
	taken := func(record *sarama.ConsumerMessage) error { return work.Check(found(record)) }
	return readAll(bootstrap, sarama.NewConfig(), work.Topic(), work.Count, taken)
}

func message(r *kgo.Record) *sarama.ProducerMessage {
	m := &sarama.ProducerMessage{Topic: r.Topic, Partition: r.Partition, Timestamp: r.Timestamp}
	// An encoder of nil would be no nil.
	if r.Key != nil {
		m.Key = sarama.ByteEncoder(r.Key)
	}
	if r.Value != nil {
		m.Value = sarama.ByteEncoder(r.Value)
	}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
	}
	return m
}

func found(m *sarama.ConsumerMessage) *kgo.Record {
	r := &kgo.Record{
		Topic: m.Topic, Partition: m.Partition, Offset: m.Offset,
		Timestamp: m.Timestamp, Key: m.Key, Value: m.Value,
	}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: string(h.Key), Value: h.Value})
	}
	return r
}

// readAll reads a topic from the start until it had so many records.
func readAll(
	bootstrap []string, config *sarama.Config, topic string, until int,
	take func(*sarama.ConsumerMessage) error,
) error {
	consumer, err := sarama.NewConsumer(bootstrap, config)
	if err != nil {
		return err
	}
	defer consumer.Close()
	all := make(chan *sarama.ConsumerMessage)
	over := make(chan struct{})
	defer close(over)
	for p := range int32(workload.Partitions) {
		partition, err := consumer.ConsumePartition(topic, p, sarama.OffsetOldest)
		if err != nil {
			return err
		}
		defer partition.AsyncClose()
		go func() {
			for record := range partition.Messages() {
				select {
				case all <- record:
				case <-over:
					return
				}
			}
		}()
	}
	for n := range until {
		select {
		case record := <-all:
			if err := take(record); err != nil {
				return err
			}
		case <-time.After(limit):
			return fmt.Errorf("only %d of %d records", n, until)
		}
	}
	select {
	case record := <-all:
		return fmt.Errorf("more than %d records: %s-%d at %d", until, topic, record.Partition, record.Offset)
	case <-time.After(time.Second):
		return nil
	}
}

// resumer reads with a group until it has seen so many records.
type resumer struct {
	mu     sync.Mutex
	work   *workload.Workload
	until  int
	failed error
	done   context.CancelFunc
}

func (r *resumer) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (r *resumer) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (r *resumer) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for record := range claim.Messages() {
		if !r.take(session, record) {
			return nil
		}
	}
	return nil
}

func (r *resumer) take(session sarama.ConsumerGroupSession, record *sarama.ConsumerMessage) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.work.Seen) >= r.until || r.failed != nil {
		return false
	}
	r.failed = r.work.Check(found(record))
	// Committed in the background and, what is left, as the session ends.
	session.MarkMessage(record, "")
	if len(r.work.Seen) >= r.until || r.failed != nil {
		r.done()
	}
	return true
}

func read(bootstrap []string, work *workload.Workload, until int, within time.Duration) error {
	config := sarama.NewConfig()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	group, err := sarama.NewConsumerGroup(bootstrap, "resume-"+client, config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	r := &resumer{work: work, until: until, done: cancel}
	for ctx.Err() == nil {
		if err := group.Consume(ctx, []string{work.Topic()}, r); err != nil && ctx.Err() == nil {
			_ = group.Close()
			return err
		}
	}
	return errors.Join(r.failed, group.Close())
}

func commitAndResume(bootstrap []string, work *workload.Workload) error {
	for _, until := range []int{work.Count / 2, work.Count} {
		if err := read(bootstrap, work, until, limit); err != nil {
			return err
		}
		if len(work.Seen) != until {
			return fmt.Errorf("only %d of %d records", len(work.Seen), until)
		}
	}
	// Anything it reads now came twice, and fails.
	return read(bootstrap, work, work.Count+1, 4*time.Second)
}

// Records in transactions, every third of which is aborted, and what a reader of the committed sees.
func transactions(bootstrap []string) error {
	topic := "txn-" + client
	if err := create(bootstrap, topic); err != nil {
		return err
	}
	config := producerConfig("lz4")
	config.Producer.Transaction.ID = topic
	producer, err := sarama.NewAsyncProducer(bootstrap, config)
	if err != nil {
		return err
	}
	const turns, each = 9, 100
	for turn := range turns {
		if err := transaction(producer, topic, turn, each); err != nil {
			return fmt.Errorf("transaction %d: %w", turn, err)
		}
	}
	if err := producer.Close(); err != nil {
		return err
	}
	reader := sarama.NewConfig()
	reader.Consumer.IsolationLevel = sarama.ReadCommitted
	return readAll(bootstrap, reader, topic, turns*each*2/3, func(record *sarama.ConsumerMessage) error {
		if strings.HasPrefix(string(record.Value), "aborted") {
			return fmt.Errorf("read '%s'", record.Value)
		}
		return nil
	})
}

func transaction(producer sarama.AsyncProducer, topic string, turn, records int) error {
	if err := producer.BeginTxn(); err != nil {
		return err
	}
	word := "committed"
	if turn%3 == 1 {
		word = "aborted"
	}
	for i := range records {
		producer.Input() <- &sarama.ProducerMessage{
			Topic: topic, Partition: int32(i % workload.Partitions),
			Value: sarama.StringEncoder(fmt.Sprintf("%s %d %d", word, turn, i)),
		}
		select {
		case <-producer.Successes():
		case err := <-producer.Errors():
			return err
		case <-time.After(limit):
			return errors.New("a record is not acknowledged")
		}
	}
	if word == "aborted" {
		return producer.AbortTxn()
	}
	return producer.CommitTxn()
}
