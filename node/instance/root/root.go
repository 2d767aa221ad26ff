// Package root makes the root file system of the ECS-optimized AMIs out of
// programs of the machine: a shell, the core utilities and what small scripts
// use, with the libraries that they are linked with and the few files without
// which these do not work. It is a layer of an OCI image.
//
// What goes in is a list; it must never take anything of the machine that is
// not on it: no configuration, no keys, no names, nothing of its users.
package root

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Required are the programs without which there is no root.
var Required = []string{
	"sh", "cat", "chmod", "chown", "cp", "date", "dd", "df", "dirname", "basename", "du", "echo", "env", "expr", "false", "head", "hostname", "id",
	"ln", "ls", "mkdir", "mktemp", "mv", "nproc", "printf", "pwd", "readlink", "rm", "rmdir", "sleep", "sort", "stat", "tail", "tee", "test",
	"touch", "tr", "true", "uname", "uniq", "wc", "whoami", "grep", "sed", "awk", "tar", "gzip", "curl", "ip",
}

// Wanted are those that come along where the machine has them.
var Wanted = []string{
	"bash", "[", "arch", "b2sum", "base32", "base64", "bridge", "bunzip2", "bzcat", "bzip2", "chgrp", "cksum", "clear", "cmp", "comm", "csplit",
	"cut", "diff", "dir", "dircolors", "egrep", "expand", "factor", "fgrep", "find", "findmnt", "flock", "fmt", "fold", "free", "getconf",
	"getent", "getopt", "groups", "gunzip", "hostid", "install", "join", "jq", "kill", "less", "link", "logger", "logname", "md5sum", "mkfifo",
	"mknod", "more", "mount", "mountpoint", "nc", "nice", "nl", "nohup", "numfmt", "od", "openssl", "paste", "pathchk", "pgrep", "pidof", "ping",
	"pkill", "pr", "printenv", "prlimit", "ps", "ptx", "realpath", "rev", "seq", "setsid", "sha1sum", "sha224sum", "sha256sum", "sha384sum",
	"sha512sum", "shred", "shuf", "split", "ss", "stdbuf", "stty", "sum", "sync", "sysctl", "tac", "tc", "timeout", "top", "truncate", "tsort", "tty",
	"umount", "unexpand", "unlink", "unxz", "uptime", "users", "vdir", "vmstat", "watch", "wget", "which", "who", "xargs", "xz", "xzcat", "yes",
	"zcat", "zgrep", "dig", "nslookup", "host",
}

// modules are libraries that others load by name while they run.
var modules = []string{"libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"}

// certificates are where systems keep the authorities they trust, as one file.
var certificates = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
}

// own are files that are not the machine's.
func own() map[string]string {
	return map[string]string{
		"etc/passwd":        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\nec2-user:x:1000:1000:EC2 Default User:/home/ec2-user:/bin/sh\n",
		"etc/group":         "root:x:0:\nadm:x:4:\ntty:x:5:\nwheel:x:10:ec2-user\nnogroup:x:65534:\nec2-user:x:1000:\n",
		"etc/shadow":        "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\nec2-user:!:19000:0:99999:7:::\n",
		"etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
		"etc/hosts":         "127.0.0.1 localhost\n::1 localhost\n",
		"etc/hostname":      "localhost\n",
		"etc/resolv.conf":   "",
		"etc/profile":       "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
		"etc/os-release":    "NAME=\"Berth\"\nID=berth\nPRETTY_NAME=\"Berth ECS-optimized root\"\nVARIANT_ID=ecs\n",
		"etc/services":      "ssh 22/tcp\ndomain 53/tcp\ndomain 53/udp\nhttp 80/tcp\nntp 123/udp\nhttps 443/tcp\n",
		"etc/protocols":     "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\n",
		"etc/ecs/.keep":     "",
		"var/log/ecs/.keep": "",
		"var/lib/ecs/.keep": "",
	}
}

// folders beside those that files are in.
var folders = []string{"dev", "home/ec2-user", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp", "usr/local/bin", "usr/local/sbin", "var/tmp", "var/cache", "var/lib", "var/log", "etc/ecs"}

// links of the root: all programs and libraries are below usr.
var links = map[string]string{
	"bin": "usr/bin", "sbin": "usr/bin", "usr/sbin": "bin", "lib": "usr/lib", "lib64": "usr/lib64", "var/run": "/run",
	"etc/mtab": "/proc/self/mounts", "etc/pki/tls/certs/ca-bundle.crt": "/etc/ssl/certs/ca-certificates.crt", "etc/ssl/cert.pem": "/etc/ssl/certs/ca-certificates.crt",
	"usr/lib/ssl/cert.pem": "/etc/ssl/certs/ca-certificates.crt", "usr/lib/ssl/certs": "/etc/ssl/certs",
}

// System is the machine that programs are taken from; the zero value is this one.
type System struct {
	Root string   // "" is "/"
	Path []string // where programs are; nil is where systems have them
	// Trust is, as PEM, what the root trusts beside the authorities of the machine.
	Trust string
}

func (s System) at(p string) string {
	if s.Root == "" {
		return p
	}
	return filepath.Join(s.Root, p)
}

// entry is a file of the root.
type entry struct {
	source string // of the machine; "" is content
	text   string
	link   string
	mode   int64
	dir    bool
}

// Result says what was made.
type Result struct {
	Digest  string   // sha256:… of the layer
	Size    int64    // of the layer
	Missing []string // of Wanted
}

// Write writes the layer, an uncompressed tar. The same programs give the same
// bytes.
func Write(w io.Writer, s System) (Result, error) {
	b := &builder{System: s, entries: map[string]entry{}}
	if b.Path == nil {
		b.Path = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	}
	missing, err := b.collect()
	if err != nil {
		return Result{}, err
	}
	hash := sha256.New()
	count := &counter{}
	if err := b.write(io.MultiWriter(w, hash, count)); err != nil {
		return Result{}, err
	}
	return Result{Digest: "sha256:" + hex.EncodeToString(hash.Sum(nil)), Size: count.n, Missing: missing}, nil
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}

type builder struct {
	System
	entries map[string]entry // by path without a slash before it
	dirs    []string         // where the machine's loader looks
	libs    string           // the folder of the C library, in the root
}

func (b *builder) collect() (missing []string, err error) {
	b.dirs = b.libraryDirs()
	for _, name := range Required {
		if ok, err := b.program(name); err != nil || !ok {
			return nil, fmt.Errorf("program %s of this machine: %w", name, errors.Join(err, fs.ErrNotExist))
		}
	}
	for _, name := range Wanted {
		ok, err := b.program(name)
		if err != nil {
			return nil, fmt.Errorf("program %s of this machine: %w", name, err)
		}
		if !ok {
			missing = append(missing, name)
		}
	}
	for _, name := range modules {
		if p, class, ok := b.find(name, nil, elf.ELFCLASSNONE); ok {
			if err := b.library(name, p, class); err != nil {
				return nil, err
			}
		}
	}
	trust := b.Trust
	for _, c := range certificates {
		if st, err := os.Stat(b.at(c)); err == nil && st.Mode().IsRegular() {
			machine, err := os.ReadFile(b.at(c))
			if err != nil {
				return nil, fmt.Errorf("authorities of this machine: %w", err)
			}
			trust = strings.TrimSuffix(string(machine), "\n") + "\n" + trust
			break
		}
	}
	if trust != "" {
		b.entries["etc/ssl/certs/ca-certificates.crt"] = entry{text: trust, mode: 0o644}
	}
	for p, text := range own() {
		e := entry{text: text, mode: 0o644}
		if p == "etc/shadow" {
			e.mode = 0o600
		}
		b.entries[p] = e
	}
	for p, to := range links {
		if _, taken := b.entries[p]; !taken {
			b.entries[p] = entry{link: to}
		}
	}
	for _, d := range append(folders, "usr/lib", "usr/lib64", "usr/bin") {
		e := entry{dir: true, mode: 0o755}
		switch d {
		case "tmp", "var/tmp":
			e.mode = 0o1777
		case "root":
			e.mode = 0o700
		}
		b.entries[d] = e
	}
	for p := range b.entries {
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			if _, have := b.entries[d]; !have {
				b.entries[d] = entry{dir: true, mode: 0o755}
			}
		}
	}
	return missing, nil
}

// inRoot is where a path of the machine is in the root, where all is below usr.
func inRoot(p string) string {
	p = strings.TrimPrefix(path.Clean(p), "/")
	for _, d := range []string{"usr/sbin/", "sbin/", "bin/"} {
		if strings.HasPrefix(p, d) {
			return "usr/bin/" + strings.TrimPrefix(p, d)
		}
	}
	if strings.HasPrefix(p, "lib/") || strings.HasPrefix(p, "lib64/") {
		return "usr/" + p
	}
	return p
}

// program takes one program along.
func (b *builder) program(name string) (bool, error) {
	target := "usr/bin/" + name
	if _, have := b.entries[target]; have {
		return true, nil
	}
	for _, dir := range b.Path {
		p := b.at(filepath.Join(dir, name))
		real, err := filepath.EvalSymlinks(p)
		if err != nil {
			continue
		}
		st, err := os.Stat(real)
		if err != nil || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
			continue
		}
		script, err := b.needs(real)
		if err != nil {
			return false, err
		}
		if script != "" && script != "/bin/sh" && script != "/bin/bash" && script != "/usr/bin/sh" && script != "/usr/bin/bash" {
			continue // of a language that is not in the root
		}
		b.entries[target] = entry{source: real, mode: 0o755}
		return true, nil
	}
	return false, nil
}

// needs takes along what a file is linked with. Of a script it answers the interpreter.
func (b *builder) needs(file string) (script string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		head := make([]byte, 128)
		r, oerr := os.Open(file)
		if oerr != nil {
			return "", oerr
		}
		n, _ := io.ReadFull(r, head)
		r.Close()
		line, ok := strings.CutPrefix(string(head[:n]), "#!")
		if !ok {
			return "", fmt.Errorf("%s is neither a program nor a script: %w", file, err)
		}
		line, _, _ = strings.Cut(line, "\n")
		interpreter, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		return interpreter, nil
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		raw, err := io.ReadAll(io.LimitReader(p.Open(), 4096))
		if err != nil {
			return "", err
		}
		loader := string(bytes.TrimRight(raw, "\x00"))
		real, err := filepath.EvalSymlinks(b.at(loader))
		if err != nil {
			return "", fmt.Errorf("loader %s: %w", loader, err)
		}
		b.entries[inRoot(loader)] = entry{source: real, mode: 0o755}
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	var own []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		paths, _ := f.DynString(tag)
		for _, list := range paths {
			for p := range strings.SplitSeq(list, ":") {
				p = strings.NewReplacer("$ORIGIN", filepath.Dir(file), "${ORIGIN}", filepath.Dir(file)).Replace(p)
				if filepath.IsAbs(p) {
					own = append(own, p)
				}
			}
		}
	}
	for _, name := range needed {
		p, class, ok := b.find(name, own, f.Class)
		if !ok {
			return "", fmt.Errorf("%s needs %s, which is not found", file, name)
		}
		if err := b.library(name, p, class); err != nil {
			return "", err
		}
	}
	return "", nil
}

// find looks for a library as the loader does.
func (b *builder) find(name string, own []string, class elf.Class) (string, elf.Class, bool) {
	if strings.Contains(name, "/") {
		return b.at(name), class, true
	}
	for i, dir := range append(slices.Clone(own), b.dirs...) {
		p := filepath.Join(dir, name)
		if i >= len(own) {
			p = b.at(p)
		}
		f, err := elf.Open(p)
		if err != nil {
			continue
		}
		have := f.Class
		f.Close()
		if class != elf.ELFCLASSNONE && have != class {
			continue
		}
		return p, have, true
	}
	return "", class, false
}

// library takes one along, into a folder where the loader of the root looks
// without being told: that of the C library.
func (b *builder) library(name, file string, class elf.Class) error {
	base := path.Base(name)
	if b.libs == "" {
		libc := file
		for _, c := range []string{"libc.so.6", "libc.so"} {
			if p, _, ok := b.find(c, nil, class); ok {
				if target, err := filepath.EvalSymlinks(p); err == nil && filepath.Ext(target) != ".a" {
					libc = p
					break
				}
			}
		}
		rel := libc
		if b.Root != "" {
			rel = strings.TrimPrefix(libc, b.Root)
		}
		b.libs = path.Dir(inRoot(rel))
	}
	target := path.Join(b.libs, base)
	if _, have := b.entries[target]; have {
		return nil
	}
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return err
	}
	b.entries[target] = entry{source: real, mode: 0o755}
	_, err = b.needs(real)
	return err
}

// libraryDirs are the folders that the machine's loader looks in: those of its
// configuration, and those that it has by itself.
func (b *builder) libraryDirs() []string {
	var dirs []string
	for _, p := range []string{"/etc/ld-musl-x86_64.path", "/etc/ld-musl-aarch64.path"} {
		if text, err := os.ReadFile(b.at(p)); err == nil {
			dirs = append(dirs, strings.FieldsFunc(string(text), func(r rune) bool { return r == ':' || r == '\n' })...)
		}
	}
	dirs = append(dirs, "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
	dirs = append(dirs, b.configured("/etc/ld.so.conf", 0)...)
	return append(dirs, "/usr/local/lib")
}

// configured reads the loader's configuration, from which its cache is made.
func (b *builder) configured(file string, depth int) (dirs []string) {
	text, err := os.ReadFile(b.at(file))
	if err != nil || depth > 4 {
		return nil
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if pattern, ok := strings.CutPrefix(line, "include "); ok {
			pattern = strings.TrimSpace(pattern)
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(file), pattern)
			}
			found, _ := filepath.Glob(b.at(pattern))
			slices.Sort(found)
			for _, f := range found {
				dirs = append(dirs, b.configured(strings.TrimPrefix(f, strings.TrimSuffix(b.Root, "/")), depth+1)...)
			}
		} else if filepath.IsAbs(line) {
			dirs = append(dirs, line)
		}
	}
	return dirs
}

// write writes the entries, folders before what is in them.
func (b *builder) write(w io.Writer) error {
	t := tar.NewWriter(w)
	names := make([]string, 0, len(b.entries))
	for p := range b.entries {
		names = append(names, p)
	}
	slices.Sort(names)
	written := map[string]string{} // source -> path: what has two names is there once
	for _, p := range names {
		e := b.entries[p]
		h := &tar.Header{Name: p, Mode: e.mode, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if p == "home/ec2-user" {
			h.Uid, h.Gid = 1000, 1000
		}
		switch {
		case e.dir:
			h.Typeflag, h.Name = tar.TypeDir, p+"/"
			if err := t.WriteHeader(h); err != nil {
				return err
			}
		case e.link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
			if err := t.WriteHeader(h); err != nil {
				return err
			}
		case e.source == "":
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.text))
			if err := t.WriteHeader(h); err != nil {
				return err
			}
			if _, err := io.WriteString(t, e.text); err != nil {
				return err
			}
		case written[e.source] != "":
			h.Typeflag, h.Linkname = tar.TypeLink, written[e.source]
			if err := t.WriteHeader(h); err != nil {
				return err
			}
		default:
			written[e.source] = p
			if err := copyIn(t, h, e.source); err != nil {
				return fmt.Errorf("%s: %w", e.source, err)
			}
		}
	}
	return t.Close()
}

func copyIn(t *tar.Writer, h *tar.Header, source string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, st.Size()
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(t, io.LimitReader(f, st.Size()))
	return err
}
