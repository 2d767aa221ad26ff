package cron

import (
	"testing"
	"time"
)

func TestNext(t *testing.T) {
	for _, c := range []struct{ cron, zone, from, want string }{
		{"0 10 * * *", "UTC", "2026-01-01T09:59:00Z", "2026-01-01T10:00:00Z"},
		{"0 10 * * *", "UTC", "2026-01-01T10:00:00Z", "2026-01-02T10:00:00Z"},
		{"*/15 * * * *", "UTC", "2026-01-01T10:01:00Z", "2026-01-01T10:15:00Z"},
		{"5-10/5 3,4 * * *", "UTC", "2026-01-01T03:06:00Z", "2026-01-01T03:10:00Z"},
		{"30 0 1 1,6,12 *", "UTC", "2026-01-02T00:00:00Z", "2026-06-01T00:30:00Z"},
		{"0 0 29 FEB *", "UTC", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"},
		{"0 9 * * MON-FRI", "UTC", "2026-01-02T09:00:00Z", "2026-01-05T09:00:00Z"},
		{"0 9 13 * 5", "UTC", "2026-01-01T09:00:00Z", "2026-01-02T09:00:00Z"}, // the 13th or a Friday
		{"0 0 * * 7", "UTC", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"},
		{"0 9 * * *", "Europe/Vienna", "2026-07-01T00:00:00Z", "2026-07-01T07:00:00Z"},
		{"30 2 * * *", "Europe/Vienna", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"}, // 2:30 on the 29th is left out
		{"0 0 31 2 *", "UTC", "2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z"},
	} {
		s, err := Parse(c.cron)
		if err != nil {
			t.Errorf("%s: %v", c.cron, err)
			continue
		}
		zone, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		from, _ := time.Parse(time.RFC3339, c.from)
		if got := s.Next(from, zone).UTC().Format(time.RFC3339); got != c.want {
			t.Errorf("%s in %s after %s: %s, want %s", c.cron, c.zone, c.from, got, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, s := range []string{"", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *", "*/0 * * * *", "a * * * *", "+1 * * * *", ", * * * *", "1- * * * *", "@daily"} {
		if _, err := Parse(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0 10 * * *", "*/15 1-5/2 1,2 JAN SUN", "0 0 31 2 *"} {
		f.Add(s)
	}
	from := time.Date(2026, 1, 1, 0, 0, 30, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse(s)
		if err != nil {
			return
		}
		if next := c.Next(from, time.UTC); !next.IsZero() && (!next.After(from) || next.Second() != 0) {
			t.Errorf("%q: %s", s, next)
		}
	})
}
