#!/bin/sh
# Install what pip cannot: `dot` for the pictures, and a browser that the report's tests look through.
# Where that may not be done, say so in one sentence: everything but pictures works without.
missing=""
command -v dot >/dev/null || missing="graphviz"
if [ "$1" = "--tests" ]; then
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ||
        missing="$missing chromium"
fi
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then root=""; else root="sudo -n"; fi
if command -v apt-get >/dev/null; then
    install="$root apt-get install -y -qq --no-install-recommends"
    $root apt-get update -qq >/dev/null 2>&1
elif command -v dnf >/dev/null; then
    install="$root dnf install -y -q"
elif command -v brew >/dev/null; then
    install="brew install -q"
else
    install=false
fi
# shellcheck disable=SC2086 # both are lists of words
$install $missing >/dev/null 2>&1 ||
    echo "could not install:$missing: install it by hand for pictures; everything else works without"
exit 0
