package engine

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/dispatch/acs"
)

// A health check that hangs fails when its time is over, however long the
// runtime takes to be rid of it.
func TestHangingHealthCheckFailsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.rt.OnExec = func(ctx context.Context, _ string, _ runtime.Exec) (runtime.ExecResult, error) {
			<-ctx.Done()
			time.Sleep(time.Minute) // what it left behind holds its output
			return runtime.ExecResult{}, ctx.Err()
		}
		l.start()
		c := app("app")
		c.HealthCheckType = "docker"
		c.DockerConfig, _ = acs.NewDockerConfig("", acs.Config{Healthcheck: &acs.Healthcheck{
			Test: []string{"CMD-SHELL", "hang"}, Interval: 5 * time.Second, Timeout: 2 * time.Second, Retries: 3,
		}}, acs.HostConfig{})
		l.apply(nil, c)
		time.Sleep(20 * time.Second)
		for _, want := range []string{"UNKNOWN", "UNHEALTHY"} { // after 3 × (5 s + 2 s)
			synctest.Wait()
			_, c := l.engine.Lookup(l.id("app"))
			if c.Health.Status != want {
				t.Errorf("health is %s after %v, want %s", c.Health.Status, time.Since(c.StartedAt), want)
			}
			time.Sleep(2 * time.Second)
		}
		l.stop()
	})
}
