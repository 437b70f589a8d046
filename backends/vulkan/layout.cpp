#include "backends/vulkan/layout.h"

#include <algorithm>
#include <cstring>

#include "formats/float_types.h"

namespace quant {
namespace vulkan {
namespace {

constexpr int chunk_bytes = 16, block_chunks = 8;

int code_bits(Code code) {
    switch (code) {
        case Code::f32:
            return 32;
        case Code::f16:
        case Code::bf16:
            return 16;
        case Code::u4:
            return 4;
        default:
            return 8;
    }
}

Code code_of(Element e) {
    switch (e) {
        case Element::f32:
            return Code::f32;
        case Element::f16:
            return Code::f16;
        case Element::bf16:
            return Code::bf16;
        case Element::s8:
            return Code::s8;
        case Element::u4:
            return Code::u4;
        case Element::e4m3:
            return Code::e4m3;
        default:
            return Code::u8;
    }
}

// Of a column's code, in a row.
struct Place {
    size_t byte;
    int nibble;  // 1: the high one
};
Place place_of(const TileShape& t, int64_t c) {
    const int64_t block_cols = int64_t{32} * t.chunk_quads, block = c / block_cols, in_block = c % block_cols;
    const int64_t j = in_block / 32, l = in_block % 32 / 4, i = in_block % 4;
    const size_t chunk = static_cast<size_t>((block * block_chunks + l) * chunk_bytes);
    const int64_t code = 4 * j + i;
    if (t.code == Code::u4) return {chunk + static_cast<size_t>(code / 2), static_cast<int>(code % 2)};
    return {chunk + static_cast<size_t>(code * code_bits(t.code) / 8), 0};
}

size_t tile_bytes(const Format& f, int64_t cols) {
    return size_t{chunk_bytes} * tile_shape(f, cols).tile_chunks;
}

void put_f32(float value, uint8_t* to) {
    std::memcpy(to, &value, 4);
}
void put_f16(float value, uint8_t* to) {
    const uint16_t half = f32_to_f16(value);
    std::memcpy(to, &half, 2);
}
float get_f32(const uint8_t* from) {
    float value;
    std::memcpy(&value, from, 4);
    return value;
}
float get_f16(const uint8_t* from) {
    uint16_t half;
    std::memcpy(&half, from, 2);
    return f16_to_f32(half);
}

uint8_t* parameters_of(const TileShape& t, uint8_t* tile, int row) {
    return tile + size_t{chunk_bytes} * t.row_chunks * layout_tile_rows + size_t{4} * t.parameter_words * row;
}

void pack(const PackRows& from, uint8_t* tile) {
    const TileShape t = tile_shape(from.format, from.cols);
    std::memset(tile, 0, size_t{chunk_bytes} * t.tile_chunks);
    const size_t code_bytes = std::max(1, code_bits(t.code) / 8), row_bytes = size_t{chunk_bytes} * t.row_chunks;
    for (int r = 0; r < from.rows; ++r) {
        uint8_t* row = tile + row_bytes * r;
        const uint8_t* codes = from.codes + static_cast<size_t>(r) * from.cols * code_bytes;
        for (int64_t c = 0; c < from.cols; c += 4) {  // a quad's codes are side by side
            const int n = static_cast<int>(std::min<int64_t>(4, from.cols - c));
            uint8_t* to = row + place_of(t, c).byte;
            if (t.code == Code::u4) {
                for (int i = 0; i < n; ++i) to[i / 2] |= static_cast<uint8_t>(codes[c + i] << (i % 2 * 4));
            } else if (n == 4 && code_bytes == 1) {
                std::memcpy(to, codes + c, 4);
            } else if (n == 4 && code_bytes == 2) {
                std::memcpy(to, codes + c * 2, 8);
            } else {
                std::memcpy(to, codes + c * code_bytes, n * code_bytes);
            }
        }
        uint8_t* p = parameters_of(t, tile, r);
        const float* scales = from.scales + static_cast<size_t>(r) * t.groups;
        const float* offsets = from.offsets + static_cast<size_t>(r) * t.groups;
        for (uint32_t g = 0; g < t.groups; ++g) switch (t.parameters) {
                case Parameters::none:
                    break;
                case Parameters::f16_scale:
                    put_f16(scales[g], p + 2 * g);
                    break;
                case Parameters::f16_both:
                    put_f16(scales[g], p + 4 * g);
                    put_f16(offsets[g], p + 4 * g + 2);
                    break;
                case Parameters::f32_scale:
                    put_f32(scales[g], p + 4 * g);
                    break;
                case Parameters::f32_both:
                    put_f32(scales[g], p + 8 * g);
                    put_f32(offsets[g], p + 8 * g + 4);
                    break;
            }
    }
}

void unpack(const Format& format, int64_t cols, const uint8_t* tile, int row, uint8_t* codes, float* scales,
            float* offsets) {
    const TileShape t = tile_shape(format, cols);
    const size_t code_bytes = std::max(1, code_bits(t.code) / 8);
    const uint8_t* from = tile + size_t{chunk_bytes} * t.row_chunks * row;
    for (int64_t c = 0; c < cols; ++c) {
        const Place place = place_of(t, c);
        if (t.code == Code::u4)
            codes[c] = from[place.byte] >> (4 * place.nibble) & 15;
        else
            std::memcpy(codes + c * code_bytes, from + place.byte, code_bytes);
    }
    const uint8_t* p = parameters_of(t, const_cast<uint8_t*>(tile), row);
    for (uint32_t g = 0; g < t.groups; ++g) {
        const bool half = t.parameters == Parameters::f16_scale || t.parameters == Parameters::f16_both;
        const bool both = t.parameters == Parameters::f16_both || t.parameters == Parameters::f32_both;
        const size_t bytes = half ? 2 : 4, at = g * bytes * (both ? 2 : 1);
        scales[g] = half ? get_f16(p + at) : get_f32(p + at);
        offsets[g] = !both ? format.zero_point : half ? get_f16(p + at + bytes) : get_f32(p + at + bytes);
    }
}

}  // namespace

bool layout_holds(const Format& f) {
    if (is_float(f.element)) return f.granularity == Granularity::none;
    if (f.scale == FloatType::none || f.granularity == Granularity::none) return false;
    return f.element != Element::e4m3 || f.zero == Zero::none;
}

TileShape tile_shape(const Format& f, int64_t cols) {
    TileShape t;
    t.code = code_of(f.element);
    t.chunk_quads = static_cast<uint32_t>(chunk_bytes * 8 / (4 * code_bits(t.code)));
    const int64_t block_cols = int64_t{32} * t.chunk_quads;
    t.row_chunks = static_cast<uint32_t>((cols + block_cols - 1) / block_cols * block_chunks);
    if (!is_float(f.element)) {
        const bool offset = f.zero == Zero::integer || f.zero == Zero::minimum;
        const bool half = f.scale == FloatType::f16 && f.scale_code == ScaleCode::none;  // nested scales are products
        t.parameters = half     ? offset ? Parameters::f16_both : Parameters::f16_scale
                       : offset ? Parameters::f32_both
                                : Parameters::f32_scale;
        t.groups = static_cast<uint32_t>(groups_per_row(f, cols));
        t.group_cols = f.granularity == Granularity::group || f.granularity == Granularity::block ? f.group : 0;
        t.parameter_words = half && !offset ? (t.groups + 1) / 2 : t.groups * (half || !offset ? 1 : 2);
    }
    const uint32_t parameter_chunks = (t.parameter_words * 4 * layout_tile_rows + chunk_bytes - 1) / chunk_bytes;
    t.tile_chunks = t.row_chunks * layout_tile_rows + parameter_chunks;
    return t;
}

const Layout layout_lanes8 = {"lanes8", layout_tile_rows, tile_bytes, pack, unpack};

}  // namespace vulkan
}  // namespace quant
