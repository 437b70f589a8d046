#include "formats/ggml_blocks.h"

#include <algorithm>
#include <cstring>

#include "formats/float_types.h"

namespace quant {
namespace {

constexpr int64_t super_block = 256;

float load_f16(const uint8_t* p) {
    return f16_to_f32(static_cast<uint16_t>(p[0] | p[1] << 8));
}

// Bytes in front of the codes of a block of 32.
size_t header_bytes(const Format& f) {
    return f.zero == Zero::minimum ? 4 : 2;
}

// A copy that the compiler knows not to alias the output.
template <size_t n>
struct Bytes {
    uint8_t at[n];
    explicit Bytes(const uint8_t* from) { std::memcpy(at, from, n); }
    uint8_t operator[](int i) const { return at[i]; }
};

void codes_q4(const uint8_t* from, uint8_t* codes) {
    const Bytes<16> q(from);
    for (int i = 0; i < 16; ++i) codes[i] = q[i] & 15;
    for (int i = 0; i < 16; ++i) codes[16 + i] = q[i] >> 4;
}

// Eight bits to bit 4 of eight bytes: byte i keeps bit i of its copy, and adding 0x7f carries any bit into bit 7.
uint64_t spread_bits(uint8_t bits) {
    const uint64_t kept = bits * 0x0101010101010101u & 0x8040201008040201u;
    return (kept + 0x7f7f7f7f7f7f7f7fu) >> 3 & 0x1010101010101010u;
}

void codes_q5(const uint8_t* fifth, const uint8_t* q, uint8_t* codes) {
    codes_q4(q, codes);
    for (int i = 0; i < 4; ++i) {
        uint64_t eight;
        std::memcpy(&eight, codes + 8 * i, 8);
        eight |= spread_bits(fifth[i]);
        std::memcpy(codes + 8 * i, &eight, 8);
    }
}

void codes_q4_k(const uint8_t* from, uint8_t* codes) {
    for (int pair = 0; pair < 4; ++pair, from += 32, codes += 64) {
        const Bytes<32> q(from);
        for (int i = 0; i < 32; ++i) codes[i] = q[i] & 15;
        for (int i = 0; i < 32; ++i) codes[32 + i] = q[i] >> 4;
    }
}

void codes_q5_k(const uint8_t* fifth_bits, const uint8_t* from, uint8_t* codes) {
    Bytes<32> fifth(fifth_bits);
    for (int pair = 0; pair < 4; ++pair, from += 32, codes += 64) {
        const Bytes<32> q(from);
        for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>((q[i] & 15) | (fifth[i] & 1) << 4);
        for (int i = 0; i < 32; ++i) codes[32 + i] = static_cast<uint8_t>(q[i] >> 4 | (fifth[i] & 2) << 3);
        for (uint8_t& bits : fifth.at) bits >>= 2;
    }
}

void codes_q6_k(const uint8_t* low_bits, const uint8_t* high_bits, uint8_t* codes) {
    for (int half = 0; half < 2; ++half, low_bits += 64, high_bits += 32, codes += 128) {
        const Bytes<64> low(low_bits);
        const Bytes<32> high(high_bits);
        for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>((low[i] & 15) | (high[i] & 3) << 4);
        for (int i = 0; i < 32; ++i) codes[32 + i] = static_cast<uint8_t>((low[32 + i] & 15) | (high[i] & 12) << 2);
        for (int i = 0; i < 32; ++i) codes[64 + i] = static_cast<uint8_t>(low[i] >> 4 | (high[i] & 48));
        for (int i = 0; i < 32; ++i) codes[96 + i] = static_cast<uint8_t>(low[32 + i] >> 4 | (high[i] >> 6) << 4);
    }
}

// The 12 bytes of Q4_K and Q5_K: eight 6-bit scales and eight 6-bit minimums. The first four of each are the low bits
// of bytes 0-3 and 4-7; the last four have their low nibbles in bytes 8-11, their high bits on top of bytes 0-7.
void nested_codes_u6(const uint8_t* p, uint8_t* scales, uint8_t* minimums) {
    for (int i = 0; i < 4; ++i) {
        scales[i] = p[i] & 63;
        minimums[i] = p[4 + i] & 63;
        scales[4 + i] = static_cast<uint8_t>((p[8 + i] & 15) | (p[i] >> 6) << 4);
        minimums[4 + i] = static_cast<uint8_t>(p[8 + i] >> 4 | (p[4 + i] >> 6) << 4);
    }
}

// One nested block's parts. K-quants subtract the minimum, so the coarse offset is negative.
struct NestedBlock {
    uint8_t scale_codes[16], offset_codes[8];
    float coarse_scale, coarse_offset;

    NestedBlock(const Format& f, const uint8_t* block) {
        if (f.scale_code == ScaleCode::u6) {
            coarse_scale = load_f16(block);
            coarse_offset = -load_f16(block + 2);
            nested_codes_u6(block + 4, scale_codes, offset_codes);
        } else {
            std::copy_n(block + 192, 16, scale_codes);
            coarse_scale = load_f16(block + 208);
            coarse_offset = 0;
        }
    }
};

template <class BlockCodes>
void each_block(const uint8_t* blocks, size_t bytes, int64_t width, int64_t cols, uint8_t* codes, BlockCodes unpack) {
    int64_t done = 0;
    for (; done + width <= cols; done += width, blocks += bytes) unpack(blocks, codes + done);
    if (done < cols) {
        uint8_t last[super_block];
        unpack(blocks, last);
        std::copy_n(last, cols - done, codes + done);
    }
}

}  // namespace

void unpack_ggml_codes(const Format& f, const uint8_t* blocks, int64_t cols, uint8_t* codes) {
    const int64_t width = f.super_group != 0 ? f.super_group : f.group;
    const size_t bytes = codes_row_bytes(f, width), header = header_bytes(f);
    const auto each = [&](auto unpack) { each_block(blocks, bytes, width, cols, codes, unpack); };
    if (f.scale_code == ScaleCode::s8) {
        each([](const uint8_t* b, uint8_t* out) { codes_q6_k(b, b + 128, out); });
    } else if (f.scale_code == ScaleCode::u6) {
        if (f.element == Element::u4) {
            each([](const uint8_t* b, uint8_t* out) { codes_q4_k(b + 16, out); });
        } else {
            each([](const uint8_t* b, uint8_t* out) { codes_q5_k(b + 16, b + 48, out); });
        }
    } else if (f.element == Element::u4) {
        each([=](const uint8_t* b, uint8_t* out) { codes_q4(b + header, out); });
    } else if (f.element == Element::u5) {
        each([=](const uint8_t* b, uint8_t* out) { codes_q5(b + header, b + header + 4, out); });
    } else {
        each([=](const uint8_t* b, uint8_t* out) { std::memcpy(out, b + header, 32); });
    }
}

void unpack_ggml_scales(const Format& f, const uint8_t* blocks, int64_t cols, float* scales, float* offsets) {
    const int64_t groups = groups_per_row(f, cols);
    const bool minimum = f.zero == Zero::minimum;
    if (f.scale_code == ScaleCode::none) {
        const size_t bytes = codes_row_bytes(f, f.group);
        for (int64_t g = 0; g < groups; ++g, blocks += bytes) {
            scales[g] = load_f16(blocks);
            offsets[g] = minimum ? load_f16(blocks + 2) : f.zero_point;
        }
        return;
    }
    const size_t bytes = codes_row_bytes(f, super_block);
    const int64_t per_block = super_block / f.group;
    for (int64_t first = 0; first < groups; first += per_block, blocks += bytes) {
        const NestedBlock block(f, blocks);
        for (int64_t i = 0; i < per_block && first + i < groups; ++i) {
            const int code = minimum ? block.scale_codes[i] : static_cast<int8_t>(block.scale_codes[i]);
            scales[first + i] = static_cast<float>(code) * block.coarse_scale;
            offsets[first + i] = minimum ? static_cast<float>(block.offset_codes[i]) * block.coarse_offset
                                         : static_cast<float>(f.zero_point);
        }
    }
}

void unpack_ggml_nested(const Format& f, const uint8_t* blocks, int64_t cols, uint8_t* scale_codes,
                        uint8_t* offset_codes, float* coarse_scales, float* coarse_offsets) {
    const int64_t groups = groups_per_row(f, cols), per_block = super_block / f.group;
    const size_t bytes = codes_row_bytes(f, super_block);
    for (int64_t first = 0, b = 0; first < groups; first += per_block, ++b, blocks += bytes) {
        const NestedBlock block(f, blocks);
        const int64_t n = std::min(per_block, groups - first);
        std::copy_n(block.scale_codes, n, scale_codes + first);
        coarse_scales[b] = block.coarse_scale;
        if (f.zero != Zero::minimum) continue;
        std::copy_n(block.offset_codes, n, offset_codes + first);
        coarse_offsets[b] = block.coarse_offset;
    }
}

}  // namespace quant
