package page

import (
	"errors"
	"testing"
	"time"
)

func TestToken(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	q := Query{"ListTasks", "000000000000", "cluster"}
	token := Encode(q, "key/of:the last", now)
	if after, err := Decode(q, token, now.Add(Life-time.Second)); err != nil || after != "key/of:the last" {
		t.Errorf("Decode = %q, %v", after, err)
	}
	for _, c := range []struct {
		name  string
		query Query
		token string
		after time.Duration
		want  error
	}{
		{"another query", Query{"ListTasks", "000000000000", "other"}, token, 0, ErrInvalid},
		{"joined fields", Query{"ListTasks", "000000000000cluster"}, token, 0, ErrInvalid},
		{"cut", q, token[:len(token)-4], 0, ErrInvalid},
		{"not base64", q, "!!", 0, ErrInvalid},
		{"empty", q, "", 0, ErrInvalid},
		{"old", q, token, Life, ErrExpired},
	} {
		if _, err := Decode(c.query, c.token, now.Add(c.after)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	q := Query{"ListTasks"}
	f.Add(Encode(q, "a", now))
	f.Add("e30")
	f.Fuzz(func(t *testing.T, s string) {
		after, err := Decode(q, s, now)
		if err == nil && after == "" && len(s) == 0 {
			t.Error("an empty token was accepted")
		}
	})
}
