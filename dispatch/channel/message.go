package channel

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// headerLength is what the first field of a frame says: all that comes before
// the length of the payload.
const headerLength = 116

// Kinds of frames.
const (
	inputStream  = "input_stream_data"
	outputStream = "output_stream_data"
	acknowledge  = "acknowledge"
	closed       = "channel_closed"
	publish      = "start_publication"
	pause        = "pause_publication"
)

// Kinds of payloads.
const (
	payloadOutput            = 1
	payloadSize              = 3
	payloadHandshakeRequest  = 5
	payloadHandshakeResponse = 6
	payloadHandshakeComplete = 7
	payloadFlag              = 10
	payloadExitCode          = 12
)

// flagTerminate is the payload of a flag that ends the session.
const flagTerminate = 2

// message is a frame.
type message struct {
	kind     string
	created  time.Time
	sequence int64
	flags    uint64
	id       [16]byte // as it is written: the most significant byte first
	payload  uint32   // its kind
	data     []byte
}

// encode is the frame on the wire: big-endian, the halves of the id changed
// over, the kind filled up with spaces.
func (m message) encode() []byte {
	b := make([]byte, 0, headerLength+4+len(m.data))
	b = binary.BigEndian.AppendUint32(b, headerLength)
	b = fmt.Appendf(b, "%-32.32s", m.kind)
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint64(b, uint64(m.created.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64(m.sequence))
	b = binary.BigEndian.AppendUint64(b, m.flags)
	b = append(b, m.id[8:]...)
	b = append(b, m.id[:8]...)
	sum := sha256.Sum256(m.data)
	b = append(b, sum[:]...)
	b = binary.BigEndian.AppendUint32(b, m.payload)
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.data)))
	return append(b, m.data...)
}

// decode reads a frame. What it answers shares memory with b.
func decode(b []byte) (m message, err error) {
	if len(b) < headerLength+4 {
		return m, fmt.Errorf("frame of %d bytes is shorter than a header", len(b))
	}
	header := binary.BigEndian.Uint32(b)
	if header < headerLength || uint64(header)+4 > uint64(len(b)) {
		return m, fmt.Errorf("header of %d bytes in a frame of %d", header, len(b))
	}
	m.kind = strings.Trim(string(b[4:36]), " \x00\t\r\n")
	m.created = time.UnixMilli(int64(binary.BigEndian.Uint64(b[40:]))).UTC()
	m.sequence = int64(binary.BigEndian.Uint64(b[48:]))
	m.flags = binary.BigEndian.Uint64(b[56:])
	copy(m.id[8:], b[64:72])
	copy(m.id[:8], b[72:80])
	m.payload = binary.BigEndian.Uint32(b[112:])
	length := binary.BigEndian.Uint32(b[header:])
	m.data = b[header+4:]
	if uint64(length) != uint64(len(m.data)) {
		return m, fmt.Errorf("payload of %d bytes says that it has %d", len(m.data), length)
	}
	if sum := sha256.Sum256(m.data); len(m.data) > 0 && string(sum[:]) != string(b[80:112]) && m.kind != publish && m.kind != pause {
		return m, errors.New("payload does not have the digest that the frame gives")
	}
	return m, nil
}

// uuid is an id in the usual notation.
func uuid(id [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
