#!/bin/sh
# Install what trtq needs on a Jetson: TRTQ_PACKAGES and the packages named as arguments.
#
#   TRTQ_L4T        the release of NVIDIA's Jetson package server: r36.4
#   TRTQ_TENSORRT   the version of TensorRT's packages, which has to be the host's: 10.3.0.30-1+cuda12.5
#   TRTQ_PACKAGES   packages, TensorRT's (libnvinfer-bin holds trtexec) among them
#
# TensorRT's packages that are there in that version stay as they are. The server's key is checked before it is trusted.
set -eu

KEY_URL=https://repo.download.nvidia.com/jetson/jetson-ota-public.asc
KEY_SHA256=576f852981855e5c6cfb9b625ffb51b984ca451f1181b2e70435b005034fad55
KEY=/usr/share/keyrings/jetson-ota-public.asc
TRTEXEC=/usr/src/tensorrt/bin/trtexec

missing_of_tensorrt() {
    for package in $TRTQ_PACKAGES; do
        case $package in *libnvinfer*)
            dpkg-query --show --showformat='${Version}' "$package" 2>/dev/null | grep -qxF "$TRTQ_TENSORRT" || echo "$package" ;;
        esac
    done
}

others() {
    for package in $TRTQ_PACKAGES "$@"; do
        case $package in *libnvinfer*) ;; *) echo "$package" ;; esac
    done
}

add_nvidias_server() {
    apt-get install --yes --no-install-recommends ca-certificates curl
    curl --fail --silent --show-error --location --output "$KEY" "$KEY_URL"
    echo "$KEY_SHA256  $KEY" | sha256sum --check -
    echo "deb [signed-by=$KEY] https://repo.download.nvidia.com/jetson/common $TRTQ_L4T main" \
        >/etc/apt/sources.list.d/jetson.list
    # The base image may know a server with a newer TensorRT, which would not be the host's.
    printf 'Package: libnvinfer* libnvonnxparsers* python3-libnvinfer* tensorrt*\nPin: version %s\nPin-Priority: 1001\n' \
        "$TRTQ_TENSORRT" >/etc/apt/preferences.d/tensorrt
    apt-get update
}

export DEBIAN_FRONTEND=noninteractive
apt-get update
# shellcheck disable=SC2046 # lists of words
apt-get install --yes --no-install-recommends $(others "$@")
missing=$(missing_of_tensorrt)
if [ -n "$missing" ]; then
    add_nvidias_server
    # shellcheck disable=SC2086 # a list of words
    apt-get install --yes --no-install-recommends $missing
    [ -x "$TRTEXEC" ] || { echo "$TRTEXEC is not there: libnvinfer-bin of $TRTQ_L4T puts it elsewhere" >&2; exit 1; }
fi
rm -rf /var/lib/apt/lists/*
