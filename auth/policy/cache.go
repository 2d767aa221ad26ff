package policy

import "sync"

// A Cache keeps compiled documents by what they say, so that a policy used by
// many requests is parsed once. It is safe for concurrent use.
type Cache struct {
	mu       sync.RWMutex
	now, old map[cacheKey]cached // two generations: what is not asked for is forgotten
}

type cacheKey struct {
	text string
	kind Kind
}

type cached struct {
	doc *Document
	err error
}

// generation is how many documents are added before unused ones are dropped.
const generation = 4096

// Parse is Parse, remembered.
func (c *Cache) Parse(text string, kind Kind) (*Document, error) {
	key := cacheKey{text, kind}
	c.mu.RLock()
	hit, ok := c.now[key]
	c.mu.RUnlock()
	if ok {
		return hit.doc, hit.err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if hit, ok = c.old[key]; !ok {
		hit.doc, hit.err = Parse(text, kind)
	}
	if c.now == nil || len(c.now) >= generation {
		c.old, c.now = c.now, make(map[cacheKey]cached)
	}
	c.now[key] = hit
	return hit.doc, hit.err
}
