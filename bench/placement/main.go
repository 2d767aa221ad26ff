// Command placement measures how fast container instances are chosen for tasks: 5,000 instances in three zones that
// 100,000 tasks of mixed shapes fill, with ports and network interfaces accounted for. At that fill tasks end at random
// and others take their place, each one a decision.
//
//	go run ./bench/placement [-n 200000]
//
// It runs on one core. Targets: 100,000 decisions a second for spread and binpack, 20,000 with memberOf expressions,
// and a 99th percentile under 2 ms for the ten decisions of one RunTask.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/berth-run/berth/control/place/fill"
)

const (
	instances = 5000
	tasks     = 100_000
)

func main() {
	n := flag.Int("n", 200_000, "decisions of each measurement")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	fmt.Printf("%d instances, %d tasks, %d decisions each, one core\n\n", instances, tasks, *n)
	fmt.Printf("%-34s %14s %12s %12s %12s\n", "", "decisions/s", "p50 of 10", "p99 of 10", "no room")
	ok := true
	for _, c := range cases() {
		r := c.run(*n)
		verdict := ""
		if r.rate < c.target || r.p99 > 2*time.Millisecond {
			ok, verdict = false, "  below target"
		}
		fmt.Printf("%-34s %14.0f %12v %12v %11.1f%%%s\n", c.name, r.rate, r.p50.Round(time.Microsecond), r.p99.Round(time.Microsecond), r.refused*100, verdict)
	}
	if !ok {
		os.Exit(1)
	}
}

// A load is one measurement.
type load struct {
	name     string
	strategy []string
	where    []string // one of them for each kind of task, in turns
	distinct bool
	target   float64
}

const zone = "ecs.availability-zone"

func cases() []load {
	static := []string{"attribute:ecs.instance-type =~ m5.* and attribute:stack == prod", "attribute:ecs.availability-zone in [us-east-1a, us-east-1b]",
		"attribute:rack != r07 and (attribute:stack == prod or attribute:stack == test)", "ec2InstanceId exists or attribute:stack exists"}
	static[3] = "attribute:stack exists and not(attribute:ecs.instance-type == m5.4xlarge)"
	dynamic := []string{"runningTasksCount < 40", "not(task:group == service:g1)", "attribute:stack == prod and runningTasksCount < 60", "attribute:rack !in [r01, r02]"}
	return []load{
		{"spread(zone)", []string{"spread:attribute:" + zone}, nil, false, 100_000},
		{"spread(zone), spread(instanceId)", []string{"spread:attribute:" + zone, "spread:instanceId"}, nil, false, 100_000},
		{"spread(instanceId)", []string{"spread:instanceId"}, nil, false, 100_000},
		{"spread(zone), binpack(memory)", []string{"spread:attribute:" + zone, "binpack:memory"}, nil, false, 100_000},
		{"binpack(cpu)", []string{"binpack:cpu"}, nil, false, 100_000},
		{"binpack(memory), binpack(cpu)", []string{"binpack:memory", "binpack:cpu"}, nil, false, 100_000},
		{"random", []string{"random"}, nil, false, 100_000},
		{"spread(zone), distinctInstance", []string{"spread:attribute:" + zone}, nil, true, 100_000},
		{"spread(zone), memberOf", []string{"spread:attribute:" + zone}, static, false, 20_000},
		{"binpack(cpu), memberOf", []string{"binpack:cpu"}, static, false, 20_000},
		{"spread(zone), memberOf of tasks", []string{"spread:attribute:" + zone}, dynamic, false, 20_000},
	}
}

// A shape is what tasks ask for.
type shape struct {
	cpu, memory int
	eni         bool
	ports       []fill.Port
}

// Ports are static in one shape of eight, as services with a fixed port have them.
var shapes = []shape{
	{128, 256, false, nil}, {256, 512, true, nil}, {512, 512, false, nil}, {128, 1024, false, []fill.Port{fill.TCP(80), fill.TCP(443)}},
	{256, 256, true, nil}, {1024, 2048, false, nil}, {64, 128, false, nil}, {256, 1024, false, nil},
}

const groups = 24

type result struct {
	rate, refused float64
	p50, p99      time.Duration
}

func (c load) run(n int) result {
	f := fill.New(1)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range instances {
		f.Set(fill.Instance{
			ID: fmt.Sprintf("arn:aws:ecs:us-east-1:123456789012:container-instance/prod/%032x", i), Active: true, Connected: true,
			CPU: []int{8192, 16384}[i%2], Memory: []int{31500, 63500}[i%2], ENIs: []int{14, 20}[i%2], Ports: []fill.Port{fill.TCP(22), fill.TCP(2375), fill.TCP(2376), fill.TCP(51678), fill.TCP(51679)},
			Zone: "us-east-1" + string(rune('a'+i%3)), VPC: "vpc-1",
			Attributes: map[string]string{zone: "us-east-1" + string(rune('a'+i%3)), "ecs.instance-type": []string{"m5.2xlarge", "m5.4xlarge", "c5.4xlarge"}[i%7%3],
				"stack": []string{"prod", "test"}[i%5/3], "rack": fmt.Sprintf("r%02d", i%11), "com.amazonaws.ecs.capability.docker-remote-api.1.18": "", "ecs.capability.task-eni": "", "ecs.os-type": "linux"},
		})
	}
	demand := func(k int) fill.Demand {
		s := shapes[k%len(shapes)]
		d := fill.Demand{CPU: s.cpu, Memory: s.memory, ENI: s.eni, Ports: fill.PortList(s.ports), Group: fmt.Sprint("service:g", k%groups),
			Requires: fill.Lines([]string{"com.amazonaws.ecs.capability.docker-remote-api.1.18", "ecs.os-type=linux"}), Distinct: c.distinct, Strategy: fill.Lines(c.strategy)}
		if s.eni {
			d.VPC, d.Zones = "vpc-1", fill.Lines([]string{"us-east-1a", "us-east-1b", "us-east-1c"})
		}
		if len(c.where) > 0 {
			d.Where = c.where[k%len(shapes)%len(c.where)]
		}
		return d
	}
	var demands []fill.Demand
	for k := range groups {
		demands = append(demands, demand(k))
	}
	var have []string
	next := 0
	place := func(k int) bool {
		d := &demands[k%groups]
		id, ok := f.Choose(*d)
		if !ok {
			return false
		}
		next++
		t := fill.Task{ID: fmt.Sprint("t", next), Instance: id, Group: d.Group, CPU: d.CPU, Memory: d.Memory, ENI: d.ENI, Ports: shapes[k%groups%len(shapes)].ports, Running: true}
		f.Add(t)
		have = append(have, t.ID)
		return true
	}
	for k := 0; len(have) < tasks && k < 2*tasks; k++ {
		place(rng.IntN(groups))
	}
	// One RunTask asks for ten tasks of one kind. As many ended before it.
	var times []time.Duration
	refused := 0
	runtime.GC()
	for range n / 10 {
		kind := rng.IntN(groups)
		at := time.Now()
		for range 10 {
			if len(have) >= tasks {
				i := rng.IntN(len(have))
				f.Drop(have[i])
				have[i] = have[len(have)-1]
				have = have[:len(have)-1]
			}
			if !place(kind) {
				refused++
			}
		}
		times = append(times, time.Since(at))
	}
	total := time.Duration(0)
	for _, d := range times {
		total += d
	}
	slices.Sort(times)
	return result{rate: float64(n) / total.Seconds(), refused: float64(refused) / float64(n), p50: times[len(times)/2], p99: times[len(times)*99/100]}
}
