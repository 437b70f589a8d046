// One safetensors file: header length:u64, a JSON object {name: {dtype, shape, data_offsets}}, data.
#pragma once
#include <string>
#include <vector>

#include "checkpoints/file.h"

namespace quant {

struct SafeTensor {
    std::string name, dtype;
    std::vector<int64_t> shape;
    uint64_t at = 0, bytes = 0;  // in the file; checked to lie inside it and apart from the others
};
std::vector<SafeTensor> read_safetensors(const File& file);

}  // namespace quant
