// A weight in the layout "lanes8" (backends/vulkan/layout.h): eight rows a tile; a row is blocks of eight chunks of 16
// bytes, and chunk l of a block holds columns 32 j + 4 l .. + 3 of it for every j. Neighbouring lanes read
// neighbouring chunks of the weight and neighbouring columns of x.
layout(constant_id = 1) const uint ELEMENT = 0;  // 0 = f32, 1 = f16, 2 = bf16, 3 = s8, 4 = u8, 5 = u4, 6 = e4m3
layout(constant_id = 2) const uint PARAMETERS = 0;  // 0 = none, 1 = f16 scale, 2 = f16 scale and offset, 3, 4 = f32
layout(constant_id = 3) const uint MINIMUM = 0;     // the offset is a minimum, w = q s + m; else w = (q - z) s
layout(constant_id = 4) const uint GROUP = 0;       // columns of a scale; 0: one a row
const uint ELEMENT_F32 = 0, ELEMENT_F16 = 1, ELEMENT_BF16 = 2, ELEMENT_S8 = 3, ELEMENT_U8 = 4, ELEMENT_U4 = 5,
           ELEMENT_E4M3 = 6;
const uint CHUNK_QUADS = ELEMENT == ELEMENT_F32 ? 1 : ELEMENT <= ELEMENT_BF16 ? 2 : ELEMENT == ELEMENT_U4 ? 8 : 4;
const bool HAS_OFFSET = PARAMETERS == 2 || PARAMETERS == 4;
// Codes are decoded times this; 8-bit floats are halves with another exponent.
const float CODE_FACTOR = ELEMENT == ELEMENT_E4M3 ? 256.0 : 1.0;

// Four decoded codes of quad j of a chunk. The low 23 bits of a float whose exponent is that of 2^23 are an integer:
// one AND and OR, then an exact difference, instead of a conversion. `quad_scale` undoes what the place of a code in its
// word multiplies it by.
vec4 quad(uvec4 chunk, uint j, float zero) {
    const float magic = 8388608.0;
    const uint exponent = 0x4b000000u;
    if (ELEMENT == ELEMENT_F32) return uintBitsToFloat(chunk);
    if (ELEMENT == ELEMENT_F16) return vec4(unpackHalf2x16(chunk[2u * j]), unpackHalf2x16(chunk[2u * j + 1u]));
    if (ELEMENT == ELEMENT_BF16) {
        uint a = chunk[2u * j], b = chunk[2u * j + 1u];
        return uintBitsToFloat(uvec4(a << 16, a & 0xffff0000u, b << 16, b & 0xffff0000u));
    }
    if (ELEMENT == ELEMENT_U4) {
        uint word = chunk[j >> 1] >> (16u * (j & 1u));
        const uvec4 masks = uvec4(0xfu, 0xf0u, 0xf00u, 0xf000u);
        return uintBitsToFloat((uvec4(word) & masks) | exponent) - (magic + zero * vec4(1.0, 16.0, 256.0, 4096.0));
    }
    uint word = chunk[j];
    if (ELEMENT == ELEMENT_E4M3) {
        uint low = (word & 0x80u) << 8 | (word & 0x7fu) << 7 | (word & 0x8000u) << 16 | (word & 0x7f00u) << 15;
        uint high = (word >> 16 & 0x80u) << 8 | (word >> 16 & 0x7fu) << 7 | (word & 0x80000000u) |
                    (word >> 1 & 0x3f800000u);
        return vec4(unpackHalf2x16(low), unpackHalf2x16(high));
    }
    float bias = zero;
    if (ELEMENT == ELEMENT_S8) {
        word ^= 0x80808080u;
        bias += 128.0;
    }
    uvec4 masked = uvec4(word, word, word >> 16, word >> 16) & uvec4(0xffu, 0xff00u, 0xffu, 0xff00u);
    return uintBitsToFloat(masked | exponent) - (magic + bias * vec4(1.0, 256.0, 1.0, 256.0));
}
vec4 quad_scale() {
    if (ELEMENT == ELEMENT_U4) return vec4(1.0, 0.0625, 0.00390625, 0.000244140625);
    if (ELEMENT == ELEMENT_S8 || ELEMENT == ELEMENT_U8) return vec4(1.0, 0.00390625, 1.0, 0.00390625);
    return vec4(1.0);
}

// Scale and offset of a group; `row` is the first word of the row's parameters. The offset is what is added: the
// minimum, or minus zero point times scale.
vec2 parameters(Uints from, uint row, uint group) {
    vec2 p = vec2(1.0, 0.0);
    if (PARAMETERS == 1) p.x = unpackHalf2x16(from.at[row + (group >> 1)])[group & 1u];
    if (PARAMETERS == 2) p = unpackHalf2x16(from.at[row + group]);
    if (PARAMETERS == 3) p.x = uintBitsToFloat(from.at[row + group]);
    if (PARAMETERS == 4) p = uintBitsToFloat(uvec2(from.at[row + 2u * group], from.at[row + 2u * group + 1u]));
    if (HAS_OFFSET && MINIMUM == 0) p.y *= -p.x;
    return p;
}
