#!/bin/sh
# Chromium for the browser tests: the one that is there, else Debian's where it can be installed.
# Where it cannot, the tests decide: a failure with CI=true, a visible skip elsewhere.
command -v chromium >/dev/null 2>&1 && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null
fi
exit 0
