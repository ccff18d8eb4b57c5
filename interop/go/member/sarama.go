package main

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

func saramaMember(s settings, t *teller, stopped <-chan struct{}) error {
	strategies := map[string]sarama.BalanceStrategy{
		"range": sarama.NewBalanceStrategyRange(), "roundrobin": sarama.NewBalanceStrategyRoundRobin(),
	}
	config := sarama.NewConfig()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Session.Timeout = sessionTimeout
	config.Consumer.Group.Heartbeat.Interval = heartbeatInterval
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategies[s.assignor]}
	config.Consumer.MaxWaitTime = fetchWait
	config.Consumer.Fetch.Min = fetchMin
	config.Consumer.Return.Errors = true
	client, err := sarama.NewClient(strings.Split(s.bootstrap, ","), config)
	if err != nil {
		return err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return err
	}
	group, err := sarama.NewConsumerGroupFromClient(s.group, client)
	if err != nil {
		return err
	}
	go func() {
		for err := range group.Errors() {
			println(err.Error())
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-stopped
		cancel()
	}()
	m := &saramaHandler{settings: s, t: t, admin: admin}
	for ctx.Err() == nil {
		if err := group.Consume(ctx, []string{s.topic}, m); err != nil {
			println(err.Error())
			time.Sleep(100 * time.Millisecond)
		}
	}
	return group.Close()
}

type saramaHandler struct {
	settings
	t     *teller
	admin sarama.ClusterAdmin
	// The task that commits now and then.
	commits sync.WaitGroup
	over    chan struct{}
}

func (m *saramaHandler) Setup(session sarama.ConsumerGroupSession) error {
	m.t.partitions("assigned", slices.Clone(session.Claims()[m.topic]))
	m.over = make(chan struct{})
	m.commits.Go(func() {
		for {
			select {
			case <-m.over:
				return
			case <-time.After(commitInterval):
				m.commit(session)
			}
		}
	})
	return nil
}

func (m *saramaHandler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case record, more := <-claim.Messages():
			if !more {
				return nil
			}
			m.t.read(record.Partition, record.Offset, record.Value)
			session.MarkMessage(record, "")
		case <-session.Context().Done():
			return nil
		}
	}
}

// Cleanup comes when all claims have ended and before another one can have them.
func (m *saramaHandler) Cleanup(session sarama.ConsumerGroupSession) error {
	close(m.over)
	m.commits.Wait()
	m.commit(session)
	m.t.partitions("revoked", slices.Clone(session.Claims()[m.topic]))
	return nil
}

// A commit does not say whether it was taken, so the group is asked.
func (m *saramaHandler) commit(session sarama.ConsumerGroupSession) {
	positions := m.t.positions()
	if len(positions) == 0 {
		return
	}
	session.Commit()
	var partitions []int32
	for p := range positions {
		partitions = append(partitions, p)
	}
	answer, err := m.admin.ListConsumerGroupOffsets(m.group, map[string][]int32{m.topic: partitions})
	if err != nil {
		m.t.refused(err)
		return
	}
	taken, all := map[int32]int64{}, true
	for p, block := range answer.Blocks[m.topic] {
		if block.Err == sarama.ErrNoError && block.Offset >= 0 {
			taken[p] = block.Offset
		}
		all = all && block.Offset >= positions[p]
	}
	m.t.committed(taken)
	if !all {
		m.t.tell("refused", "not all was taken")
	}
}
