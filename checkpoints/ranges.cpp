#include "checkpoints/ranges.h"

#include <algorithm>
#include <limits>

#include "formats/error.h"

namespace quant {

void Ranges::check() {
    std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
    for (size_t i = 1; i < ranges_.size(); ++i) {
        const Range &a = ranges_[i - 1], &b = ranges_[i];
        if (b.begin - a.begin < a.bytes)
            fail(QUANT_ERR_CORRUPT, file_ + ": tensors " + a.tensor + " and " + b.tensor + " overlap");
    }
}

void check_matrix_size(const File& file, const std::string& tensor, int64_t rows, int64_t cols) {
    const uint64_t r = static_cast<uint64_t>(rows), c = static_cast<uint64_t>(cols);
    if (rows <= 0 || cols <= 0 || r > file.size() * 2 / c)
        fail(QUANT_ERR_CORRUPT, file.name() + ": tensor " + tensor + " of " + std::to_string(rows) + " x " +
                                    std::to_string(cols) + " values does not fit in the file; it is truncated");
    // 16 bytes a value: an f32 scale and zero each at group 1, and a byte of padding.
    if (r * c > std::numeric_limits<size_t>::max() / 16)
        fail(QUANT_ERR_UNSUPPORTED, file.name() + ": tensor " + tensor + " is too large for this machine");
}

}  // namespace quant
