package wire

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// formatTime writes t in one of the model's text formats; "" is iso8601.
func formatTime(t time.Time, format string) string {
	switch format {
	case "rfc822":
		return t.UTC().Format(http.TimeFormat)
	case "unixTimestamp":
		return string(appendEpoch(nil, t))
	}
	if t.Nanosecond()/int(time.Millisecond) == 0 {
		return t.UTC().Format("2006-01-02T15:04:05Z")
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// parseTime reads what AWS takes for a time in any protocol: the format of the
// model first, then ISO 8601 with or without time and zone, then seconds. AWS
// keeps milliseconds, and so does this.
func parseTime(s, format string) (time.Time, error) {
	if format == "rfc822" {
		if t, err := http.ParseTime(s); err == nil {
			return t, nil
		}
	}
	if format != "unixTimestamp" {
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "20060102T150405Z", time.DateOnly} {
			if t, err := time.Parse(layout, s); err == nil {
				return t.UTC().Truncate(time.Millisecond), nil
			}
		}
	}
	if strings.ContainsAny(s, "xXpP_") {
		return time.Time{}, fmt.Errorf("%q is not a time", s)
	}
	f, err := strconv.ParseFloat(s, 64)
	// Beyond the year 9999 (and its mirror image) nothing can be written back.
	if err != nil || math.IsNaN(f) || math.Abs(f) >= 253402300800 {
		return time.Time{}, fmt.Errorf("%q is not a time", s)
	}
	return time.UnixMilli(int64(math.Round(f * 1000))).UTC(), nil
}
