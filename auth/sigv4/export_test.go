package sigv4

// HashHex is for tests that drive other signers.
var HashHex = hashHex
