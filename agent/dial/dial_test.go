package dial

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
)

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestWaitsForTheServer(t *testing.T) {
	address := free(t)
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result, 1)
	refused := make(chan struct{}, 100)
	d := &net.Dialer{Control: func(string, string, syscall.RawConn) error { refused <- struct{}{}; return nil }}
	go func() {
		c, err := Context(d)(context.Background(), "tcp", address)
		done <- result{c, err}
	}()
	<-refused
	<-refused // the second try: the first one was refused
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	r.c.Close()
}

func TestEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	tries := 0
	d := &net.Dialer{Control: func(string, string, syscall.RawConn) error {
		if tries++; tries == 3 {
			cancel()
		}
		return nil
	}}
	if _, err := Context(d)(ctx, "tcp", free(t)); !errors.Is(err, context.Canceled) || tries > 4 {
		t.Fatalf("%v after %d tries", err, tries)
	}
}

func TestOtherErrorsAreAnswers(t *testing.T) {
	if _, err := Context(&net.Dialer{})(context.Background(), "tcp", "256.0.0.1:1"); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatal(err)
	}
}
