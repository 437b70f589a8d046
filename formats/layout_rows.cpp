#include "formats/layout_rows.h"

#include <cstring>

#include "formats/float_types.h"

namespace quant {
namespace {

constexpr int steps_per_block = 8;  // of 4 columns

int code_bias(Element element, int tile_rows) {
    if (element == Element::s8) return tile_rows == 16 ? 128 : 0;
    if (element == Element::u8) return tile_rows == 16 ? 0 : -128;
    return 0;
}

size_t scales_size(const TileShape& t) {
    return t.rows * float_type_bytes(t.scale);
}

// One number of each of `rows` rows, `stride` apart; zeros for the rest of the R.
template <int R>
void store_floats(FloatType type, const float* from, size_t stride, int rows, uint8_t* to) {
    float values[R] = {};
    for (int r = 0; r < rows; ++r) values[r] = from[r * stride];
    if (type == FloatType::f32) {
        std::memcpy(to, values, sizeof values);
        return;
    }
    uint16_t halves[R];
    for (int r = 0; r < R; ++r) halves[r] = type == FloatType::f16 ? f32_to_f16(values[r]) : f32_to_bf16(values[r]);
    std::memcpy(to, halves, sizeof halves);
}

float load_float(FloatType type, const uint8_t* from) {
    if (type == FloatType::f32) {
        float value;
        std::memcpy(&value, from, 4);
        return value;
    }
    uint16_t half;
    std::memcpy(&half, from, 2);
    return type == FloatType::f16 ? f16_to_f32(half) : bf16_to_f32(half);
}

// ---- Headers -----------------------------------------------------------------------------------------------------

// Where one group's or row's parts are in a panel's header.
struct HeaderPart {
    const TileShape& t;
    size_t scale(int group, int row) const { return group * scales_size(t) + row * float_type_bytes(t.scale); }
    size_t minimum(int group, int row) const { return t.panel_groups * scales_size(t) + scale(group, row); }
    size_t zero_point(int group, int row) const {
        return t.panel_groups * scales_size(t) + static_cast<size_t>(group) * t.rows + row;
    }
    size_t coarse_minimum(int row) const { return scales_size(t) + scale(0, row); }
    size_t scale_code(int group, int row) const {
        int floats = t.header == HeaderKind::nested_u6 ? 2 : 1;
        return floats * scales_size(t) + static_cast<size_t>(group) * t.rows + row;
    }
    size_t nibble(int group, int row) const {
        return 2 * scales_size(t) + static_cast<size_t>(t.panel_groups) * t.rows +
               static_cast<size_t>(group) * t.rows / 2 + row % (t.rows / 2);
    }
};

template <int R>
void pack_header(const PackRows& from, const TileShape& t, int panel, uint8_t* header) {
    HeaderPart part{t};
    const size_t panels = (t.groups + t.panel_groups - 1) / t.panel_groups, groups = t.groups;
    if (t.header == HeaderKind::nested || t.header == HeaderKind::nested_u6)
        store_floats<R>(t.scale, from.coarse_scales + panel, panels, from.rows, header + part.scale(0, 0));
    if (t.header == HeaderKind::nested_u6)
        store_floats<R>(t.scale, from.coarse_offsets + panel, panels, from.rows, header + part.coarse_minimum(0));
    for (int g = 0; g < t.panel_groups; ++g) {
        const int group = panel * t.panel_groups + g;
        if (group >= t.groups) break;
        switch (t.header) {
            case HeaderKind::none:
                break;
            case HeaderKind::minimum:
                store_floats<R>(t.scale, from.offsets + group, groups, from.rows, header + part.minimum(g, 0));
                store_floats<R>(t.scale, from.scales + group, groups, from.rows, header + part.scale(g, 0));
                break;
            case HeaderKind::integer:
                for (int r = 0; r < from.rows; ++r)
                    header[part.zero_point(g, r)] = static_cast<uint8_t>(from.offsets[r * groups + group]);
                store_floats<R>(t.scale, from.scales + group, groups, from.rows, header + part.scale(g, 0));
                break;
            case HeaderKind::plain:
                store_floats<R>(t.scale, from.scales + group, groups, from.rows, header + part.scale(g, 0));
                break;
            case HeaderKind::nested:
                for (int r = 0; r < from.rows; ++r)
                    header[part.scale_code(g, r)] = from.scale_codes[r * groups + group];
                break;
            case HeaderKind::nested_u6:
                for (int r = 0; r < from.rows; ++r) {
                    const size_t at = r * groups + group;
                    const int minimum = from.offset_codes[at];
                    header[part.scale_code(g, r)] = static_cast<uint8_t>(from.scale_codes[at] | (minimum & 3) << 6);
                    header[part.nibble(g, r)] |= static_cast<uint8_t>(minimum >> 2 << (r < t.rows / 2 ? 0 : 4));
                }
                break;
        }
    }
}

// As unpack_row gives them, each product rounded once.
void unpack_header(const TileShape& t, uint8_t zero_point, const uint8_t* header, int g, int r, float* scale,
                   float* offset) {
    HeaderPart part{t};
    *offset = zero_point;
    switch (t.header) {
        case HeaderKind::none:
            break;
        case HeaderKind::minimum:
            *scale = load_float(t.scale, header + part.scale(g, r));
            *offset = load_float(t.scale, header + part.minimum(g, r));
            break;
        case HeaderKind::integer:
            *scale = load_float(t.scale, header + part.scale(g, r));
            *offset = header[part.zero_point(g, r)];
            break;
        case HeaderKind::plain:
            *scale = load_float(t.scale, header + part.scale(g, r));
            break;
        case HeaderKind::nested: {
            uint8_t code = header[part.scale_code(g, r)];
            float value = t.scale_code == ScaleCode::s8 ? static_cast<float>(static_cast<int8_t>(code)) : code;
            *scale = value * load_float(t.scale, header + part.scale(0, r));
            break;
        }
        case HeaderKind::nested_u6: {
            uint8_t code = header[part.scale_code(g, r)];
            int nibble = header[part.nibble(g, r)] >> (r < t.rows / 2 ? 0 : 4) & 15;
            *scale = static_cast<float>(code & 63) * load_float(t.scale, header + part.scale(0, r));
            *offset =
                static_cast<float>(code >> 6 | nibble << 2) * load_float(t.scale, header + part.coarse_minimum(r));
            break;
        }
    }
}

// ---- Blocks of codes ---------------------------------------------------------------------------------------------

// steps[s][r]: the 4 codes of row r in step s, as they lie in memory.
template <int R, int StepCols>
void pack_block(Element element, const uint32_t (*steps)[R], uint8_t* block) {
    uint32_t out[steps_per_block][R];
    int vectors = 0;
    if (element == Element::s8 || element == Element::u8) {
        uint32_t flip = code_bias(element, R) ? 0x80808080u : 0;
        constexpr int words = StepCols / 4;  // of a row in a step
        for (int s = 0; s < steps_per_block; ++s) {
            uint32_t* to = out[s / words * words] + s % words;
            for (int r = 0; r < R; ++r) to[words * r] = steps[s][r] ^ flip;
        }
        vectors = steps_per_block;
    } else {
        for (int v = 0; v < 4; ++v)
            for (int r = 0; r < R; ++r)
                out[v][r] = (steps[2 * v][r] & 0x0f0f0f0fu) | (steps[2 * v + 1][r] & 0x0f0f0f0fu) << 4;
        vectors = 4;
        int high_bits = element_bits(element) - 4;
        for (int s = 0; high_bits && s < steps_per_block; ++s) {
            int per_vector = 8 / high_bits;
            if (s % per_vector == 0) std::memset(out[vectors++], 0, sizeof out[0]);
            for (int r = 0; r < R; ++r)
                out[vectors - 1][r] |= (steps[s][r] >> 4 & 0x03030303u) << s % per_vector * high_bits;
        }
    }
    std::memcpy(block, out, static_cast<size_t>(vectors) * sizeof out[0]);
}

uint8_t unpack_code(const TileShape& t, const uint8_t* block, int col, int row, int step_cols) {
    if (t.element == Element::s8 || t.element == Element::u8) {
        const uint8_t code = block[col / step_cols * step_cols * t.rows + step_cols * row + col % step_cols];
        return static_cast<uint8_t>(code ^ (code_bias(t.element, t.rows) ? 0x80 : 0));
    }
    int step = col / 4, vector = 4 * t.rows, at = 4 * row + col % 4;
    int code = block[step / 2 * vector + at] >> (step % 2 * 4) & 15;
    int high_bits = element_bits(t.element) - 4;
    if (high_bits) {
        int per_vector = 8 / high_bits, high = block[(4 + step / per_vector) * vector + at];
        code |= (high >> step % per_vector * high_bits & ((1 << high_bits) - 1)) << 4;
    }
    return static_cast<uint8_t>(code);
}

// ---- The layouts -------------------------------------------------------------------------------------------------

bool column_major(Element element) {
    return is_float(element) || element == Element::e4m3;
}

// The columns of R rows of n numbers, one after another. Rows r and r + R / 2 become one row, number by number, until
// one is left: loops that compilers make vectors of.
template <int R, int n, class T>
void transpose(const T* rows, T* columns) {
    if constexpr (R == 1) {
        std::memcpy(columns, rows, n * sizeof(T));
    } else {
        T halves[R / 2 * 2 * n];
        for (int r = 0; r < R / 2; ++r) {
            for (int i = 0; i < n; ++i) {
                halves[2 * n * r + 2 * i] = rows[n * r + i];
                halves[2 * n * r + 2 * i + 1] = rows[n * (r + R / 2) + i];
            }
        }
        transpose<R / 2, 2 * n>(halves, columns);
    }
}

template <int R, class T>
void pack_columns(const PackRows& from, int first_col, int cols, uint8_t* to) {
    T rows[R * block_cols], columns[R * block_cols];
    if (from.rows < R || cols < block_cols) std::memset(rows, 0, sizeof rows);
    for (int r = 0; r < from.rows; ++r)
        std::memcpy(rows + r * block_cols, from.codes + (static_cast<size_t>(r) * from.cols + first_col) * sizeof(T),
                    cols * sizeof(T));
    transpose<R, block_cols>(rows, columns);
    std::memcpy(to, columns, sizeof columns);
}

template <int R>
void pack_columns(Element element, const PackRows& from, int first_col, int cols, uint8_t* to) {
    const int bits = element_bits(element);
    if (bits == 32)
        pack_columns<R, uint32_t>(from, first_col, cols, to);
    else if (bits == 16)
        pack_columns<R, uint16_t>(from, first_col, cols, to);
    else
        pack_columns<R, uint8_t>(from, first_col, cols, to);
}

template <int R, int StepCols>
void pack(const PackRows& from, uint8_t* tile) {
    TileShape t = tile_shape(from.format, from.cols, R);
    bool whole_rows = from.rows == R;
    for (int b = 0; b < t.blocks; ++b) {
        uint8_t* panel = tile + static_cast<size_t>(b / t.panel_blocks) * t.panel_bytes;
        if (b % t.panel_blocks == 0) {
            std::memset(panel, 0, t.header_bytes);
            if (t.header != HeaderKind::none) pack_header<R>(from, t, b / t.panel_blocks, panel);
        }
        uint8_t* block = panel + t.header_bytes + b % t.panel_blocks * t.block_bytes;
        int first = b * block_cols;
        int cols = from.cols - first < block_cols ? static_cast<int>(from.cols - first) : block_cols;
        bool whole = whole_rows && cols == block_cols;
        if (column_major(t.element)) {
            pack_columns<R>(t.element, from, first, cols, block);
            continue;
        }
        uint32_t steps[steps_per_block][R];
        if (!whole) std::memset(steps, 0, sizeof steps);
        for (int r = 0; r < from.rows; ++r) {
            uint32_t row[steps_per_block] = {};
            const uint8_t* codes = from.codes + static_cast<size_t>(r) * from.cols + first;
            if (cols == block_cols)
                std::memcpy(row, codes, sizeof row);
            else
                std::memcpy(row, codes, cols);
            for (int s = 0; s < steps_per_block; ++s) steps[s][r] = row[s];
        }
        pack_block<R, StepCols>(t.element, steps, block);
    }
}

template <int R, int StepCols>
void unpack(const Format& format, int64_t cols, const uint8_t* tile, int row, uint8_t* codes, float* scales,
            float* offsets) {
    TileShape t = tile_shape(format, cols, R);
    size_t bytes = is_float(t.element) ? element_bits(t.element) / 8 : 1;
    for (int64_t c = 0; c < cols; ++c) {
        int b = static_cast<int>(c / block_cols), in_block = static_cast<int>(c % block_cols);
        const uint8_t* panel = tile + static_cast<size_t>(b / t.panel_blocks) * t.panel_bytes;
        const uint8_t* block = panel + t.header_bytes + b % t.panel_blocks * t.block_bytes;
        if (column_major(t.element))
            std::memcpy(codes + c * bytes, block + (static_cast<size_t>(in_block) * R + row) * bytes, bytes);
        else
            codes[c] = unpack_code(t, block, in_block, row, StepCols);
    }
    for (int g = 0; g < t.groups; ++g)
        unpack_header(t, format.zero_point, tile + static_cast<size_t>(g / t.panel_groups) * t.panel_bytes,
                      g % t.panel_groups, row, scales + g, offsets + g);
}

template <int R>
size_t tile_bytes(const Format& format, int64_t cols) {
    return tile_shape(format, cols, R).tile_bytes;
}

}  // namespace

bool rows_layout_holds(const Format& f) {
    if (is_float(f.element)) return f.granularity == Granularity::none;
    if (f.scale == FloatType::none || (f.element == Element::e4m3 && f.zero != Zero::none)) return false;
    bool grouped = f.granularity == Granularity::group || f.granularity == Granularity::block;
    if (grouped && f.group % block_cols != 0 && (f.group != block_cols / 2 || f.element == Element::e4m3)) return false;
    if (f.scale_code == ScaleCode::none) return f.granularity != Granularity::none;
    if (f.granularity != Granularity::group || f.super_group % f.group != 0 || f.super_group % block_cols != 0)
        return false;
    return f.zero == Zero::minimum ? f.scale_code == ScaleCode::u6 : f.zero != Zero::integer;
}

TileShape tile_shape(const Format& f, int64_t cols, int tile_rows) {
    TileShape t;
    t.element = f.element;
    t.scale = f.scale;
    t.scale_code = f.scale_code;
    t.rows = tile_rows;
    t.zero = code_bias(f.element, tile_rows) + (f.zero == Zero::constant ? f.zero_point : 0);
    t.cols = cols;
    t.blocks = static_cast<int>((cols + block_cols - 1) / block_cols);
    t.block_bytes = static_cast<size_t>(tile_rows) * block_cols * element_bits(f.element) / 8;

    bool grouped = f.granularity == Granularity::group || f.granularity == Granularity::block;
    int64_t group = grouped ? f.group : static_cast<int64_t>(t.blocks) * block_cols;
    if (group < 1) group = block_cols;  // a matrix without columns
    t.groups = is_float(f.element) ? 0 : static_cast<int>((cols + group - 1) / group);
    t.group_halves = static_cast<int>(group / (block_cols / 2));
    if (is_float(f.element)) {
        t.header = HeaderKind::none;
        t.panel_groups = 1;
    } else if (f.scale_code != ScaleCode::none) {
        t.header = f.zero == Zero::minimum ? HeaderKind::nested_u6 : HeaderKind::nested;
        t.panel_groups = f.super_group / f.group;
        size_t codes = static_cast<size_t>(t.panel_groups) * tile_rows;
        t.header_bytes =
            t.header == HeaderKind::nested_u6 ? 2 * scales_size(t) + codes + codes / 2 : scales_size(t) + codes;
    } else {
        t.header = f.zero == Zero::minimum   ? HeaderKind::minimum
                   : f.zero == Zero::integer ? HeaderKind::integer
                                             : HeaderKind::plain;
        t.panel_groups = t.groups < 4 ? (t.groups < 1 ? 1 : t.groups) : 4;
        if (t.group_halves == 1 && t.panel_groups % 2) ++t.panel_groups;
        size_t offsets = t.header == HeaderKind::minimum   ? scales_size(t)
                         : t.header == HeaderKind::integer ? tile_rows
                                                           : 0;
        t.header_bytes = (t.panel_groups * (scales_size(t) + offsets) + 63) / 64 * 64;
    }
    t.panel_blocks = static_cast<int>(t.panel_groups * group / block_cols);
    t.panel_bytes = t.header_bytes + t.panel_blocks * t.block_bytes;
    int last_blocks = t.panel_blocks ? t.blocks % t.panel_blocks : 0;
    t.tile_bytes = (t.panel_blocks ? t.blocks / t.panel_blocks : 0) * t.panel_bytes +
                   (last_blocks ? t.header_bytes + last_blocks * t.block_bytes : 0);
    return t;
}

const Layout layout_rows16 = {"rows16", 16, tile_bytes<16>, pack<16, 4>, unpack<16, 4>};
const Layout layout_rows8 = {"rows8", 8, tile_bytes<8>, pack<8, 4>, unpack<8, 4>};
const Layout layout_rows8x8 = {"rows8x8", 8, tile_bytes<8>, pack<8, 8>, unpack<8, 8>};

}  // namespace quant
