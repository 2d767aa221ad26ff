// Package runtime is the line between the ECS agent's engine and whatever
// really runs containers. The engine decides (dependency order, essential
// containers, stop timeouts, reason strings); an implementation of [Runtime]
// does, and reports what became of it. Package agent/containerd is the real
// implementation, package fake the one the engine's tests drive.
//
// # What lives where
//
// A task owns one [Group]: a cgroup with the task's CPU and memory, below
// which each container gets its own. A container lives in one group, on one
// image (by digest) and, usually, in one network namespace that somebody else
// made. All containers of a group share one shim process.
//
//	Resolve -> Pull           an image is here, unpacked, and stays until RemoveImage
//	CreateGroup               the task's cgroup exists
//	  Create -> Start         a process runs
//	    Output, Exec, Stats   while it does
//	    Kill -> (Exited)      it ended; its file system and exit code remain
//	    Start                 again, in place, on the same file system
//	  Delete                  nothing of the container is left
//	DeleteGroup               nothing of the task is left
//
// # Truth and restarts
//
// The runtime, not the agent, remembers containers: kill -9 the agent, and
// every container runs on. A new agent calls List, compares with its own
// checkpoint, and continues. The same holds when the runtime's daemon is
// killed: containers keep their pid, calls fail with [ErrUnavailable] for as
// long as it is away, and Events reconnects on its own.
//
// Every call is safe to repeat after a failure whose outcome is not known:
//
//   - Create of an id that exists answers [ErrExists]; the caller decides
//     whether to Delete and make it anew or to adopt it.
//   - Start of a running container is not an error and changes nothing.
//   - Kill of a container that has exited is not an error.
//   - Delete, DeleteGroup and RemoveImage of what is not there are not errors.
//
// # Exits
//
// [Runtime.Events] is the only way to learn of exits; nothing polls. It is
// at-least-once: a container that is found exited when the stream starts or
// reconnects is reported (again), so a consumer that keys by container id and
// start time misses nothing and may see the same exit twice.
//
// # Output
//
// Stdout and stderr are named pipes under the runtime's run directory. The
// shim keeps both ends open for as long as the process lives: while no agent
// reads, up to 64 KiB wait in the pipe and then the process blocks in write,
// as under any other log driver. A new agent opens the same pipes with Output
// and loses nothing - except what is still in the pipe when a container exits
// while no agent is there to read it: a pipe without openers is empty.
//
// # Limits of an implementation
//
// An implementation must never decide on its own to restart, replace or stop
// a container, never touch containers, images or cgroups that are not of its
// region, and never report a state it has not seen.
package runtime
