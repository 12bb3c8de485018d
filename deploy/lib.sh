# What deploy/demo, deploy/test and deploy/torture share. Sourced, not run.

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# The Swift toolchain is the one thing that is not installed here.
need_swift() {
  command -v swift >/dev/null || die "there is no swift on the PATH; install Swift 6.3 or newer from https://www.swift.org/install"
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

policy=/usr/sbin/policy-rc.d
placed=
# Takes the policy away again; the scripts' traps call it too.
unplace() {
  [ -z "$placed" ] || as_root rm -f $policy
  placed=
}

# need_packages PACKAGE…: installs the Debian packages that are missing, as root or through sudo.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  command -v apt-get >/dev/null || die "these Debian packages, or your system's names for them, are missing: ${missing[*]}"
  [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null || die "not root and no sudo; please run: apt-get install ${missing[*]}"
  say "Installing ${missing[*]}"
  as_root apt-get update -qq >/dev/null 2>&1 || true
  # A server that a package brings must not start by itself: the ones used here are private.
  if [ ! -e $policy ]; then
    placed=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod +x $policy
  fi
  local status=0
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
    >"$work/apt.log" 2>&1 || status=$?
  unplace
  [ $status -eq 0 ] || { tail -n 20 "$work/apt.log" >&2; die "apt-get could not install: ${missing[*]}"; }
}

build_packages=(libhiredis-dev libcurl4-openssl-dev libssl-dev)

# build ARGUMENT…: says how it ended, or why it failed.
build() {
  swift build "$@" >"$work/build.log" 2>&1 || { tail -n 30 "$work/build.log" >&2; die "the build failed"; }
  tail -n 1 "$work/build.log"
}

# wait_for SECONDS COMMAND…: until the command succeeds.
wait_for() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.05
  done
}
