// Package lifecycle is the language of ECR's lifecycle policies: it reads them,
// and says what a policy does to the images of a repository at a time.
//
// It decides and does nothing: who deletes is control/lifecycle, who shows a
// preview is service/ecr. It must never read a clock or write a row.
package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Policy is a lifecycle policy whose rules are in the order of their priority.
type Policy struct{ Rules []Rule }

// Rule selects images and says what happens to them.
type Rule struct {
	Priority  int
	TagStatus string   // tagged, untagged, any
	Prefixes  []string // an image has a tag for each of them
	Patterns  []string // the same, with * for any text
	CountType string
	Number    int
	Archive   bool // selects archived images; else those that are not
	// Transition: images are archived; else they expire.
	Transition bool
}

// What rules count.
const (
	Count       = "imageCountMoreThan"
	SincePushed = "sinceImagePushed"
	SincePulled = "sinceImagePulled"
	SinceMoved  = "sinceImageTransitioned"
)

// Limits of the language.
const (
	maxRules     = 50
	maxWildcards = 4
)

// document is a policy as it is written.
type document struct {
	Rules []struct {
		RulePriority *int    `json:"rulePriority"`
		Description  *string `json:"description"`
		Selection    *struct {
			TagStatus      string   `json:"tagStatus"`
			TagPrefixList  []string `json:"tagPrefixList"`
			TagPatternList []string `json:"tagPatternList"`
			CountType      string   `json:"countType"`
			CountUnit      string   `json:"countUnit"`
			CountNumber    *int     `json:"countNumber"`
			StorageClass   string   `json:"storageClass"`
		} `json:"selection"`
		Action *struct {
			Type               string `json:"type"`
			TargetStorageClass string `json:"targetStorageClass"`
		} `json:"action"`
	} `json:"rules"`
}

var errNoPolicy = errors.New("Could not map policyString into LifecyclePolicy.") //lint:ignore ST1005 AWS's text

// missing says which of the named properties an object lacks.
func missing(has map[string]bool) error {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(has)) {
		if !has[name] {
			names = append(names, `"`+name+`"`)
		}
	}
	if names == nil {
		return nil
	}
	return fmt.Errorf("object has missing required properties ([%s])", strings.Join(names, ","))
}

func oneOf(value string, of ...string) error {
	if slices.Contains(of, value) {
		return nil
	}
	return fmt.Errorf(`instance value ("%s") not found in enum (possible values: ["%s"])`, value, strings.Join(of, `","`))
}

func least(n int) error {
	if n < 1 {
		return fmt.Errorf("numeric instance is lower than the required minimum (minimum: 1, found: %d)", n)
	}
	return nil
}

// Parse reads a policy and holds it to the rules of the language.
func Parse(text string) (*Policy, error) {
	var doc document
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return nil, fmt.Errorf("object instance has properties which are not allowed by the schema: ([%s])", name)
		}
		return nil, errNoPolicy
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errNoPolicy
	}
	if err := missing(map[string]bool{"rules": doc.Rules != nil}); err != nil {
		return nil, err
	}
	if n := len(doc.Rules); n == 0 || n > maxRules {
		return nil, fmt.Errorf("a policy has 1 to %d rules", maxRules)
	}
	p := &Policy{}
	for _, r := range doc.Rules {
		if err := missing(map[string]bool{"action": r.Action != nil, "rulePriority": r.RulePriority != nil, "selection": r.Selection != nil}); err != nil {
			return nil, err
		}
		s := r.Selection
		if err := missing(map[string]bool{"countNumber": s.CountNumber != nil, "countType": s.CountType != "", "tagStatus": s.TagStatus != ""}); err != nil {
			return nil, err
		}
		for _, err := range []error{
			least(*r.RulePriority),
			oneOf(s.TagStatus, "any", "tagged", "untagged"),
			oneOf(s.CountType, Count, SincePulled, SincePushed, SinceMoved),
			oneOf(r.Action.Type, "expire", "transition"),
			least(*s.CountNumber),
		} {
			if err != nil {
				return nil, err
			}
		}
		if s.StorageClass != "" {
			if err := oneOf(s.StorageClass, "archive", "standard"); err != nil {
				return nil, err
			}
		}
		archive := s.StorageClass == "archive"
		tags := len(s.TagPrefixList) + len(s.TagPatternList)
		var err error
		switch {
		case slices.ContainsFunc(p.Rules, func(have Rule) bool { return have.Priority == *r.RulePriority }):
			err = fmt.Errorf("rule priority %d is used more than once", *r.RulePriority)
		case s.CountType == Count && s.CountUnit != "":
			err = errors.New("countUnit is not allowed with countType imageCountMoreThan")
		case s.CountType != Count && s.CountUnit != "days":
			err = errors.New("countUnit must be days with a countType of time")
		case s.TagStatus == "tagged" && tags == 0:
			err = errors.New("tagPrefixList or tagPatternList is required with tagStatus tagged")
		case len(s.TagPrefixList) > 0 && len(s.TagPatternList) > 0:
			err = errors.New("tagPrefixList and tagPatternList exclude each other")
		case s.TagStatus != "tagged" && tags > 0:
			err = errors.New("tagPrefixList and tagPatternList are only allowed with tagStatus tagged")
		case (r.Action.Type == "transition") != (r.Action.TargetStorageClass == "archive"):
			err = errors.New("an action of type transition, and no other, has targetStorageClass archive")
		case archive != (s.CountType == SinceMoved):
			err = errors.New("countType sinceImageTransitioned, and no other, has storageClass archive")
		case archive && r.Action.Type == "transition":
			err = errors.New("what is in storageClass archive can only expire")
		case slices.Contains(slices.Concat(s.TagPrefixList, s.TagPatternList), ""):
			err = errors.New("a tag prefix or pattern has at least one character")
		case slices.ContainsFunc(s.TagPatternList, func(p string) bool { return strings.Count(p, "*") > maxWildcards }):
			err = fmt.Errorf("a tag pattern can have at most %d wildcards", maxWildcards)
		}
		if err != nil {
			return nil, err
		}
		p.Rules = append(p.Rules, Rule{
			Priority: *r.RulePriority, TagStatus: s.TagStatus, Prefixes: s.TagPrefixList, Patterns: s.TagPatternList,
			CountType: s.CountType, Number: *s.CountNumber, Archive: archive, Transition: r.Action.Type == "transition",
		})
	}
	slices.SortFunc(p.Rules, func(a, b Rule) int { return a.Priority - b.Priority })
	// Of each storage class, what takes any image comes last.
	for i, r := range p.Rules {
		if r.TagStatus != "any" {
			continue
		}
		for _, later := range p.Rules[i+1:] {
			switch {
			case later.Archive != r.Archive:
			case later.TagStatus == "any":
				return nil, errors.New("only one rule can have tagStatus any")
			default:
				return nil, errors.New("the rule with tagStatus any must have the highest rulePriority")
			}
		}
	}
	return p, nil
}
