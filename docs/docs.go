// Package docs holds what is written about the program, and of that the list
// of what it answers, which the program itself can show. It must never hold
// anything that the program's work depends on.
//
// coverage.json is generated: go run ./docs/gen
package docs

import (
	_ "embed"
	"encoding/json"
	"fmt"
)

//go:embed coverage.json
var coverage []byte

// A Service says what of an AWS service is answered.
type Service struct {
	Name     string   `json:"service"`
	Title    string   `json:"title"`
	Answered []string `json:"answered"`
	// Missing operations answer an error that names them.
	Missing []string `json:"missing"`
	// Stored are fields, as Operation.field, that are kept and shown without
	// being acted on, each with what that means.
	Stored map[string]string `json:"stored,omitempty"`
}

// Coverage is the list of all services.
func Coverage() (all []Service, err error) {
	if err := json.Unmarshal(coverage, &all); err != nil {
		return nil, fmt.Errorf("coverage.json: %w", err)
	}
	return all, nil
}
