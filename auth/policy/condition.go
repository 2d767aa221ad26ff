package policy

import (
	"encoding/base64"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// An operator is a condition operator with its prefix and suffix taken apart.
type operator struct {
	base       comparison
	negated    bool
	ifExists   bool
	quantifier quantifier
	null       bool
}

type quantifier int

const (
	plain quantifier = iota
	forAllValues
	forAnyValue
)

// A comparison says whether one value of the request fits one of the policy.
type comparison int

const (
	cmpString comparison = iota
	cmpStringFold
	cmpLike
	cmpNumericEqual
	cmpNumericLess
	cmpNumericLessEqual
	cmpNumericGreater
	cmpNumericGreaterEqual
	cmpDateEqual
	cmpDateLess
	cmpDateLessEqual
	cmpDateGreater
	cmpDateGreaterEqual
	cmpBool
	cmpBinary
	cmpIP
	cmpARN
)

var operators = map[string]operator{
	"stringequals":              {base: cmpString},
	"stringnotequals":           {base: cmpString, negated: true},
	"stringequalsignorecase":    {base: cmpStringFold},
	"stringnotequalsignorecase": {base: cmpStringFold, negated: true},
	"stringlike":                {base: cmpLike},
	"stringnotlike":             {base: cmpLike, negated: true},
	"numericequals":             {base: cmpNumericEqual},
	"numericnotequals":          {base: cmpNumericEqual, negated: true},
	"numericlessthan":           {base: cmpNumericLess},
	"numericlessthanequals":     {base: cmpNumericLessEqual},
	"numericgreaterthan":        {base: cmpNumericGreater},
	"numericgreaterthanequals":  {base: cmpNumericGreaterEqual},
	"dateequals":                {base: cmpDateEqual},
	"datenotequals":             {base: cmpDateEqual, negated: true},
	"datelessthan":              {base: cmpDateLess},
	"datelessthanequals":        {base: cmpDateLessEqual},
	"dategreaterthan":           {base: cmpDateGreater},
	"dategreaterthanequals":     {base: cmpDateGreaterEqual},
	"bool":                      {base: cmpBool},
	"binaryequals":              {base: cmpBinary},
	"ipaddress":                 {base: cmpIP},
	"notipaddress":              {base: cmpIP, negated: true},
	"arnequals":                 {base: cmpARN},
	"arnlike":                   {base: cmpARN},
	"arnnotequals":              {base: cmpARN, negated: true},
	"arnnotlike":                {base: cmpARN, negated: true},
	"null":                      {null: true},
}

func parseOperator(s string) (operator, bool) {
	low := strings.ToLower(s)
	var q quantifier
	if rest, ok := strings.CutPrefix(low, "forallvalues:"); ok {
		low, q = rest, forAllValues
	} else if rest, ok := strings.CutPrefix(low, "foranyvalue:"); ok {
		low, q = rest, forAnyValue
	}
	low, ifExists := strings.CutSuffix(low, "ifexists")
	op, ok := operators[low]
	if !ok || op.null && ifExists {
		return op, false
	}
	op.quantifier, op.ifExists = q, ifExists
	return op, true
}

// A condition is one operator on one key with its values.
type condition struct {
	operator
	key    string // lower case
	values []operand
}

// An operand is a value of the policy, converted as its operator needs it.
type operand struct {
	text   pattern
	number float64
	at     time.Time
	prefix netip.Prefix
	bytes  string
	truth  bool
}

func newCondition(op operator, key string, values []string, variables bool) (condition, error) {
	c := condition{operator: op, key: strings.ToLower(key)}
	for _, v := range values {
		var o operand
		var ok bool
		switch {
		case op.null || op.base == cmpBool:
			o.truth, ok = parseBool(v)
		case op.base == cmpString || op.base == cmpStringFold:
			o.text, ok = compileExact(v, variables), true
		case op.base == cmpBinary:
			b, err := base64.StdEncoding.DecodeString(v)
			o.bytes, ok = string(b), err == nil
		case op.base == cmpLike || op.base == cmpARN:
			o.text, ok = compile(v, variables), true
		case op.base >= cmpNumericEqual && op.base <= cmpNumericGreaterEqual:
			var err error
			o.number, err = strconv.ParseFloat(v, 64)
			ok = err == nil
		case op.base >= cmpDateEqual && op.base <= cmpDateGreaterEqual:
			if o.at, ok = parseDate(v); !ok {
				return c, errLegacy
			}
		case op.base == cmpIP:
			o.prefix, ok = parsePrefix(v)
		}
		if !ok {
			return c, errSyntax
		}
		c.values = append(c.values, o)
	}
	return c, nil
}

func parseBool(s string) (value, ok bool) {
	switch {
	case strings.EqualFold(s, "true"):
		return true, true
	case strings.EqualFold(s, "false"):
		return false, true
	}
	return false, false
}

var dateForms = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02", "2006-01", "2006"}

func parseDate(s string) (time.Time, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && len(s) != 4 {
		return time.Unix(n, 0), true
	}
	for _, form := range dateForms {
		if t, err := time.Parse(form, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func parsePrefix(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return plainPrefix(p).Masked(), true
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return plainPrefix(netip.PrefixFrom(a, a.BitLen())), true
}

// plainPrefix takes an IPv4 address out of its IPv6 form, which the addresses
// of requests never have.
func plainPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// holds reports whether the request satisfies the condition.
func (c *condition) holds(r *Request) bool {
	values, present := r.key(c.key)
	present = present && len(values) > 0
	if c.null {
		for _, v := range c.values {
			if v.truth == !present {
				return true
			}
		}
		return false
	}
	// AWS counts a lone empty value as no values at all for this one.
	if c.quantifier == forAllValues && len(values) == 1 && values[0] == "" {
		return true
	}
	if !present {
		switch {
		case c.ifExists, c.quantifier == forAllValues:
			return true
		case c.quantifier == forAnyValue:
			return false
		}
		return c.negated
	}
	switch c.quantifier {
	case forAllValues:
		for _, v := range values {
			if c.any(r, v) == c.negated {
				return false
			}
		}
		return true
	case forAnyValue:
		for _, v := range values {
			if c.any(r, v) != c.negated {
				return true
			}
		}
		return false
	}
	for _, v := range values {
		if c.any(r, v) {
			return !c.negated
		}
	}
	return c.negated
}

// any reports whether one value of the request fits any value of the policy.
func (c *condition) any(r *Request, value string) bool {
	for i := range c.values {
		if c.fits(r, &c.values[i], value) {
			return true
		}
	}
	return false
}

func (c *condition) fits(r *Request, o *operand, value string) bool {
	switch c.base {
	case cmpString:
		text, _, ok := o.text.resolve(r)
		return ok && text == value
	case cmpStringFold:
		text, _, ok := o.text.resolve(r)
		return ok && strings.EqualFold(text, value)
	case cmpLike:
		return o.text.matches(r, value)
	case cmpARN:
		text, _, ok := o.text.resolve(r)
		return ok && globARN(text, value)
	case cmpBool:
		b, ok := parseBool(value)
		return ok && b == o.truth
	case cmpBinary:
		b, err := base64.StdEncoding.DecodeString(value)
		return err == nil && string(b) == o.bytes
	case cmpIP:
		a, err := netip.ParseAddr(value)
		return err == nil && o.prefix.Contains(a.Unmap())
	}
	if c.base <= cmpNumericGreaterEqual {
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return false
		}
		switch c.base {
		case cmpNumericEqual:
			return n == o.number
		case cmpNumericLess:
			return n < o.number
		case cmpNumericLessEqual:
			return n <= o.number
		case cmpNumericGreater:
			return n > o.number
		}
		return n >= o.number
	}
	t, ok := parseDate(value)
	if !ok {
		return false
	}
	switch order := t.Compare(o.at); c.base {
	case cmpDateEqual:
		return order == 0
	case cmpDateLess:
		return order < 0
	case cmpDateLessEqual:
		return order <= 0
	case cmpDateGreater:
		return order > 0
	default:
		return order >= 0
	}
}
