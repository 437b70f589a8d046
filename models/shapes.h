// Models of known shapes with random weights: for measuring speed without a file.
#pragma once
#include <memory>
#include <string>

#include "checkpoints/checkpoint.h"

namespace quant {

const char* shape_name(int index);  // null past the end

// A checkpoint of f16 weights, normally distributed with deviation 0.02, and a made-up vocabulary of the right size.
// Throws Error(ARGUMENT) for an unknown name, listing the known ones.
std::unique_ptr<Checkpoint> random_checkpoint(const std::string& shape);

}  // namespace quant
