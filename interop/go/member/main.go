// A member of a consumer group that tells what it is given and what it reads.
//
//	member CLIENT BOOTSTRAP TOPIC GROUP ASSIGNOR
//
// CLIENT is franz-go or sarama, ASSIGNOR as Kafka names it. Ends with its input. What the lines mean
// stands in interop/README.md.
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	sessionTimeout    = 6 * time.Second
	heartbeatInterval = 500 * time.Millisecond
	commitInterval    = 500 * time.Millisecond
	fetchWait         = 200 * time.Millisecond
	fetchMin          = 100_000
)

type settings struct{ bootstrap, topic, group, assignor string }

func main() {
	s := settings{os.Args[2], os.Args[3], os.Args[4], os.Args[5]}
	stopped := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stopped)
	}()
	run := map[string]func(settings, *teller, <-chan struct{}) error{
		"franz-go": franzGo, "sarama": saramaMember,
	}[os.Args[1]]
	t := &teller{spans: map[int32]span{}, next: map[int32]int64{}}
	if err := run(s, t, stopped); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	t.tell("ended", "")
}

type span struct{ first, last int64 }

// teller writes the lines. Records of a partition that follow each other become one line.
type teller struct {
	mu    sync.Mutex
	spans map[int32]span
	// What is to be read next of what was read.
	next map[int32]int64
}

func (t *teller) line(kind, rest string) {
	fmt.Println(strings.TrimSpace(fmt.Sprintf("%d %s %s", time.Now().UnixMilli(), kind, rest)))
}

func (t *teller) flush() {
	for p, s := range t.spans {
		t.line("read", fmt.Sprintf("%d %d %d", p, s.first, s.last))
	}
	clear(t.spans)
}

func (t *teller) tell(kind, rest string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flush()
	t.line(kind, rest)
}

func (t *teller) partitions(kind string, partitions []int32) {
	if len(partitions) == 0 {
		return
	}
	slices.Sort(partitions)
	words := make([]string, len(partitions))
	for i, p := range partitions {
		words[i] = strconv.Itoa(int(p))
	}
	t.tell(kind, strings.Join(words, ","))
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range partitions {
		delete(t.next, p)
	}
}

// read takes a record; its value is its offset.
func (t *teller) read(partition int32, offset int64, value []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if string(value) != strconv.FormatInt(offset, 10) {
		t.line("wrong", fmt.Sprintf("%d %d %q", partition, offset, value))
	}
	s, some := t.spans[partition]
	switch {
	case some && s.last+1 == offset:
		s.last = offset
	case some:
		t.line("read", fmt.Sprintf("%d %d %d", partition, s.first, s.last))
		s = span{offset, offset}
	default:
		s = span{offset, offset}
	}
	t.spans[partition] = s
	t.next[partition] = offset + 1
}

// positions are the offsets to commit.
func (t *teller) positions() map[int32]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[int32]int64{}
	for p, next := range t.next {
		out[p] = next
	}
	return out
}

func (t *teller) committed(offsets map[int32]int64) {
	if len(offsets) == 0 {
		return
	}
	var words []string
	for p, offset := range offsets {
		words = append(words, fmt.Sprintf("%d:%d", p, offset))
	}
	slices.Sort(words)
	t.tell("committed", strings.Join(words, ","))
}

func (t *teller) refused(why error) {
	t.tell("refused", strings.ReplaceAll(why.Error(), "\n", " "))
}
