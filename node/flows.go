package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/berth-run/berth/dataplane/vpc"
	"github.com/berth-run/berth/dispatch/fabric"
)

// flowInterval is how long a window of flow logs is.
const flowInterval = time.Minute

// maxFlowRecords bounds what is kept for a server that is not there: of older
// windows only which interfaces they were about is kept, as skipped, and of
// those only so many.
const (
	maxFlowRecords = 50000
	maxFlowWindows = 120
)

// flows keeps the windows that are not told yet.
type flows struct {
	mu      sync.Mutex
	windows []fabric.FlowWindow
	wake    chan struct{}
}

func newFlows() *flows { return &flows{wake: make(chan struct{}, 1)} }

// add keeps a window, at the cost of older ones.
func (f *flows) add(w fabric.FlowWindow) {
	f.mu.Lock()
	f.windows = bounded(append(f.windows, w))
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// take answers the windows that are to be told, the oldest first.
func (f *flows) take() []fabric.FlowWindow {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.windows
	f.windows = nil
	return out
}

// giveBack takes what could not be told.
func (f *flows) giveBack(old []fabric.FlowWindow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.windows = bounded(append(old, f.windows...))
}

func bounded(ws []fabric.FlowWindow) []fabric.FlowWindow {
	ws = ws[max(0, len(ws)-maxFlowWindows):]
	records := 0
	for i, w := range slices.Backward(ws) {
		if records += len(w.Records); records > maxFlowRecords {
			ws[i].Records, ws[i].Skipped = nil, w.Interfaces
		}
	}
	return ws
}

// countFlows closes a window of flow logs each minute, on the minute.
func (n *node) countFlows(ctx context.Context) error {
	for {
		now := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(now.Truncate(flowInterval).Add(flowInterval).Sub(now)):
		}
		n.mu.Lock()
		f := n.opened
		n.mu.Unlock()
		if f == nil {
			continue
		}
		w, err := f.Flows()
		if err != nil && ctx.Err() == nil {
			n.log.Error("flow logs", "err", err)
		}
		if len(w.Interfaces) > 0 {
			n.flows.add(flowWindow(w))
		}
	}
}

// flowWindow says a window in the server's words.
func flowWindow(w vpc.FlowWindow) fabric.FlowWindow {
	out := fabric.FlowWindow{Start: w.Start, End: w.End, Interfaces: w.Interfaces, Skipped: w.Skipped}
	for _, f := range w.Flows {
		r := fabric.Flow{Interface: f.ENI, Egress: f.Egress, Src: f.Src, Dst: f.Dst, SrcPort: f.SrcPort, DstPort: f.DstPort, Protocol: f.Protocol,
			Packets: f.Packets, Bytes: f.Bytes, Start: f.Start, End: f.End, Action: fabric.FlowAccept, TCPFlags: f.Flags, PktSrc: f.PktSrc, PktDst: f.PktDst}
		if f.Rejected != "" {
			r.Action, r.RejectReason = fabric.FlowReject, string(f.Rejected)
		}
		out.Records = append(out.Records, r)
	}
	return out
}

// tellFlows sends the windows there are, one in a frame.
func (n *node) tellFlows(ctx context.Context, c *websocket.Conn) error {
	ws := n.flows.take()
	for i, w := range ws {
		if err := write(ctx, c, fabric.Report{Flows: []fabric.FlowWindow{w}}); err != nil {
			n.flows.giveBack(ws[i:])
			return err
		}
	}
	return nil
}
