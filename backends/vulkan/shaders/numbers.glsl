// Arithmetic to the bit where the reference is defined to the bit, whatever the device does with denormals, division
// and the rounding of conversions.

// IEEE quotient of two positive floats given as bits; not NaN, b not 0.
uint divide_bits(uint a, uint b) {
    if (a >= 0x7f800000u) return b >= 0x7f800000u ? 0x7fc00000u : 0x7f800000u;
    if (a == 0u || b >= 0x7f800000u) return 0u;
    int ea = int(a >> 23), eb = int(b >> 23);
    uint ma = a & 0x7fffffu, mb = b & 0x7fffffu;
    if (ea == 0) {
        int shift = 23 - findMSB(ma);
        ma <<= shift;
        ea = 1 - shift;
    } else {
        ma |= 0x800000u;
    }
    if (eb == 0) {
        int shift = 23 - findMSB(mb);
        mb <<= shift;
        eb = 1 - shift;
    } else {
        mb |= 0x800000u;
    }
    int e = ea - eb + 127;
    if (ma < mb) {
        ma <<= 1;
        --e;
    }
    if (e >= 255) return 0x7f800000u;
    // 1 + 24 bits of the quotient in [1, 2), then one bit for whatever is left.
    uint q = 1u, rest = ma - mb;
    for (int i = 0; i < 3; ++i) {
        rest <<= 8;
        q = q << 8 | rest / mb;
        rest %= mb;
    }
    q = q << 1 | uint(rest != 0u);
    if (e <= 0) {
        int shift = 1 - e;
        q = shift > 26 ? 1u : q >> shift | uint((q & ((1u << shift) - 1u)) != 0u);
        e = 1;  // with no implicit bit left
        uint m = q >> 2, low = q & 3u;
        return m + uint(low > 2u || (low == 2u && (m & 1u) != 0u));
    }
    uint m = q >> 2, low = q & 3u;
    m += uint(low > 2u || (low == 2u && (m & 1u) != 0u));
    return min((uint(e - 1) << 23) + m, 0x7f800000u);
}

uint f32_to_f16(float x) {
    uint u = floatBitsToUint(x), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return sign | 0x7e00u | (a >> 13 & 0x3ffu);
    if (a >= 0x477ff000u) return sign | 0x7c00u;
    if (a >= (113u << 23)) return sign | (((a + 0xfffu + (a >> 13 & 1u)) >> 13) - (112u << 10));
    precise float units = uintBitsToFloat(a) + 0.5;  // of 2^-24
    return sign | (floatBitsToUint(units) - floatBitsToUint(0.5));
}

uint f16_to_f32_bits(uint h) {
    uint sign = (h & 0x8000u) << 16, a = h & 0x7fffu;
    if (a >= 0x7c00u) return sign | a << 13 | 0x7f800000u;
    if (a >= 0x400u) return sign | ((a << 13) + (112u << 23));
    return sign | floatBitsToUint(float(a) * uintBitsToFloat(103u << 23));  // units of 2^-24
}
float f16_to_f32(uint h) {
    return uintBitsToFloat(f16_to_f32_bits(h));
}

float e4m3_to_f32(uint code) {
    uint sign = (code & 0x80u) << 24, a = code & 0x7fu;
    if (a == 0x7fu) return uintBitsToFloat(sign | 0x7fc00000u);
    if (a >= 8u) return uintBitsToFloat(sign | ((a << 20) + (120u << 23)));
    return uintBitsToFloat(sign | floatBitsToUint(float(a) * 0.001953125));  // units of 2^-9
}

uint f32_to_e4m3(uint u) {
    uint sign = u >> 24 & 0x80u, magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return sign | 0x7fu;
    uint a = min(magnitude, 0x43e00000u);  // 448
    if (a >= (121u << 23)) return sign | (((a + 0x7ffffu + (a >> 20 & 1u)) >> 20) - (120u << 3));
    precise float units = uintBitsToFloat(a) + 16384.0;  // of 2^-9
    return sign | (floatBitsToUint(units) - floatBitsToUint(16384.0));
}

// ---- Quantize: the codes of one float, given what its row needs --------------------------------------------------

struct RowRounding {
    uint scale, inverse;  // bits; the inverse is of s8 alone
};
RowRounding s8_rounding(uint largest) {
    const uint limit = floatBitsToUint(127.0);
    return RowRounding(divide_bits(largest, limit), largest > 0u ? divide_bits(limit, largest) : 0u);
}
RowRounding e4m3_rounding(uint largest) {
    return RowRounding(max(divide_bits(largest, floatBitsToUint(448.0)), floatBitsToUint(1.0 / 229376.0)), 0u);
}

int s8_code(float x, RowRounding row) {
    uint u = floatBitsToUint(x), a = u & 0x7fffffffu;
    if (a > 0x7f800000u || a == 0u || row.inverse == 0u) return 0;
    float magnitude;
    if (row.inverse >= 0x7f800000u || a == 0x7f800000u) {
        magnitude = 127.0;
    } else if (a < 0x800000u) {  // a denormal, in units of 2^-149
        precise float scaled = float(a) * uintBitsToFloat(27u << 23) * uintBitsToFloat(row.inverse);
        magnitude = roundEven(scaled * uintBitsToFloat(78u << 23));
    } else {
        precise float scaled = uintBitsToFloat(a) * uintBitsToFloat(row.inverse);
        magnitude = min(roundEven(scaled), 127.0);
    }
    return int(u) < 0 ? -int(magnitude) : int(magnitude);
}

uint e4m3_code(float x, RowRounding row) {
    uint u = floatBitsToUint(x), a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return f32_to_e4m3(u);
    uint quotient = divide_bits(a, row.scale);
    if (quotient > 0x7f800000u) return 0xffu;  // infinity / infinity: the negative NaN
    return f32_to_e4m3(quotient | (u & 0x80000000u));
}

// ---- Functions good to a few ulps, which GLSL's own need not be ---------------------------------------------------

float exp_near(float x) {
    if (x > 88.7) return uintBitsToFloat(0x7f800000u);
    if (x < -87.3) return 0.0;
    float n = roundEven(x * 1.44269504);
    precise float r = (x - n * 0.693359375) - n * -2.12194440e-4;  // ln 2 in two parts
    float p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    int half_n = int(n) / 2;
    return p * uintBitsToFloat(uint(half_n + 127) << 23) * uintBitsToFloat(uint(int(n) - half_n + 127) << 23);
}

float silu_mul(float gate, float up) {
    return gate / (1.0 + exp_near(-gate)) * up;
}

// (cos, sin) of an angle in [0, 2^31).
vec2 turn(float angle) {
    uint quadrant = 0u;
    float r = angle;
    if (angle > 0.7853981) {
        // The fraction of a turn in units of 2^-32: mantissa * 2^e / (2 pi), from 64 bits of 1 / (2 pi).
        uint u = floatBitsToUint(angle), m = (u & 0x7fffffu) | 0x800000u;
        int e = int(u >> 23) - 150;
        const uint high = 0x28be60dbu, middle = 0x9391054au, low = 0x7f09d5f4u;
        uint t0 = high, t1 = middle;
        if (e > 0) {
            t0 = high << e | middle >> (32 - e);
            t1 = middle << e | low >> (32 - e);
            e = 0;
        }
        uint a1, a0, b1, b0;
        umulExtended(m, t0, a1, a0);
        umulExtended(m, t1, b1, b0);
        uint carry, w1 = uaddCarry(a0, b1, carry), w2 = a1 + carry;  // w2 : w1 : b0 is the product; w2 whole turns
        uint shift = uint(-e);                                      // at most 24
        uint fraction = shift == 0u ? w1 : w1 >> shift | w2 << (32u - shift);
        uint rounded = fraction + 0x20000000u;
        quadrant = rounded >> 30;
        r = float(int(fraction - (quadrant << 30))) * 1.4629180792671596e-9;  // 2 pi / 2^32
    }
    float s = r * r;
    float sine = r + r * s * (-1.0 / 6.0 + s * (1.0 / 120.0 + s * (-1.0 / 5040.0 + s * (1.0 / 362880.0))));
    float cosine = 1.0 + s * (-0.5 + s * (1.0 / 24.0 + s * (-1.0 / 720.0 + s * (1.0 / 40320.0 - s * (1.0 / 3628800.0)))));
    if (quadrant == 0u) return vec2(cosine, sine);
    if (quadrant == 1u) return vec2(-sine, cosine);
    if (quadrant == 2u) return vec2(-cosine, -sine);
    return vec2(sine, -cosine);
}
