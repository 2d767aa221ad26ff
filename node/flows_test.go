package node

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/berth-run/berth/dataplane/vpc"
	"github.com/berth-run/berth/dispatch/fabric"
)

func TestFlowsAreBounded(t *testing.T) {
	f := newFlows()
	window := func(id string, records int) fabric.FlowWindow {
		return fabric.FlowWindow{Interfaces: []string{id}, Records: make([]fabric.Flow, records)}
	}
	f.add(window("eni-1", maxFlowRecords))
	f.add(window("eni-2", 1))
	f.add(window("eni-3", maxFlowRecords-1))
	ws := f.take()
	// The newest are kept whole, and of the older ones it is said that something is missing.
	if len(ws) != 3 || ws[0].Records != nil || len(ws[0].Skipped) != 1 || len(ws[1].Records) != 1 || len(ws[2].Records) != maxFlowRecords-1 {
		t.Errorf("%d windows: %d %d %d records", len(ws), len(ws[0].Records), len(ws[1].Records), len(ws[2].Records))
	}
	if len(f.take()) != 0 {
		t.Error("taken twice")
	}
	f.add(window("eni-4", 1))
	f.giveBack(ws)
	if ws := f.take(); len(ws) != 4 || ws[3].Interfaces[0] != "eni-4" {
		t.Errorf("%d windows, not in order", len(ws))
	}
	for range maxFlowWindows + 10 {
		f.add(window("eni-1", 0))
	}
	if n := len(f.take()); n != maxFlowWindows {
		t.Errorf("%d windows are kept", n)
	}
}

func TestFlowWindow(t *testing.T) {
	at := time.Unix(1000, 0)
	a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	w := flowWindow(vpc.FlowWindow{Start: at, End: at.Add(time.Minute), Interfaces: []string{"eni-1"}, Flows: []vpc.Flow{
		{ENI: "eni-1", Egress: true, Protocol: 6, Src: a, Dst: b, PktSrc: c, PktDst: b, SrcPort: 1, DstPort: 2, Packets: 3, Bytes: 4, Start: at, End: at, Flags: 18},
		{ENI: "eni-1", Protocol: 17, Src: b, Dst: a, Rejected: vpc.RejectedByACL},
	}})
	want := fabric.Flow{Interface: "eni-1", Egress: true, Protocol: 6, Src: a, Dst: b, PktSrc: c, PktDst: b, SrcPort: 1, DstPort: 2, Packets: 3, Bytes: 4, Start: at, End: at, TCPFlags: 18, Action: fabric.FlowAccept}
	if len(w.Records) != 2 || w.Records[0] != want || w.Records[1].Action != fabric.FlowReject || w.Records[1].RejectReason != fabric.RejectByACL {
		t.Errorf("%+v", w)
	}
	if string(vpc.RejectedByGroup) != fabric.RejectBySecurityGroup {
		t.Error("the words for a group's refusal differ")
	}
}

func TestAPIPort(t *testing.T) {
	for endpoint, want := range map[string]uint16{"http://127.0.0.1:4566": 4566, "http://x": 0, "://": 0, "http://x:99999": 0} {
		if got := apiPort(&fabric.Region{Endpoint: endpoint}); got != want {
			t.Errorf("%s: %d, want %d", endpoint, got, want)
		}
	}
}

func TestAnInterfaceThatIsNoLongerHereIsReported(t *testing.T) {
	w := newWanted()
	i := fabric.Interface{ID: "eni-1", Here: true}
	w.take(fabric.Desired{Interfaces: []fabric.Interface{i}})
	i.Here = false
	w.take(fabric.Desired{Interfaces: []fabric.Interface{i}})
	if !w.Gone["eni-1"] || len(w.Interfaces) != 1 {
		t.Error(errors.New("it is not to be reported as removed"), w)
	}
	w.take(fabric.Desired{Interfaces: []fabric.Interface{i}}) // once more, before it is gone
	if c := vpcConfig(w); len(c.ENIs) != 1 || !c.ENIs[0].Elsewhere {
		t.Errorf("%+v", c)
	}
}
