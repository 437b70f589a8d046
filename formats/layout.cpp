#include "formats/layout.h"

#include "formats/layout_rows.h"

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

const Layout* find_layout(const std::string& name) {
    for (const Layout* layout : {&layout_rows16, &layout_rows8, &layout_rows8x8})
        if (name == layout->name) return layout;
    return nullptr;
}

bool layout_keeps(const Layout& layout, const Format& format) {
    return find_layout(layout.name) && rows_layout_holds(format) && format.scale_code == ScaleCode::none;
}

}  // namespace quant
