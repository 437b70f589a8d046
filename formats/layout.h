// Layouts: other arrangements of a matrix's codes and scales than the format's own arrays, for a device's kernels.
#pragma once
#include "formats/format.h"

namespace quant {

// `rows` consecutive rows of a planar matrix taken apart by unpack_row, or their planar arrays: what a layout packs.
struct PackRows {
    Format format;  // of the matrix
    int64_t cols = 0;
    int rows = 0;                    // <= tile_rows; the layout pads a short last tile with zero codes and zero scales
    const uint8_t* codes = nullptr;  // quantized elements: one byte per code, [rows][cols]; float elements: their bytes
    const float* scales = nullptr;   // [rows][groups_per_row]
    const float* offsets = nullptr;  // [rows][groups_per_row]: minimum or zero point (see unpack_row)
    // Nested formats only: [rows][groups] codes of scale and minimum, and the coarse floats [rows][super groups].
    const uint8_t *scale_codes = nullptr, *offset_codes = nullptr;
    const float *coarse_scales = nullptr, *coarse_offsets = nullptr;
};

// How a device wants a matrix in memory. One layout per weight per device, chosen at load. Those of the processor's
// families also go into files (see checkpoints/gguf_writer.h): what they are must not change.
struct Layout {
    const char* name;
    int tile_rows;  // rows packed together; tiles are consecutive, tile_bytes each. 0: `stored`, see below
    size_t (*tile_bytes)(const Format& format, int64_t cols);
    void (*pack)(const PackRows& rows, uint8_t* tile);
    // The inverse, for one row of a tile: as unpack_row gives it (scales and offsets as the device uses them).
    void (*unpack)(const Format& format, int64_t cols, const uint8_t* tile, int row, uint8_t* codes, float* scales,
                   float* offsets);
};
// `stored`: the format's planar arrays (or ggml blocks), codes | scales | zeros, each starting at a multiple of 64.
extern const Layout layout_stored;
struct StoredOffsets {
    size_t scales = 0, zeros = 0;
};
StoredOffsets stored_offsets(const Format& format, int64_t rows, int64_t cols);
size_t layout_bytes(const Layout& layout, const Format& format, int64_t rows, int64_t cols);

// The layouts that a file may have, by name; null: no such layout.
const Layout* find_layout(const std::string& name);
// True if `unpack` gives back all that the format's own arrays hold: not for nested scales, whose codes it multiplies
// out.
bool layout_keeps(const Layout& layout, const Format& format);

}  // namespace quant
