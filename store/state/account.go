package state

import (
	"reflect"
	"strings"
	"sync"

	"github.com/berth-run/berth/store"
)

// Every row belongs to an account or to the region as a whole. An account that
// goes takes its rows along, so for each table it must be known which: a row
// says so by a field Account, or its table is in one of the two maps below. A
// test fails for a table of which neither holds.

// shared are the tables of the region as a whole.
var shared = map[string]bool{
	"region": true, "node": true, "registrykey": true, "identitykey": true,
	"account": true, // goes last, by who closes it
}

// owners tell the account of rows that have no field for it, by their key. A
// row may have to be found by another one: all of these go before the others.
var owners = map[string]func(r store.Reader, key string) string{
	"image":        owningRegistry,
	"imagetag":     owningRegistry,
	"layer":        owningRegistry,
	"imagereplica": owningRegistry, "lifecyclerun": owningRegistry, "lifecyclepreview": owningRegistry,
	"event": func(_ store.Reader, arn string) string { return AccountOf(arn) },
	"claim": func(_ store.Reader, arn string) string { return AccountOf(arn) },
	"guard": named,
	"sgname": func(r store.Reader, key string) string {
		if v, ok := VPCs.Get(r, before(key, "/")); ok {
			return v.Account
		}
		return ""
	},
	"lease": func(r store.Reader, key string) string {
		if l, ok := AddressLeases.Get(r, key); ok {
			if e, ok := NetworkInterfaces.Get(r, l.ENI); ok {
				return e.Account
			}
			if e, ok := ElasticIPs.Get(r, l.Owner); ok {
				return e.Account
			}
			if v, ok := VPCs.Get(r, l.Owner); ok {
				return v.Account
			}
			if s, ok := Subnets.Get(r, l.Scope); ok {
				return s.Account
			}
		}
		return ""
	},
}

func owningRegistry(_ store.Reader, key string) string {
	account, _ := RepositoryOf(key)
	return account
}

// named finds an account's id as one part of a key.
func named(_ store.Reader, key string) string {
	for part := range strings.FieldsFuncSeq(key, func(c rune) bool { return c == '/' || c == ':' }) {
		if IsAccountID(part) {
			return part
		}
	}
	return ""
}

func before(s, separator string) string {
	head, _, _ := strings.Cut(s, separator)
	return head
}

// IsAccountID reports whether s is of the form of an account's id.
func IsAccountID(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// AccountOf is the account that an ARN names, "" for none.
func AccountOf(arn string) string {
	if p := strings.SplitN(arn, ":", 6); len(p) == 6 && p[0] == "arn" {
		return p[4]
	}
	return ""
}

// accountFields remembers where rows have their field Account: type → index, or -1.
var accountFields sync.Map

func accountField(t reflect.Type) int {
	if i, ok := accountFields.Load(t); ok {
		return i.(int)
	}
	at := -1
	if f, ok := t.FieldByName("Account"); ok && len(f.Index) == 1 && f.Type.Kind() == reflect.String {
		at = f.Index[0]
	}
	accountFields.Store(t, at)
	return at
}

// Owner is the account that a row belongs to, "" if to none. It is known only
// if ok.
func Owner(r store.Reader, t store.AnyTable, key string, row any) (account string, ok bool) {
	if shared[t.Name()] {
		return "", true
	}
	if of := owners[t.Name()]; of != nil {
		return of(r, key), true
	}
	v := reflect.ValueOf(row).Elem()
	if i := accountField(v.Type()); i >= 0 {
		return v.Field(i).String(), true
	}
	return "", false
}

// An OwnedRow is a row of an account.
type OwnedRow struct {
	Table store.AnyTable
	Key   string
	Row   any
}

// Owned are up to limit rows of an account, in an order in which they may be
// deleted: what tells the owner of another row comes after it.
func Owned(r store.Reader, account string, limit int) (rows []OwnedRow) {
	for _, derived := range []bool{true, false} {
		for _, t := range store.Tables() {
			if shared[t.Name()] || (owners[t.Name()] != nil) != derived {
				continue
			}
			for key, row := range store.Rows(r, t) {
				if a, _ := Owner(r, t, key, row); a != account {
					continue
				}
				if len(rows) == limit {
					return rows
				}
				rows = append(rows, OwnedRow{t, key, row})
			}
		}
	}
	return rows
}
