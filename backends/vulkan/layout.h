// "lanes8": how weights lie in a Vulkan device's memory, the same for every kernel. Eight rows are a tile: their codes,
// one row after the other, then their parameters. A row's codes are blocks of eight chunks of 16 bytes; chunk l of a
// block of 32 n columns holds columns 32 j + 4 l .. + 3 for j = 0 .. n - 1, in that order, so that neighbouring lanes
// read neighbouring chunks and neighbouring columns of the input. Codes of 5 and 6 bits take a byte.
#pragma once
#include "core/backend.h"

namespace quant {
namespace vulkan {

extern const Layout layout_lanes8;

enum class Code : uint32_t { f32, f16, bf16, s8, u8, u4, e4m3 };
enum class Parameters : uint32_t { none, f16_scale, f16_both, f32_scale, f32_both };  // both: scale and offset

// The numbers that the kernels need to find their way in a tile.
struct TileShape {
    Code code = Code::f32;
    Parameters parameters = Parameters::none;
    uint32_t chunk_quads = 1;      // groups of four columns in a chunk
    uint32_t row_chunks = 0;       // of a row
    uint32_t groups = 0;           // of a row
    uint32_t group_cols = 0;       // 0: one group a row
    uint32_t parameter_words = 0;  // of a row
    uint32_t tile_chunks = 0;      // of a tile, parameters included
    // Among which a chunk's quads are divided evenly, where a quad's columns share a group.
    uint32_t chunk_groups() const {
        const uint32_t block_cols = 32 * chunk_quads;
        if (group_cols % block_cols == 0) return 1;
        return group_cols % 32 == 0 && block_cols % group_cols == 0 ? block_cols / group_cols : chunk_quads;
    }
};
constexpr int layout_tile_rows = 8;
bool layout_holds(const Format& format);
TileShape tile_shape(const Format& format, int64_t cols);

}  // namespace vulkan
}  // namespace quant
