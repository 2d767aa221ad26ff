package acs

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestFrames(t *testing.T) {
	for _, c := range []struct {
		m     Message
		frame string
	}{
		{&HeartbeatMessage{MessageID: "1", Healthy: true}, `{"type":"HeartbeatMessage","message":{"messageId":"1","healthy":true}}`},
		{&HeartbeatMessage{Healthy: true}, `{"type":"HeartbeatMessage","message":{"healthy":true}}`},
		{&AckRequest{Cluster: "c", ContainerInstance: "i", MessageID: "1"}, `{"type":"AckRequest","message":{"cluster":"c","containerInstance":"i","messageId":"1"}}`},
		{&TaskManifestMessage{MessageID: "1", ClusterArn: "c", ContainerInstanceArn: "i", Tasks: []TaskIdentifier{}, GeneratedAt: 2, Timeline: 3},
			`{"type":"TaskManifestMessage","message":{"messageId":"1","clusterArn":"c","containerInstanceArn":"i","tasks":[],"generatedAt":2,"timeline":3}}`},
		{&PayloadMessage{MessageID: "1", ClusterArn: "c", ContainerInstanceArn: "i", GeneratedAt: 2, SeqNum: 3,
			Tasks: []Task{{Arn: "t", Family: "f", Version: "1", DesiredStatus: "STOPPED", Containers: []Container{}}}},
			`{"type":"PayloadMessage","message":{"messageId":"1","clusterArn":"c","containerInstanceArn":"i","tasks":[{"arn":"t","family":"f","version":"1","desiredStatus":"STOPPED","containers":[]}],"generatedAt":2,"seqNum":3}}`},
		{&PublishHealthRequest{Metadata: &HealthMetadata{Cluster: "c", ContainerInstance: "i", MessageID: "1", Fin: true}, Timestamp: Seconds{time.UnixMilli(1500).UTC()},
			Tasks: []TaskHealth{{TaskArn: "t", TaskDefinitionFamily: "f", TaskDefinitionVersion: "1", Containers: []ContainerHealth{{ContainerName: "c", HealthStatus: "HEALTHY", StatusSince: Seconds{time.UnixMilli(1000).UTC()}}}}}},
			`{"type":"PublishHealthRequest","message":{"metadata":{"cluster":"c","containerInstance":"i","messageId":"1","fin":true},"tasks":[{"taskArn":"t","taskDefinitionFamily":"f","taskDefinitionVersion":"1","containers":[{"containerName":"c","healthStatus":"HEALTHY","statusSince":1}]}],"timestamp":1.5}}`},
	} {
		b, err := Encode(c.m)
		if err != nil || string(b) != c.frame {
			t.Errorf("Encode: %s, %v\nwant %s", b, err, c.frame)
		}
		m, err := Decode([]byte(c.frame))
		if d := cmp.Diff(c.m, m); err != nil || d != "" {
			t.Errorf("Decode: %v, %s", err, d)
		}
	}
}

func TestEveryTypeTravels(t *testing.T) {
	for name := range types {
		m, err := Decode([]byte(`{"type":"` + name + `","message":{"unknown":1}}`))
		if err != nil || TypeOf(m) != name {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	var unknown *UnknownTypeError
	if _, err := Decode([]byte(`{"type":"Other","message":{}}`)); !errors.As(err, &unknown) || unknown.Type != "Other" {
		t.Errorf("an unknown type gives %v", err)
	}
}

func TestSigned(t *testing.T) {
	h := http.Header{"Authorization": {"AWS4 x"}, "Host": {"h:1"}, "X-Amz-Date": {"d"}}
	b := EncodeSigned(h, []byte("{\"a\":\"\\r\\n\\r\\n\"}"))
	want := "Authorization: AWS4 x\r\nHost: h:1\r\nX-Amz-Date: d\r\n\r\n{\"a\":\"\\r\\n\\r\\n\"}"
	if string(b) != want {
		t.Errorf("got %q", b)
	}
	got, body, err := SplitSigned(b)
	if err != nil || !cmp.Equal(got, h) || string(body) != `{"a":"\r\n\r\n"}` {
		t.Errorf("got %v %q %v", got, body, err)
	}
	for _, bad := range []string{"", "{}", "no header\r\n\r\n{}"} {
		if _, _, err := SplitSigned([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestException(t *testing.T) {
	b := EncodeException(InactiveInstanceException, "gone")
	if string(b) != `{"InactiveInstanceException":"gone"}` {
		t.Errorf("got %s", b)
	}
	if name, message, ok := DecodeException(b); name != InactiveInstanceException || message != "gone" || !ok {
		t.Errorf("got %s %s %v", name, message, ok)
	}
	for _, other := range []string{`{}`, `{"message":"x"}`, `[]`, `no`} {
		if _, _, ok := DecodeException([]byte(other)); ok {
			t.Errorf("%s was taken for an exception", other)
		}
	}
}

func TestULongStatsSet(t *testing.T) {
	var s ULongStatsSet
	s.Add(math.MaxInt64)
	s.Add(5)
	s.Add(math.MaxInt64 + 7)
	if s.Min != 5 || s.Max != math.MaxInt64 || s.OverflowMax != 7 || s.SampleCount != 3 {
		t.Errorf("got %+v", s)
	}
	rapid.Check(t, func(t *rapid.T) {
		var s ULongStatsSet
		var sum uint64
		for _, v := range rapid.SliceOf(rapid.Uint64Max(1<<60)).Draw(t, "samples") {
			s.Add(v)
			sum += v
		}
		if uint64(s.Sum)+uint64(s.OverflowSum) != sum {
			t.Fatalf("sum is %d+%d, want %d", s.Sum, s.OverflowSum, sum)
		}
	})
}

func TestDockerConfig(t *testing.T) {
	c := Config{User: "1", Healthcheck: &Healthcheck{Test: []string{"CMD", "x"}, Interval: 5 * time.Second}}
	h := HostConfig{LogConfig: LogConfig{Type: "awslogs"}, Init: new(true), DNS: []string{"1.1.1.1"}}
	d, err := NewDockerConfig("1.41", c, h)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"User":"1","Healthcheck":{"Test":["CMD","x"],"Interval":5000000000}}`; d.Config != want {
		t.Errorf("config %s", d.Config)
	}
	if want := `{"LogConfig":{"Type":"awslogs"},"Init":true,"Dns":["1.1.1.1"]}`; d.HostConfig != want {
		t.Errorf("hostConfig %s", d.HostConfig)
	}
	c2, h2, err := d.Parse()
	if err != nil || !cmp.Equal(c, c2) || !cmp.Equal(h, h2) {
		t.Errorf("parsed %+v %+v %v", c2, h2, err)
	}
}

func FuzzDecode(f *testing.F) {
	for name := range types {
		f.Add([]byte(`{"type":"` + name + `","message":{"timestamp":1.5,"tasks":[{"containers":[{}]}]}}`))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Encode(m)
		if err != nil {
			t.Fatalf("%s decodes but does not encode: %v", b, err)
		}
		m2, err := Decode(again)
		if err != nil {
			t.Fatalf("%s does not decode: %v", again, err)
		}
		third, err := Encode(m2)
		if err != nil || !bytes.Equal(again, third) {
			t.Fatalf("%s became %s (%v)", again, third, err)
		}
	})
}

func FuzzSplitSigned(f *testing.F) {
	f.Add([]byte("Host: h\r\n\r\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, body, err := SplitSigned(b); err == nil && !bytes.HasSuffix(b, body) {
			t.Fatal("the frame is not the end of the data")
		}
	})
}

func FuzzSeconds(f *testing.F) {
	f.Add("1.5")
	f.Fuzz(func(t *testing.T, s string) {
		var v Seconds
		if json.Unmarshal([]byte(s), &v) != nil {
			return
		}
		if _, err := json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	})
}
