#!/bin/sh
# Installs what this machine lacks, on Debian and its like, and nothing else.
#
#   scripts/install.sh        what a region needs, and the AWS CLI
#   scripts/install.sh test   and what the tests need
#
# With everything there it changes nothing and needs neither root nor a network.
set -eu

PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
missing=""

# need <command> <package>
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }

need runc runc
# Makes containers in less time than runc; where it does not work, runc does.
need crun crun
need nft nftables
need ip iproute2
need aws awscli
# Resolves *.localhost, the names of registries and pages, for programs that do not do it themselves.
getent hosts registry.localhost >/dev/null 2>&1 || missing="$missing libnss-myhostname"
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
if [ "${1:-}" = test ]; then
	need skopeo skopeo
	# The race detector is C.
	command -v "${CC:-gcc}" >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
fi

command -v go >/dev/null 2>&1 || {
	echo "install: Go is not on the PATH; go.mod says which version, https://go.dev/dl has it" >&2
	exit 1
}
[ -n "$missing" ] || exit 0

echo "install:$missing"
if ! command -v apt-get >/dev/null 2>&1; then
	echo "install: there is no apt-get here: install$missing by this system's own means" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "install: this needs root: sudo $0 $*" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 $missing >/dev/null; }
# The package lists may be missing or older than the packages they name.
install 2>/dev/null || { apt-get update -qq; install; }
