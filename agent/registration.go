package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-run/berth/aws/ecs"
)

// Registration is what an EC2 instance says of itself when it registers, beside
// what every agent does.
type Registration struct {
	Document, Signature string // the instance's identity document
	// Attributes are the instance's, by name; those of the user's own come with
	// the rest, and are kept by their names alone.
	Attributes map[string]string
	Tags       map[string]string
	// ReservedMemory in MiB and ReservedPorts are not offered to tasks.
	ReservedMemory             int
	ReservedPorts, ReservedUDP []string
	// File keeps the ARN, so that a new agent is the same container instance.
	File string
}

// registered is the content of File.
type registered struct {
	Cluster string `json:"cluster"`
	ARN     string `json:"arn"`
}

// ARN is what an earlier agent has registered as in the cluster, "" if none has.
func (r *Registration) ARN(cluster string) (string, error) {
	b, err := os.ReadFile(r.File)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("earlier registration: %w", err)
	}
	var have registered
	if err := json.Unmarshal(b, &have); err != nil {
		return "", fmt.Errorf("earlier registration: %w", err)
	}
	if have.Cluster != cluster {
		return "", nil
	}
	return have.ARN, nil
}

// keep writes down the ARN.
func (r *Registration) keep(arn string) error {
	if r == nil {
		return nil
	}
	cluster := ""
	if parts := strings.Split(arn, "/"); len(parts) == 3 {
		cluster = parts[1]
	}
	b, err := json.Marshal(registered{cluster, arn})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.File), 0o700); err != nil {
		return fmt.Errorf("keep registration: %w", err)
	}
	if err := os.WriteFile(r.File+".new", b, 0o600); err != nil {
		return fmt.Errorf("keep registration: %w", err)
	}
	return os.Rename(r.File+".new", r.File)
}

// complete adds to a registration what the instance says.
func (r *Registration) complete(in *ecs.RegisterContainerInstanceInput) {
	if r == nil {
		return
	}
	for i := range in.TotalResources {
		t := &in.TotalResources[i]
		switch *t.Name {
		case "MEMORY":
			t.IntegerValue = new(max(0, *t.IntegerValue-int32(r.ReservedMemory)))
		case "PORTS":
			t.StringSetValue = append([]string{}, r.ReservedPorts...)
		case "PORTS_UDP":
			t.StringSetValue = append([]string{}, r.ReservedUDP...)
		}
	}
	if r.Document != "" {
		in.InstanceIdentityDocument, in.InstanceIdentityDocumentSignature = new(r.Document), new(r.Signature)
		// An agent that did not hear the answer is the same container instance the next time.
		sum := sha256.Sum256([]byte(r.Document))
		in.ClientToken = new(hex.EncodeToString(sum[:16]))
	}
	// Its tasks would be root of the machine that the instance runs on.
	in.Attributes = slices.DeleteFunc(in.Attributes, func(a ecs.Attribute) bool { return *a.Name == "com.amazonaws.ecs.capability.privileged-container" })
	for _, name := range sortedNames(r.Attributes) {
		in.Attributes = slices.DeleteFunc(in.Attributes, func(a ecs.Attribute) bool { return *a.Name == name })
		a := ecs.Attribute{Name: new(name)}
		if v := r.Attributes[name]; v != "" {
			a.Value = new(v)
		}
		in.Attributes = append(in.Attributes, a)
	}
	if in.ContainerInstanceArn != nil {
		return // tags are given once; later ones are the user's
	}
	for _, k := range sortedNames(r.Tags) {
		in.Tags = append(in.Tags, ecs.Tag{Key: new(k), Value: new(r.Tags[k])})
	}
}

func sortedNames(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}
