package agent

import goruntime "runtime"

// architecture is the machine's, in ECS's words.
var architecture = map[string]string{"amd64": "x86_64", "arm64": "arm64"}[goruntime.GOARCH]
