package insights

import (
	"cmp"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth/service/logs/document"
)

// Event is what a query sees of a log event. Message is good until Add returns.
type Event struct {
	Time, Ingested int64
	Seq            int64
	ID             string // of the stream, for Pointer
	Log, Stream    string // @log and @logStream
	Message        []byte
}

// Bounds of what a run holds.
const (
	maxGroups   = 100_000
	maxHeld     = 64 << 20 // bytes of rows
	maxSamples  = 10_000   // of a percentile, before it is estimated
	maxDistinct = 1 << 16  // of a count_distinct, before it is estimated
)

// ErrTooMuch is the end of a query that would have to hold more than a run may.
var ErrTooMuch = errors.New("the query needs more memory than it may use")

// Options are what a run needs to know.
type Options struct {
	Now   time.Time
	Limit int // of rows, beside the query's own; 0: MaxRows
	// Pointer makes an event's @ptr.
	Pointer func(id string, time, seq int64) string
}

// Run is one execution of a query. Add may be called at once.
type Run struct {
	q     *Query
	now   time.Time
	o     Options
	early []op // done on each event as it comes
	late  []op // done on the rows at the end
	stats *statsOp
	keys  []sortKey
	dedup []string
	most  int

	mu      sync.Mutex
	matched int64
	groups  map[string]*group
	rows    []*row
	held    int
	seen    map[string]*row // dedup: the best row of each key
	seed    maphash.Seed
}

// row is an event with what commands have made of it.
type row struct {
	run   *Run
	event *Event
	text  string // the message, once it is wanted as text
	doc   document.Value
	state uint8 // of doc
	// reader reads doc while the event is where it was read, nil afterwards.
	reader *document.Reader
	made   map[string]Value
	sort   []Value
}

const (
	unread uint8 = iota
	isJSON
	notJSON
)

// Start begins a run.
func (q *Query) Start(o Options) *Run {
	if o.Limit <= 0 || o.Limit > MaxRows {
		o.Limit = MaxRows
	}
	if o.Pointer == nil {
		o.Pointer = func(string, int64, int64) string { return "" }
	}
	r := &Run{q: q, now: o.Now, o: o, most: o.Limit, seed: maphash.MakeSeed()}
	r.keys = []sortKey{{field("@timestamp"), true}}
	// Commands that look at one row alone commute with a sort, so they are all
	// done before it, until a command that looks at many.
	i := 0
plan:
	for ; i < len(q.ops); i++ {
		switch o := q.ops[i].(type) {
		case sortOp:
			r.keys = o.keys
		case statsOp:
			r.stats = &o
			r.groups = map[string]*group{}
			i++
			break plan
		case limitOp:
			r.most = min(r.most, o.n)
			i++
			break plan
		case dedupOp:
			r.dedup, r.seen = o.fields, map[string]*row{}
			i++
			break plan
		default:
			r.early = append(r.early, o)
		}
	}
	r.late = q.ops[i:]
	return r
}

// message is the event's message as text.
func (r *row) message() string {
	if r.text == "" && r.event != nil && len(r.event.Message) > 0 {
		r.text = string(r.event.Message)
	}
	return r.text
}

func (r *row) has(name string) bool { _, ok := r.made[name]; return ok }

func (r *row) set(name string, v Value) {
	if r.made == nil {
		r.made = map[string]Value{}
	}
	r.made[name] = v
}

// get is a field: one that a command made, one that every event has, or one of
// a message that is JSON.
func (r *row) get(name string) Value {
	if v, ok := r.made[name]; ok {
		return v
	}
	if r.event == nil {
		return Value{}
	}
	switch name {
	case "@timestamp":
		return at(float64(r.event.Time))
	case "@ingestionTime":
		return at(float64(r.event.Ingested))
	case "@message":
		return str(r.message())
	case "@log":
		return str(r.event.Log)
	case "@logStream":
		return str(r.event.Stream)
	case "@ptr":
		return str(r.run.o.Pointer(r.event.ID, r.event.Time, r.event.Seq))
	}
	if r.state == unread {
		r.state = notJSON
		if m := r.event.Message; document.Begins(m) {
			var ok bool
			if r.reader != nil {
				r.doc, ok = r.reader.Parse(m)
			} else {
				r.doc, ok = document.Parse(m)
			}
			if ok {
				r.state = isJSON
			}
		}
	}
	if r.state != isJSON {
		return Value{}
	}
	v := lookup(&r.doc, name)
	if v == nil || !v.Scalar() || v.Kind == document.Null {
		return Value{}
	}
	if v.Kind == document.True || v.Kind == document.False {
		return boolean(v.Kind == document.True)
	}
	return str(string(v.Text))
}

// lookup finds a.b.0, of which the names may have dots themselves.
func lookup(v *document.Value, name string) *document.Value {
	if v.Kind == document.Array {
		head, rest, more := strings.Cut(name, ".")
		i, err := strconv.Atoi(head)
		item := v.At(i)
		if err != nil || item == nil || !more {
			return item
		}
		return lookup(item, rest)
	}
	if m := v.Get(name); m != nil {
		return m
	}
	for i := 0; i < len(name); i++ {
		if name[i] == '.' {
			if m := v.Get(name[:i]); m != nil {
				if m = lookup(m, name[i+1:]); m != nil {
					return m
				}
			}
		}
	}
	return nil
}

// apply does a command that looks at one row; false drops the row.
func (r *row) apply(o op) bool {
	switch o := o.(type) {
	case filterOp:
		return o.cond.eval(r).true()
	case letOp:
		r.set(o.name, o.value.eval(r))
	case parseOp:
		v := o.from.eval(r)
		var found []string
		if v.kind != null {
			found = o.re.FindStringSubmatch(v.String())
		}
		names := o.re.SubexpNames()
		n := 0
		for i := 1; i < len(names); i++ {
			if names[i] == "" && len(o.names) < len(names)-1 {
				continue // a group that has no name among some that have
			}
			if found != nil {
				r.set(o.names[n], str(found[i]))
			} else {
				r.set(o.names[n], Value{})
			}
			n++
		}
	}
	return true
}

var readers = sync.Pool{New: func() any { return new(document.Reader) }}

// Add takes an event.
func (r *Run) Add(e *Event) error {
	reader := readers.Get().(*document.Reader)
	defer readers.Put(reader)
	x := &row{run: r, event: e, reader: reader}
	for _, o := range r.early {
		if !x.apply(o) {
			return nil
		}
	}
	if r.stats != nil {
		var room [128]byte
		key, by := r.stats.group(x, room[:0])
		args := make([]Value, len(r.stats.aggregates))
		for i, a := range r.stats.aggregates {
			if a.arg != nil {
				args[i] = a.arg.eval(x)
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.matched++
		return r.aggregate(r.stats, r.groups, key, by, args, e.Time)
	}
	for _, k := range r.keys {
		x.sort = append(x.sort, k.value.eval(x))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.matched++
	return r.keep(x)
}

// order is that of rows: their keys, then where their events are.
func (r *Run) order(a, b *row) int {
	for i, k := range r.keys {
		if c := sorted(a.sort[i], b.sort[i], k.desc); c != 0 {
			return c
		}
	}
	if a.event == nil || b.event == nil {
		return 0
	}
	return cmp.Or(cmp.Compare(b.event.Time, a.event.Time), cmp.Compare(a.event.ID, b.event.ID), cmp.Compare(b.event.Seq, a.event.Seq))
}

// sorted compares in a direction; what is not there comes last in both.
func sorted(a, b Value, desc bool) int {
	c := compare(a, b)
	if desc && a.kind != null && b.kind != null {
		c = -c
	}
	return c
}

// keep holds a row if it is among the best. What is held refers to nothing of
// the event's memory.
func (r *Run) keep(x *row) error {
	if n := len(r.rows); r.seen == nil && n >= r.most && n > 0 && r.order(x, r.rows[0]) >= 0 {
		return nil // r.rows is a heap: the first is the worst
	}
	if r.seen != nil {
		key, ok := x.key(r.dedup)
		if ok {
			if old := r.seen[key]; old != nil {
				if r.order(x, old) >= 0 {
					return nil
				}
				r.own(x)
				*old = *x
				return r.check()
			}
			if r.seen[key] = x; len(r.seen) > maxGroups {
				return ErrTooMuch
			}
		}
		r.own(x)
		r.rows = append(r.rows, x)
		return r.check()
	}
	r.own(x)
	if len(r.rows) < r.most {
		r.rows = append(r.rows, x)
		r.up(len(r.rows) - 1)
	} else {
		r.held -= r.rows[0].size()
		r.rows[0] = x
		r.down(0)
	}
	// Large messages are held only as far as there is room for them.
	for r.held > maxHeld && len(r.rows) > 1 {
		r.held -= r.rows[0].size()
		last := len(r.rows) - 1
		r.rows[0] = r.rows[last]
		r.rows[last] = nil
		r.rows = r.rows[:last]
		r.most = last
		r.down(0)
	}
	return nil
}

func (r *Run) check() error {
	if r.held > maxHeld {
		return ErrTooMuch
	}
	return nil
}

// own makes the row independent of the event that is being read.
func (r *Run) own(x *row) {
	e := *x.event
	e.Message = []byte(x.message())
	x.text = ""
	x.event = &e
	x.state, x.doc, x.reader = unread, document.Value{}, nil
	r.held += x.size()
}

func (x *row) size() int {
	n := 256
	if x.event != nil {
		n += len(x.event.Message)
	}
	for k, v := range x.made {
		n += len(k) + len(v.s) + 64
	}
	return n
}

// key joins some fields; false if one of them is not there.
func (x *row) key(fields []string) (string, bool) {
	var b strings.Builder
	for _, f := range fields {
		v := x.get(f)
		if v.kind == null {
			return "", false
		}
		s := v.String()
		b.WriteString(strconv.Itoa(len(s)))
		b.WriteByte(':')
		b.WriteString(s)
	}
	return b.String(), true
}

func (r *Run) up(i int) {
	for i > 0 {
		p := (i - 1) / 2
		if r.order(r.rows[i], r.rows[p]) <= 0 {
			return
		}
		r.rows[i], r.rows[p] = r.rows[p], r.rows[i]
		i = p
	}
}

func (r *Run) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(r.rows) {
			return
		}
		if c+1 < len(r.rows) && r.order(r.rows[c+1], r.rows[c]) > 0 {
			c++
		}
		if r.order(r.rows[c], r.rows[i]) <= 0 {
			return
		}
		r.rows[i], r.rows[c] = r.rows[c], r.rows[i]
		i = c
	}
}

// group is a row of stats in the making.
type group struct {
	by    []Value
	cells []cell
}

// cell is an aggregate in the making.
type cell struct {
	n             int64
	sum, mean, m2 float64
	value         Value
	time          int64
	samples       []float64
	buckets       map[int32]int64
	distinct      map[uint64]struct{}
	limit         uint64 // distinct: hashes from here on are left out; 0: none
}

// group is what a row is grouped by, and a key of it.
func (o *statsOp) group(x *row, key []byte) ([]byte, []Value) {
	by := make([]Value, len(o.by))
	for i, n := range o.by {
		v := n.value.eval(x)
		by[i] = v
		key = append(key, byte(v.kind))
		if v.kind == text {
			key = binary.AppendUvarint(key, uint64(len(v.s)))
			key = append(key, v.s...)
		} else {
			key = binary.LittleEndian.AppendUint64(key, math.Float64bits(v.n))
		}
	}
	return key, by
}

func (r *Run) aggregate(o *statsOp, groups map[string]*group, key []byte, by []Value, args []Value, time int64) error {
	g := groups[string(key)]
	if g == nil {
		if len(groups) >= maxGroups {
			return ErrTooMuch
		}
		g = &group{by: by, cells: make([]cell, len(o.aggregates))}
		groups[string(key)] = g
		r.held += len(key) + 256*len(g.cells)
		if err := r.check(); err != nil {
			return err
		}
	}
	for i := range g.cells {
		r.held += g.cells[i].add(o.aggregates[i], args[i], time, r.seed)
	}
	return r.check()
}

// add takes a value, and returns by how much the cell has grown.
func (c *cell) add(a aggregate, v Value, time int64, seed maphash.Seed) int {
	if a.fn == "count" {
		if a.arg == nil || v.kind != null {
			c.n++
		}
		return 0
	}
	if v.kind == null {
		return 0
	}
	before := len(c.value.s)
	grown := func() int { return len(c.value.s) - before }
	switch a.fn {
	case "count_distinct":
		return c.note(maphash.String(seed, v.String()))
	case "earliest", "latest":
		if c.n == 0 || a.fn == "earliest" && time < c.time || a.fn == "latest" && time >= c.time {
			c.value, c.time = v, time
		}
		c.n++
		return grown()
	case "sortsfirst", "sortslast", "min", "max":
		if a.fn[0] == 'm' {
			n, ok := v.number()
			if !ok {
				return 0
			}
			if v.kind == text {
				v = num(n)
			}
		}
		first := a.fn == "sortsfirst" || a.fn == "min"
		if d := compare(v, c.value); c.n == 0 || first && d < 0 || !first && d > 0 {
			c.value = v
		}
		c.n++
		return grown()
	}
	n, ok := v.number()
	if !ok {
		return 0
	}
	c.n++
	c.sum += n
	d := n - c.mean
	c.mean += d / float64(c.n)
	c.m2 += d * (n - c.mean)
	if a.fn == "pct" {
		return c.sample(n)
	}
	return 0
}

// note counts a hash. Beyond maxDistinct only the smallest are kept, of which
// the largest says how many there are.
func (c *cell) note(h uint64) int {
	if c.limit > 0 && h >= c.limit {
		return 0
	}
	if c.distinct == nil {
		c.distinct = map[uint64]struct{}{}
	}
	before := len(c.distinct)
	c.distinct[h] = struct{}{}
	if len(c.distinct) > 2*maxDistinct {
		all := make([]uint64, 0, len(c.distinct))
		for h := range c.distinct {
			all = append(all, h)
		}
		slices.Sort(all)
		c.limit = all[maxDistinct]
		for _, h := range all[maxDistinct:] {
			delete(c.distinct, h)
		}
	}
	return 16 * (len(c.distinct) - before)
}

// growth is the ratio of neighbouring buckets: an estimated percentile is
// within half a percent.
const growth = 1.01

// sample keeps a value for percentiles: as it is while they are few, then in
// buckets of growing width.
func (c *cell) sample(n float64) int {
	if c.buckets == nil {
		if c.samples = append(c.samples, n); len(c.samples) < maxSamples {
			return 8
		}
		c.buckets = map[int32]int64{}
		for _, s := range c.samples {
			c.buckets[bucket(s)]++
		}
		c.samples = nil
		return 16*len(c.buckets) - 8*maxSamples
	}
	before := len(c.buckets)
	c.buckets[bucket(n)]++
	return 16 * (len(c.buckets) - before)
}

const zeroBucket = 1 << 20

func bucket(n float64) int32 {
	if math.Abs(n) < 1e-9 {
		return 0
	}
	i := int32(math.Ceil(math.Log(math.Abs(n))/math.Log(growth))) + zeroBucket
	if n < 0 {
		return -i
	}
	return i
}

func middle(b int32) float64 {
	switch {
	case b == 0:
		return 0
	case b < 0:
		return -middle(-b)
	}
	return 2 * math.Pow(growth, float64(b-zeroBucket)) / (growth + 1)
}

func (c *cell) percentile(p float64) Value {
	if c.buckets == nil {
		if len(c.samples) == 0 {
			return Value{}
		}
		slices.Sort(c.samples)
		return num(c.samples[max(int(math.Ceil(p/100*float64(len(c.samples))))-1, 0)])
	}
	keys := make([]int32, 0, len(c.buckets))
	for b := range c.buckets {
		keys = append(keys, b)
	}
	slices.Sort(keys)
	rank := int64(math.Ceil(p / 100 * float64(c.n)))
	for _, b := range keys {
		if rank -= c.buckets[b]; rank <= 0 {
			return num(middle(b))
		}
	}
	return num(middle(keys[len(keys)-1]))
}

func (c *cell) result(a aggregate) Value {
	switch a.fn {
	case "count":
		return num(float64(c.n))
	case "count_distinct":
		if c.limit == 0 {
			return num(float64(len(c.distinct)))
		}
		return num(math.Round(float64(len(c.distinct)) / (float64(c.limit) / math.MaxUint64)))
	case "pct":
		return c.percentile(a.p)
	}
	if c.n == 0 {
		return Value{}
	}
	switch a.fn {
	case "sum":
		return num(c.sum)
	case "avg":
		return num(c.sum / float64(c.n))
	case "stddev":
		if c.n < 2 {
			return num(0)
		}
		return num(math.Sqrt(c.m2 / float64(c.n-1)))
	}
	return c.value
}

// rowsOf makes rows of groups, those first whose keys are.
func (r *Run) rowsOf(o *statsOp, groups map[string]*group) []*row {
	if len(o.by) == 0 && len(groups) == 0 {
		groups[""] = &group{cells: make([]cell, len(o.aggregates))} // of nothing there are 0
	}
	keys := make([]string, 0, len(groups))
	for k := range groups {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		for i := range o.by {
			if c := sorted(groups[a].by[i], groups[b].by[i], groups[a].by[i].kind == moment); c != 0 {
				return c
			}
		}
		return strings.Compare(a, b)
	})
	rows := make([]*row, 0, len(groups))
	for _, k := range keys {
		g := groups[k]
		x := &row{run: r}
		for i, n := range o.by {
			x.set(n.name, g.by[i])
		}
		for i, a := range o.aggregates {
			x.set(a.name, g.cells[i].result(a))
		}
		rows = append(rows, x)
	}
	return rows
}

// Cell is a field of a row of the result.
type Cell struct{ Name, Value string }

// Matched is how many events got past the filters.
func (r *Run) Matched() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.matched
}

// Rows ends the run. Fields that a row does not have are left out.
func (r *Run) Rows() ([][]Cell, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rows := r.rows
	if r.stats != nil {
		rows = r.rowsOf(r.stats, r.groups)
	} else {
		slices.SortFunc(rows, r.order)
	}
	for _, o := range r.late {
		switch o := o.(type) {
		case sortOp:
			for _, x := range rows {
				x.sort = x.sort[:0]
				for _, k := range o.keys {
					x.sort = append(x.sort, k.value.eval(x))
				}
			}
			slices.SortStableFunc(rows, func(a, b *row) int {
				for i, k := range o.keys {
					if c := sorted(a.sort[i], b.sort[i], k.desc); c != 0 {
						return c
					}
				}
				return 0
			})
		case limitOp:
			rows = rows[:min(len(rows), o.n)]
		case dedupOp:
			seen := map[string]bool{}
			rows = slices.DeleteFunc(rows, func(x *row) bool {
				key, ok := x.key(o.fields)
				again := ok && seen[key]
				seen[key] = seen[key] || ok
				return again
			})
		case statsOp:
			groups := map[string]*group{}
			for _, x := range rows {
				key, by := o.group(x, nil)
				args := make([]Value, len(o.aggregates))
				for i, a := range o.aggregates {
					if a.arg != nil {
						args[i] = a.arg.eval(x)
					}
				}
				t := int64(0)
				if x.event != nil {
					t = x.event.Time
				}
				if err := r.aggregate(&o, groups, key, by, args, t); err != nil {
					return nil, err
				}
			}
			rows = r.rowsOf(&o, groups)
		default:
			rows = slices.DeleteFunc(rows, func(x *row) bool { return !x.apply(o) })
		}
	}
	rows = rows[:min(len(rows), r.o.Limit)]
	out := make([][]Cell, 0, len(rows))
	for _, x := range rows {
		columns := r.q.columns
		if columns == nil {
			columns = []string{"@timestamp", "@message"}
		}
		cells := make([]Cell, 0, len(columns)+1)
		for _, c := range columns {
			if v := x.get(c); v.kind != null {
				cells = append(cells, Cell{c, v.String()})
			}
		}
		if x.event != nil && !slices.Contains(columns, "@ptr") {
			cells = append(cells, Cell{"@ptr", x.get("@ptr").String()})
		}
		out = append(out, cells)
	}
	return out, nil
}
