// What a linear reads: float rows, or codes with a RowScale each.
#include "codes.glsl"
layout(constant_id = 5) const uint INPUT = 0;    // 0 = f32, 1 = s8, 2 = e4m3
layout(constant_id = 6) const uint GUARDED = 0;  // rows that are not aligned or do not fill whole quads
// Columns c .. c + 3, c < cols, of a row that begins at `row` (floats, or words of codes); zero past the end.
vec4 input_quad(Float4s aligned, Floats floats, Uints codes, uint row, uint c, uint cols) {
    if (INPUT == 0u) {
        if (GUARDED == 0u) return aligned.at[(row + c) >> 2];
        vec4 x = vec4(0.0);
        [[unroll]] for (uint i = 0u; i < 4u; ++i)
            if (c + i < cols) x[i] = floats.at[row + c + i];
        return x;
    }
    uint word = codes.at[row + (c >> 2)];  // codes past the end are zero
    if (INPUT == 1u) return vec4(signed_byte(word), signed_byte(word >> 8), signed_byte(word >> 16), signed_byte(word >> 24));
    return vec4(e4m3_value(word & 0xffu), e4m3_value(word >> 8 & 0xffu), e4m3_value(word >> 16 & 0xffu),
                e4m3_value(word >> 24));
}
