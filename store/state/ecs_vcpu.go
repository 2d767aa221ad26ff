package state

import (
	"strconv"

	"github.com/berth-run/berth/store"
)

// NoVCPU is AWS's reason not to start a Fargate task that has no room.
const NoVCPU = "You've reached the limit on the number of vCPUs you can run concurrently"

// vcpuUnits are the CPU units that a vCPU has.
const vcpuUnits = 1024

// vcpuUse is the total that a task's CPU units count for: those of Fargate tasks
// that have not stopped, On-Demand and Spot apart.
func vcpuUse(t *Task) (string, int) {
	if t.LaunchType != "FARGATE" || t.LastStatus == Stopped {
		return "", 0
	}
	n, _ := strconv.Atoi(t.CPU) // validated when the definition was registered
	return t.Account + " " + vcpuKind(t.CapacityProvider), n
}

func vcpuKind(provider string) string {
	if provider == FargateSpot {
		return FargateSpot
	}
	return Fargate
}

// VCPURoom is how many CPU units an account may still start on Fargate, by the
// capacity provider of a task or "".
func VCPURoom(r store.Reader, account, provider string) int {
	limit := 0
	if provider == FargateSpot {
		limit = Limit(r, account, "ecs/fargate-spot-vcpus")
	} else {
		limit = Limit(r, account, "ecs/fargate-vcpus")
	}
	return limit*vcpuUnits - Tasks.Sum(r, "vcpu", account+" "+vcpuKind(provider))
}

// GuardVCPUs makes requests that start tasks at the same time see each other,
// where the account has little room left; where it has much, they need not wait.
func GuardVCPUs(tx *store.Tx, account, provider string) {
	const little = 1000 * vcpuUnits // more than is started in the moment of a commit
	if VCPURoom(tx, account, provider) < little {
		tx.Guard("ecs-vcpus/" + account)
	}
}
