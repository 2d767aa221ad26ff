// Package flow is the language of VPC flow logs: which fields a format may
// have, how records of one flow become one, and how a record is written as a
// line. It is pure: it must never know where records come from or lines go.
package flow

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Default is the format of a flow log that was made without one.
const Default = "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} ${bytes} ${start} ${end} ${action} ${log-status}"

// Statuses of records.
const (
	OK       = "OK"
	NoData   = "NODATA"   // there was no traffic
	SkipData = "SKIPDATA" // there was more than could be kept
)

// Actions.
const (
	Accept = "ACCEPT"
	Reject = "REJECT"
)

// A Record is one line of a flow log before it is written.
type Record struct {
	Interface
	Flow
	Status string
}

// Interface is what a record says of the interface that was watched, and of
// the task to which it belongs. "" is not known.
type Interface struct {
	ID, Account, VPC, Subnet, Instance, ZoneID, Region string

	Cluster, ClusterName                   string
	ContainerInstance, ContainerInstanceID string
	Container, SecondContainer             string
	Service, TaskDefinition, Task, TaskID  string
}

// Flow is what went over an interface in one direction in a span of time.
type Flow struct {
	Egress           bool
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Protocol         uint8
	Packets, Bytes   int64
	Start, End       time.Time
	Action           string
	RejectReason     string
	TCPFlags         uint8
	PktSrc, PktDst   netip.Addr
	Path             int // of what leaves; 0: not known
}

// A field is one that a format may name.
type field struct {
	version int // of the format that brought it
	// of is its text; "" is written as -. Of a record without traffic only
	// those of the interface and of the record itself are known.
	of func(Record, int) string
}

func about(version int, of func(Interface) string) field {
	return field{version, func(r Record, _ int) string { return of(r.Interface) }}
}

func traffic(version int, of func(Flow) string) field {
	return field{version, func(r Record, _ int) string {
		if r.Status != OK {
			return ""
		}
		return of(r.Flow)
	}}
}

func unknown(version int) field { return field{version, func(Record, int) string { return "" }} }

func addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func num[T ~uint8 | ~uint16 | ~int64 | ~int](n T) string { return strconv.FormatInt(int64(n), 10) }

var fields = map[string]field{
	"version":      {2, func(_ Record, version int) string { return num(version) }},
	"account-id":   about(2, func(i Interface) string { return i.Account }),
	"interface-id": about(2, func(i Interface) string { return i.ID }),
	"srcaddr":      traffic(2, func(f Flow) string { return addr(f.Src) }),
	"dstaddr":      traffic(2, func(f Flow) string { return addr(f.Dst) }),
	"srcport":      traffic(2, func(f Flow) string { return num(f.SrcPort) }),
	"dstport":      traffic(2, func(f Flow) string { return num(f.DstPort) }),
	"protocol":     traffic(2, func(f Flow) string { return num(f.Protocol) }),
	"packets":      traffic(2, func(f Flow) string { return num(f.Packets) }),
	"bytes":        traffic(2, func(f Flow) string { return num(f.Bytes) }),
	"start":        {2, func(r Record, _ int) string { return num(r.Start.Unix()) }},
	"end":          {2, func(r Record, _ int) string { return num(r.End.Unix()) }},
	"action":       traffic(2, func(f Flow) string { return f.Action }),
	"log-status":   {2, func(r Record, _ int) string { return r.Status }},

	"vpc-id":      about(3, func(i Interface) string { return i.VPC }),
	"subnet-id":   about(3, func(i Interface) string { return i.Subnet }),
	"instance-id": about(3, func(i Interface) string { return i.Instance }),
	"tcp-flags":   traffic(3, func(f Flow) string { return num(f.TCPFlags) }),
	"type": traffic(3, func(f Flow) string {
		if f.Src.Is6() {
			return "IPv6"
		}
		return "IPv4"
	}),
	"pkt-srcaddr": traffic(3, func(f Flow) string { return addr(f.PktSrc) }),
	"pkt-dstaddr": traffic(3, func(f Flow) string { return addr(f.PktDst) }),

	"region":           about(4, func(i Interface) string { return i.Region }),
	"az-id":            about(4, func(i Interface) string { return i.ZoneID }),
	"sublocation-type": unknown(4), // there are no outposts and no local zones
	"sublocation-id":   unknown(4),

	"pkt-src-aws-service": unknown(5), // no address here is one of AWS's published ranges
	"pkt-dst-aws-service": unknown(5),
	"flow-direction": traffic(5, func(f Flow) string {
		if f.Egress {
			return "egress"
		}
		return "ingress"
	}),
	"traffic-path": traffic(5, func(f Flow) string {
		if !f.Egress || f.Path == 0 {
			return ""
		}
		return num(f.Path)
	}),

	"ecs-cluster-arn":            about(7, func(i Interface) string { return i.Cluster }),
	"ecs-cluster-name":           about(7, func(i Interface) string { return i.ClusterName }),
	"ecs-container-instance-arn": about(7, func(i Interface) string { return i.ContainerInstance }),
	"ecs-container-instance-id":  about(7, func(i Interface) string { return i.ContainerInstanceID }),
	"ecs-container-id":           about(7, func(i Interface) string { return i.Container }),
	"ecs-second-container-id":    about(7, func(i Interface) string { return i.SecondContainer }),
	"ecs-service-name":           about(7, func(i Interface) string { return i.Service }),
	"ecs-task-definition-arn":    about(7, func(i Interface) string { return i.TaskDefinition }),
	"ecs-task-arn":               about(7, func(i Interface) string { return i.Task }),
	"ecs-task-id":                about(7, func(i Interface) string { return i.TaskID }),

	"reject-reason": traffic(8, func(f Flow) string { return f.RejectReason }),
}

// A Format says which fields a line has, in which order.
type Format struct {
	names   []string
	version int
}

// Parse reads a format: fields as ${name}, with spaces between them.
func Parse(text string) (Format, error) {
	var f Format
	for _, word := range strings.Split(text, " ") {
		name, ok := strings.CutPrefix(word, "${")
		name, ends := strings.CutSuffix(name, "}")
		if !ok || !ends {
			return Format{}, fmt.Errorf("%q is not a field of the form ${field}", word)
		}
		x, ok := fields[name]
		if !ok {
			return Format{}, fmt.Errorf("there is no field %q", name)
		}
		if slices.Contains(f.names, name) {
			return Format{}, fmt.Errorf("the field %q is there twice", name)
		}
		f.names = append(f.names, name)
		f.version = max(f.version, x.version)
	}
	return f, nil
}

// Line writes a record. What is not known is a dash.
func (f Format) Line(r Record) string {
	var b strings.Builder
	for i, name := range f.names {
		if i > 0 {
			b.WriteByte(' ')
		}
		text := fields[name].of(r, f.version)
		if text == "" {
			text = "-"
		}
		b.WriteString(text)
	}
	return b.String()
}

// key is what tells flows apart.
type key struct {
	egress           bool
	src, dst         netip.Addr
	srcPort, dstPort uint16
	protocol         uint8
	action, reason   string
	pktSrc, pktDst   netip.Addr
}

// Merge makes one flow of all that are the same but for when and how much, in
// the order of their beginnings.
func Merge(flows []Flow) []Flow {
	at := map[key]int{}
	var out []Flow
	for _, f := range flows {
		k := key{f.Egress, f.Src, f.Dst, f.SrcPort, f.DstPort, f.Protocol, f.Action, f.RejectReason, f.PktSrc, f.PktDst}
		i, ok := at[k]
		if !ok {
			at[k] = len(out)
			out = append(out, f)
			continue
		}
		x := &out[i]
		x.Packets += f.Packets
		x.Bytes += f.Bytes
		x.TCPFlags |= f.TCPFlags
		if f.Start.Before(x.Start) {
			x.Start = f.Start
		}
		if f.End.After(x.End) {
			x.End = f.End
		}
	}
	slices.SortStableFunc(out, func(a, b Flow) int {
		return cmp.Or(a.Start.Compare(b.Start), a.Src.Compare(b.Src), a.Dst.Compare(b.Dst), cmp.Compare(a.SrcPort, b.SrcPort), cmp.Compare(a.DstPort, b.DstPort))
	})
	return out
}

// Records are the records of one interface and one span of time that a log of
// some traffic (ACCEPT, REJECT or ALL) gets: at least one.
func Records(i Interface, flows []Flow, wanted string, skipped bool, start, end time.Time) (out []Record) {
	for _, f := range Merge(flows) {
		if wanted == f.Action || wanted != Accept && wanted != Reject {
			out = append(out, Record{i, f, OK})
		}
	}
	span := Flow{Start: start, End: end}
	switch {
	case skipped:
		out = append(out, Record{i, span, SkipData})
	case len(out) == 0:
		out = append(out, Record{i, span, NoData})
	}
	return out
}

// Stream is the log stream of an interface in a log of some traffic.
func Stream(eni, wanted string) string { return eni + "-" + strings.ToLower(wanted) }
