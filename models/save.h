// Writes a checkpoint as one GGUF file with its weights in a scheme.
#pragma once
#include <string>

#include "core/backend.h"
#include "core/threads.h"
#include "models/model.h"

namespace quant {

// The weights become what loading with `choice` makes of them; packed for the kernels of `device`, if it is not null,
// where a file can have their layout (UNSUPPORTED if no weight's is). One tensor is in memory at a time. Throws Error;
// the file appears under its name only when complete.
void save_checkpoint(const Checkpoint& checkpoint, const WeightChoice& choice, const Backend* device,
                     ThreadPool& threads, const std::string& path, const Progress& progress);

}  // namespace quant
