/// @file
/// The library's version; CMakeLists.txt reads it from here.
#pragma once

#define TTT_VERSION_MAJOR 0
#define TTT_VERSION_MINOR 6
#define TTT_VERSION_PATCH 4
