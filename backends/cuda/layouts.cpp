#include "backends/cuda/layouts.h"

#include <cstring>

#include "formats/float_types.h"

namespace quant {
namespace cuda {
namespace {

constexpr int tile_rows = 16;
constexpr int block_cols = 32;
constexpr size_t stage_bytes = 1024;

size_t align16(size_t n) {
    return (n + 15) / 16 * 16;
}
size_t element_bytes(Element e) {
    return is_float(e) ? static_cast<size_t>(element_bits(e)) / 8 : 1;
}

// ---- plain --------------------------------------------------------------------------------------------------------

size_t plain_bytes(const Format& f, int64_t cols) {
    return plain_tile(f, cols).bytes;
}

void pack_plain(const PackRows& from, uint8_t* tile) {
    const PlainTile t = plain_tile(from.format, from.cols);
    std::memset(tile, 0, t.bytes);
    std::memcpy(tile, from.codes, from.rows * t.row_bytes);
    if (t.groups == 0) return;
    const size_t parameters = static_cast<size_t>(from.rows) * t.groups * sizeof(float);
    std::memcpy(tile + t.scales_at, from.scales, parameters);
    std::memcpy(tile + t.offsets_at, from.offsets, parameters);
}

void unpack_plain(const Format& f, int64_t cols, const uint8_t* tile, int row, uint8_t* codes, float* scales,
                  float* offsets) {
    const PlainTile t = plain_tile(f, cols);
    std::memcpy(codes, tile + row * t.row_bytes, t.row_bytes);
    if (t.groups == 0) return;
    const size_t at = row * t.groups * sizeof(float);
    std::memcpy(scales, tile + t.scales_at + at, t.groups * sizeof(float));
    std::memcpy(offsets, tile + t.offsets_at + at, t.groups * sizeof(float));
}

// ---- fragments ----------------------------------------------------------------------------------------------------

FragmentKind kind_of(Element e) {
    if (e == Element::f16 || e == Element::bf16) return FragmentKind::bits16;
    return e == Element::u4 ? FragmentKind::bits4 : FragmentKind::bits8;
}

// Where the code of `row` and column `col` (of a block) lies: byte of the tile, and for 4 bits the nibble's shift.
struct CodePlace {
    size_t byte;
    int shift;
};
CodePlace place(FragmentKind kind, int row, int64_t col) {
    const int64_t block = col / block_cols;
    const int in_block = static_cast<int>(col % block_cols), g = row % 8, low = row / 8;
    if (kind == FragmentKind::bits16) {
        const int lane = 4 * g + in_block / 8;
        return {block * stage_bytes + low * 512 + lane * 16 + in_block % 8 * 2, 0};
    }
    if (kind == FragmentKind::bits8) {
        const int matrix = static_cast<int>(col % 64) / 16;
        return {block / 2 * stage_bytes + low * 512 + matrix * matrix_bytes + g * 16 + in_block % 16, 0};
    }
    const int lane = 4 * g + in_block / 8, c = in_block % 8, nibble = c % 2 ? 4 + c / 2 : c / 2;
    return {static_cast<size_t>(block / 2 * 512 + lane * 16 + block % 2 * 8 + low * 4 + nibble / 2), nibble % 2 * 4};
}

size_t pair_at(const FragmentTile& t, int64_t group, int row) {
    const size_t pair = t.half_parameters ? 4 : 8;
    return t.parameters_at + ((group * 8 + row % 8) * 2 + row / 8) * pair;
}

size_t fragment_bytes(const Format& f, int64_t cols) {
    return fragment_tile(f, cols).bytes;
}

void pack_fragments(const PackRows& from, uint8_t* tile) {
    const FragmentTile t = fragment_tile(from.format, from.cols);
    std::memset(tile, 0, t.bytes);
    for (int r = 0; r < from.rows; ++r) {
        if (t.kind == FragmentKind::bits16) {  // 8 columns side by side
            const uint8_t* codes = from.codes + r * from.cols * 2;
            for (int64_t c = 0; c < from.cols; c += 8)
                std::memcpy(tile + place(t.kind, r, c).byte, codes + c * 2,
                            static_cast<size_t>(from.cols - c < 8 ? from.cols - c : 8) * 2);
            continue;
        }
        const uint8_t* codes = from.codes + r * from.cols;
        if (t.kind == FragmentKind::bits8) {  // 16
            for (int64_t c = 0; c < from.cols; c += 16)
                std::memcpy(tile + place(t.kind, r, c).byte, codes + c,
                            static_cast<size_t>(from.cols - c < 16 ? from.cols - c : 16));
        } else {
            for (int64_t c = 0; c < from.cols; c += 8) {
                uint8_t in[8] = {};
                std::memcpy(in, codes + c, static_cast<size_t>(from.cols - c < 8 ? from.cols - c : 8));
                const uint8_t out[4] = {
                    static_cast<uint8_t>(in[0] | in[2] << 4), static_cast<uint8_t>(in[4] | in[6] << 4),
                    static_cast<uint8_t>(in[1] | in[3] << 4), static_cast<uint8_t>(in[5] | in[7] << 4)};
                std::memcpy(tile + place(t.kind, r, c).byte, out, 4);
            }
        }
        for (int g = 0; g < t.groups; ++g) {
            const float pair[2] = {from.scales[static_cast<size_t>(r) * t.groups + g],
                                   from.offsets[static_cast<size_t>(r) * t.groups + g]};
            if (t.half_parameters) {
                const uint16_t half[2] = {f32_to_f16(pair[0]), f32_to_f16(pair[1])};
                std::memcpy(tile + pair_at(t, g, r), half, sizeof half);
            } else {
                std::memcpy(tile + pair_at(t, g, r), pair, sizeof pair);
            }
        }
    }
}

void unpack_fragments(const Format& f, int64_t cols, const uint8_t* tile, int row, uint8_t* codes, float* scales,
                      float* offsets) {
    const FragmentTile t = fragment_tile(f, cols);
    for (int64_t c = 0; c < cols; ++c) {
        const CodePlace at = place(t.kind, row, c);
        if (t.kind == FragmentKind::bits16)
            std::memcpy(codes + c * 2, tile + at.byte, 2);
        else if (t.kind == FragmentKind::bits8)
            codes[c] = tile[at.byte];
        else
            codes[c] = tile[at.byte] >> at.shift & 15;
    }
    for (int g = 0; g < t.groups; ++g) {
        if (t.half_parameters) {
            uint16_t half[2];
            std::memcpy(half, tile + pair_at(t, g, row), sizeof half);
            scales[g] = f16_to_f32(half[0]);
            offsets[g] = f16_to_f32(half[1]);
        } else {
            std::memcpy(&scales[g], tile + pair_at(t, g, row), sizeof(float));
            std::memcpy(&offsets[g], tile + pair_at(t, g, row) + sizeof(float), sizeof(float));
        }
    }
}

}  // namespace

PlainTile plain_tile(const Format& f, int64_t cols) {
    PlainTile t;
    t.row_bytes = static_cast<size_t>(cols) * element_bytes(f.element);
    t.groups = is_float(f.element) ? 0 : groups_per_row(f, cols);
    t.scales_at = align16(tile_rows * t.row_bytes);
    const size_t parameters = align16(static_cast<size_t>(tile_rows) * t.groups * sizeof(float));
    t.offsets_at = t.scales_at + parameters;
    t.bytes = t.offsets_at + parameters;
    return t;
}

bool fragments_hold(const Format& f) {
    if (f.element == Element::f32) return false;
    if (is_float(f.element)) return f.granularity == Granularity::none;
    if (f.element == Element::e4m3 && f.zero != Zero::none) return false;
    const bool grouped = f.granularity == Granularity::group || f.granularity == Granularity::block;
    return grouped ? f.group % block_cols == 0 : f.granularity != Granularity::none;
}

FragmentTile fragment_tile(const Format& f, int64_t cols) {
    FragmentTile t;
    t.kind = kind_of(f.element);
    t.stage_cols = t.kind == FragmentKind::bits16 ? 32 : t.kind == FragmentKind::bits8 ? 64 : 128;
    t.stages = static_cast<int>((cols + t.stage_cols - 1) / t.stage_cols);
    t.half_parameters = f.scale == FloatType::f16 && f.scale_code == ScaleCode::none;
    t.groups = is_float(f.element) ? 0 : static_cast<int>(groups_per_row(f, cols));
    const bool grouped = f.granularity == Granularity::group || f.granularity == Granularity::block;
    t.group_blocks = grouped ? f.group / block_cols : t.stages * t.stage_cols / block_cols;
    t.parameters_at = t.stages * stage_bytes;
    t.bytes = t.parameters_at + static_cast<size_t>(t.groups) * tile_rows * (t.half_parameters ? 4 : 8);
    return t;
}

const Layout layout_plain = {"plain", tile_rows, plain_bytes, pack_plain, unpack_plain};
const Layout layout_fragments = {"fragments", tile_rows, fragment_bytes, pack_fragments, unpack_fragments};

}  // namespace cuda
}  // namespace quant
