package logs

import (
	"cmp"
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

	// tellEvery is how often losses are told.
	tellEvery = 10 * time.Second

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
	pending [sources]pending
	sending bool
	hurry   bool
	losses  losses
	changed chan struct{} // closed and replaced when bytes shrinks or sending ends
	wake    chan struct{} // to the sender
	wg      sync.WaitGroup
}

// event is small: a buffer full of short lines is mostly this.
type event struct {
	at   int64 // Unix time in nanoseconds
	text string
}

func (e event) size() int { return len(e.text) + eventOverhead }

// pending is lines of one event that may go on.
type pending struct {
	at, last time.Time // of the first and the last line
	text     []byte
}

// losses are the lines that nobody will see. A container that writes faster
// than it may, or to a group that was deleted, loses some all the time: the
// agent's own log says so now and then, not every time.
type losses struct {
	dropped, refused int
	refusal          error
	told             time.Time
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
		s.push(now, b)
		return
	}
	p := &s.pending[src]
	if p.text != nil && (s.starts.Match(b) || len(p.text)+1+len(b) > maxEventBytes) {
		s.pushPending(p)
	}
	if p.text == nil {
		*p = pending{at: now, text: append(make([]byte, 0, len(b)), b...)}
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
		s.pushPending(p)
	}
}

// pushPending queues what p holds. It is taken out of p first: push can give
// mu up, and the sender must not find it there again. Callers hold mu.
func (s *stream) pushPending(p *pending) {
	whole := *p
	*p = pending{}
	s.push(whole.at, whole.text)
}

// push queues an event. Callers hold mu, which is given up while the queue of
// a blocking log is full.
func (s *stream) push(at time.Time, text []byte) {
	if len(text) == 0 {
		return // the service refuses empty events
	}
	for s.bytes+len(text)+eventOverhead > s.limit && len(s.queue) > 0 && s.ctx.Err() == nil {
		if !s.blocking {
			s.losses.dropped++
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
	s.enqueue(at, text)
	s.startSender()
	if s.bytes >= maxBatchBytes {
		s.signal()
	}
}

// enqueue adds an event to the queue. What is not UTF-8 grows when it is made
// so, and the service refuses a whole batch for one event that is too long:
// such a one becomes several. Callers hold mu.
func (s *stream) enqueue(at time.Time, b []byte) {
	text := string(b)
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	for len(text) > 0 {
		n := len(text)
		if n > maxEventBytes {
			for n = maxEventBytes; !utf8.RuneStart(text[n]); n-- {
			}
		}
		e := event{at: at.UnixNano(), text: text[:n]}
		s.queue = append(s.queue, e)
		s.bytes += e.size()
		text = text[n:]
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
		s.tell(false)
		if len(batch) == 0 && due == 0 || s.ctx.Err() != nil {
			s.sending = false
			s.broadcast()
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if len(batch) == 0 {
			s.pause(due)
			continue
		}
		refusal := s.put(batch)
		s.mu.Lock()
		if refusal != nil {
			s.losses.refused += len(batch)
			s.losses.refusal = refusal
		}
		for _, e := range batch {
			s.bytes -= e.size()
		}
		s.broadcast()
		s.mu.Unlock()
	}
}

// tell says what was lost since it was last told, at the end or when it is
// time to. Callers hold mu.
func (s *stream) tell(end bool) {
	l := s.losses
	if l.dropped == 0 && l.refused == 0 || !end && time.Since(l.told) < tellEvery {
		return
	}
	s.losses = losses{told: time.Now()}
	if l.dropped > 0 {
		s.report("the buffer of a log was full; lines were dropped", "lines", l.dropped)
	}
	if l.refused > 0 {
		s.report("the service refused events of a log", "events", l.refused, "error", l.refusal)
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
		s.enqueue(p.at, p.text)
		*p = pending{}
	}
	return due
}

// take removes a batch from the queue, in the order of time. Its bytes count
// until it has been sent. Callers hold mu.
func (s *stream) take() []event {
	byTime := func(a, b event) int { return cmp.Compare(a.at, b.at) }
	if !slices.IsSortedFunc(s.queue, byTime) { // it is, but for events of several lines
		slices.SortStableFunc(s.queue, byTime)
	}
	n, size := 0, 0
	for n < len(s.queue) && n < maxBatchEvents {
		e := s.queue[n]
		size += e.size()
		if size > maxBatchBytes || time.Duration(e.at-s.queue[0].at) > maxBatchSpan {
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

// put delivers a batch. It gives up only on what the service refuses for good,
// which it answers, and when the log is closed.
func (s *stream) put(batch []event) (refusal error) {
	in := &logs.PutLogEventsInput{LogGroupName: new(s.group), LogStreamName: new(s.name), LogEvents: make([]logs.InputLogEvent, len(batch))}
	for i, e := range batch {
		in.LogEvents[i] = logs.InputLogEvent{Timestamp: new(time.Unix(0, e.at).UnixMilli()), Message: new(e.text)}
	}
	wait, recreated := sendFirst, false
	for {
		var out logs.PutLogEventsOutput
		err := s.api.Call(s.ctx, s.creds, api.Logs, "PutLogEvents", in, &out)
		if err == nil {
			if r := out.RejectedLogEventsInfo; r != nil {
				s.report("the service rejected events of a log", "events", len(batch), "info", *r)
			}
			return nil
		}
		if s.ctx.Err() != nil {
			return nil
		}
		code := wire.Code(err)
		e, answered := errors.AsType[wire.Error](err)
		switch {
		case code == "DataAlreadyAcceptedException":
			return nil
		case code == "ResourceNotFoundException" && !recreated:
			// Somebody deleted the stream. Once more, from the beginning.
			recreated = true
			if s.createOnce(s.ctx) == nil {
				continue
			}
		case code == "ThrottlingException" || code == "ExpiredTokenException" || !answered || e.HTTPStatus() >= 500:
			// Credentials that have expired are renewed once the control plane is back.
			s.report("a log cannot be delivered now", "error", err, "retry", wait)
			sleep(s.ctx, wait)
			wait = min(2*wait, sendMost)
			continue
		}
		return err
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
	s.tell(true)
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
	s.tell(true)
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
