package vpc

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

const inLab = "BERTH_VPC_TEST_LAB"

// TestMain runs the tests again in network and mount namespaces of their own: "the machine" of these tests is that
// namespace, so they can change routes and firewalls as the engine does, and leave nothing behind.
func TestMain(m *testing.M) {
	if dir := os.Getenv(churnIn); dir != "" {
		churn(dir)
	}
	if os.Getenv(inLab) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inLab+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		err := cmd.Run()
		if exit, ok := err.(*exec.ExitError); ok {
			os.Exit(exit.ExitCode())
		} else if err != nil {
			fmt.Fprintln(os.Stderr, "these tests need root:", err)
			os.Exit(1)
		}
		return
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		fmt.Fprintln(os.Stderr, "make mounts private:", err)
		os.Exit(1)
	}
	if err := syscall.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		fmt.Fprintln(os.Stderr, "mount sysfs:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}
