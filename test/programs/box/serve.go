package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// pages is a web server whose front page says who answers, and whose other
// pages do from inside the container what a test asks for.
func pages() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		host, _ := os.Hostname()
		at := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		fmt.Fprintf(w, "page %s of %s at %s for %s\n", os.Getenv("PAGE"), host, at, r.RemoteAddr)
	})
	m.HandleFunc("GET /env", func(w http.ResponseWriter, r *http.Request) {
		env := map[string]string{}
		for _, kv := range os.Environ() {
			k, v, _ := strings.Cut(kv, "=")
			env[k] = v
		}
		_ = json.NewEncoder(w).Encode(env)
	})
	// What a test asks for can fail for reasons it wants to read, so the
	// answer is an error page with the reason.
	act := func(pattern string, f func(r *http.Request) (string, error)) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			text, err := f(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			io.WriteString(w, text)
		})
	}
	act("GET /get", func(r *http.Request) (string, error) { return fetch(r.Context(), r.FormValue("url")) })
	act("GET /dial", func(r *http.Request) (string, error) { return "", dial(r.FormValue("to"), r.FormValue("wait")) })
	act("GET /lookup", func(r *http.Request) (string, error) { return lookup(r.Context(), r.FormValue("name")) })
	act("GET /reverse", func(r *http.Request) (string, error) {
		names, err := net.DefaultResolver.LookupAddr(r.Context(), r.FormValue("address"))
		return strings.Join(names, " "), err
	})
	act("GET /cat", func(r *http.Request) (string, error) {
		b, err := os.ReadFile(r.FormValue("path"))
		return string(b), err
	})
	act("GET /write", func(r *http.Request) (string, error) {
		return "", os.WriteFile(r.FormValue("path"), []byte(r.FormValue("data")), 0o644)
	})
	act("GET /print", func(r *http.Request) (string, error) {
		fmt.Println(r.FormValue("line"))
		return "", nil
	})
	act("GET /alloc", func(r *http.Request) (string, error) {
		n, err := strconv.Atoi(r.FormValue("mib"))
		if err == nil {
			alloc(n)
		}
		return "", err
	})
	act("GET /exit", func(r *http.Request) (string, error) {
		n, err := strconv.Atoi(r.FormValue("code"))
		if err == nil {
			time.AfterFunc(50*time.Millisecond, func() { os.Exit(n) }) // after the answer has left
		}
		return "", err
	})
	return m
}

func fetch(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return string(b), err
}

// dial opens a new connection.
func dial(to, wait string) error {
	d := 2 * time.Second
	if wait != "" {
		var err error
		if d, err = time.ParseDuration(wait); err != nil {
			return err
		}
	}
	c, err := net.DialTimeout("tcp4", to, d)
	if err != nil {
		return err
	}
	return c.Close()
}

func lookup(ctx context.Context, name string) (string, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
	var out []string
	for _, a := range addrs {
		out = append(out, a.Unmap().String())
	}
	return strings.Join(out, " "), err
}
