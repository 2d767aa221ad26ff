package process

import (
	"os"
	"testing"
)

func TestReadOnly(t *testing.T) {
	for _, tt := range []struct {
		line          string
		start, length uintptr
		ok            bool
	}{
		{"00400000-00600000 r-xp 00000000 fe:00 10240052                           /bin/berth\n", 0x400000, 0x200000, true},
		{"00600000-00601000 r--p 00200000 fe:00 10240052                           /bin/berth\n", 0x600000, 0x1000, true},
		{"00601000-00602000 rw-p 00201000 fe:00 10240052                           /bin/berth\n", 0, 0, false},
		{"00602000-00603000 r--p 00000000 00:00 0 \n", 0, 0, false},
		{"00602000-00603000 r--p 00000000 fe:00 7                                  /bin/other\n", 0, 0, false},
		{"00602000-00603000 r--s 00000000 fe:00 7                                  /bin/berth\n", 0, 0, false},
		{"7ffc3-x r-xp 00000000 fe:00 10240052 /bin/berth\n", 0, 0, false},
		{"00603000-00602000 r-xp 00000000 fe:00 10240052 /bin/berth\n", 0, 0, false},
		{"", 0, 0, false},
	} {
		if start, length, ok := readOnly(tt.line, "/bin/berth"); start != tt.start || length != tt.length || ok != tt.ok {
			t.Errorf("%q: %x, %x, %v", tt.line, start, length, ok)
		}
	}
	// A program that was replaced while it ran.
	if _, _, ok := readOnly("00400000-00600000 r-xp 00000000 fe:00 1 /bin/berth (deleted)\n", "/bin/berth (deleted)"); !ok {
		t.Error("a replaced program is not recognised")
	}
}

// A process that forgot its own text goes on, and is smaller.
func TestForgetText(t *testing.T) {
	before, _ := usage(os.Getpid(), 0)
	if err := forgetText(); err != nil {
		t.Fatal(err)
	}
	after, _ := usage(os.Getpid(), 0)
	if after >= before {
		t.Errorf("resident before %d, after %d", before, after)
	}
}
