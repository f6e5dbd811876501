#!/bin/sh
# Builds and runs a program with nothing but a compiler and pkg-config.
# usage: pkg_config.sh COMPILER SOURCE DATADIR PROGRAM
set -eu
PKG_CONFIG_PATH="$3/pkgconfig:${PKG_CONFIG_PATH:-}"
export PKG_CONFIG_PATH
# The flags are words to split.
# shellcheck disable=SC2046
"$1" -std=c++20 "$2" $(pkg-config --cflags --libs ttt) -o "$4"
exec "$4"
