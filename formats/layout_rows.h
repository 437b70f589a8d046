// Row-interleaved weight layouts: tiles of R = 16 (`rows16`, for AVX-512) or R = 8 (`rows8`; `rows8x8`, for ARM's
// matrix product) output rows, so that the lanes of one vector are rows and no kernel adds across lanes. A tile is one
// stream, read front to back:
//
//   tile  = panels                      a panel is 4 groups (all of the row if there is one; nested: a super group)
//   panel = header | blocks             the header holds the groups' scales, padded to 64 bytes
//   block = 32 columns x R rows of codes
//
// Header: scales [groups][R] in the format's scale type, then the minima alike, or the zero points as bytes.
//   Nested: coarse scales [R], coarse minima [R]; then u6 codes of a scale and a minimum in 12 bits: bytes [groups][R]
//   (scale | low 2 bits of the minimum << 6), nibbles [groups][R/2] (high 4 bits; row r and, in the high nibble, row
//   r + R/2); other scale codes: bytes [groups][R].
// Block, 8 bit: 8 steps; a step is 4 consecutive columns of R rows, 4R bytes, byte 4r+j: row r, column j.
//   u4: 4 vectors of 4R bytes; low nibbles are an even step, high nibbles the odd step after it.
//   u5: the same, then a vector whose bytes' bit s is the fifth bit of step s.
//   u6: the same as u4, then 2 vectors; bits 2i, 2i+1 of vector v are the high two bits of step 4v + i.
//   rows16 keeps 8-bit codes unsigned (s8 + 128), rows8 keeps them signed (u8 - 128): what each one's dot product
//   wants. rows8x8 has 8-bit codes in 4 steps of 8 columns, byte 8r+j, and is as rows8 otherwise. f32, f16, bf16, e4m3:
//   [column][R].
// Columns are padded to a block and rows to a tile, with codes and scales of zero.
#pragma once
#include "formats/layout.h"

namespace quant {

extern const Layout layout_rows16, layout_rows8, layout_rows8x8;

constexpr int block_cols = 32;

enum class HeaderKind : uint8_t {
    none,
    plain,      // scales
    minimum,    // scales and minima
    integer,    // scales and zero points
    nested,     // codes of scales
    nested_u6,  // codes of scales and minima
};

// Where everything in a tile is.
struct TileShape {
    Element element = Element::f32;
    FloatType scale = FloatType::none;
    HeaderKind header = HeaderKind::none;
    ScaleCode scale_code = ScaleCode::none;
    int rows = 0;  // R
    int zero = 0;  // stored code of the value 0 where there is one; the code's bias with minima or zero points
    int64_t cols = 0;
    int blocks = 0, groups = 0;
    int group_halves = 0;  // 16-column halves of blocks in a group; 1: two groups a block
    int panel_blocks = 0, panel_groups = 0;
    size_t block_bytes = 0, header_bytes = 0, panel_bytes = 0, tile_bytes = 0;
};
bool rows_layout_holds(const Format& format);
TileShape tile_shape(const Format& format, int64_t cols, int tile_rows);

}  // namespace quant
