package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func franzGo(s settings, t *teller, stopped <-chan struct{}) error {
	balancers := map[string]kgo.GroupBalancer{
		"range": kgo.RangeBalancer(), "roundrobin": kgo.RoundRobinBalancer(),
		"cooperative-sticky": kgo.CooperativeStickyBalancer(),
	}
	told := func(kind string, before func(*kgo.Client)) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, cl *kgo.Client, of map[string][]int32) {
			if before != nil && len(of[s.topic]) > 0 {
				before(cl)
			}
			t.partitions(kind, slices.Clone(of[s.topic]))
		}
	}
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(s.bootstrap, ",")...),
		kgo.ConsumerGroup(s.group), kgo.ConsumeTopics(s.topic), kgo.Balancers(balancers[s.assignor]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		// What was polled is dealt with before its partitions can go.
		kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(sessionTimeout), kgo.HeartbeatInterval(heartbeatInterval),
		kgo.FetchMaxWait(fetchWait), kgo.FetchMinBytes(fetchMin),
		kgo.OnPartitionsAssigned(told("assigned", nil)),
		kgo.OnPartitionsRevoked(told("revoked", func(cl *kgo.Client) { commit(s, t, cl) })),
		kgo.OnPartitionsLost(told("lost", nil)),
	)
	if err != nil {
		return err
	}
	last := time.Now()
	for {
		select {
		case <-stopped:
			cl.CloseAllowingRebalance()
			return nil
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), fetchWait)
		fetches := cl.PollRecords(ctx, 500)
		cancel()
		fetches.EachRecord(func(r *kgo.Record) { t.read(r.Partition, r.Offset, r.Value) })
		if time.Since(last) > commitInterval {
			commit(s, t, cl)
			last = time.Now()
		}
		cl.AllowRebalance()
	}
}

func commit(s settings, t *teller, cl *kgo.Client) {
	positions := t.positions()
	if len(positions) == 0 {
		return
	}
	offsets := map[int32]kgo.EpochOffset{}
	for p, next := range positions {
		offsets[p] = kgo.EpochOffset{Epoch: -1, Offset: next}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	of := map[string]map[int32]kgo.EpochOffset{s.topic: offsets}
	cl.CommitOffsetsSync(ctx, of,
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
			if err == nil {
				for _, topic := range answer.Topics {
					for _, p := range topic.Partitions {
						if why := kerr.ErrorForCode(p.ErrorCode); why != nil {
							err = fmt.Errorf("%d: %w", p.Partition, why)
						}
					}
				}
			}
			if err != nil {
				t.refused(err)
				return
			}
			t.committed(maps.Clone(positions))
		})
}
