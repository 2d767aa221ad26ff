package throttle

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/ssm"
	"github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
)

// clock is a time that a test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func start(factor float64) (*Limiter, *clock) {
	c := &clock{time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	return New(factor, c.now), c
}

// burst is how many calls get through at once.
func burst(l *Limiter, account, service, op string) (n int) {
	for ; n < 1_000_000; n++ {
		if _, ok := l.Take(account, service, op); !ok {
			return n
		}
	}
	return n
}

func TestBuckets(t *testing.T) {
	for _, x := range []struct {
		service, op string
		burst, rate int
	}{
		{"ecs", "CreateCluster", 20, 1},
		{"ecs", "RunTask", 100, 40},
		{"ecs", "DescribeTasks", 100, 20},
		{"ecs", "DeleteTaskDefinitions", 5, 1},
		{"ecs", "UpdateTaskProtection", 200, 80},
		{"ec2", "DescribeVpcs", 100, 20},
		{"ec2", "CreateSecurityGroup", 50, 5},
		{"ecr", "PutImage", 10, 10},
		{"logs", "CreateLogGroup", 10, 10},
		{"iam", "GetRole", 100, 20},
	} {
		l, c := start(1)
		if n := burst(l, "1", x.service, x.op); n != x.burst {
			t.Errorf("%s of %s: %d at once, want %d", x.op, x.service, n, x.burst)
		}
		wait, ok := l.Take("1", x.service, x.op)
		if want := time.Second / time.Duration(x.rate); ok || wait > want || wait < want-time.Millisecond {
			t.Errorf("%s: wait %v, want %v", x.op, wait, want)
		}
		c.at = c.at.Add(time.Second)
		if n := burst(l, "1", x.service, x.op); n != min(x.rate, x.burst) {
			t.Errorf("%s of %s: %d after a second, want %d", x.op, x.service, n, x.rate)
		}
		c.at = c.at.Add(24 * time.Hour)
		if n := burst(l, "1", x.service, x.op); n != x.burst {
			t.Errorf("%s of %s: %d after a day, want %d", x.op, x.service, n, x.burst)
		}
	}
}

func TestWhoSharesABucket(t *testing.T) {
	l, _ := start(1)
	burst(l, "1", "ecs", "RunTask")
	for _, x := range []struct {
		account, service, op string
		ok                   bool
	}{
		{"1", "ecs", "StopTask", false},    // the same bucket
		{"1", "ecs", "ListTasks", true},    // reads have another
		{"2", "ecs", "RunTask", true},      // so have other accounts
		{"1", "ec2", "RunInstances", true}, // and other services
	} {
		if _, ok := l.Take(x.account, x.service, x.op); ok != x.ok {
			t.Errorf("%v: %v", x, ok)
		}
	}
	burst(l, "1", "ec2", "DescribeVpcs")
	if _, ok := l.Take("1", "ec2", "DescribeSubnets"); !ok {
		t.Error("EC2 counts each operation by itself")
	}
}

func TestFactor(t *testing.T) {
	for _, x := range []struct {
		say   string
		burst int
	}{{"aws", 20}, {"", 2000}, {"3", 60}, {"0.01", 1}, {"0.5", 10}} {
		f, err := ParseFactor(x.say)
		if err != nil {
			t.Fatal(err)
		}
		l, _ := start(f)
		if n := burst(l, "1", "ecs", "CreateCluster"); n != x.burst {
			t.Errorf("%q: %d at once, want %d", x.say, n, x.burst)
		}
	}
	if f, err := ParseFactor("off"); err != nil || New(f, nil) != nil {
		t.Errorf("off is %v %v", f, err)
	}
	if _, ok := (*Limiter)(nil).Take("1", "ecs", "CreateCluster"); !ok {
		t.Error("no limiter refuses")
	}
	for _, bad := range []string{"fast", "-1", "0", "NaN", "+Inf", "1e9", "1 "} {
		if f, err := ParseFactor(bad); err == nil {
			t.Errorf("%q is %v", bad, f)
		}
	}
}

// Idle accounts are forgotten, and a clock that goes backwards gives nothing away.
func TestWhatIsRemembered(t *testing.T) {
	l, c := start(1)
	for i := range 10_000 {
		l.Take(fmt.Sprint(i), "ecs", "RunTask")
	}
	if n := l.size(); n != 10_000 {
		t.Fatalf("%d buckets", n)
	}
	c.at = c.at.Add(2 * time.Minute)
	for i := range 1000 {
		l.Take(fmt.Sprint("new", i), "ecs", "RunTask")
	}
	if n := l.size(); n > 1000 {
		t.Errorf("%d buckets are remembered, of which 1000 are in use", n)
	}
	burst(l, "1", "ecs", "CreateCluster")
	c.at = c.at.Add(-time.Hour)
	if _, ok := l.Take("1", "ecs", "CreateCluster"); ok {
		t.Error("an earlier time fills a bucket")
	}
}

// Many at once get exactly what there is.
func TestAtOnce(t *testing.T) {
	l, _ := start(1)
	var all sync.WaitGroup
	var got atomic.Int64
	for range 16 {
		all.Go(func() {
			for range 100 {
				if _, ok := l.Take("1", "ecs", "RunTask"); ok {
					got.Add(1)
				}
			}
		})
	}
	all.Wait()
	if got.Load() != 100 {
		t.Errorf("%d calls got through, want 100", got.Load())
	}
}

// Every operation that a rule names exists: a misspelled one would never hold.
func TestRulesNameOperations(t *testing.T) {
	services := map[string]*wire.Service{}
	for _, s := range []*wire.Service{ecs.NewService(ecs.Unimplemented{}), ec2.NewService(ec2.Unimplemented{}), ecr.NewService(ecr.Unimplemented{}),
		iam.NewService(iam.Unimplemented{}), logs.NewService(logs.Unimplemented{}), ssm.NewService(ssm.Unimplemented{}), sts.NewService(sts.Unimplemented{})} {
		services[s.Name] = s
	}
	for name := range index {
		s, op := services[name.service], name.name
		if s == nil {
			continue // not here yet
		}
		if s.Operations[op] == nil && !strings.Contains(s.Known, "\n"+op+"\n") {
			t.Errorf("%v is no operation", name)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	l := New(1e6, nil)
	var n atomic.Int64
	b.RunParallel(func(p *testing.PB) {
		account := fmt.Sprint(n.Add(1))
		for p.Next() {
			l.Take(account, "ecs", "DescribeTasks")
		}
	})
}

func BenchmarkTakeOfOneAccount(b *testing.B) {
	l := New(1e6, nil)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			l.Take("1", "ecs", "DescribeTasks")
		}
	})
}
