# Sourced by the scripts: where the tree is, how they speak, what they need and how they get it.
# shellcheck shell=bash

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}
[[ $target = /* ]] || target=$root/$target
mkdir -p "$target"

section() { printf '\n== %s\n' "$*"; }
fail() {
  printf '\n%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# need COMMAND=PACKAGE..: installs the Debian packages of the commands that are missing.
need() {
  local pair missing=()
  for pair in "$@"; do
    type -P "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")    # a builtin of this shell does not count
  done
  install_packages "${missing[@]}"
}

install_packages() {
  (($#)) || return 0
  command -v apt-get >/dev/null || fail "missing: $*; install them by the means of this system, there is no apt-get"
  local as=()
  if ((EUID != 0)); then
    as=(sudo -n)
    sudo -n true 2>/dev/null || fail "missing: $*; run as root:  apt-get install $*"
  fi
  section "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  local log=$target/apt.log quiet=(-qq -o Dpkg::Use-Pty=0)
  "${as[@]}" apt-get "${quiet[@]}" update >"$log" 2>&1 || { tail "$log"; fail "apt-get update failed; missing: $*"; }
  "${as[@]}" apt-get "${quiet[@]}" install --yes --no-install-recommends "$@" >>"$log" 2>&1 \
    || { tail "$log"; fail "apt-get could not install $*; the whole log is $log"; }
}

# need_rust: a C compiler (SQLite and the TLS code are built from source) and a Rust toolchain.
need_rust() {
  # Headers are a package of their own, so try what counts.
  cc -E -x c - >/dev/null 2>&1 <<<'#include <stdio.h>' || install_packages gcc libc6-dev
  export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  command -v cargo >/dev/null && return 0
  section "installing Rust by rustup"
  need curl=curl
  [[ -e /etc/ssl/certs/ca-certificates.crt ]] || install_packages ca-certificates
  # The oldest toolchain that is good enough: later ones have lints that nobody has answered yet.
  local version
  version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  curl --proto '=https' --tlsv1.2 -sSf https://static.rust-lang.org/rustup/rustup-init.sh \
    | sh -s -- -y --quiet --no-modify-path --profile minimal \
        --default-toolchain "$version" --component clippy --component rustfmt \
    || fail "Rust could not be installed; see https://rustup.rs"
}

# build_release: builds target/release/matins once; a second call costs a second.
build_release() {
  need_rust
  section "release build"
  cargo build --release --locked --bin matins || fail "the release build failed, see above"
}
