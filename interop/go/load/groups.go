package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

const (
	// How often members say that they live: soon enough not to be what is measured.
	heartbeatPeriod = 100 * time.Millisecond
	// Partitions of one commit while a million offsets are made.
	offsetsPerCommit = 100
)

// A client for requests one by one, which asks again soon.
func (o options) asker() (*kgo.Client, error) {
	// The last versions of OffsetCommit and OffsetFetch that name topics.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(8, 9)
	versions.SetMaxKeyVersion(9, 9)
	return kgo.NewClient(
		kgo.SeedBrokers(o.bootstrap),
		kgo.MaxVersions(versions),
		kgo.RetryBackoffFn(func(int) time.Duration { return 2 * time.Millisecond }),
		kgo.RequestRetries(1_000_000),
		kgo.RetryTimeout(3*time.Minute),
	)
}

// A group of -clients members forms at once, then one more joins. No member is a client with a mind
// of its own: each sends what the protocol asks for, as soon as it may.
func rebalance(ctx context.Context, o options) (map[string]float64, error) {
	run := &groupRun{options: o, group: "rebalance-" + memberID(), changed: make(chan struct{}, 1)}
	ctx, stop := context.WithCancel(ctx)
	result := map[string]float64{"members": float64(o.clients)}
	begun := time.Now()
	for range o.clients {
		run.join(ctx)
	}
	if err := run.settle(ctx); err != nil {
		stop()
		return nil, err
	}
	result["form_ms"] = float64(time.Since(begun).Microseconds()) / 1e3
	begun = time.Now()
	run.join(ctx)
	err := run.settle(ctx)
	result["rebalance_ms"] = float64(time.Since(begun).Microseconds()) / 1e3
	stop()
	run.all.Wait()
	return result, err
}

type groupRun struct {
	options options
	group   string
	all     sync.WaitGroup
	changed chan struct{}
	mu      sync.Mutex
	failed  error
	// By member: generation or epoch, and how many partitions it has.
	epochs, owned []int
}

func (r *groupRun) join(ctx context.Context) {
	r.mu.Lock()
	place := len(r.epochs)
	r.epochs, r.owned = append(r.epochs, -1), append(r.owned, 0)
	r.mu.Unlock()
	r.all.Add(1)
	go func() {
		defer r.all.Done()
		cl, err := r.options.asker()
		if err == nil {
			defer cl.Close()
			if r.options.protocol == "consumer" {
				err = r.consumerMember(ctx, cl, place)
			} else {
				err = r.classicMember(ctx, cl, place)
			}
		}
		if ctx.Err() == nil {
			r.mu.Lock()
			r.failed = errors.Join(r.failed, err)
			r.mu.Unlock()
			r.note(place, -1, 0)
		}
	}()
}

func (r *groupRun) note(place, epoch, owned int) {
	r.mu.Lock()
	r.epochs[place], r.owned[place] = epoch, owned
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// Waits until all members are in one generation and share all partitions.
func (r *groupRun) settle(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.changed:
		}
		r.mu.Lock()
		failed, settled, sum := r.failed, true, 0
		for i, epoch := range r.epochs {
			settled = settled && epoch >= 0 && epoch == r.epochs[0] && r.owned[i] > 0
			sum += r.owned[i]
		}
		r.mu.Unlock()
		if failed != nil || (settled && sum == r.options.partitions) {
			return failed
		}
	}
}

func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(heartbeatPeriod):
		return true
	}
}

func (r *groupRun) consumerMember(ctx context.Context, cl *kgo.Client, place int) error {
	id, epoch := memberID(), int32(0)
	var owned []kmsg.ConsumerGroupHeartbeatRequestTopic
	isFull := true
	for {
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.MemberEpoch = r.group, id, epoch
		if isFull {
			req.RebalanceTimeoutMillis = 60_000
			req.SubscribedTopicNames = []string{r.options.topic}
			req.Topics = append([]kmsg.ConsumerGroupHeartbeatRequestTopic{}, owned...)
		}
		resp, err := req.RequestWith(ctx, cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err != nil {
			return err
		}
		epoch, isFull = resp.MemberEpoch, false
		if resp.Assignment != nil {
			// Taken at once, and acknowledged at once.
			owned, isFull = nil, true
			count := 0
			for _, t := range resp.Assignment.Topics {
				topic := kmsg.NewConsumerGroupHeartbeatRequestTopic()
				topic.TopicID, topic.Partitions = t.TopicID, t.Partitions
				owned = append(owned, topic)
				count += len(t.Partitions)
			}
			r.note(place, int(epoch), count)
			continue
		}
		count := 0
		for _, t := range owned {
			count += len(t.Partitions)
		}
		r.note(place, int(epoch), count)
		if !pause(ctx) {
			return nil
		}
	}
}

func (r *groupRun) classicMember(ctx context.Context, cl *kgo.Client, place int) error {
	id := ""
	for ctx.Err() == nil {
		join := kmsg.NewPtrJoinGroupRequest()
		join.Group, join.MemberID, join.ProtocolType = r.group, id, "consumer"
		join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = 45_000, 60_000
		protocol := kmsg.NewJoinGroupRequestProtocol()
		subscription := kmsg.NewConsumerMemberMetadata()
		subscription.Topics = []string{r.options.topic}
		protocol.Name, protocol.Metadata = "range", subscription.AppendTo(nil)
		join.Protocols = append(join.Protocols, protocol)
		joined, err := join.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		switch err := kerr.ErrorForCode(joined.ErrorCode); {
		case errors.Is(err, kerr.MemberIDRequired):
			id = joined.MemberID
			continue
		case errors.Is(err, kerr.RebalanceInProgress):
			continue
		case err != nil:
			return err
		}
		id = joined.MemberID
		sync := kmsg.NewPtrSyncGroupRequest()
		sync.Group, sync.MemberID, sync.Generation = r.group, id, joined.Generation
		sync.ProtocolType, sync.Protocol = kmsg.StringPtr("consumer"), joined.Protocol
		if joined.LeaderID == id {
			sync.GroupAssignment = r.assign(joined.Members)
		}
		synced, err := sync.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		if err := kerr.ErrorForCode(synced.ErrorCode); errors.Is(err, kerr.RebalanceInProgress) {
			continue
		} else if err != nil {
			return err
		}
		var assignment kmsg.ConsumerMemberAssignment
		if err := assignment.ReadFrom(synced.MemberAssignment); err != nil {
			return err
		}
		owned := 0
		for _, t := range assignment.Topics {
			owned += len(t.Partitions)
		}
		r.note(place, int(joined.Generation), owned)
		if err := r.beat(ctx, cl, id, joined.Generation); err != nil {
			return err
		}
	}
	return nil
}

// Says that the member lives until there is a rebalance.
func (r *groupRun) beat(ctx context.Context, cl *kgo.Client, id string, generation int32) error {
	for pause(ctx) {
		req := kmsg.NewPtrHeartbeatRequest()
		req.Group, req.MemberID, req.Generation = r.group, id, generation
		resp, err := req.RequestWith(ctx, cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if errors.Is(err, kerr.RebalanceInProgress) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *groupRun) assign(members []kmsg.JoinGroupResponseMember) []kmsg.SyncGroupRequestGroupAssignment {
	var all []kmsg.SyncGroupRequestGroupAssignment
	for i, member := range members {
		topic := kmsg.NewConsumerMemberAssignmentTopic()
		topic.Topic = r.options.topic
		for p := i; p < r.options.partitions; p += len(members) {
			topic.Partitions = append(topic.Partitions, int32(p))
		}
		assignment := kmsg.NewConsumerMemberAssignment()
		assignment.Topics = append(assignment.Topics, topic)
		one := kmsg.NewSyncGroupRequestGroupAssignment()
		one.MemberID, one.MemberAssignment = member.MemberID, assignment.AppendTo(nil)
		all = append(all, one)
	}
	return all
}

func memberID() string {
	var id [16]byte
	_, _ = rand.Read(id[:])
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// Commits offsets of the first partitions of the topic for a group without members.
func commit(ctx context.Context, cl *kgo.Client, o options, group string, partitions int, offset int64) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic = o.topic
	for p := range partitions {
		partition := kmsg.NewOffsetCommitRequestTopicPartition()
		partition.Partition, partition.Offset = int32(p), offset
		topic.Partitions = append(topic.Partitions, partition)
	}
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	for _, topic := range resp.Topics {
		for _, partition := range topic.Partitions {
			if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
				return err
			}
		}
	}
	return nil
}

// Runs a step again and again on each client, for the time given or as often as it says.
func (o options) repeat(
	ctx context.Context, client func(int) (*kgo.Client, error),
	step func(ctx context.Context, cl *kgo.Client, client, n int) (bool, error),
) (map[string]float64, error) {
	var failed firstError
	var all sync.WaitGroup
	var done atomic.Int64
	var mu sync.Mutex
	var took []int64
	clients := make([]*kgo.Client, o.clients)
	for i := range clients {
		cl, err := client(i)
		if err != nil {
			return nil, err
		}
		defer cl.Close()
		clients[i] = cl
	}
	begun := time.Now()
	end := begun.Add(time.Duration(o.seconds * float64(time.Second)))
	for i, cl := range clients {
		all.Add(1)
		go func() {
			defer all.Done()
			var own []int64
			for n := 0; time.Now().Before(end); n++ {
				at := time.Now()
				more, err := step(ctx, cl, i, n)
				if err != nil {
					failed.set(err)
					break
				}
				own = append(own, int64(time.Since(at)))
				done.Add(1)
				if !more {
					break
				}
			}
			mu.Lock()
			took = append(took, own...)
			mu.Unlock()
		}()
	}
	all.Wait()
	result := map[string]float64{"count": float64(done.Load()), "seconds": time.Since(begun).Seconds()}
	percentiles(result, "", took)
	return result, failed.err
}

// One offset a commit, each client for a group of its own.
func commits(ctx context.Context, o options) (map[string]float64, error) {
	return o.repeat(ctx, func(int) (*kgo.Client, error) { return o.asker() },
		func(ctx context.Context, cl *kgo.Client, client, n int) (bool, error) {
			return true, commit(ctx, cl, o, fmt.Sprint("commits-", client), 1, int64(n))
		})
}

// One record a transaction, all into one partition.
func transactions(ctx context.Context, o options) (map[string]float64, error) {
	client := func(i int) (*kgo.Client, error) {
		opts := append(o.producer(), kgo.TransactionalID(fmt.Sprint("load-", memberID(), i)),
			kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
		return kgo.NewClient(opts...)
	}
	value := values(100)[0]
	return o.repeat(ctx, client, func(ctx context.Context, cl *kgo.Client, _, _ int) (bool, error) {
		if err := cl.BeginTransaction(); err != nil {
			return false, err
		}
		if err := cl.ProduceSync(ctx, &kgo.Record{Value: value}).FirstErr(); err != nil {
			return false, err
		}
		return true, cl.EndTransaction(ctx, kgo.TryCommit)
	})
}

func filled(n int) string { return fmt.Sprint("filled-", n) }

// Commits -records offsets, a hundred for each of so many groups.
func fillOffsets(ctx context.Context, o options) (map[string]float64, error) {
	groups := o.records / offsetsPerCommit
	o.seconds = 600
	return o.repeat(ctx, func(int) (*kgo.Client, error) { return o.asker() },
		func(ctx context.Context, cl *kgo.Client, client, n int) (bool, error) {
			group := n*o.clients + client
			if group >= groups {
				return false, nil
			}
			return true, commit(ctx, cl, o, filled(group), offsetsPerCommit, int64(group))
		})
}

// Ends when the offsets of fillOffsets are told again, those of the first and of the last groups,
// which all partitions of the topic of offsets have some of.
func offsetsReady(ctx context.Context, o options) (map[string]float64, error) {
	cl, err := o.asker()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	req := kmsg.NewPtrOffsetFetchRequest()
	groups := map[string]int{}
	for n := range min(o.records/offsetsPerCommit, 25) {
		for _, group := range []int{n, o.records/offsetsPerCommit - 1 - n} {
			groups[filled(group)] = group
		}
	}
	for name := range groups {
		one := kmsg.NewOffsetFetchRequestGroup()
		one.Group = name
		req.Groups = append(req.Groups, one)
	}
	begun := time.Now()
	for {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return nil, err
		}
		told := 0
		for _, g := range resp.Groups {
			for _, topic := range g.Topics {
				for _, partition := range topic.Partitions {
					if partition.Offset == int64(groups[g.Group]) {
						told++
					}
				}
			}
		}
		if told == offsetsPerCommit*len(groups) {
			return map[string]float64{"seconds": time.Since(begun).Seconds()}, nil
		}
		for _, g := range resp.Groups {
			// While a coordinator loads it says so; offsets that are missing are lost.
			if err := kerr.ErrorForCode(g.ErrorCode); err != nil && !kerr.IsRetriable(err) {
				return nil, err
			} else if err == nil && len(g.Topics) == 0 {
				return nil, fmt.Errorf("group %s has no offsets", g.Group)
			}
		}
	}
}
