// Package stats keeps the two latest readings of each running container's
// counters: rates and percentages need both.
package stats

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/dispatch/acs"
)

// Every is how often the counters are read.
const Every = 10 * time.Second

// Sampler reads counters. New makes one.
type Sampler struct {
	rt  runtime.Runtime
	log *slog.Logger

	mu  sync.Mutex
	byC map[string]*samples
}

type samples struct {
	now, before runtime.Stats
	metric      *acs.ContainerMetric // since the last Take
}

// New makes a sampler.
func New(rt runtime.Runtime, log *slog.Logger) *Sampler {
	return &Sampler{rt: rt, log: log, byC: map[string]*samples{}}
}

// Container says which container to read.
type Container struct {
	ID, Name, Arn string
	Sharing       uint64 // how many containers share its network
}

// Run reads the counters of all running containers, as list names them, every
// ten seconds.
func (s *Sampler) Run(ctx context.Context, list func() []Container) error {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		running := list()
		keep := make(map[string]bool, len(running))
		for _, c := range running {
			keep[c.ID] = true
			if _, _, err := s.Read(ctx, c); err != nil && ctx.Err() == nil &&
				!errors.Is(err, runtime.ErrNotRunning) && !errors.Is(err, runtime.ErrNotFound) && !errors.Is(err, runtime.ErrUnavailable) {
				s.log.Warn("cannot read a container's counters", "container", c.ID, "error", err)
			}
		}
		s.mu.Lock()
		for id := range s.byC {
			if !keep[id] {
				delete(s.byC, id)
			}
		}
		s.mu.Unlock()
	}
}

// Read reads a container's counters now and answers them with the reading before.
func (s *Sampler) Read(ctx context.Context, c Container) (now, before runtime.Stats, err error) {
	now, err = s.rt.Stats(ctx, c.ID)
	if err != nil {
		return now, before, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.byC[c.ID]
	if x == nil {
		x = &samples{}
		s.byC[c.ID] = x
	}
	x.before, x.now = x.now, now
	x.add(c)
	return x.now, x.before, nil
}

// Take answers what was read of a container since it was last taken; nil if
// that was nothing.
func (s *Sampler) Take(id string) *acs.ContainerMetric {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.byC[id]
	if x == nil {
		return nil
	}
	m := x.metric
	x.metric = nil
	return m
}

// Rates answers a container's network rates between its two latest readings.
func Rates(now, before runtime.Stats) (rx, tx float64, ok bool) {
	d := now.Time.Sub(before.Time).Seconds()
	if before.Time.IsZero() || d <= 0 {
		return 0, 0, false
	}
	n, b := total(now), total(before)
	return float64(since(n.RxBytes, b.RxBytes)) / d, float64(since(n.TxBytes, b.TxBytes)) / d, true
}

func (x *samples) add(c Container) {
	if x.metric == nil {
		x.metric = &acs.ContainerMetric{ContainerName: c.Name, ContainerArn: c.Arn, CPUStatsSet: &acs.CWStatsSet{}, MemoryStatsSet: &acs.CWStatsSet{}}
	}
	m := x.metric
	m.MemoryStatsSet.Add(float64(since(x.now.Memory.Usage, x.now.Memory.Cache)) / (1 << 20))
	if d := x.now.Time.Sub(x.before.Time); !x.before.Time.IsZero() && d > 0 {
		m.CPUStatsSet.Add(100 * float64(since(x.now.CPU.Total, x.before.CPU.Total)) / float64(d))
	}
	share := max(1, c.Sharing)
	if len(x.now.Network) > 0 {
		if m.NetworkStatsSet == nil {
			m.NetworkStatsSet = &acs.NetworkStatsSet{
				RxBytes: new(acs.ULongStatsSet), RxDropped: new(acs.ULongStatsSet), RxErrors: new(acs.ULongStatsSet), RxPackets: new(acs.ULongStatsSet),
				TxBytes: new(acs.ULongStatsSet), TxDropped: new(acs.ULongStatsSet), TxErrors: new(acs.ULongStatsSet), TxPackets: new(acs.ULongStatsSet),
			}
		}
		n, t := m.NetworkStatsSet, total(x.now)
		n.RxBytes.Add(t.RxBytes / share)
		n.RxDropped.Add(t.RxDropped / share)
		n.RxErrors.Add(t.RxErrors / share)
		n.RxPackets.Add(t.RxPackets / share)
		n.TxBytes.Add(t.TxBytes / share)
		n.TxDropped.Add(t.TxDropped / share)
		n.TxErrors.Add(t.TxErrors / share)
		n.TxPackets.Add(t.TxPackets / share)
		if rx, tx, ok := Rates(x.now, x.before); ok {
			if n.RxBytesPerSecond == nil {
				n.RxBytesPerSecond, n.TxBytesPerSecond = new(acs.CWStatsSet), new(acs.CWStatsSet)
			}
			n.RxBytesPerSecond.Add(rx / float64(share))
			n.TxBytesPerSecond.Add(tx / float64(share))
		}
	}
	if len(x.now.BlockIO) > 0 {
		if m.StorageStatsSet == nil {
			m.StorageStatsSet = &acs.StorageStatsSet{ReadSizeBytes: new(acs.ULongStatsSet), WriteSizeBytes: new(acs.ULongStatsSet)}
		}
		var read, written uint64
		for _, b := range x.now.BlockIO {
			read += b.ReadBytes
			written += b.WriteBytes
		}
		m.StorageStatsSet.ReadSizeBytes.Add(read)
		m.StorageStatsSet.WriteSizeBytes.Add(written)
	}
}

func total(s runtime.Stats) (t runtime.NetworkStats) {
	for _, n := range s.Network {
		t.RxBytes += n.RxBytes
		t.RxPackets += n.RxPackets
		t.RxErrors += n.RxErrors
		t.RxDropped += n.RxDropped
		t.TxBytes += n.TxBytes
		t.TxPackets += n.TxPackets
		t.TxErrors += n.TxErrors
		t.TxDropped += n.TxDropped
	}
	return t
}

// since is how far a counter has come; one that was set back has come nowhere.
func since(now, before uint64) uint64 {
	if now < before {
		return 0
	}
	return now - before
}
