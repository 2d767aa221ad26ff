package capacity

import (
	"testing"

	"github.com/berth-run/berth/store/state"
)

func TestReservation(t *testing.T) {
	for _, x := range []struct {
		needed, have int
		want         float64
	}{{0, 0, 100}, {1, 0, 200}, {7, 0, 200}, {4, 4, 100}, {2, 4, 50}, {6, 4, 150}, {0, 3, 0}} {
		if got := Reservation(x.needed, x.have); got != x.want {
			t.Errorf("%d of %d: %v, want %v", x.needed, x.have, got, x.want)
		}
	}
}

func TestTarget(t *testing.T) {
	for _, x := range []struct{ have, busy, starting, waiting, minStep, maxStep, target, want int }{
		{0, 0, 0, 0, 1, 10_000, 100, 0},  // nothing is wanted
		{0, 0, 0, 1, 1, 10_000, 100, 2},  // from zero it begins with two
		{0, 0, 0, 5, 1, 10_000, 100, 5},  //
		{4, 4, 0, 2, 1, 10_000, 100, 6},  //
		{4, 4, 0, 2, 3, 10_000, 100, 7},  // the smallest step
		{4, 4, 0, 9, 1, 4, 100, 8},       // the largest step
		{4, 2, 2, 2, 1, 10_000, 100, 4},  // what is wanted is starting: Desired has it already
		{4, 2, 0, 0, 1, 10_000, 100, 2},  // empty ones are too many
		{4, 4, 0, 0, 1, 10_000, 80, 5},   // a fifth is to be free
		{10, 0, 0, 0, 1, 10_000, 100, 0}, //
		{6, 4, 2, 2, 1, 10_000, 100, 6},  // those that start will be used
		{6, 4, 2, 1, 1, 10_000, 100, 5},  //
		{3, 3, 0, 1, 1, 10_000, 50, 8},   //
	} {
		need := Needed(x.have, x.busy, x.starting, x.waiting, x.minStep, x.maxStep)
		if got := Target(need, x.have, x.target); got != x.want {
			t.Errorf("%+v: %d", x, got)
		}
	}
}

func TestBins(t *testing.T) {
	task := func(cpu, memory int, ports ...int) state.TaskUse {
		return state.TaskUse{CPU: cpu, Memory: memory, TCP: ports}
	}
	for _, x := range []struct {
		tasks []state.TaskUse
		want  int
	}{
		{nil, 0},
		{[]state.TaskUse{task(1024, 512), task(1024, 512)}, 1},
		{[]state.TaskUse{task(1024, 512), task(1024, 512), task(1, 1)}, 2},
		{[]state.TaskUse{task(0, 3000), task(0, 3000), task(0, 900), task(0, 900)}, 2},
		{[]state.TaskUse{task(10, 10, 80), task(10, 10, 80)}, 2}, // both want the port
		{[]state.TaskUse{task(4096, 10)}, 0},                     // no instance takes it
	} {
		if got := Bins(x.tasks, 2048, 3900); got != x.want {
			t.Errorf("%+v: %d, want %d", x.tasks, got, x.want)
		}
	}
}
