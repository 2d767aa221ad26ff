package instance

import (
	"maps"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/berth-run/berth/dispatch/fabric"
)

func TestParseConfig(t *testing.T) {
	got := parseConfig([]byte("# comment\nECS_CLUSTER=one\nECS_CLUSTER=two\n\n export A = b \nECS_INSTANCE_ATTRIBUTES={\"a\":\"b=c\"}\nQ=\"x y\"\nnothing\n=x\nEMPTY=\n"))
	want := map[string]string{"ECS_CLUSTER": "two", "A": "b", "ECS_INSTANCE_ATTRIBUTES": `{"a":"b=c"}`, "Q": "x y", "EMPTY": ""}
	if !maps.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("A=b\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for k := range parseConfig(b) {
			if strings.ContainsAny(k, "=\n") {
				t.Errorf("key %q", k)
			}
		}
	})
}

// A link that an instance makes leads into the instance, never out of it.
func TestReadIn(t *testing.T) {
	if _, err := ReadIn(os.Getpid(), "proc/self/root/etc/hostname", 10); err == nil {
		t.Error("followed a link of the kernel's out of the root")
	}
	if _, err := ReadIn(os.Getpid(), "dev/null", 10); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("a device: %v", err)
	}
	if b, err := ReadIn(os.Getpid(), "proc/version", 5); string(b) != "Linux" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

func TestEndpoint(t *testing.T) {
	pool := netip.MustParsePrefix("198.18.4.0/22")
	for endpoint, want := range map[string]string{"http://127.0.0.1:4566": "http://198.18.4.0:4566", "http://127.0.0.1": "http://198.18.4.0:80"} {
		if got := Endpoint(fabric.Region{Endpoint: endpoint, PublicPool: pool}); got != want {
			t.Errorf("%s: %s", endpoint, got)
		}
	}
}
