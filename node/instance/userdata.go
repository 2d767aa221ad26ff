package instance

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"path"
	"strings"

	"github.com/berth-run/berth/node/guest"
)

const (
	// maxUserData is the most that user data may be once it is unpacked.
	maxUserData = 1 << 20
	// maxParts bounds the parts of a multipart message, nested ones included.
	maxParts = 64
)

// userData takes user data apart as cloud-init does: a script, or a MIME
// message with several; either may be compressed, and encoded once too often.
// What is none gets a note that says so on the console.
func userData(data []byte) []guest.Part {
	var u unpacker
	u.take("", "", data, 0)
	return u.parts
}

type unpacker struct {
	parts []guest.Part
	size  int
}

func (u *unpacker) note(format string, args ...any) {
	if len(u.parts) < maxParts {
		u.parts = append(u.parts, guest.Part{Note: fmt.Sprintf(format, args...)})
	}
}

// take is one piece: kind is its MIME type if it has one.
func (u *unpacker) take(name, kind string, data []byte, depth int) {
	if len(bytes.TrimSpace(data)) == 0 {
		return
	}
	if depth > 8 || len(u.parts) >= maxParts {
		u.note("more parts than can be handled")
		return
	}
	if unzipped, ok, err := gunzip(data); err != nil {
		u.note("a compressed part cannot be read: %v", err)
		return
	} else if ok {
		u.take(name, kind, unzipped, depth+1)
		return
	}
	switch {
	case bytes.HasPrefix(data, []byte("#!")) && (kind == "" || kind == "text/x-shellscript" || kind == "text/plain" || strings.HasPrefix(kind, "text/x-shellscript-")):
		if u.size += len(data); u.size > maxUserData {
			u.note("more than %d bytes of scripts", maxUserData)
			return
		}
		u.parts = append(u.parts, guest.Part{Name: name, Script: data})
	case bytes.HasPrefix(data, []byte("#cloud-config")) || kind == "text/cloud-config":
		u.note("cloud-config is not supported by this region's instances; it is not applied")
	case bytes.HasPrefix(data, []byte("#include")) || bytes.HasPrefix(data, []byte("#cloud-boothook")) || bytes.HasPrefix(data, []byte("#part-handler")) || bytes.HasPrefix(data, []byte("#upstart-job")) || bytes.HasPrefix(data, []byte("## template:")):
		first, _, _ := bytes.Cut(data, []byte("\n"))
		u.note("%q is not supported by this region's instances; it is not applied", clip(string(first)))
	case kind == "" && isMIME(data), strings.HasPrefix(kind, "multipart/"):
		u.message(data, depth)
	case kind != "":
		u.note("a part of type %s is not supported by this region's instances; it is not applied", clip(kind))
	default:
		// Some tools encode what the API encodes anyway.
		if plain, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(data)), "")); err == nil && known(plain) {
			u.take(name, kind, plain, depth+1)
			return
		}
		first, _, _ := bytes.Cut(data, []byte("\n"))
		u.note("unhandled non-multipart user data starting %q", clip(string(first)))
	}
}

func clip(s string) string {
	if len(s) > 60 {
		s = s[:60]
	}
	return strings.TrimSpace(s)
}

func known(b []byte) bool {
	return bytes.HasPrefix(b, []byte("#!")) || bytes.HasPrefix(b, []byte("#cloud-")) || bytes.HasPrefix(b, gzipMagic) || isMIME(b)
}

var gzipMagic = []byte{0x1f, 0x8b}

func gunzip(b []byte) ([]byte, bool, error) {
	if !bytes.HasPrefix(b, gzipMagic) {
		return nil, false, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, true, err
	}
	out, err := io.ReadAll(io.LimitReader(z, maxUserData+1))
	if err == nil && len(out) > maxUserData {
		err = fmt.Errorf("it is more than %d bytes", maxUserData)
	}
	return out, true, err
}

func isMIME(b []byte) bool {
	head := strings.ToLower(string(b[:min(len(b), 400)]))
	return strings.HasPrefix(head, "content-type:") || strings.HasPrefix(head, "mime-version:") || strings.HasPrefix(head, "from nobody") && strings.Contains(head, "\ncontent-type:")
}

// message is a MIME message.
func (u *unpacker) message(data []byte, depth int) {
	if bytes.HasPrefix(bytes.ToLower(data), []byte("from nobody")) {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	m, err := mail.ReadMessage(bytes.NewReader(data))
	if err != nil {
		u.note("a MIME message cannot be read: %v", err)
		return
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		u.note("a MIME message has no readable type: %v", err)
		return
	}
	if !strings.HasPrefix(kind, "multipart/") {
		u.part(m.Header.Get("Content-Disposition"), kind, m.Header.Get("Content-Transfer-Encoding"), m.Body, depth)
		return
	}
	u.multipart(params["boundary"], m.Body, depth)
}

func (u *unpacker) multipart(boundary string, body io.Reader, depth int) {
	if boundary == "" || depth > 8 {
		u.note("a MIME message without a boundary, or too deep")
		return
	}
	r := multipart.NewReader(io.LimitReader(body, maxUserData), boundary)
	for len(u.parts) < maxParts {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return
		}
		if err != nil {
			u.note("a MIME message cannot be read: %v", err)
			return
		}
		kind, params, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			kind = "text/plain"
		}
		if strings.HasPrefix(kind, "multipart/") {
			u.multipart(params["boundary"], p, depth+1)
			continue
		}
		u.part(p.Header.Get("Content-Disposition"), kind, p.Header.Get("Content-Transfer-Encoding"), p, depth)
	}
}

func (u *unpacker) part(disposition, kind, encoding string, body io.Reader, depth int) {
	switch strings.ToLower(encoding) {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	b, err := io.ReadAll(io.LimitReader(body, maxUserData))
	if err != nil {
		u.note("a part of a MIME message cannot be read: %v", err)
		return
	}
	name := ""
	if _, params, err := mime.ParseMediaType(disposition); err == nil {
		if n := path.Base(path.Clean("/" + params["filename"])); n != "/" && n != "." && len(n) < 200 && !strings.ContainsAny(n, "\x00\n") {
			name = n
		}
	}
	if kind == "application/octet-stream" || kind == "text/plain" {
		kind = "" // the content says what it is
	}
	u.take(name, kind, b, depth+1)
}
