#!/usr/bin/env bash
# Writes a tar of a minimal root file system with this machine's Python and pip. It replaces python:3.11-slim where no
# registry can be reached.
# usage: base_image.sh SCRATCH >root.tar
set -euo pipefail
root=$1
python=$(command -v "${PYTHON:-python3}")
home=$("$python" -c 'import sys; print(sys.base_prefix)')
name=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
rm -rf "$root"
mkdir -p "$root"/{bin,dev,etc/ssl/certs,home,lib64,proc,run,sbin,sys,tmp,usr/bin,usr/local,usr/sbin,var/tmp,root}
chmod 1777 "$root/tmp" "$root/var/tmp"

# The interpreter and its library, without the parts that no step needs.
left_out=(site-packages test idlelib tkinter turtledemo lib2to3 ensurepip/__pycache__)
exclude=("--exclude=lib/$name/config-*" "--exclude=lib/$name/lib-dynload/_tkinter*")
for part in "${left_out[@]}"; do exclude+=("--exclude=lib/$name/$part"); done
parts=("bin/$name" "lib/$name")
if [ -e "$home/lib/lib$name.so.1.0" ]; then parts+=("lib/lib$name.so.1.0"); fi
tar -C "$home" "${exclude[@]}" -cf - "${parts[@]}" | tar -C "$root/usr/local" -xf -
mkdir -p "$root/usr/local/lib/$name/site-packages"
ln -s "$name" "$root/usr/local/bin/python3"
ln -s python3 "$root/usr/local/bin/python"

# The shared libraries that they load, and those that wheels and the resolver load by name.
{
  for file in "$home/bin/$name" "$root/usr/local/lib/$name"/lib-dynload/*.so; do ldd "$file" 2>/dev/null || true; done |
    sed -nE 's/.*=> (\/[^ ]+) .*/\1/p; s/^\s*(\/[^ ]+ld-[^ ]+) .*/\1/p'
  for library in libstdc++.so.6 libgcc_s.so.1 libnss_dns.so.2 libnss_files.so.2 libpthread.so.0 libdl.so.2 librt.so.1 \
    libutil.so.1 libresolv.so.2; do
    ldconfig -p | sed -nE "s/^\s*${library//+/\\+} .*=> (.*)/\1/p" | head -n 1
  done
} | sort -u | while read -r library; do
  case $library in "$home"/*) continue ;; esac
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done

# A shell with its tools, users, name resolution, certificates.
cp "$(command -v busybox)" "$root/bin/busybox"
chroot "$root" /bin/busybox --install -s
cp -L /bin/dash "$root/bin/dash"
ln -sf dash "$root/bin/sh"
printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$root/etc/pip.conf"
fi
echo /usr/local/lib >"$root/etc/ld.so.conf" # for an interpreter that was built with another prefix
ldconfig -r "$root"
chroot "$root" /usr/local/bin/python3 -m ensurepip >/dev/null 2>&1
tar -C "$root" -cf - .
