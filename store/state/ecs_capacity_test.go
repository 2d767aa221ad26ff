package state

import (
	"maps"
	"testing"

	"github.com/berth-run/berth/aws/ecs"
	"pgregory.net/rapid"
)

func item(name string, base, weight int) ecs.CapacityProviderStrategyItem {
	return ecs.CapacityProviderStrategyItem{CapacityProvider: &name, Base: new(int32(base)), Weight: new(int32(weight))}
}

func TestNextProvider(t *testing.T) {
	for _, c := range []struct {
		name     string
		strategy []ecs.CapacityProviderStrategyItem
		tasks    int
		want     map[string]int
	}{
		{"one to one", []ecs.CapacityProviderStrategyItem{item("A", 0, 1), item("B", 0, 1)}, 4, map[string]int{"A": 2, "B": 2}},
		{"one to four", []ecs.CapacityProviderStrategyItem{item("A", 0, 1), item("B", 0, 4)}, 10, map[string]int{"A": 2, "B": 8}},
		{"base and weights", []ecs.CapacityProviderStrategyItem{item("A", 2, 1), item("B", 0, 3)}, 10, map[string]int{"A": 4, "B": 6}},
		{"base alone", []ecs.CapacityProviderStrategyItem{item("A", 3, 0), item("B", 0, 1)}, 5, map[string]int{"A": 3, "B": 2}},
		{"fewer than the base", []ecs.CapacityProviderStrategyItem{item("A", 0, 9), item("B", 5, 1)}, 2, map[string]int{"B": 2}},
		{"the first goes where the weight is", []ecs.CapacityProviderStrategyItem{item("A", 0, 1), item("B", 0, 3)}, 1, map[string]int{"B": 1}},
		{"no weight", []ecs.CapacityProviderStrategyItem{item("A", 1, 0)}, 2, map[string]int{"A": 1, "": 1}},
	} {
		have := map[string]int{}
		for range c.tasks {
			have[NextProvider(c.strategy, have)]++
		}
		if !maps.Equal(have, c.want) {
			t.Errorf("%s: %v, want %v", c.name, have, c.want)
		}
	}
}

// However many tasks there are, the base is filled first, what is without
// weight gets no more, and no provider is more than one task off its share.
func TestNextProviderShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"A", "B", "C", "D"}
		var strategy []ecs.CapacityProviderStrategyItem
		total, base := 0, rapid.IntRange(0, 20).Draw(t, "base")
		for i := range rapid.IntRange(1, len(names)).Draw(t, "providers") {
			w := rapid.IntRange(0, 50).Draw(t, "weight")
			total += w
			strategy = append(strategy, item(names[i], 0, w))
		}
		based := rapid.IntRange(0, len(strategy)-1).Draw(t, "based")
		strategy[based].Base = new(int32(base))
		if total == 0 {
			strategy[0].Weight, total = new(int32(1)), 1
		}
		n := rapid.IntRange(1, 200).Draw(t, "tasks")
		have := map[string]int{}
		for range n {
			have[NextProvider(strategy, have)]++
		}
		if have[names[based]] < min(n, base) {
			t.Fatalf("the base is not filled: %v", have)
		}
		rest := max(0, n-base)
		sum := 0
		for i, s := range strategy {
			got := have[names[i]]
			sum += got
			if i == based {
				got -= min(n, base)
			}
			share := float64(rest) * float64(*s.Weight) / float64(total)
			if *s.Weight == 0 && got > 0 || float64(got) > share+float64(len(strategy)) || float64(got) < share-float64(len(strategy)) {
				t.Fatalf("%s has %d of %d beyond the base, want %.1f", names[i], got, rest, share)
			}
		}
		if sum != n {
			t.Fatalf("%d of %d tasks have a provider", sum, n)
		}
	})
}
