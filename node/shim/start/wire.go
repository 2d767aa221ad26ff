package start

import "errors"

// What the daemon and the starter say to each other is two protobuf messages,
// runtime.bootstrap.v1.BootstrapParams and BootstrapResult, of which this needs
// one field and three.

type params struct{ sockets string } // socket_dir

const socketDir = 9

var errMessage = errors.New("not a protobuf message")

// decode reads the daemon's message.
func decode(b []byte) (p params, err error) {
	for len(b) > 0 {
		tag, rest, ok := varint(b)
		if !ok {
			return p, errMessage
		}
		b = rest
		switch tag & 7 {
		case 0:
			if _, b, ok = varint(b); !ok {
				return p, errMessage
			}
		case 1, 5:
			n := 8
			if tag&7 == 5 {
				n = 4
			}
			if len(b) < n {
				return p, errMessage
			}
			b = b[n:]
		case 2:
			n, rest, ok := varint(b)
			if !ok || n > uint64(len(rest)) {
				return p, errMessage
			}
			if tag>>3 == socketDir {
				p.sockets = string(rest[:n])
			}
			b = rest[n:]
		default:
			return p, errMessage
		}
	}
	return p, nil
}

func varint(b []byte) (v uint64, rest []byte, ok bool) {
	for i, c := range b {
		if i == 10 {
			break
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, b[i+1:], true
		}
	}
	return 0, nil, false
}

// encode is the answer: version 3 of the shim's protocol, the address, ttrpc.
func encode(address string) []byte {
	return text(text([]byte{1 << 3, 3}, 2, address), 3, "ttrpc")
}

func text(out []byte, field byte, s string) []byte {
	out = append(out, field<<3|2)
	n := len(s)
	for ; n >= 0x80; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return append(append(out, byte(n)), s...)
}
