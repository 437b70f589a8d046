#include "core/backend.h"

namespace quant {

const Layout layout_stored = {"stored", 0, nullptr, nullptr, nullptr};

size_t layout_bytes(const Layout& layout, const Format& format, int64_t rows, int64_t cols) {
    if (layout.tile_rows == 0) {
        StoredOffsets at = stored_offsets(format, rows, cols);
        return at.zeros + zeros_bytes(format, rows, cols);
    }
    return static_cast<size_t>((rows + layout.tile_rows - 1) / layout.tile_rows) * layout.tile_bytes(format, cols);
}

StoredOffsets stored_offsets(const Format& format, int64_t rows, int64_t cols) {
    auto aligned = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
    StoredOffsets at;
    at.scales = aligned(codes_bytes(format, rows, cols));
    at.zeros = at.scales + aligned(scales_bytes(format, rows, cols));
    return at;
}

const Kernel* find_kernel(const Backend& backend, Op op, const Node& node, const Weight* weight, const Value* in0,
                          const Value* out) {
    for (const Kernel& kernel : backend.kernels()) {
        if (kernel.op != op) continue;
        if (kernel.weights && weight && weight->layout && kernel.weights != weight->layout) continue;
        if (kernel.accepts(node, weight, in0, out)) return &kernel;
    }
    return nullptr;
}

}  // namespace quant
