// Command init is what Spec.Init mounts: in the tests a program that is an
// init and nothing else.
package main

import _ "github.com/berth-run/berth/node/reaper"

func main() {}
