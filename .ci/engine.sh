#!/usr/bin/env bash
# A Docker engine for the tests, on a machine without an engine and without a registry. Source it: `. .ci/engine.sh DIR`.
# It exports DOCKER_HOST and RSTAR_BASE_IMAGE. The engine stops with the shell. If an engine answers already, it is used.
state=$(mkdir -p "$1" && cd "$1" && pwd)
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if ! command -v dockerd >/dev/null || ! command -v busybox >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io iptables busybox-static dash >/dev/null
fi

if ! docker info >/dev/null 2>&1; then
  export DOCKER_HOST=unix://$state/engine.sock
  dockerd --host "$DOCKER_HOST" --pidfile "$state/engine.pid" --data-root "$state/images" --exec-root "$state/run" \
    --log-level error >"$state/engine.log" 2>&1 &
  engine=$!
  trap 'kill "$engine" 2>/dev/null && wait "$engine" 2>/dev/null; true' EXIT
  for attempt in $(seq 1 150); do
    docker info >/dev/null 2>&1 && break
    if ! kill -0 "$engine" 2>/dev/null || [ "$attempt" = 150 ]; then
      echo "the Docker engine did not start:" >&2
      tail -n 5 "$state/engine.log" >&2
      exit 1
    fi
    sleep 0.2
  done
fi

export RSTAR_BASE_IMAGE=rstar-base:python3.11
if ! docker image inspect "$RSTAR_BASE_IMAGE" >/dev/null 2>&1; then
  "$scripts/base_image.sh" "$state/root" | docker import --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8' - "$RSTAR_BASE_IMAGE" >/dev/null
  rm -rf "$state/root"
fi
