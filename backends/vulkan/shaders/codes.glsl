// 8-bit codes as floats.
float signed_byte(uint word) {
    return float(int(word << 24) >> 24);
}
// A half whose exponent is 8 too small; NaN stays NaN.
float e4m3_value(uint code) {
    uint a = code & 0x7fu;
    float value = unpackHalf2x16((code & 0x80u) << 8 | a << 7).x * 256.0;
    return a == 0x7fu ? uintBitsToFloat(0x7fc00000u) : value;
}
