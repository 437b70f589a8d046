// Keys (turned or not) and values to a cache of kind s8 or e4m3, to the bit: see CacheShape in core/backend.h. A word of
// the cache holds four positions of a key, so one workgroup writes all rows of the step that share words: those of one
// sequence whose positions differ in the last two bits only.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint TURN_KEYS = 0;
layout(constant_id = 2) const uint ADJACENT = 0;
layout(constant_id = 3) const uint KIND = 1;  // 1 = s8, 2 = e4m3
layout(constant_id = 4) const uint DIM = 64;
#include "memory.glsl"
#include "numbers.glsl"
#include "step.glsl"
#include "workgroup.glsl"

layout(push_constant, std430) uniform Push {
    Ints block;
    Floats k, v, angles;
    uint max_rows, kv_heads, k_stride, v_stride, angle_stride, layer_at;
};

shared uint codes[4][DIM];
shared uint scale[4];

uint step_int(uint array, uint row) {
    return uint(block.at[step_at(array, max_rows, row)]);
}

float key_at(uint row, uint head, uint d) {
    uint at = row * k_stride + head * DIM;
    if (TURN_KEYS == 0u) return k.at[at + d];
    uint half_dim = DIM / 2u, i = ADJACENT != 0u ? d / 2u : d % half_dim;
    bool second = ADJACENT != 0u ? (d & 1u) != 0u : d >= half_dim;
    float a = k.at[at + (ADJACENT != 0u ? 2u * i : i)], b = k.at[at + (ADJACENT != 0u ? 2u * i + 1u : i + half_dim)];
    float cosine = angles.at[row * angle_stride + 2u * i], sine = angles.at[row * angle_stride + 2u * i + 1u];
    return second ? a * sine + b * cosine : a * cosine - b * sine;
}

uint code_of(float x, float inverse) {
    precise float q = x * inverse;
    if (KIND == 2u) return f32_to_e4m3(floatBitsToUint(q));
    if ((floatBitsToUint(q) & 0x7fffffffu) > 0x7f800000u) return 0u;
    return uint(int(roundEven(clamp(q, -127.0, 127.0)))) & 0xffu;
}

// Replaces the bits of `mask` in a word that nobody else writes.
void put(Uints page, uint word, uint value, uint mask) {
    page.at[word] = mask == 0xffffffffu ? value : (page.at[word] & ~mask) | (value & mask);
}

void main() {
    uint row = gl_WorkGroupID.y, rows = uint(block.at[STEP_ROWS]), thread = gl_LocalInvocationID.x;
    uint head = gl_WorkGroupID.x;  // value heads come after key heads
    if (row >= rows) return;
    bool is_value = head >= kv_heads;
    uint position = step_int(POSITIONS, row), sequence = step_int(SEQUENCES, row), at = position % 64u, lane = at % 4u;
    if (lane != 0u && row > 0u && step_int(SEQUENCES, row - 1u) == sequence) return;  // an earlier row writes this one
    uint count = 1u;
    while (lane + count < 4u && row + count < rows && step_int(SEQUENCES, row + count) == sequence) ++count;
    Addresses pages = Addresses(uvec2(block.at[STEP_PAGES], block.at[STEP_PAGES + 1u]));
    Uints page = Uints(pages.at[step_int(FIRST_PAGES, row) + position / 64u]);

    for (uint n = 0u; n < count; ++n) {
        uint largest = 0u;  // NaN does not count
        for (uint d = thread; d < DIM; d += gl_WorkGroupSize.x) {
            float x;
            if (is_value)
                x = v.at[(row + n) * v_stride + (head - kv_heads) * DIM + d];
            else
                x = key_at(row + n, head, d);
            codes[n][d] = floatBitsToUint(x);
            uint a = codes[n][d] & 0x7fffffffu;
            if (a <= 0x7f800000u) largest = max(largest, a);
        }
        largest = workgroup_max(largest);
        uint wanted = divide_bits(largest, floatBitsToUint(KIND == 1u ? 127.0 : 448.0));
        uint rounded = f32_to_f16(uintBitsToFloat(min(wanted, floatBitsToUint(65504.0))));
        float inverse = rounded > 0u ? uintBitsToFloat(divide_bits(floatBitsToUint(1.0), f16_to_f32_bits(rounded))) : 0.0;
        for (uint d = thread; d < DIM; d += gl_WorkGroupSize.x) codes[n][d] = code_of(uintBitsToFloat(codes[n][d]), inverse);
        if (thread == 0u) scale[n] = rounded;
    }
    barrier();

    uint head_at = layer_at + head * (DIM * 16u), scales_at = layer_at + 2u * kv_heads * DIM * 16u + head * 32u;
    if (is_value) {
        for (uint i = thread; i < count * (DIM / 4u); i += gl_WorkGroupSize.x) {
            uint n = i / (DIM / 4u), w = i % (DIM / 4u);
            page.at[head_at + (at + n) * (DIM / 4u) + w] = codes[n][4u * w] | codes[n][4u * w + 1u] << 8 |
                                                           codes[n][4u * w + 2u] << 16 | codes[n][4u * w + 3u] << 24;
        }
    } else {
        for (uint d = thread; d < DIM; d += gl_WorkGroupSize.x) {
            uint value = 0u, mask = 0u;
            for (uint n = 0u; n < count; ++n) {
                value |= codes[n][d] << (8u * (lane + n));
                mask |= 0xffu << (8u * (lane + n));
            }
            put(page, head_at + d * 16u + at / 4u, value, mask);
        }
    }
    if (thread < 2u) {  // two scales a word
        uint value = 0u, mask = 0u;
        for (uint n = 0u; n < count; ++n)
            if ((lane + n) / 2u == thread) {
                value |= scale[n] << (16u * ((lane + n) & 1u));
                mask |= 0xffffu << (16u * ((lane + n) & 1u));
            }
        if (mask != 0u) put(page, scales_at + at / 4u * 2u + thread, value, mask);
    }
}
