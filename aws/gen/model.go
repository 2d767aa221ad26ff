package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The part of botocore's model format that the generator reads.
type model struct {
	Metadata struct {
		APIVersion     string `json:"apiVersion"`
		EndpointPrefix string `json:"endpointPrefix"`
		JSONVersion    string `json:"jsonVersion"`
		Protocol       string `json:"protocol"`
		SigningName    string `json:"signingName"`
		TargetPrefix   string `json:"targetPrefix"`
		XMLNamespace   string `json:"xmlNamespace"`
	} `json:"metadata"`
	Operations map[string]*operation `json:"operations"`
	Shapes     map[string]*shape     `json:"shapes"`
}

type operation struct {
	Name     string `json:"name"`
	AuthType string `json:"authtype"`
	Input    *ref   `json:"input"`
	Output   *ref   `json:"output"`
	Errors   []ref  `json:"errors"`
}

type ref struct {
	Shape            string `json:"shape"`
	LocationName     string `json:"locationName"`
	QueryName        string `json:"queryName"`
	ResultWrapper    string `json:"resultWrapper"`
	TimestampFormat  string `json:"timestampFormat"`
	Flattened        bool   `json:"flattened"`
	IdempotencyToken bool   `json:"idempotencyToken"`
}

type shape struct {
	Type            string      `json:"type"`
	Members         members     `json:"members"`
	Required        []string    `json:"required"`
	Member          *ref        `json:"member"`
	Key             *ref        `json:"key"`
	Value           *ref        `json:"value"`
	Enum            []string    `json:"enum"`
	Min             json.Number `json:"min"`
	Max             json.Number `json:"max"`
	Pattern         string      `json:"pattern"`
	Flattened       bool        `json:"flattened"`
	Document        bool        `json:"document"`
	Sensitive       bool        `json:"sensitive"`
	EventStream     bool        `json:"eventstream"`
	TimestampFormat string      `json:"timestampFormat"`
	Exception       bool        `json:"exception"`
	Fault           bool        `json:"fault"`
	Error           struct {
		Code           string `json:"code"`
		HTTPStatusCode int    `json:"httpStatusCode"`
	} `json:"error"`
}

// members keeps the order of the model, which is the order on the wire.
type members []member

type member struct {
	name string
	ref  ref
}

func (m *members) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var r ref
		if err := d.Decode(&r); err != nil {
			return err
		}
		*m = append(*m, member{name.(string), r})
	}
	return nil
}

// load reads and patches the model of s.
func load(dir string, s service) (*model, error) {
	path, err := modelFile(filepath.Join(dir, s.pkg))
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var m model
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("read model %s: %w", path, err)
	}
	for _, x := range s.extra {
		sh := m.Shapes[x.shape]
		if sh == nil || m.Shapes[x.target] == nil {
			return nil, fmt.Errorf("patch %s.%s: no such shape in the model", x.shape, x.member)
		}
		if slices.ContainsFunc(sh.Members, func(e member) bool { return e.name == x.member }) {
			return nil, fmt.Errorf("patch %s.%s: the model has this member by now", x.shape, x.member)
		}
		sh.Members = append(sh.Members, member{x.member, ref{Shape: x.target}})
	}
	for name, status := range s.status {
		if m.Shapes[name] == nil {
			return nil, fmt.Errorf("patch %s: no such shape in the model", name)
		}
		m.Shapes[name].Error.HTTPStatusCode = status
	}
	for _, op := range s.operations {
		if m.Operations[op] == nil {
			return nil, fmt.Errorf("%s: the model has no operation %s", s.pkg, op)
		}
	}
	return &m, nil
}

// modelFile finds service-2.json in dir or in the newest version below it.
func modelFile(dir string) (string, error) {
	const name = "service-2.json"
	found, err := filepath.Glob(filepath.Join(dir, "*", name))
	if err != nil {
		return "", err
	}
	found = append(found, filepath.Join(dir, name))
	slices.Sort(found)
	for _, path := range slices.Backward(found) {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no %s in %s", name, dir)
}

// goName is the exported Go name of a member or shape.
func goName(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
