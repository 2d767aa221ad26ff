package vpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// CleanUp removes everything of the region from the kernel, whoever made it and whatever was half done. It needs no
// engine; one that is open must be closed before. IPv4 forwarding stays on.
func CleanUp(ctx context.Context, opts Options) error {
	if err := opts.validate(); err != nil {
		return err
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	h, err := openHost(opts)
	if err != nil {
		return err
	}
	defer h.close()

	var errs []error
	entries, err := os.ReadDir(opts.NetnsDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// Markers first: who waits for an ENI must not find one that is being taken apart.
	for _, d := range entries {
		if strings.HasSuffix(d.Name(), readySuffix) {
			errs = append(errs, removeFile(opts.NetnsPath(d.Name())))
		}
	}
	for _, d := range entries {
		if strings.HasSuffix(d.Name(), readySuffix) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := cleanNetns(opts, d.Name()); err != nil {
			errs = append(errs, fmt.Errorf("network namespace %s: %w", d.Name(), err))
		}
	}
	errs = append(errs, h.cleanUp())
	if err := os.Remove(opts.NetnsDir()); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// cleanNetns drops a namespace. The links of a VPC are deleted before, because a process may hold the namespace and
// would keep them.
func cleanNetns(opts Options, name string) error {
	path := opts.NetnsPath(name)
	ns, err := openNetns(path)
	if errors.Is(err, os.ErrNotExist) {
		return dropNetns(path)
	} else if err != nil {
		return err
	}
	f := &fabric{ns: ns}
	defer f.close()
	router, err := isRouter(ns)
	if err != nil {
		return err
	}
	if router {
		err := on(ns, func() (err error) {
			f.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
			return err
		})
		if err != nil {
			return err
		}
		if err := f.dismantle(); err != nil {
			return err
		}
	}
	return dropNetns(path)
}

// cleanUp removes what is marked as the region's in the machine's own namespace.
func (h *host) cleanUp() error {
	var errs []error
	links, err := dump(h.nl.LinkList)
	if err != nil {
		return err
	}
	for _, l := range links {
		if name := l.Attrs().Name; strings.HasPrefix(name, uplinkPrefix(h.opts.Region)) && l.Type() == "veth" {
			errs = append(errs, h.dropUplink(name))
		}
	}
	metric := poolMetric(h.opts.Region)
	routes, err := dump(func() ([]netlink.Route, error) {
		return h.nl.RouteListFiltered(unix.AF_INET, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	})
	errs = append(errs, err)
	for _, r := range routes {
		if r.Type == unix.RTN_UNREACHABLE && r.Priority == metric {
			errs = append(errs, h.nl.RouteDel(&r))
		}
	}
	name := hostTable(h.opts.Region)
	errs = append(errs, runNft(nil, fmt.Sprintf("table ip %[1]s {\n}\ndelete table ip %[1]s\n", name)), unadmit(h.opts.Region))
	return errors.Join(errs...)
}
