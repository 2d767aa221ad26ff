// Command slim is the shim alone, without the rest of the binary. Every task's
// start executes it twice, and a program costs what is linked to it whether or
// not it is used. `make build` puts it into the binary (package
// node/containerd); a binary that was built without is its own shim.
//
// It must never do anything but what the binary does under the same names.
package main

import (
	"fmt"
	"os"

	_ "github.com/berth-run/berth/node/reaper"
	"github.com/berth-run/berth/node/shim"
)

func main() {
	fmt.Fprintf(os.Stderr, "this is a part of berth and runs as %s only\n", shim.Name)
	os.Exit(2)
}
