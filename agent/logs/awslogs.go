package logs

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/berth-run/berth/agent/api"
	"github.com/berth-run/berth/agent/engine"
	"github.com/berth-run/berth/agent/runtime"
	"github.com/berth-run/berth/auth/sigv4"
	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
)

// Limits of PutLogEvents.
const (
	maxBatchBytes  = 1_048_576
	maxBatchEvents = 10_000
	maxBatchSpan   = 24*time.Hour - time.Minute
	eventOverhead  = 26
	maxEventBytes  = 262_144 - eventOverhead
)

const (
	// gather is how long a first event waits for others to share its call.
	gather = 100 * time.Millisecond
	// multilineWait is how long the lines of an event may be apart.
	multilineWait = time.Second

	blockingBuffer    = 2 << 20
	nonBlockingBuffer = 10 << 20

	// closeLimit is how long Close goes on sending.
	closeLimit = time.Second

	sendFirst   = 200 * time.Millisecond
	sendMost    = 30 * time.Second
	createTries = 5
)

// stream is a container's log stream in CloudWatch Logs.
//
// The readers put events into a queue; a goroutine that exists only while the
// queue is not empty sends it in batches. A quiet container has no sender.
type stream struct {
	copier
	api         *api.Client
	creds       api.Provider
	group, name string
	createGroup bool
	starts      *regexp.Regexp // of a line that begins an event; nil: every line is one
	blocking    bool
	limit       int
	report      func(msg string, args ...any)

	ctx    context.Context // ends at Close
	cancel context.CancelFunc

	mu      sync.Mutex
	queue   []event
	bytes   int
	pending [sources]event // lines that may go on
	sending bool
	hurry   bool
	dropped int
	changed chan struct{} // closed and replaced when bytes shrinks or sending ends
	wake    chan struct{} // to the sender
	wg      sync.WaitGroup
}

type event struct {
	at   time.Time
	last time.Time // when the last line of several came
	text []byte
}

// openStream makes the container's log stream and, if it may, the group.
func (m *Manager) openStream(ctx context.Context, t *engine.Task, c *engine.Container, resume bool) (engine.Log, error) {
	o := c.HostConfig.LogConfig.Config
	s := &stream{
		api: m.API, creds: m.provider(t), group: o["awslogs-group"], createGroup: o["awslogs-create-group"] == "true",
		changed: make(chan struct{}), wake: make(chan struct{}, 1),
		report: func(msg string, args ...any) {
			m.Log.Warn(msg, append([]any{"task", t.ID(), "container", c.Def.Name}, args...)...)
		},
	}
	switch prefix := o["awslogs-stream-prefix"]; {
	case o["awslogs-stream"] != "":
		s.name = o["awslogs-stream"]
	case prefix != "":
		s.name = prefix + "/" + c.Def.Name + "/" + t.ID()
	default:
		s.name = c.RuntimeID
	}
	if err := s.options(o, m.API.Region()); err != nil {
		return nil, invalid(err)
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if !resume {
		if err := s.create(ctx); err != nil {
			s.cancel()
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, invalid(err)
		}
	}
	return s, nil
}

func (s *stream) options(o map[string]string, region string) (err error) {
	if s.group == "" {
		return errors.New("must specify a value for log opt 'awslogs-group'")
	}
	if r := o["awslogs-region"]; r != "" && r != region {
		return fmt.Errorf("log opt 'awslogs-region': this is region %s, not %s", region, r)
	}
	switch mode := o["mode"]; mode {
	case "blocking":
		s.blocking, s.limit = true, blockingBuffer
	case "", "non-blocking":
		s.limit = nonBlockingBuffer
		if size := o["max-buffer-size"]; size != "" {
			n, err := parseSize(size)
			if err != nil {
				return fmt.Errorf("log opt 'max-buffer-size': %w", err)
			}
			s.limit = int(min(n, 1<<30))
		}
	default:
		return fmt.Errorf("log opt 'mode': %q is neither blocking nor non-blocking", mode)
	}
	switch format, pattern := o["awslogs-datetime-format"], o["awslogs-multiline-pattern"]; {
	case format != "":
		s.starts, err = regexp.Compile(datetimePattern(format))
	case pattern != "":
		s.starts, err = regexp.Compile(pattern)
	}
	if err != nil {
		return fmt.Errorf("multiline pattern: %w", err)
	}
	return nil
}

// provider signs as the task's execution role; its credentials are renewed
// while the task runs.
func (m *Manager) provider(t *engine.Task) api.Provider {
	id := t.ExecutionCredentials
	if id == "" {
		return m.Instance
	}
	return func(ctx context.Context) (sigv4.Signer, error) {
		c, err := m.Credentials.Await(ctx, id)
		if err != nil {
			return sigv4.Signer{}, err
		}
		return api.Static(c)(ctx)
	}
}

// create makes the stream. The words of its error are Fargate's.
func (s *stream) create(ctx context.Context) error {
	wait := sendFirst
	for n := 1; ; n++ {
		err := s.createOnce(ctx)
		if err == nil {
			return nil
		}
		e, answered := errors.AsType[wire.Error](err)
		if ctx.Err() != nil || n == createTries || answered && e.HTTPStatus() < 500 {
			text := err.Error()
			if answered {
				text = e.Error()
			}
			return fmt.Errorf("create stream has been retried %d times: failed to create Cloudwatch log stream: %s : exit status 1", n, text)
		}
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
		wait *= 2
	}
}

func (s *stream) createOnce(ctx context.Context) error {
	in := &logs.CreateLogStreamInput{LogGroupName: new(s.group), LogStreamName: new(s.name)}
	err := s.api.Call(ctx, s.creds, api.Logs, "CreateLogStream", in, nil)
	if wire.Code(err) == "ResourceNotFoundException" && s.createGroup {
		err = s.api.Call(ctx, s.creds, api.Logs, "CreateLogGroup", &logs.CreateLogGroupInput{LogGroupName: new(s.group)}, nil)
		if err != nil && wire.Code(err) != "ResourceAlreadyExistsException" {
			return err
		}
		err = s.api.Call(ctx, s.creds, api.Logs, "CreateLogStream", in, nil)
	}
	if wire.Code(err) == "ResourceAlreadyExistsException" {
		return nil
	}
	return err
}

// Copy implements engine.Log.
func (s *stream) Copy(out *runtime.Output) { s.start(out, maxEventBytes, s.line, s.end) }

// line takes a line of a stream of the process.
func (s *stream) line(src source, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.starts == nil {
		s.push(event{at: now, text: slices.Clone(b)})
		return
	}
	p := &s.pending[src]
	if p.text != nil && (s.starts.Match(b) || len(p.text)+1+len(b) > maxEventBytes) {
		s.push(*p)
		*p = event{}
	}
	if p.text == nil {
		*p = event{at: now, text: slices.Clone(b)}
	} else {
		p.text = append(append(p.text, '\n'), b...)
	}
	p.last = now
	s.startSender()
}

// end takes the end of a stream of the process.
func (s *stream) end(src source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := &s.pending[src]; p.text != nil {
		s.push(*p)
		*p = event{}
	}
}

// push queues an event. Callers hold mu, which is given up while the queue of
// a blocking log is full.
func (s *stream) push(e event) {
	if len(e.text) == 0 {
		return // the service refuses empty events
	}
	size := len(e.text) + eventOverhead
	for s.bytes+size > s.limit && len(s.queue) > 0 && s.ctx.Err() == nil {
		if !s.blocking {
			s.dropped++
			return
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-s.ctx.Done():
		}
		s.mu.Lock()
	}
	s.queue = append(s.queue, e)
	s.bytes += size
	s.startSender()
	if s.bytes >= maxBatchBytes {
		s.signal()
	}
}

func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *stream) broadcast() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// startSender sees to it that somebody sends. Callers hold mu.
func (s *stream) startSender() {
	if s.sending || s.ctx.Err() != nil {
		return
	}
	s.sending = true
	s.wg.Go(s.send)
}

// send sends until there is nothing left.
func (s *stream) send() {
	for {
		s.mu.Lock()
		full := s.bytes >= maxBatchBytes || s.hurry
		s.mu.Unlock()
		if !full {
			s.pause(gather)
		}
		s.mu.Lock()
		due := s.release(time.Now())
		batch := s.take()
		dropped := s.dropped
		s.dropped = 0
		if len(batch) == 0 && due == 0 || s.ctx.Err() != nil {
			s.sending = false
			s.broadcast()
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if dropped > 0 {
			s.report("the buffer of a log is full; lines were dropped", "lines", dropped)
		}
		if len(batch) == 0 {
			s.pause(due)
			continue
		}
		s.put(batch)
		s.mu.Lock()
		for _, e := range batch {
			s.bytes -= len(e.text) + eventOverhead
		}
		s.broadcast()
		s.mu.Unlock()
	}
}

// pause waits, unless there is a reason not to.
func (s *stream) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.wake:
	case <-s.ctx.Done():
	}
}

// release queues pending lines that nothing was added to for long enough, and
// answers after how long there are more. Callers hold mu.
func (s *stream) release(now time.Time) (due time.Duration) {
	for i := range s.pending {
		p := &s.pending[i]
		if p.text == nil {
			continue
		}
		left := multilineWait - now.Sub(p.last)
		if left > 0 && !s.hurry {
			if due == 0 || left < due {
				due = left
			}
			continue
		}
		// Not by push: the sender must not wait for itself.
		s.queue = append(s.queue, *p)
		s.bytes += len(p.text) + eventOverhead
		*p = event{}
	}
	return due
}

// take removes a batch from the queue, in the order of time. Its bytes count
// until it has been sent. Callers hold mu.
func (s *stream) take() []event {
	slices.SortStableFunc(s.queue, func(a, b event) int { return a.at.Compare(b.at) })
	n, size := 0, 0
	for n < len(s.queue) && n < maxBatchEvents {
		e := s.queue[n]
		size += len(e.text) + eventOverhead
		if size > maxBatchBytes || e.at.Sub(s.queue[0].at) > maxBatchSpan {
			break
		}
		n++
	}
	batch := s.queue[:n:n]
	s.queue = s.queue[n:]
	if len(s.queue) == 0 {
		s.queue = nil // a burst's memory is let go
	}
	return batch
}

// put delivers a batch. It gives up only on what the service refuses for good
// and when the log is closed.
func (s *stream) put(batch []event) {
	in := &logs.PutLogEventsInput{LogGroupName: new(s.group), LogStreamName: new(s.name), LogEvents: make([]logs.InputLogEvent, len(batch))}
	for i, e := range batch {
		text := string(e.text)
		if !utf8.ValidString(text) {
			text = strings.ToValidUTF8(text, "\uFFFD")
		}
		in.LogEvents[i] = logs.InputLogEvent{Timestamp: new(e.at.UnixMilli()), Message: new(text)}
	}
	wait, recreated := sendFirst, false
	for {
		var out logs.PutLogEventsOutput
		err := s.api.Call(s.ctx, s.creds, api.Logs, "PutLogEvents", in, &out)
		if err == nil {
			if r := out.RejectedLogEventsInfo; r != nil {
				s.report("the service rejected events of a log", "events", len(batch), "info", *r)
			}
			return
		}
		if s.ctx.Err() != nil {
			return
		}
		code := wire.Code(err)
		e, answered := errors.AsType[wire.Error](err)
		switch {
		case code == "DataAlreadyAcceptedException":
			return
		case code == "ResourceNotFoundException" && !recreated:
			// Somebody deleted the stream. Once more, from the beginning.
			recreated = true
			if s.createOnce(s.ctx) == nil {
				continue
			}
		case code == "ThrottlingException" || !answered || e.HTTPStatus() >= 500:
			s.report("a log cannot be delivered now", "error", err, "retry", wait)
			sleep(s.ctx, wait)
			wait = min(2*wait, sendMost)
			continue
		}
		s.report("the service refused events of a log", "events", len(batch), "error", err)
		return
	}
}

// Drain implements engine.Log.
func (s *stream) Drain(ctx context.Context) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.hurry = true
	s.signal()
	for s.sending {
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.New("events are waiting to be delivered")
		}
		s.mu.Lock()
	}
	s.mu.Unlock()
	return nil
}

// Close implements engine.Log. What was read gets a last chance to be sent.
func (s *stream) Close() {
	limit := time.AfterFunc(closeLimit, s.cancel)
	defer limit.Stop()
	s.close()
	s.mu.Lock()
	s.hurry = true
	s.signal()
	for s.sending {
		changed := s.changed
		s.mu.Unlock()
		<-changed // by the sender, which ends with s.ctx at the latest
		s.mu.Lock()
	}
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// datetimePattern makes a regular expression of a strftime format, with the
// codes that the awslogs driver knows.
func datetimePattern(format string) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteString(regexp.QuoteMeta(format[i : i+1]))
			continue
		}
		i++
		if p, ok := datetimeCodes[format[i]]; ok {
			b.WriteString(p)
		} else {
			b.WriteString(regexp.QuoteMeta(format[i : i+1]))
		}
	}
	return b.String()
}

var datetimeCodes = map[byte]string{
	'a': `(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)`,
	'A': `(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)`,
	'b': `(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)`,
	'B': `(?:January|February|March|April|May|June|July|August|September|October|November|December)`,
	'd': `(?:0[1-9]|[12][0-9]|3[01])`, 'f': `[0-9]{6}`, 'H': `(?:[01][0-9]|2[0-3])`, 'I': `(?:0[1-9]|1[0-2])`,
	'j': `(?:0[0-9]{2}|[12][0-9]{2}|3[0-6][0-9])`, 'L': `\.[0-9]{3}`, 'm': `(?:0[1-9]|1[0-2])`, 'M': `[0-5][0-9]`,
	'p': `(?:AM|PM)`, 'S': `[0-5][0-9]`, 'w': `[0-6]`, 'y': `[0-9]{2}`, 'Y': `[0-9]{4}`, 'z': `[+-][0-9]{4}`,
	'Z': `[A-Z]{1,4}T`,
}
