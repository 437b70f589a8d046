// Writes a checkpoint as one GGUF file with its weights in a scheme.
#pragma once
#include <string>

#include "core/threads.h"
#include "models/model.h"

namespace quant {

// The weights become what loading with `choice` makes of them. One tensor is in memory at a time. Throws Error; the
// file appears under its name only when complete.
void save_checkpoint(const Checkpoint& checkpoint, const WeightChoice& choice, ThreadPool& threads,
                     const std::string& path, const Progress& progress);

}  // namespace quant
