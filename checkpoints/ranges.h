// Checks on where tensors lie in their file, before anything is read or allocated.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "checkpoints/file.h"

namespace quant {

// Byte ranges of one file that must not overlap.
class Ranges {
  public:
    explicit Ranges(std::string file) : file_(std::move(file)) {}
    void add(uint64_t begin, uint64_t bytes, const std::string& tensor) { ranges_.push_back({begin, bytes, tensor}); }
    void check();  // throws QUANT_ERR_CORRUPT naming two tensors that overlap

  private:
    struct Range {
        uint64_t begin, bytes;
        std::string tensor;
    };
    std::string file_;
    std::vector<Range> ranges_;
};

// A matrix that could not be in the file (every format has at least 4 bits a value), or whose bytes size_t cannot
// count, is refused; the sizes of all others are computed without overflow.
void check_matrix_size(const File& file, const std::string& tensor, int64_t rows, int64_t cols);

}  // namespace quant
