// Format: what the bytes of a quantized matrix W[rows, cols] mean. One point of the affine space
//
//     W = (q - z) * s      or, with a minimum instead of a zero point,      W = q * s + m
//
// rows are output channels, cols the input dimension that groups run along.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace quant {

enum class Element : uint8_t { f32, f16, bf16, s8, u8, u6, u5, u4, e4m3 };
enum class Granularity : uint8_t { none, tensor, channel, group, block };  // block: group x group tiles
enum class FloatType : uint8_t { none, f32, f16, bf16 };
enum class ScaleCode : uint8_t { none, u6, s8 };  // not none: nested, scale = code * coarse float
enum class Zero : uint8_t { none, constant, integer, minimum };
enum class Storage : uint8_t { planar, ggml };  // ggml: a GGUF file's own interleaved blocks

struct Format {
    Element element = Element::f32;
    Granularity granularity = Granularity::none;  // none for float elements without a scale
    uint16_t group = 0;                           // columns in a group; edge of a block
    FloatType scale = FloatType::none;            // type of the scale, or of the coarse float of a nested one
    ScaleCode scale_code = ScaleCode::none;       // nested: type of the small code per group
    uint16_t super_group = 0;                     // nested: columns that share one coarse float
    Zero zero = Zero::none;
    uint8_t zero_point = 0;  // Zero::constant only
    Storage storage = Storage::planar;
};
bool operator==(const Format& a, const Format& b);
inline bool operator!=(const Format& a, const Format& b) {
    return !(a == b);
}

// Canonical text, and back:  ELEMENT[:tensor|:channel|:gN|:bN][:SCALE][:zN|:zp|:min][:ggml]
// with SCALE = f32 | f16 | bf16 | u6*f16/256 | s8*f16/256 (nested: code * float per N columns).
//   "bf16"   "s8:channel:f16"   "u4:g128:f16:min"   "e4m3:b128:f32"   "u4:g32:u6*f16/256:min:ggml" (Q4_K)
std::string format_name(const Format& f);
bool format_parse(const std::string& text, Format* out);  // false: not a format, or a point nothing implements
bool format_valid(const Format& f);

bool is_float(Element e);  // f32, f16, bf16: decoded by conversion alone
inline int element_bits(Element e) {
    constexpr uint8_t bits[] = {32, 16, 16, 8, 8, 6, 5, 4, 8};
    return bits[static_cast<int>(e)];
}
inline size_t float_type_bytes(FloatType t) {
    constexpr uint8_t bytes[] = {0, 4, 2, 2};
    return bytes[static_cast<int>(t)];
}

int64_t groups_per_row(const Format& f, int64_t cols);  // scales that one row uses (tensor, channel: 1)

// Bytes of the arrays of a [rows, cols] matrix. Planar codes are little-endian bit streams, each row padded to a byte:
// u4 keeps column 2j in the low nibble. Scales (and zeros: u8 for Zero::integer, the scale's type for a minimum) are
// [rows, groups]; [1] for tensor; [ceil(rows/group), ceil(cols/group)] for block. ggml storage has codes only: blocks.
size_t codes_row_bytes(const Format& f, int64_t cols);
size_t codes_bytes(const Format& f, int64_t rows, int64_t cols);
size_t scales_bytes(const Format& f, int64_t rows, int64_t cols);
size_t zeros_bytes(const Format& f, int64_t rows, int64_t cols);
double bits_per_weight(const Format& f, int64_t rows, int64_t cols);

struct Layout;  // formats/layout.h

// A matrix in host memory, not owned: its arrays or, with a layout, `codes` are that layout's tiles. `head_rows` > 0
// says that the stored rows of each head of that many rows are in half-split rotary order and are presented in
// adjacent-pair order: presented row 2i+b of a head is stored row b*head_rows/2 + i (GGUF's convention for architecture
// llama).
struct WeightView {
    Format format;
    int64_t rows = 0, cols = 0;
    const uint8_t* codes = nullptr;
    const uint8_t* scales = nullptr;
    const uint8_t* zeros = nullptr;
    int64_t head_rows = 0;
    const Layout* layout = nullptr;
};
int64_t stored_row(const WeightView& w, int64_t row);

}  // namespace quant
