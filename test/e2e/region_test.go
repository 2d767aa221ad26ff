package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/test/lab"
)

// fresh is a region of the test's own. At the end it is purged, with all that
// runs in it, and nothing may be left.
func fresh(t *testing.T) *world {
	t.Helper()
	w, err := newWorld(t.Context(), lab.Options{Binary: binary, Dir: filepath.Join(t.TempDir(), "region")})
	if w != nil && w.Region != nil {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if t.Failed() {
				t.Log(w.Logs())
			}
			if err := w.Down(ctx, true); err != nil {
				t.Error(err)
			}
			if err := w.Gone(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// A region that says it is up takes instances.
func TestReady(t *testing.T) {
	t.Parallel()
	r, err := lab.Up(deadline(t), lab.Options{Binary: binary, Dir: filepath.Join(t.TempDir(), "region")})
	if r != nil {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := r.Down(ctx, true); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	// The image of the parameter is looked up by the call itself: it is the first.
	_, err = lab.Do[ec2.RunInstancesOutput](deadline(t), r.Root, lab.EC2, "RunInstances", &ec2.RunInstancesInput{
		ImageId:      new("resolve:ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"),
		InstanceType: "t3.nano", MinCount: new(int32(1)), MaxCount: new(int32(1))})
	if err != nil {
		t.Error(err)
	}
}

// page is a container whose front page bears a name.
func (w *world) page(name string) ecs.ContainerDefinition {
	c := w.box("web", "serve", "80")
	c.Environment = []ecs.KeyValuePair{{Name: new("PAGE"), Value: &name}}
	return c
}

// detached starts a task that the region's end will end.
func (w *world) detached(t *testing.T, containers ...ecs.ContainerDefinition) *task {
	t.Helper()
	d := w.define(t, boxes(containers...))
	out := call[ecs.RunTaskOutput](t, w, lab.ECS, "RunTask", &ecs.RunTaskInput{TaskDefinition: &d, LaunchType: ecs.LaunchTypeFargate, NetworkConfiguration: w.network()})
	return &task{t: t, w: w, arn: *out.Tasks[0].TaskArn, family: family(t)}
}

// Two regions on one machine have the same names and the same addresses in
// their VPCs, and nothing else in common.
func TestTwoRegions(t *testing.T) {
	t.Parallel()
	a, b := fresh(t), fresh(t)
	left, right := a.detached(t, a.page("left")), b.detached(t, b.page("right"))
	left.wait("RUNNING")
	right.wait("RUNNING")
	if l, r := left.page("/"), right.page("/"); !strings.HasPrefix(l, "page left ") || !strings.HasPrefix(r, "page right ") {
		t.Errorf("pages %q and %q", l, r)
	}
	if left.private() != right.private() {
		// The first address of the same subnet; otherwise this test shows less than it means to.
		t.Errorf("private addresses %s and %s", left.private(), right.private())
	}
	if left.public() == right.public() {
		t.Errorf("both have the public address %s", left.public())
	}
	// Each sees itself by that address, not the other.
	if got := left.page("/get", "url", "http://"+left.private()+"/"); !strings.HasPrefix(got, "page left ") {
		t.Errorf("left sees %q", got)
	}
	// The keys of one are nothing to the other.
	stranger := a.Root
	stranger.Region = b.Region
	if a.Root.AccessKeyID == b.Root.AccessKeyID {
		t.Error("both regions have the same root key")
	} else if err := stranger.Call(t.Context(), lab.ECS, "ListClusters", &ecs.ListClustersInput{}, nil); codeOf(err) != "UnrecognizedClientException" {
		t.Errorf("a key of another region: %v", err)
	}
	// One goes, with its task; the other does not notice.
	if err := a.Down(deadline(t), true); err != nil {
		t.Fatal(err)
	}
	if err := a.Gone(deadline(t)); err != nil {
		t.Error(err)
	}
	if got := right.page("/"); !strings.HasPrefix(got, "page right ") {
		t.Errorf("right answers %q", got)
	}
	right.stop("")
}

// Down leaves nothing on the machine but the data; up goes on from there.
func TestDownAndUp(t *testing.T) {
	t.Parallel()
	w := fresh(t)
	s := w.serve2(t, "web", w.page("kept"))
	s.stable()
	alone := w.detached(t, w.page("alone"))
	alone.wait("RUNNING")
	before := s.tasks()
	key, endpoint := w.Root.AccessKeyID, w.Endpoint

	if err := w.Down(deadline(t), false); err != nil {
		t.Fatal(err)
	}
	var left []string
	err := lab.Until(deadline(t), func(context.Context) (bool, error) {
		var err error
		left, err = w.Leftovers()
		return slices.Equal(left, []string{"folder " + w.Dir}), err
	})
	if err != nil {
		t.Errorf("after down: %v: %s", err, strings.Join(left, "\n"))
	}
	// Down twice is down.
	if err := w.Down(deadline(t), false); err != nil {
		t.Errorf("down again: %v", err)
	}

	if err := w.Up(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if w.Root.AccessKeyID != key || w.Endpoint != endpoint {
		t.Errorf("after up the endpoint is %s with key %s, was %s with %s", w.Endpoint, w.Root.AccessKeyID, endpoint, key)
	}
	s.until("the tasks are replaced", func(now ecs.Service) bool {
		ts := s.tasks()
		return *now.RunningCount == 2 && len(ts) == 2 && !slices.ContainsFunc(ts, func(k ecs.Task) bool {
			return *k.LastStatus != "RUNNING" || slices.ContainsFunc(before, func(old ecs.Task) bool { return *old.TaskArn == *k.TaskArn })
		})
	})
	for _, k := range s.tasks() {
		if got := (&task{t: t, w: w, arn: *k.TaskArn}).page("/"); !strings.HasPrefix(got, "page kept ") {
			t.Errorf("page %q", got)
		}
	}
	// What nobody replaces has ended, and says that it did not do so by itself.
	if now := alone.wait("STOPPED"); now.StopCode != ecs.TaskStopCodeTerminationNotice || value(now.StoppedReason) != "Host stopped." {
		t.Errorf("a task that ended with the region: %s", show(now))
	}
	images := call[ecr.DescribeImagesOutput](t, w, lab.ECR, "DescribeImages", &ecr.DescribeImagesInput{RepositoryName: new("box")})
	if d, _ := image.Digest(); len(images.ImageDetails) != 1 || *images.ImageDetails[0].ImageDigest != d.String() {
		t.Errorf("images: %s", show(images))
	}
	// Up on a region that is up is up.
	if err := w.Up(deadline(t)); err != nil {
		t.Errorf("up again: %v", err)
	}
}

// serve2 is a service of two that the region's end will end.
func (w *world) serve2(t *testing.T, name string, c ecs.ContainerDefinition) *service {
	t.Helper()
	d := w.define(t, boxes(c))
	call[ecs.CreateServiceOutput](t, w, lab.ECS, "CreateService", &ecs.CreateServiceInput{ServiceName: &name, TaskDefinition: &d, DesiredCount: new(int32(2)),
		LaunchType: ecs.LaunchTypeFargate, NetworkConfiguration: w.network()})
	return &service{t: t, w: w, name: name}
}

// The API's port speaks HTTPS as well, with a certificate of the region's own
// authority.
func TestHTTPS(t *testing.T) {
	t.Parallel()
	pem, err := os.ReadFile(filepath.Join(shared.Dir, "tls", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("the authority's certificate is none")
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	resp, err := client.Post("https://"+shared.Listen+"/", "application/x-www-form-urlencoded", strings.NewReader("Action=GetCallerIdentity&Version=2011-06-15"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden { // nobody signed it
		t.Errorf("status %s", resp.Status)
	}
}
