package service

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/berth-run/berth/store/state"
)

// An Authority is the region's own certificate authority, made at its first
// start. Clients that are to speak HTTPS trust the file at CAPath.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

const (
	caFile    = "ca.pem"
	caKeyFile = "ca-key.pem"

	caYears   = 10
	leafDays  = 398 // what clients accept at most
	renewDays = 30
)

// OpenAuthority reads the authority in dir, or makes it.
func OpenAuthority(dir string, now time.Time) (*Authority, error) {
	a := &Authority{dir: dir}
	err := a.load()
	if errors.Is(err, fs.ErrNotExist) {
		if err = a.create(now); err == nil {
			err = a.load()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority in %s: %w", dir, err)
	}
	return a, nil
}

// PEM is the authority's certificate.
func (a *Authority) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

// CAPath is the file with the authority's certificate.
func (a *Authority) CAPath() string { return filepath.Join(a.dir, caFile) }

func (a *Authority) load() error {
	// The certificate is written last: where it is, the key is too.
	cert, err := os.ReadFile(a.CAPath())
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(a.dir, caKeyFile))
	if err != nil {
		return fmt.Errorf("read key: %v", err) // not ErrNotExist: never replace an authority that is half there
	}
	certBlock, _ := pem.Decode(cert)
	keyBlock, _ := pem.Decode(key)
	if certBlock == nil || keyBlock == nil {
		return errors.New("not in PEM form")
	}
	if a.cert, err = x509.ParseCertificate(certBlock.Bytes); err != nil {
		return err
	}
	if a.key, err = x509.ParseECPrivateKey(keyBlock.Bytes); err != nil {
		return err
	}
	if !a.key.PublicKey.Equal(a.cert.PublicKey) {
		return errors.New("key and certificate do not belong together")
	}
	return nil
}

func (a *Authority) create(now time.Time) error {
	if err := os.MkdirAll(a.dir, 0o755); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: "Berth local authority " + now.UTC().Format("2006-01-02")},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.AddDate(caYears, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(a.dir, caKeyFile), 0o600, "EC PRIVATE KEY", der); err != nil {
		return err
	}
	return writeFile(a.CAPath(), 0o644, "CERTIFICATE", cert)
}

// writeFile is all or nothing.
func writeFile(path string, mode fs.FileMode, kind string, der []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	err = errors.Join(pem.Encode(tmp, &pem.Block{Type: kind, Bytes: der}), tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

// Names are the names a region's endpoint answers to, besides addresses: those
// of this machine, and those by which VPCs reach it through endpoints.
func Names(region string) []string {
	names := []string{"localhost", "*.localhost", "*.dkr.ecr." + region + ".localhost", "*." + region + ".localhost"}
	for _, s := range state.EndpointServices {
		names = append(append(names, s.PrivateNames(region)...), "*."+s.Host+"."+region+".vpce.amazonaws.com")
	}
	return names
}

// TLS is a configuration with a certificate for the names and addresses. The
// certificate is made anew before it ends.
func (a *Authority) TLS(names []string, addresses []net.IP, clock func() time.Time) *tls.Config {
	if clock == nil {
		clock = time.Now
	}
	var mu sync.Mutex
	var leaf *tls.Certificate
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// No HTTP/2: the agents' websockets and the registry's uploads come this way.
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			mu.Lock()
			defer mu.Unlock()
			if now := clock(); leaf == nil || now.AddDate(0, 0, renewDays).After(leaf.Leaf.NotAfter) {
				next, err := a.issue(names, addresses, now)
				if err != nil {
					return nil, fmt.Errorf("issue certificate: %w", err)
				}
				leaf = next
			}
			return leaf, nil
		},
	}
}

func (a *Authority) issue(names []string, addresses []net.IP, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: "Berth"},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, leafDays-1),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    names, IPAddresses: addresses,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: parsed}, nil
}
