package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// How often each connection asks for the brokers, as clients with nothing to do refresh metadata.
const idlePeriod = 10 * time.Second

// Connections that say hello and then ask for the list of brokers now and then. Prints "ready" when
// all are up.
func idle(ctx context.Context, o options) (map[string]float64, error) {
	conns := make([]net.Conn, 0, o.connections)
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	begun := time.Now()
	for i := range o.connections {
		conn, err := net.Dial("tcp", o.bootstrap)
		if err != nil {
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
		conns = append(conns, conn)
		if err := ask(conn, 18, 0, nil); err != nil {
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
	}
	opened := time.Since(begun).Seconds()
	fmt.Println("ready")
	end := time.Now().Add(time.Duration(o.seconds * float64(time.Second)))
	var failed firstError
	var all sync.WaitGroup
	var asked sync.Map
	for i, conn := range conns {
		all.Add(1)
		go func() {
			defer all.Done()
			next := time.Now().Add(idlePeriod * time.Duration(i) / time.Duration(len(conns)))
			for ; next.Before(end); next = next.Add(idlePeriod) {
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Until(next)):
				}
				// Metadata v1 of no topics.
				failed.set(ask(conn, 3, 1, []byte{0, 0, 0, 0}))
				asked.Store(i, true)
			}
			time.Sleep(time.Until(end))
		}()
	}
	all.Wait()
	requests := 0
	asked.Range(func(any, any) bool { requests++; return true })
	return map[string]float64{
		"connections": float64(len(conns)), "open_seconds": opened, "asked": float64(requests),
		"seconds": o.seconds,
	}, failed.err
}

func ask(conn net.Conn, key, version uint16, body []byte) error {
	const client = "idle"
	frame := binary.BigEndian.AppendUint32(nil, uint32(10+len(client)+len(body)))
	frame = binary.BigEndian.AppendUint16(frame, key)
	frame = binary.BigEndian.AppendUint16(frame, version)
	frame = binary.BigEndian.AppendUint32(frame, 7)
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(client)))
	frame = append(append(frame, client...), body...)
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write(frame); err != nil {
		return err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(size[:])))
	return err
}
