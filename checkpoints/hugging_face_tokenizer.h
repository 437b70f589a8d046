// tokenizer.json and its companions, as GGUF's tokenizer metadata (models/tokenizer.h lists the keys).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "checkpoints/metadata.h"

namespace quant {

// `ends` are the end-of-text ids of config.json and generation_config.json, `first` the BOS id there or -1. Nothing is
// set if the directory has no tokenizer.json. Vocabulary: the rows of the embedding.
void read_hugging_face_tokenizer(const std::string& directory, int64_t vocabulary, int64_t first,
                                 std::vector<int64_t> ends, Metadata& metadata);

}  // namespace quant
