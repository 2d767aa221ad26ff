// Package store is the region's only memory: typed tables with indexes, optimistic transactions
// and gap-free watches over etcd, which runs inside the process or outside.
//
// # Immutable data
//
// Objects in the store are shared by everyone who reads them. Once put, an object and everything
// it points to must never change: copy it (next := *old), clone the slices and maps you modify,
// and put the copy. The same goes for what Get and the iterators return.
//
// # Where things are
//
// etcd holds one key per object and nothing else: no index, no list. Every process keeps all
// objects decoded in memory, in immutable trees, so a Snapshot is a pointer, and reads cost no
// round trip and never fail. A transaction runs on a snapshot, and commits by one etcd transaction
// that compares the revision of every key it got or wrote. See mirror for how the memory follows
// etcd.
//
// # What is promised
//
//   - Transactions are atomic and durable, and serializable as far as keys that were got or
//     written go. Reads of ranges are of one snapshot but are not compared, unless guarded.
//   - After Update returns, every snapshot taken in this process includes it.
//   - There is one history. A watch may skip states but misses no key that changed, and neither
//     snapshots nor watches ever go back.
//   - An Update that fails has written nothing, unless the error is ErrUnknown.
//
// The package must never know what the objects mean, and nobody else may talk to etcd.
package store
