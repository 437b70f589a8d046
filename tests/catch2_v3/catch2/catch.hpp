// Catch2 version 3 under the name of version 2's one header.
#pragma once
#include <catch2/catch_all.hpp>
using Catch::Approx;
