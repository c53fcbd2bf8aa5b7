# What the builders of guests share. Sourced, with these set: work (a scratch folder), cache (where packages are kept),
# packages (an array of Debian package names, the kernel's among them).

fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

require_tools() { # TOOL...
  for tool in "$@"; do
    command -v "$tool" >/dev/null || fail "$tool is not installed; setup/packages.txt names the packages"
  done
}

cloud_kernel() {
  apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }'
}

# NAME VERSION of what apt would fetch now.
candidates() {
  apt-cache policy "${packages[@]}" | awk '/^[^ ]/ { sub(":$", "", $1); sub(":amd64$", "", $1); name = $1 } $1 == "Candidate:" { print name, $2 }'
}

kept_file() { printf '%s/%s_%s.deb' "$cache" "$1" "${2//:/%3a}"; } # NAME VERSION

# Fetches what is not kept yet, in one go, and unpacks all into work/packages/NAME.
unpack_packages() { # NAME VERSION lines on standard input
  local name version versions missing=()
  versions=$(cat)
  mkdir -p "$cache" "$work/fetch"
  while read -r name version; do
    [ -s "$(kept_file "$name" "$version")" ] || missing+=("$name=$version")
  done <<<"$versions"
  if ((${#missing[@]})); then
    (cd "$work/fetch" && apt-get -q download "${missing[@]}" >fetch.log 2>&1) ||
      { cat "$work/fetch/fetch.log" >&2; fail "cannot fetch all of: ${missing[*]}"; }
  fi
  while read -r name version; do
    local kept fetched
    kept=$(kept_file "$name" "$version")
    if [ ! -s "$kept" ]; then
      fetched=$(find "$work/fetch" -name "${name}_*.deb" -print -quit)
      [ -n "$fetched" ] || fail "apt did not fetch $name"
      mv "$fetched" "$kept.part.$$" && mv "$kept.part.$$" "$kept"
    fi
    mkdir -p "$work/packages/$name"
    dpkg-deb -x "$kept" "$work/packages/$name"
  done <<<"$versions"
  rm -r "$work/fetch"
}

# Busybox and its applets. What is there already stays.
install_busybox() { # ROOT
  cp "$work/packages/busybox-static/bin/busybox" "$1/bin/"
  "$1/bin/busybox" --list-full | while read -r applet; do
    [ "$applet" = bin/busybox ] && continue
    mkdir -p "$1/$(dirname "$applet")"
    [ -e "$1/$applet" ] || ln -sf /bin/busybox "$1/$applet"
  done
}

needed() { objdump -p "$1" 2>/dev/null | awk '/NEEDED/ { print $2 }'; }

# What the programs link with, from the packages and not from this machine.
install_libraries() { # ROOT PROGRAM...
  local root=$1 program library file
  local -A seen=()
  local todo=(libc.so.6)
  shift
  mkdir -p "$root/lib/x86_64-linux-gnu" "$root/lib64"
  for program in "$@"; do todo+=($(needed "$program")); done
  while ((${#todo[@]})); do
    library=${todo[0]}
    todo=("${todo[@]:1}")
    [ -z "${seen[$library]:-}" ] || continue
    seen[$library]=1
    file=$(find "$work/packages" -name "$library" -print -quit)
    [ -n "$file" ] || fail "no package has $library"
    cp -L "$file" "$root/lib/x86_64-linux-gnu/$library"
    todo+=($(needed "$file"))
  done
  cp -L "$(find "$work/packages/libc6" -name ld-linux-x86-64.so.2 -print -quit)" "$root/lib64/"
}

# The files of kernel modules, with what they depend on, in the order of loading.
modules() { # MODULE...
  for module in "$@"; do
    modprobe -d "$kernel_tree" -S "$kernel" --show-depends "$module" 2>/dev/null | awk '/^insmod/ { print $2 }'
  done | awk '!seen[$0]++'
}

# Only the kernel modules that are used, with what they depend on.
install_modules() { # ROOT MODULE...
  local root=$1 file
  shift
  for file in $(modules "$@"); do
    install -D -m 644 "$file" "$root/lib/modules/$kernel/${file#*/lib/modules/"$kernel"/}"
  done
  cp "$kernel_tree/lib/modules/$kernel"/modules.{builtin*,order} "$root/lib/modules/$kernel/"
  depmod -b "$root" "$kernel"
}
