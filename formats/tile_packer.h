// A matrix in a layout's tiles, made one by one from its rows and on any thread.
#pragma once
#include "formats/layout.h"
#include "formats/row_source.h"

namespace quant {

class TilePacker {
  public:
    // `source` and `layout` must outlive it; rows and cols are the source's.
    TilePacker(RowSource& source, const Layout& layout, int64_t rows, int64_t cols);

    size_t tile_bytes() const { return tile_bytes_; }
    size_t scratch_bytes() const { return scratch_bytes_; }  // for tile(), at a multiple of 64; itself one
    // Tile `index`, in `scratch` or where the source has it. Thread-safe for different scratch.
    const uint8_t* tile(int64_t index, uint8_t* scratch);

  private:
    PackRows take_apart(int64_t first, int rows, uint8_t* scratch);

    RowSource& source_;
    const Layout& layout_;
    int64_t rows_, cols_;
    size_t groups_, supers_, row_codes_, tile_bytes_, scratch_bytes_;
    // Where a tile's parts lie in the scratch.
    size_t codes_, scales_, offsets_, scale_codes_, offset_codes_, coarse_scales_, coarse_offsets_, row_, tile_;
};

}  // namespace quant
