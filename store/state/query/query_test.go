package query

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var sample = Instance{
	Attributes: map[string]string{
		"ecs.instance-type": "g2.2xlarge", "ecs.availability-zone": "us-east-1a", "stack": "prod", "empty": "", "rack": "9", "note": "a b",
	},
	AgentConnected: true, AgentVersion: "1.10.2", EC2InstanceID: "i-0abc",
	RegisteredAt: time.Date(2018, 6, 18, 22, 28, 28, 0, time.UTC), RunningTasks: 2,
	Groups: []string{"family:web", "service:api"},
}

func TestMatch(t *testing.T) {
	for s, want := range map[string]bool{
		"attribute:ecs.instance-type =~ g2.* and attribute:ecs.availability-zone != us-east-1d": true,
		"attribute:ecs.instance-type =~ g2":                                                     false, // the whole value
		"attribute:ecs.instance-type !~ t2.*":                                                   true,
		"attribute:ecs.instance-type =~ (t2|g2)\\.[0-9]+xlarge":                                 true,
		"(attribute:ecs.instance-type =~ (t2|g2).*)":                                            true,
		"attribute:ecs.instance-type in [t2.small, t2.medium]":                                  false,
		"attribute:ecs.instance-type not_in [t2.small, t2.medium]":                              true,
		"attribute:ecs.instance-type !in [t2.small,g2.2xlarge]":                                 false,
		"attribute:note in ['a b', c]":                                                          true,
		"attribute:note == 'a b'":                                                               true,
		"not(task:group == database)":                                                           true,
		"not(task:group == service:api)":                                                        false,
		"task:group == family:web":                                                              true,
		"task:group != family:web":                                                              false,
		"task:group in [family:x, service:api]":                                                 true,
		"task:group =~ service:.*":                                                              true,
		"(attribute:stack == prod or attribute:x exists) and runningTasksCount < 3":             true,
		"attribute:stack == prod or attribute:x exists and runningTasksCount > 3":               true, // and binds tighter
		"(attribute:stack == prod or attribute:x exists) and runningTasksCount > 3":             false,
		"attribute:x !exists":                                                                   true,
		"attribute:empty exists":                                                                true,
		"attribute:empty not_exists":                                                            false,
		"!attribute:x exists && attribute:stack==prod":                                          true,
		"attribute:stack!=prod||attribute:rack==9":                                              true,
		"attribute:x != prod":                                                                   true, // it lacks the attribute
		"attribute:rack < 10":                                                                   true, // as a number
		"attribute:rack greater_than_equal 9":                                                   true,
		"attribute:stack equals prod":                                                           true,
		"attribute:stack not_equals prod":                                                       false,
		"attribute:stack matches p.*d":                                                          true,
		"attribute:stack not_matches p.*d":                                                      false,
		"agentVersion > 1.9.9":                                                                  true,
		"agentVersion less_than_equal 1.10.2":                                                   true,
		"agentVersion == 1.10.2.0":                                                              true,
		"agentConnected == true":                                                                true,
		"agentConnected != true":                                                                false,
		"ec2InstanceId in ['i-0abc', 'i-1']":                                                    true,
		"registeredAt < 2018-06-18T22:28:29+00:00":                                              true,
		"registeredAt == 2018-06-18T22:28:28Z":                                                  true,
		"registeredAt >= 2018-06-18T22:28:28":                                                   true,
		"registeredAt > 2018-06-18":                                                             true,
		"runningTasksCount >= 2":                                                                true,
		"runningTasksCount != 2":                                                                false,
		"not not runningTasksCount == 2":                                                        true,
	} {
		e, err := Parse(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if got := e.Match(&sample); got != want {
			t.Errorf("%s: %v, want %v", s, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for s, want := range map[string]string{
		"":                                       "a subject is missing",
		"  ":                                     "a subject is missing",
		"attribute:":                             `unknown subject "attribute:"`,
		"foo == 1":                               `unknown subject "foo"`,
		"attribute:x":                            `an operator is missing at ""`,
		"attribute:x ==":                         "an argument is missing",
		"attribute:x == )":                       "an argument is missing",
		"attribute:x =~ [":                       `invalid pattern "["`,
		"attribute:x =~ a)b":                     `unexpected ")b"`,
		"attribute:x in a":                       "the operator needs a list in brackets",
		"attribute:x in [a":                      "a closing bracket is missing",
		"attribute:x in []":                      "a list has an empty item",
		"attribute:x in ['a' b]":                 "a closing bracket is missing",
		"attribute:x == 'a":                      "a closing quote is missing",
		"(attribute:x exists":                    "a closing parenthesis is missing",
		"attribute:x exists)":                    `unexpected ")"`,
		"attribute:x exists attribute:y":         `unexpected "attribute:y"`,
		"runningTasksCount < many":               `"many" is not a number`,
		"runningTasksCount =~ 2":                 "the operator cannot be used on runningTasksCount =~",
		"registeredAt > yesterday":               `"yesterday" is not a date`,
		"agentConnected == yes":                  `"yes" is neither true nor false`,
		"agentConnected exists":                  "the operator cannot be used on agentConnected exists",
		strings.Repeat("(", 200):                 "the expression is nested too deeply",
		strings.Repeat("!", 200):                 "the expression is nested too deeply",
		"attribute:" + strings.Repeat("x", 2000): "an expression has at most 2000 characters",
	} {
		if _, err := Parse(s); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", s, err, want)
		}
	}
}

// Whatever stands inside, not negates, and parentheses change nothing.
func TestLaws(t *testing.T) {
	atom := rapid.SampledFrom([]string{
		"attribute:stack == prod", "attribute:x exists", "attribute:empty exists", "runningTasksCount > 2",
		"agentVersion >= 1.2", "task:group =~ s.*", "attribute:rack in [8, 9]", "ec2InstanceId == i-1",
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := atom.Draw(t, "a"), atom.Draw(t, "b"), atom.Draw(t, "c")
		match := func(s string) bool {
			e, err := Parse(s)
			if err != nil {
				t.Fatalf("%s: %v", s, err)
			}
			return e.Match(&sample)
		}
		x, y, z := match(a), match(b), match(c)
		for s, want := range map[string]bool{
			"not(" + a + ")":                        !x,
			"!" + a:                                 !x,
			a + " and " + b:                         x && y,
			a + " || " + b:                          x || y,
			a + " or " + b + " and " + c:            x || y && z,
			"(" + a + " or " + b + ") && " + c:      (x || y) && z,
			"not " + a + " and (" + b + ")":         !x && y,
			"!(" + a + " && " + b + ") or " + c:     !(x && y) || z,
			"((" + a + ")) and not (not " + b + ")": x && y,
		} {
			if got := match(s); got != want {
				t.Errorf("%s: %v, want %v", s, got, want)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"attribute:a =~ g2.* and attribute:b != c", "not(task:group == database)", "registeredAt < 2018-06-18",
		"attribute:a in [x, 'y z']", "((!agentConnected == true))", "a", "'", "attribute:a==\\",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := Parse(s)
		if err != nil {
			return
		}
		n, err := Parse("not (" + s + ")")
		if len(s) <= maxLength-6 && err != nil && !strings.Contains(err.Error(), "deeply") {
			t.Errorf("%q parses, but not its negation: %v", s, err)
		}
		if err == nil && e.Match(&sample) == n.Match(&sample) {
			t.Errorf("%q and its negation agree", s)
		}
	})
}
