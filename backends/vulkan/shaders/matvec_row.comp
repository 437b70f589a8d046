// One input row times a weight. A workgroup's invocations share out a weight row's chunks, UNITS each, and keep their
// columns of the input in registers; the workgroup then goes through its weight rows, ROWS at a time (a step). Sums wait in
// shared memory, so that there is one barrier in all. The rmsnorm that makes the input and the silu_mul that takes the
// results can be folded in: NORM multiplies the input by gains, and the results by the row's factor; PAIRED takes the
// weight's two halves as gate and up, row by row.
// With INTEGER_DOT, codes are multiplied as they are: the columns of one chunk become fixed point, PLANES bytes with one
// scale, of which the largest magnitude fills all bits. Three bytes keep 23 bits and are as good as floats; two keep 16, for
// kernels that may round to f16. An instruction then multiplies four codes by a byte each, where floats take three a code.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_shuffle : require
layout(local_size_x_id = 0) in;
#include "memory.glsl"
#include "numbers.glsl"
#include "weights.glsl"
#include "activations.glsl"
#include "linear.glsl"
#ifdef INTEGER_DOT
#include "integer.glsl"
#endif
layout(constant_id = 7) const uint UNITS = 1;
layout(constant_id = 8) const uint ROWS = 2;    // a power of two, at most 8
layout(constant_id = 9) const uint STEPS = 32;  // of a workgroup at most; no more results than invocations
layout(constant_id = 10) const uint SUBGROUPS = 1;
layout(constant_id = 11) const uint NORM = 0;
layout(constant_id = 12) const uint PAIRED = 0;
layout(constant_id = 13) const uint CHUNK_GROUPS = 1;  // groups among which a chunk's quads are divided evenly
layout(constant_id = 14) const uint PAIRS = 0;         // scales of f16, two in a word, which are of one chunk
layout(constant_id = 15) const uint COLS = 1;
layout(constant_id = 16) const uint PARAMETER_WORDS = 0;  // of a row
layout(constant_id = 17) const uint AHEAD = 0;            // a step's chunks are on their way while the one before multiplies
// As LinearPush has them; known here, they become offsets in instructions.
const uint ROW_CHUNKS = (COLS + 32u * CHUNK_QUADS - 1u) / (32u * CHUNK_QUADS) * 8u;
const uint TILE_CHUNKS = 8u * ROW_CHUNKS + 2u * PARAMETER_WORDS;
const uint GROUP_QUADS = CHUNK_QUADS / CHUNK_GROUPS;
const uint EACH = PAIRED != 0u ? ROWS / 2u : ROWS;  // results of a step
#ifdef INTEGER_DOT
const bool SUMS = HAS_OFFSET || ELEMENT != ELEMENT_S8;  // needed of the input: codes are not centred
#else
const bool SUMS = HAS_OFFSET;
#endif
const uint GROUP_WORDS = 1u + PARAMETERS / 4u;
const uint WORDS = CHUNK_GROUPS * GROUP_WORDS / (1u + PAIRS);

shared float sums[STEPS * ROWS][SUBGROUPS];
shared float squares[SUBGROUPS], input_sums[SUBGROUPS];

#ifdef INTEGER_DOT
layout(constant_id = 18) const uint PLANES = 3;
uint x[UNITS][CHUNK_QUADS][PLANES];  // the highest byte first
float x_scale[UNITS];
#else
vec4 x[UNITS][CHUNK_QUADS];  // times quad_scale
#endif
vec4 values[CHUNK_QUADS];               // of a chunk's columns of the input
float group_sums[UNITS][CHUNK_GROUPS];  // of the input's columns of a chunk's group
uvec4 chunks[ROWS][UNITS], next_chunks[ROWS][UNITS];
uint words[ROWS][UNITS][WORDS], next_words[ROWS][UNITS][WORDS];  // parameters of the chunks' groups

uint unit_of(uint u) {
    return gl_LocalInvocationID.x + u * gl_WorkGroupSize.x;
}
uint column_of(uint unit) {
    return (unit >> 3) * (32u * CHUNK_QUADS) + (unit & 7u) * 4u;
}
uint results() {
    return PAIRED != 0u ? rows / 2u : rows;
}
// Where the step's row r begins, in chunks, and its parameters, in words. Rows of a step are of one tile; with PAIRED the
// second half of them is that of the weight.
uint chunk_of(uint step, uint r) {
    uint row = step * EACH;
    if (r >= EACH) {
        row = min(row + r - EACH, results() - 1u) + results();
        r = 0u;
    }
    return (row >> 3) * TILE_CHUNKS + ((row & 7u) + r) * ROW_CHUNKS;
}
uint word_of(uint step, uint r) {
    uint row = step * EACH;
    if (r >= EACH) {
        row = min(row + r - EACH, results() - 1u) + results();
        r = 0u;
    }
    return (row >> 3) * (4u * TILE_CHUNKS) + 32u * ROW_CHUNKS + ((row & 7u) + r) * PARAMETER_WORDS;
}

uint group_of(uint u, uint g) {
    return min(column_of(unit_of(u)) + 32u * g * GROUP_QUADS, COLS - 1u) / GROUP;
}

void load_next(uint step) {
    Uints weight_words = Uints(uvec2(weight));
    [[unroll]] for (uint r = 0u; r < ROWS; ++r)
        [[unroll]] for (uint u = 0u; u < UNITS; ++u) {
            uint unit = min(unit_of(u), ROW_CHUNKS - 1u);  // the input is zero past the end
            next_chunks[r][u] = weight.at[chunk_of(step, r) + unit];
            if (GROUP == 0u) continue;
            [[unroll]] for (uint w = 0u; w < WORDS; ++w) {
                uint at = PAIRS != 0u        ? min(group_of(u, 0u) / 2u + w, PARAMETER_WORDS - 1u)
                          : PARAMETERS == 1u ? group_of(u, w) / 2u
                                             : group_of(u, w / GROUP_WORDS) * GROUP_WORDS + w % GROUP_WORDS;
                next_words[r][u][w] = weight_words.at[word_of(step, r) + at];
            }
        }
}

void take_next() {
    [[unroll]] for (uint r = 0u; r < ROWS; ++r)
        [[unroll]] for (uint u = 0u; u < UNITS; ++u) {
            chunks[r][u] = next_chunks[r][u];
            if (GROUP == 0u) continue;
            [[unroll]] for (uint w = 0u; w < WORDS; ++w) words[r][u][w] = next_words[r][u][w];
        }
}

// As parameters() of weights.glsl.
vec2 parameters_of(uint r, uint u, uint g) {
    vec2 p = vec2(1.0, 0.0);
    if (PAIRS != 0u) p.x = unpackHalf2x16(words[r][u][g / 2u])[g % 2u];
    else if (PARAMETERS == 1u) p.x = unpackHalf2x16(words[r][u][g])[group_of(u, g) % 2u];
    if (PARAMETERS == 2u) p = unpackHalf2x16(words[r][u][g]);
    if (PARAMETERS == 3u) p.x = uintBitsToFloat(words[r][u][g]);
    if (PARAMETERS == 4u) p = uintBitsToFloat(uvec2(words[r][u][2u * g], words[r][u][2u * g + 1u]));
    if (HAS_OFFSET && MINIMUM == 0u) p.y *= -p.x;
    return p;
}

#ifdef INTEGER_DOT
// Two quads of four-bit codes in one group: their even columns are one word of bytes, their odd ones another.
const uint CROSSED = ELEMENT == ELEMENT_U4 ? 1u - GROUP_QUADS % 2u : 0u;

uint weight_bytes(uvec4 chunk, uint j) {
    return CROSSED != 0u ? chunk[j >> 1] >> (4u * (j & 1u)) & 0x0f0f0f0fu : signed_quad(chunk, j);
}

// Even bytes of a and b side by side, or odd ones.
uint even_bytes(uint a, uint b) {
    return (a & 0x00ff00ffu) | (b << 8 & 0xff00ff00u);
}
uint odd_bytes(uint a, uint b) {
    return (a >> 8 & 0x00ff00ffu) | (b & 0xff00ff00u);
}

void keep_values(uint u) {
    float largest = 0.0;
    uint not_finite = 0u;
    [[unroll]] for (uint j = 0u; j < CHUNK_QUADS; ++j) {
        vec4 a = abs(values[j]);
        largest = max(largest, max(max(a.x, a.y), max(a.z, a.w)));
        uvec4 bits = floatBitsToUint(a);
        not_finite = max(not_finite, max(max(bits.x, bits.y), max(bits.z, bits.w)));
    }
    const float limit = PLANES == 3u ? 4194303.0 : 32512.0;
    float bound = max(largest, 1e-30);
    x_scale[u] = not_finite < 0x7f800000u ? bound / limit : uintBitsToFloat(0x7fc00000u);
    float inverse = limit / bound;
    // An integer is the difference of the bits of itself plus 1.5 * 2^23 and of that. With 128 added to each of its bytes
    // these are 128 more than the signed bytes that make it up.
    const float magic = 12582912.0;
    const uint biased = 0x808080u - floatBitsToUint(magic);
    [[unroll]] for (uint j = 0u; j < CHUNK_QUADS; ++j) {
        vec4 four = values[j];
        if (CROSSED != 0u) {
            vec4 even = values[j & ~1u], odd = values[j | 1u];
            four = j % 2u == 0u ? vec4(even.xz, odd.xz) : vec4(even.yw, odd.yw);
        }
        uvec4 whole = floatBitsToUint(four * inverse + magic) + biased;
        uint even_low = even_bytes(whole.x, whole.y), even_high = even_bytes(whole.z, whole.w);
        uint odd_low = odd_bytes(whole.x, whole.y), odd_high = odd_bytes(whole.z, whole.w);
        x[u][j][PLANES - 1u] = ((even_low & 0xffffu) | even_high << 16) ^ 0x80808080u;
        x[u][j][PLANES - 2u] = ((odd_low & 0xffffu) | odd_high << 16) ^ 0x80808080u;
        if (PLANES == 3u) x[u][j][0] = (even_low >> 16 | (even_high & 0xffff0000u)) ^ 0x80808080u;
    }
}

float group_product(uint r, uint u, uint g) {
    int sums_of[PLANES];
    [[unroll]] for (uint p = 0u; p < PLANES; ++p) sums_of[p] = 0;
    [[unroll]] for (uint j = g * GROUP_QUADS; j < (g + 1u) * GROUP_QUADS; ++j) {
        uint w = weight_bytes(chunks[r][u], j);
        [[unroll]] for (uint p = 0u; p < PLANES; ++p) sums_of[p] = add_dot(w, x[u][j][p], sums_of[p]);
    }
    float product = float(sums_of[0] * 256 + sums_of[1]);
    return PLANES == 3u ? product * 256.0 + float(sums_of[2]) : product;
}
#else
void keep_values(uint u) {
    [[unroll]] for (uint j = 0u; j < CHUNK_QUADS; ++j) x[u][j] = values[j] * quad_scale();
}

float group_product(uint r, uint u, uint g) {
    float product = 0.0;
    [[unroll]] for (uint j = g * GROUP_QUADS; j < (g + 1u) * GROUP_QUADS; ++j) {
        vec4 w = quad(chunks[r][u], j, zero);
        [[unroll]] for (uint i = 0u; i < 4u; ++i) product += w[i] * x[u][j][i];
    }
    return product;
}
#endif

void load_input() {
    float square = 0.0, sum = 0.0;
    Floats input_floats = Floats(uvec2(input_aligned));
    Uints input_codes = Uints(uvec2(input_aligned));
    [[unroll]] for (uint u = 0u; u < UNITS; ++u) {
        [[unroll]] for (uint g = 0u; g < CHUNK_GROUPS; ++g) group_sums[u][g] = 0.0;
        [[unroll]] for (uint j = 0u; j < CHUNK_QUADS; ++j) {
            uint c = column_of(unit_of(u)) + 32u * j;
            vec4 value = vec4(0.0);
            if (c < COLS) {
                value = input_quad(input_aligned, input_floats, input_codes, 0u, c, COLS);
                if (NORM != 0u) {
                    square += dot(value, value);
                    value *= gains.at[c >> 2];
                }
            }
            if (SUMS) group_sums[u][j / GROUP_QUADS] += (value.x + value.y) + (value.z + value.w);
            values[j] = value;
        }
        keep_values(u);
        if (SUMS && GROUP == 0u) sum += group_sums[u][0];
    }
    if (NORM != 0u) {
        square = subgroupAdd(square);
        if (subgroupElect()) squares[gl_SubgroupID] = square;
    }
    if (SUMS && GROUP == 0u) {
        sum = subgroupAdd(sum);
        if (subgroupElect()) input_sums[gl_SubgroupID] = sum;
    }
}

// Scale and offset for a sum of products of codes as group_product takes them.
vec2 with_bias(vec2 p) {
#ifdef INTEGER_DOT
    p.y += p.x * (float(CODE_BIAS) - zero);
#endif
    return p;
}

// This invocation's share of the products of a row.
float products(uint r) {
    float sum = 0.0;
    [[unroll]] for (uint u = 0u; u < UNITS; ++u) {
        float unit_sum = 0.0;
        [[unroll]] for (uint g = 0u; g < CHUNK_GROUPS; ++g) {
            float product = group_product(r, u, g);
            if (GROUP == 0u) {
                unit_sum += product;
                continue;
            }
            vec2 p = with_bias(parameters_of(r, u, g));
            unit_sum += product * p.x;
            if (SUMS) sum += group_sums[u][g] * p.y;
        }
#ifdef INTEGER_DOT
        sum += unit_sum * x_scale[u];
#else
        sum += unit_sum;
#endif
    }
    return sum;
}

// The sums of the subgroup's products, each row's in one of the first ROWS invocations: by halves, invocations give away
// the rows that they do not keep. Invocation i ends with the row whose number is i's bits reversed.
uint row_of(uint i) {
    return bitfieldReverse(i) >> (32u - uint(findMSB(ROWS)));
}
float sum_of_one_row() {
    float own[ROWS];
    [[unroll]] for (uint r = 0u; r < ROWS; ++r) own[r] = products(r);
    uint mask = 1u;
    [[unroll]] for (uint kept = ROWS / 2u; kept > 0u; kept /= 2u) {
        bool upper = (gl_SubgroupInvocationID & mask) != 0u;
        [[unroll]] for (uint r = 0u; r < kept; ++r) {
            float given = upper ? own[r] : own[r + kept];
            own[r] = (upper ? own[r + kept] : own[r]) + subgroupShuffleXor(given, mask);
        }
        mask *= 2u;
    }
    [[unroll]] for (; mask < gl_WorkGroupSize.x / SUBGROUPS; mask *= 2u) own[0] += subgroupShuffleXor(own[0], mask);
    return own[0];
}

void main() {
    uint thread = gl_LocalInvocationID.x;
    uint steps = (results() + EACH - 1u) / EACH, stride = gl_NumWorkGroups.x, step = gl_WorkGroupID.x;
    load_next(step);
    // This invocation's result, and what is added to it.
    uint own_n = thread / EACH, own_step = step + own_n * stride, row = own_step * EACH + thread % EACH;
    bool owns = own_step < steps && row < results() && row_count.at[0] > 0;
    float own_bias = 0.0, own_residual = 0.0;
    if (PAIRED == 0u && owns) {
        if ((flags & HAS_BIAS) != 0u) own_bias = bias.at[first_row + row];
        if ((flags & HAS_RESIDUAL) != 0u) own_residual = residual.at[first_row + row];
    }
    load_input();
    for (uint n = 0u; step < steps; ++n, step += stride) {
        if (AHEAD == 0u && n > 0u) load_next(step);
        take_next();
        if (AHEAD != 0u && step + stride < steps) load_next(step + stride);
        subgroupMemoryBarrier();  // the compiler must not move loads to where they are used
        float sum = sum_of_one_row();
        uint lane = gl_SubgroupInvocationID;
        if (lane < ROWS) sums[n * ROWS + row_of(lane)][gl_SubgroupID] = sum;
    }
    barrier();
    if (!owns) return;

    float factor = CODE_FACTOR, square = 0.0, input_sum = 0.0;
    for (uint g = 0u; g < gl_NumSubgroups; ++g) {
        if (NORM != 0u) square += squares[g];
        if (SUMS && GROUP == 0u) input_sum += input_sums[g];
    }
    if (NORM != 0u) factor *= 1.0 / sqrt(square / float(COLS) + eps);
    if (INPUT != 0u) factor *= uintBitsToFloat(row_scales.at[0]);
    float y[2];
    [[unroll]] for (uint part = 0u; part <= PAIRED; ++part) {
        uint r = thread % EACH + part * EACH;
        y[part] = 0.0;
        for (uint g = 0u; g < gl_NumSubgroups; ++g) y[part] += sums[own_n * ROWS + r][g];
        if (PARAMETERS != 0u && GROUP == 0u) {
            vec2 p = with_bias(parameters(Uints(uvec2(weight)), word_of(own_step, r), 0u));
            y[part] = y[part] * p.x + input_sum * p.y;
        }
        y[part] *= factor;
    }
    if (PAIRED != 0u) {
        result.at[row] = silu_mul(y[0], y[1]);
        return;
    }
    precise float sum = y[0] + own_bias;
    sum += own_residual;
    result.at[first_row + row] = sum;
}
