// Package cron reads the schedules of Auto Scaling's scheduled actions: five
// fields, as the Unix program has them, in a time zone. It is pure: when a
// schedule is due is a function of a time.
package cron

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // so that every machine knows the zones
)

// A Schedule is a set of minutes.
type Schedule struct {
	minute, hour, day, month, weekday uint64 // bit n: the value n
	anyDay, anyWeekday                bool
}

var months = []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// Parse reads a schedule: minute, hour, day of the month, month, day of the week.
func Parse(s string) (*Schedule, error) {
	f := strings.Fields(s)
	if len(f) != 5 {
		return nil, fmt.Errorf("a recurrence has 5 fields, not %d", len(f))
	}
	var out Schedule
	var err error
	read := func(into *uint64, text string, low, high int, names []string) {
		if err == nil {
			*into, err = field(text, low, high, names)
		}
	}
	read(&out.minute, f[0], 0, 59, nil)
	read(&out.hour, f[1], 0, 23, nil)
	read(&out.day, f[2], 1, 31, nil)
	read(&out.month, f[3], 1, 12, months)
	read(&out.weekday, f[4], 0, 7, weekdays)
	if err != nil {
		return nil, err
	}
	if out.weekday&(1<<7) != 0 {
		out.weekday |= 1
	}
	out.anyDay, out.anyWeekday = strings.HasPrefix(f[2], "*"), strings.HasPrefix(f[4], "*")
	return &out, nil
}

// field reads lists of values, ranges and steps.
func field(text string, low, high int, names []string) (set uint64, err error) {
	for part := range strings.SplitSeq(text, ",") {
		span, every, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			if step, err = strconv.Atoi(every); err != nil || step < 1 || step > 100 {
				return 0, fmt.Errorf("%q is no step", part)
			}
		}
		from, to := low, high
		if span != "*" {
			a, b, ranged := strings.Cut(span, "-")
			if from, err = value(a, low, high, names); err != nil {
				return 0, err
			}
			switch {
			case ranged:
				if to, err = value(b, low, high, names); err != nil {
					return 0, err
				}
			case !stepped:
				to = from
			}
			if to < from {
				return 0, fmt.Errorf("the range %q is empty", span)
			}
		}
		for n := from; n <= to; n += step {
			set |= 1 << n
		}
	}
	return set, nil
}

func value(s string, low, high int, names []string) (int, error) {
	for i, name := range names {
		if strings.EqualFold(s, name) {
			return low + i, nil
		}
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < low || n > high || s[0] == '+' {
		return 0, fmt.Errorf("%q is not from %d to %d", s, low, high)
	}
	return n, nil
}

// horizon is how far a schedule is followed: the 29th of February comes at
// least every eight years.
const horizon = 9 * 366

// Next is the first minute after t that the schedule has in the zone, zero if
// there is none. An hour that a change of the clocks leaves out does not come,
// and of one that comes twice it is the first.
func (s *Schedule) Next(t time.Time, zone *time.Location) time.Time {
	l := t.In(zone)
	year, month, day := l.Date()
	for range horizon {
		if s.on(year, month, day) {
			for hour := range 24 {
				if s.hour&(1<<hour) == 0 {
					continue
				}
				for minute := range 60 {
					if s.minute&(1<<minute) == 0 {
						continue
					}
					at := time.Date(year, month, day, hour, minute, 0, 0, zone)
					if at.Hour() == hour && at.Minute() == minute && at.After(t) {
						return at
					}
				}
			}
		}
		// Noon is on every day, whatever the clocks do.
		year, month, day = time.Date(year, month, day+1, 12, 0, 0, 0, zone).Date()
	}
	return time.Time{}
}

// on reports whether the schedule has the day. Where both the day of the month
// and that of the week are given, either will do.
func (s *Schedule) on(year int, month time.Month, day int) bool {
	if s.month&(1<<int(month)) == 0 {
		return false
	}
	d := s.day&(1<<day) != 0
	w := s.weekday&(1<<int(time.Date(year, month, day, 12, 0, 0, 0, time.UTC).Weekday())) != 0
	switch {
	case s.anyDay || s.anyWeekday:
		return d && w
	default:
		return d || w
	}
}
