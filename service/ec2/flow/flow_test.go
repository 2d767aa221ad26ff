package flow

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	start = time.Unix(1418530010, 0).UTC()
	eni   = Interface{ID: "eni-1235b8ca123456789", Account: "123456789010", VPC: "vpc-1", Subnet: "subnet-1", ZoneID: "use1-az1", Region: "us-east-1",
		Cluster: "arn:c", ClusterName: "c", Container: "abc", Service: "web", TaskDefinition: "arn:td", Task: "arn:t", TaskID: "t"}
	ssh = Flow{Src: netip.MustParseAddr("172.31.16.139"), Dst: netip.MustParseAddr("172.31.16.21"), SrcPort: 20641, DstPort: 22, Protocol: 6, Packets: 20, Bytes: 4249,
		Start: start, End: start.Add(time.Minute), Action: Accept, TCPFlags: 2, PktSrc: netip.MustParseAddr("10.0.0.1"), PktDst: netip.MustParseAddr("172.31.16.21")}
)

func TestLine(t *testing.T) {
	out := ssh
	out.Egress, out.Path, out.Action, out.RejectReason = true, 8, Reject, "SG"
	for _, x := range []struct {
		format string
		r      Record
		want   string
	}{
		// The lines of AWS's own documentation.
		{Default, Record{eni, ssh, OK}, "2 123456789010 eni-1235b8ca123456789 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK"},
		{Default, Record{eni, Flow{Start: start, End: start.Add(time.Minute)}, NoData}, "2 123456789010 eni-1235b8ca123456789 - - - - - - - 1418530010 1418530070 - NODATA"},
		{Default, Record{eni, Flow{Start: start, End: start.Add(time.Minute)}, SkipData}, "2 123456789010 eni-1235b8ca123456789 - - - - - - - 1418530010 1418530070 - SKIPDATA"},
		{"${version} ${vpc-id} ${subnet-id} ${instance-id} ${tcp-flags} ${type} ${pkt-srcaddr} ${pkt-dstaddr}", Record{eni, ssh, OK}, "3 vpc-1 subnet-1 - 2 IPv4 10.0.0.1 172.31.16.21"},
		{"${region} ${az-id} ${sublocation-type} ${sublocation-id} ${version}", Record{eni, ssh, OK}, "us-east-1 use1-az1 - - 4"},
		{"${version} ${flow-direction} ${traffic-path} ${pkt-src-aws-service} ${pkt-dst-aws-service}", Record{eni, ssh, OK}, "5 ingress - - -"},
		{"${version} ${flow-direction} ${traffic-path} ${reject-reason} ${action}", Record{eni, out, OK}, "8 egress 8 SG REJECT"},
		{"${ecs-cluster-name} ${ecs-container-id} ${ecs-second-container-id} ${ecs-service-name} ${ecs-task-id} ${ecs-container-instance-arn} ${version}", Record{eni, ssh, OK}, "c abc - web t - 7"},
		{"${interface-id} ${tcp-flags} ${flow-direction}", Record{eni, Flow{Start: start, End: start}, NoData}, "eni-1235b8ca123456789 - -"},
	} {
		f, err := Parse(x.format)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Line(x.r); got != x.want {
			t.Errorf("%s\n got: %s\nwant: %s", x.format, got, x.want)
		}
	}
	for format, want := range map[string]string{
		"":                     `"" is not a field of the form ${field}`,
		"${version}  ${start}": `"" is not a field of the form ${field}`,
		"version":              `"version" is not a field of the form ${field}`,
		"${colour}":            `there is no field "colour"`,
		"${start} ${start}":    `the field "start" is there twice`,
		"${start},${end}":      `there is no field "start},${end"`,
	} {
		if _, err := Parse(format); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", format, err, want)
		}
	}
}

// Whatever the format and the record: as many words as fields, none of them empty.
func TestEveryFieldIsOneWord(t *testing.T) {
	names := slices.Sorted(maps.Keys(fields))
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		var words []string
		for _, n := range names[:1+r.IntN(len(names))] {
			words = append(words, "${"+n+"}")
		}
		f, err := Parse(strings.Join(words, " "))
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range Records(eni, random(r), []string{Accept, Reject, "ALL"}[r.IntN(3)], r.IntN(2) == 0, start, start.Add(time.Minute)) {
			got := strings.Split(f.Line(rec), " ")
			if len(got) != len(words) || slices.Contains(got, "") {
				t.Fatalf("seed %d: %q has %d words, not %d", seed, f.Line(rec), len(got), len(words))
			}
		}
	}
}

func random(r *rand.Rand) (out []Flow) {
	for range r.IntN(30) {
		a := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(3))}) }
		s := start.Add(time.Duration(r.IntN(60)) * time.Second)
		out = append(out, Flow{Egress: r.IntN(2) == 0, Src: a(), Dst: a(), SrcPort: uint16(r.IntN(2)), DstPort: uint16(r.IntN(2)), Protocol: 6, Packets: 1 + r.Int64N(9), Bytes: 40 + r.Int64N(99),
			Start: s, End: s.Add(time.Duration(r.IntN(9)) * time.Second), Action: []string{Accept, Reject}[r.IntN(2)], TCPFlags: uint8(r.IntN(8)), PktSrc: a(), PktDst: a()})
	}
	return out
}

// Merging loses no packet and no byte, leaves each flow once, in order of time,
// and does nothing to what is merged.
func TestMerge(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		in := random(r)
		total := func(fs []Flow) map[string]int64 {
			m := map[string]int64{}
			for _, f := range fs {
				m["packets "+f.Action] += f.Packets
				m["bytes "+f.Action] += f.Bytes
			}
			return m
		}
		out := Merge(in)
		if !maps.Equal(total(in), total(out)) {
			t.Fatalf("seed %d: %v became %v", seed, total(in), total(out))
		}
		seen := map[string]bool{}
		for i, f := range out {
			k := fmt.Sprint(f.Egress, f.Src, f.Dst, f.SrcPort, f.DstPort, f.Protocol, f.Action, f.PktSrc, f.PktDst)
			if seen[k] || i > 0 && f.Start.Before(out[i-1].Start) {
				t.Fatalf("seed %d: %s is there twice or too late", seed, k)
			}
			seen[k] = true
			for _, g := range in {
				if k == fmt.Sprint(g.Egress, g.Src, g.Dst, g.SrcPort, g.DstPort, g.Protocol, g.Action, g.PktSrc, g.PktDst) && (g.Start.Before(f.Start) || g.End.After(f.End) || g.TCPFlags&^f.TCPFlags != 0) {
					t.Fatalf("seed %d: %+v is not within %+v", seed, g, f)
				}
			}
		}
		if again := Merge(out); !slices.Equal(again, out) {
			t.Fatalf("seed %d: merged again it is %v", seed, again)
		}
	}
}

func TestRecords(t *testing.T) {
	refused := ssh
	refused.Action = Reject
	status := func(rs []Record) (out []string) {
		for _, r := range rs {
			out = append(out, r.Status+r.Action)
		}
		return out
	}
	for _, x := range []struct {
		flows   []Flow
		wanted  string
		skipped bool
		want    []string
	}{
		{nil, "ALL", false, []string{"NODATA"}},
		{[]Flow{ssh}, "ALL", false, []string{"OKACCEPT"}},
		{[]Flow{ssh, refused}, Accept, false, []string{"OKACCEPT"}},
		{[]Flow{ssh}, Reject, false, []string{"NODATA"}},
		{[]Flow{refused}, Reject, true, []string{"OKREJECT", "SKIPDATA"}},
		{nil, "ALL", true, []string{"SKIPDATA"}},
	} {
		if got := status(Records(eni, x.flows, x.wanted, x.skipped, start, start.Add(time.Minute))); !slices.Equal(got, x.want) {
			t.Errorf("%s of %d flows: %q, want %q", x.wanted, len(x.flows), got, x.want)
		}
	}
	if got := Stream("eni-1", "ALL"); got != "eni-1-all" {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Default)
	f.Add("${version} ${")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		// What can be read is written the same again.
		var words []string
		for _, n := range p.names {
			words = append(words, "${"+n+"}")
		}
		if got := strings.Join(words, " "); got != text {
			t.Errorf("%q was read as %q", text, got)
		}
		if got := strings.Count(p.Line(Record{eni, ssh, OK}), " "); got != len(p.names)-1 {
			t.Errorf("%q has %d spaces", text, got)
		}
	})
}
