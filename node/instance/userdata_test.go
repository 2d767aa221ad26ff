package instance

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/berth-run/berth/node/guest"
)

func zipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(s))
	z.Close()
	return b.String()
}

const message = "Content-Type: multipart/mixed; boundary=\"//\"\r\nMIME-Version: 1.0\r\n\r\n" +
	"--//\r\nContent-Type: text/x-shellscript; charset=\"us-ascii\"\r\nContent-Disposition: attachment; filename=\"../one.sh\"\r\n\r\n#!/bin/sh\necho 1\r\n" +
	"--//\r\nContent-Type: text/cloud-config\r\n\r\n#cloud-config\npackages: [x]\r\n" +
	"--//\r\nContent-Type: text/x-shellscript\r\nContent-Transfer-Encoding: base64\r\n\r\nIyEvYmluL3NoCmVjaG8gMgo=\r\n" +
	"--//--\r\n"

func TestUserData(t *testing.T) {
	const script = "#!/bin/bash\necho hello\n"
	for name, c := range map[string]struct {
		in   string
		want []guest.Part
	}{
		"nothing":              {"", nil},
		"a script":             {script, []guest.Part{{Script: []byte(script)}}},
		"compressed":           {zipped(script), []guest.Part{{Script: []byte(script)}}},
		"encoded twice":        {base64.StdEncoding.EncodeToString([]byte(script)), []guest.Part{{Script: []byte(script)}}},
		"encoded, compressed":  {base64.StdEncoding.EncodeToString([]byte(zipped(script))), []guest.Part{{Script: []byte(script)}}},
		"cloud-config":         {"#cloud-config\nusers: []\n", []guest.Part{{Note: "cloud-config is not supported"}}},
		"words":                {"hello", []guest.Part{{Note: `unhandled non-multipart user data starting "hello"`}}},
		"several":              {message, []guest.Part{{Name: "one.sh", Script: []byte("#!/bin/sh\necho 1")}, {Note: "cloud-config is not supported"}, {Script: []byte("#!/bin/sh\necho 2\n")}}},
		"several, compressed":  {zipped(message), []guest.Part{{Name: "one.sh", Script: []byte("#!/bin/sh\necho 1")}, {Note: "cloud-config is not supported"}, {Script: []byte("#!/bin/sh\necho 2\n")}}},
		"as written by Python": {"From nobody Thu Jan  1 00:00:00 1970\n" + message, []guest.Part{{Name: "one.sh", Script: []byte("#!/bin/sh\necho 1")}, {Note: "cloud-config"}, {Script: []byte("#!/bin/sh\necho 2\n")}}},
		"a bomb":               {zipped(strings.Repeat("#", maxUserData+1)), []guest.Part{{Note: "a compressed part cannot be read"}}},
	} {
		t.Run(name, func(t *testing.T) {
			got := userData([]byte(c.in))
			if len(got) != len(c.want) {
				t.Fatalf("got %q", got)
			}
			for i, p := range got {
				if p.Name != c.want[i].Name || !bytes.Equal(p.Script, c.want[i].Script) || !strings.HasPrefix(p.Note, c.want[i].Note) || (p.Note == "") != (c.want[i].Note == "") {
					t.Errorf("part %d: got %q, want %q", i, p, c.want[i])
				}
			}
		})
	}
}

func FuzzUserData(f *testing.F) {
	for _, s := range []string{"#!/bin/sh\n", message, zipped(message), "#cloud-config", base64.StdEncoding.EncodeToString([]byte(message))} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		size := 0
		parts := userData(b)
		for _, p := range parts {
			if (p.Note == "") == (p.Script == nil) || strings.Contains(p.Name, "/") {
				t.Fatalf("part %q", p)
			}
			size += len(p.Script)
		}
		if size > maxUserData || len(parts) > maxParts {
			t.Fatalf("%d parts of %d bytes", len(parts), size)
		}
	})
}
