package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Keys in etcd. Everything of ours is below keyRoot.
const (
	keyRoot    = "/berth/"
	keyObjects = keyRoot + "v1/"    // v1/<table>/<key>
	keySchema  = keyRoot + "schema" // the version of all this, as a decimal number
	keySealKey = keyRoot + "sealkey"
	keyLeader  = keyRoot + "leader/"

	schemaVersion = 1
)

// The first byte of a stored value says how the rest is to be read.
const (
	formatJSON   = 1
	formatSealed = 2 // see keyring.seal
)

func etcdKey(m *tableMeta, key string) string { return keyObjects + m.name + "/" + key }

// splitKey takes an etcd key apart; ok is false if it is not one of an object.
func splitKey(k string) (table, key string, ok bool) {
	rest, ok := strings.CutPrefix(k, keyObjects)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, "/")
}

// A codec turns objects into stored values and back.
type codec struct{ keys *keyring }

// plain is the part of a value that says whether two objects are the same.
func plain(obj any) ([]byte, error) { return json.Marshal(obj) }

// store makes the value of an object from its plain encoding.
func (c *codec) store(m *tableMeta, key string, plain []byte) ([]byte, error) {
	if m.sealed {
		return c.keys.seal(etcdKey(m, key), plain)
	}
	return append(append(make([]byte, 0, len(plain)+1), formatJSON), plain...), nil
}

// load reads a value into an entry. It never fails: what cannot be read makes an entry that holds
// the error.
func (c *codec) load(m *tableMeta, key string, rev int64, value []byte) *entry {
	obj, err := c.decode(m, key, value)
	if err != nil {
		return &entry{key: key, rev: rev, err: &DamagedError{etcdKey(m, key), err}}
	}
	return newEntry(m, key, rev, obj)
}

func (c *codec) decode(m *tableMeta, key string, value []byte) (obj any, err error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if len(value) == 0 {
		return nil, errors.New("empty value")
	}
	body := value[1:]
	switch value[0] {
	case formatJSON:
		if m.sealed {
			return nil, errors.New("stored in clear in a table that is sealed")
		}
	case formatSealed:
		if body, err = c.keys.open(etcdKey(m, key), body); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("unknown format %d", value[0])
	}
	obj, err = m.decode(body)
	if err != nil {
		return nil, err
	}
	if have := m.key(obj); have != key {
		return nil, fmt.Errorf("the object inside says that its key is %q", have)
	}
	return obj, nil
}
