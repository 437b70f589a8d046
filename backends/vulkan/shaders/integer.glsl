// Exact products of int8 activations and integer weights with one scale a row: see backends/cpu/reference_linear.cpp.
#ifdef INTEGER_DOT
#extension GL_EXT_spirv_intrinsics : require
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4450)
int packed_dot(uint a, uint b, spirv_literal uint format);
int add_dot(uint a, uint b, int c) {
    return packed_dot(a, b, 0u) + c;
}
#else
int add_dot(uint a, uint b, int c) {
    ivec4 x = ivec4(int(a << 24) >> 24, int(a << 16) >> 24, int(a << 8) >> 24, int(a) >> 24);
    ivec4 y = ivec4(int(b << 24) >> 24, int(b << 16) >> 24, int(b << 8) >> 24, int(b) >> 24);
    ivec4 z = x * y;
    return (z.x + z.y) + (z.z + z.w) + c;
}
#endif

// Quad j of a chunk as four signed bytes: the code less CODE_BIAS.
const int CODE_BIAS = ELEMENT == ELEMENT_U8 ? 128 : 0;
uint signed_quad(uvec4 chunk, uint j) {
    if (ELEMENT == ELEMENT_U4) {
        uint word = chunk[j >> 1] >> (16u * (j & 1u)) & 0xffffu;
        word = (word | word << 8) & 0x00ff00ffu;
        return (word | word << 4) & 0x0f0f0f0fu;
    }
    return ELEMENT == ELEMENT_U8 ? chunk[j] ^ 0x80808080u : chunk[j];
}

// The contract's epilogue, every operation rounded once. `offset` is the minimum or the zero point.
float scaled(int sum, float row_scale, int row_sum, vec2 p) {
    sum += CODE_BIAS * row_sum;
    if (MINIMUM != 0u) {
        precise float a = float(sum) * row_scale;
        precise float product = a * p.x;
        precise float b = float(row_sum) * row_scale;
        precise float shift = b * p.y;
        precise float y = product + shift;
        return y;
    }
    sum -= int(p.y) * row_sum;
    precise float a = float(sum) * row_scale;
    precise float y = a * p.x;
    return y;
}

// Scale and offset of a row, as they are stored.
vec2 exact_parameters(Uints from, uint at, float constant_zero) {
    vec2 p = vec2(1.0, constant_zero);
    if (PARAMETERS == 1) p.x = f16_to_f32(from.at[at] & 0xffffu);
    if (PARAMETERS == 2) p = vec2(f16_to_f32(from.at[at] & 0xffffu), f16_to_f32(from.at[at] >> 16));
    if (PARAMETERS == 3) p.x = uintBitsToFloat(from.at[at]);
    if (PARAMETERS == 4) p = uintBitsToFloat(uvec2(from.at[at], from.at[at + 1u]));
    return p;
}
