package containerd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/agent/runtime"
)

// userKey: who a name is depends on the image alone.
type userKey struct{ image, user string }

// user finds out who a user string is in an image. The image's files are
// looked at once per image and string.
func (r *Runtime) user(ctx context.Context, img *image, name string, mounts []mount.Mount) (specs.User, error) {
	key := userKey{img.public.Digest, name}
	if u, ok := r.users.get(key); ok {
		return u, nil
	}
	var u specs.User
	var unknown error // what is wrong with the name, without the way there
	err := mount.WithReadonlyTempMount(ctx, mounts, func(dir string) error {
		root, err := os.OpenRoot(dir) // symbolic links of an image stay in the image
		if err != nil {
			return err
		}
		defer root.Close()
		passwd, err := readSmall(root, "etc/passwd")
		if err != nil {
			return err
		}
		group, err := readSmall(root, "etc/group")
		if err != nil {
			return err
		}
		u, unknown = lookup(name, passwd, group)
		return nil
	})
	if unknown != nil {
		return specs.User{}, unknown
	}
	if err != nil {
		return specs.User{}, fmt.Errorf("user %q: %w", name, err)
	}
	r.users.put(key, u)
	return u, nil
}

// readSmall reads a file of an image, as far as such a file may reasonably
// go; no file is an empty one.
func readSmall(root *os.Root, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", nil //nolint:nilerr // scratch images have none, and a link out of the image is none
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return "", nil
	}
	b, err := io.ReadAll(io.LimitReader(f, 4<<20))
	return string(b), err
}

// lookup resolves "user", "uid", "user:group" with docker's rules: a number
// need not be known, a name must; without a group it is the user's own and
// those that list the user.
func lookup(name, passwd, group string) (specs.User, error) {
	userPart, groupPart, hasGroup := strings.Cut(name, ":")
	if userPart == "" {
		userPart = "0"
	}
	u := specs.User{}
	account, found := entry(passwd, userPart, 4)
	switch {
	case found:
		uid, err1 := id(account[2])
		gid, err2 := id(account[3])
		if err1 != nil || err2 != nil {
			return u, fmt.Errorf("malformed passwd entry of %s: %w", userPart, runtime.ErrInvalid)
		}
		u.UID, u.GID = uid, gid
	default:
		uid, err := id(userPart)
		if err != nil {
			return u, fmt.Errorf("unable to find user %s: no matching entries in passwd file: %w", userPart, runtime.ErrInvalid)
		}
		u.UID = uid
	}
	if hasGroup && groupPart != "" {
		if g, ok := entry(group, groupPart, 3); ok {
			gid, err := id(g[2])
			if err != nil {
				return u, fmt.Errorf("malformed group entry of %s: %w", groupPart, runtime.ErrInvalid)
			}
			u.GID = gid
		} else {
			gid, err := id(groupPart)
			if err != nil {
				return u, fmt.Errorf("unable to find group %s: no matching entries in group file: %w", groupPart, runtime.ErrInvalid)
			}
			u.GID = gid
		}
		return u, nil
	}
	if found {
		u.AdditionalGids = memberships(group, account[0], u.GID)
	}
	return u, nil
}

func id(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > math.MaxInt32 {
		return 0, fmt.Errorf("id %q is not in 0..%d", s, math.MaxInt32)
	}
	return uint32(n), nil
}

// entry finds the line of a name or a number in a colon-separated file.
func entry(file, key string, fields int) ([]string, bool) {
	s := bufio.NewScanner(strings.NewReader(file))
	s.Buffer(nil, 1<<20)
	var byNumber []string
	for s.Scan() {
		f := strings.Split(s.Text(), ":")
		if len(f) < fields || strings.HasPrefix(f[0], "#") {
			continue
		}
		if f[0] == key {
			return f, true
		}
		if byNumber == nil && f[2] == key {
			byNumber = f
		}
	}
	return byNumber, byNumber != nil
}

// memberships are the groups that list a user, besides its own.
func memberships(file, user string, own uint32) []uint32 {
	var out []uint32
	s := bufio.NewScanner(strings.NewReader(file))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		f := strings.Split(s.Text(), ":")
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), user) {
			continue
		}
		if gid, err := id(f[2]); err == nil && gid != own && !slices.Contains(out, gid) {
			out = append(out, gid)
		}
	}
	return out
}
