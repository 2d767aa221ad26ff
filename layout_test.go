package main

import (
	"os"
	"path/filepath"
	"testing"
)

// What was in the directory before the region, stays when the region goes.
func TestRemoveLeavesWhatIsNotOurs(t *testing.T) {
	dir := t.TempDir()
	l, err := newLayout(filepath.Join(dir, "mine"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.save(settings{Region: "us-east-1"}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{l.etcd(), l.tls(), l.registry(), l.events(), l.logs(), l.node()} {
		if err := os.MkdirAll(filepath.Join(d, "below"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	thesis := filepath.Join(l.data, "thesis.txt")
	if err := os.WriteFile(thesis, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.remove(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(l.data)
	if err != nil || len(left) != 1 || left[0].Name() != "thesis.txt" {
		t.Fatalf("left %v, %v", left, err)
	}
	if err := os.Remove(thesis); err != nil {
		t.Fatal(err)
	}
	if err := l.remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(l.data); !os.IsNotExist(err) {
		t.Fatalf("an empty data directory stays: %v", err)
	}
}

func TestZones(t *testing.T) {
	for region, want := range map[string]string{"us-east-1": "use1-az1", "ap-northeast-2": "apne2-az1", "eu-central-1": "euc1-az1", "us-gov-west-1": "usgw1-az1"} {
		z := zones(region)
		if len(z) != 3 || z[0].Name != region+"a" || z[0].ID != want {
			t.Errorf("%s: %+v, want %s", region, z, want)
		}
	}
}

func TestReachable(t *testing.T) {
	for listen, want := range map[string]string{"127.0.0.1:1": "127.0.0.1:1", "0.0.0.0:1": "127.0.0.1:1", ":1": "127.0.0.1:1", "10.0.0.1:1": "10.0.0.1:1"} {
		if got := reachable(listen); got != want {
			t.Errorf("%s: %s, want %s", listen, got, want)
		}
	}
}
