// Package dns is the resolver of a region's VPCs: base+2 and 169.254.169.253 of each.
//
// It answers the private names of network interfaces, the public names as seen from inside, extra records, and the
// region's own *.localhost names; everything else it asks of the machine's resolvers. It knows neither AWS shapes nor
// the store, makes no namespace and no address, and opens its sockets only through the functions it is given.
package dns
