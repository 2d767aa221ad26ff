package state

import "github.com/berth-run/berth/store"

// Default delivery mode of log drivers: the account setting that says it, and
// its value where nobody has set it.
const (
	LogModeSetting = "defaultLogDriverMode"
	DefaultLogMode = "non-blocking"
)

// LogMode is the delivery mode of an account's log drivers where a task
// definition names none.
func LogMode(r store.Reader, account string) string {
	if s, ok := AccountSettings.Get(r, account+"//"+LogModeSetting); ok {
		return s.Value
	}
	return DefaultLogMode
}
