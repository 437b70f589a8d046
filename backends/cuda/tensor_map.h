// How Hopper's copy engine finds boxes of an array of bytes in memory.
#pragma once
#include <cuda.h>

#include <cstdint>

namespace quant {
namespace cuda {

// Tiles of rows of 128 bytes, `tile_stride` bytes from tile to tile; what a box has beyond them is zero. Throws
// Error(QUANT_ERR_DEVICE).
CUtensorMap map_tiles(const uint8_t* memory, int64_t tile_rows, int64_t tiles, int64_t tile_stride, int box_rows,
                      int box_tiles);
// Rows of bytes, a multiple of 16, of which a box has 128 of each row as wgmma::descriptor says; what it has beyond the
// rows and their bytes is zero.
CUtensorMap map_rows(const uint8_t* memory, int64_t row_bytes, int64_t rows, int box_rows);

}  // namespace cuda
}  // namespace quant
